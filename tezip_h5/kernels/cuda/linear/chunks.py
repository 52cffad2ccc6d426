"""The linear coder on the device: planes of many chunks are coded together.

Sixteen threads of the device decode a chunk, and each plane depends on the one before. A GPU is
fast only if it works on many chunks at once. `Gathering` collects planes to decode (`Decoding`),
planes to predict and quantise (`Modelling`), and chunks whose symbols are to be coded (`Coding`).
"""

from __future__ import annotations

from tezip_h5.kernels.cuda.gather import Gathering, one_of_process
from tezip_h5.kernels.cuda.linear.coding import Coding
from tezip_h5.kernels.cuda.linear.slabs import (
    Decoding,
    Lane,
    Modelling,
    Slab,
    lanes_for,
    rounded,
)

__all__ = ["Chunks", "Coding", "Decoding", "Modelling", "chunks"]

_FEW_TABLES, _MOST_TABLES = 8, 32  # numbers of tables that slabs have memory for


class Chunks(Gathering):
    """The slabs of chunks. A piece of work is a `Decoding`, `Modelling` or `Coding`."""

    def open(self, shape, symbols: int | None, coder: tuple | None = None) -> Lane:
        """Reserve a lane for a chunk.

        Parameters
        ----------
        shape : (C, h, w)
        symbols : int, optional
            The largest number of different symbols; for an encoder only.
        coder : tuple, optional
            For a decoder only: the table of each context, uint8 (sides, contexts); slots, uint32;
            and streams, which have arrays words, bits, places, limits as `kernels.linear.decode`
            takes them.

        Returns
        -------
        Lane
            It must be passed to `close` in the end.

        Raises
        ------
        Exception
            An error of the driver, if there is not enough memory.
        """
        kind = "encode", symbols, 0
        if symbols is None:
            _, slots, streams = coder
            size = streams.bits.size + streams.words.size // 2 + 1
            few = slots.size >> 12 <= _FEW_TABLES
            kind = "decode", _FEW_TABLES if few else _MOST_TABLES, 1 << max(size.bit_length(), 8)
        with self._changed:
            wanted = lanes_for(kind, shape)
            slab = self._slab(
                lambda slab: slab.fits(kind, shape),
                lambda lanes: Slab(kind, *rounded(shape), lanes),
                count=1,
                least=wanted,
                most=wanted,
            )
            lane = Lane(slab, slab.free.pop(), tuple(shape))
            self._open += 1
        try:
            slab.begin(lane, coder)
        except BaseException:
            self.close([lane])
            raise
        return lane


chunks = one_of_process(Chunks)
"""A function that returns the only `Chunks` of this process."""
