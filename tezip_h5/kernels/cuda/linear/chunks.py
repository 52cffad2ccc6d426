"""The linear coder on the device: chunks that are under way, whose planes are coded together.

Sixteen threads of the device decode a chunk, and a plane waits for the one before; what makes a GPU
fast is that many chunks go at once. `Gathering` gathers planes that are to be decoded (`Decoding`)
or to be predicted and quantized (`Modelling`), and chunks whose symbols are to be coded (`Coding`).
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

_FEW_TABLES, _MOST_TABLES = 8, 32  # that a slab has room for


class Chunks(Gathering):
    """Slabs of chunks; works are `Decoding`, `Modelling` and `Coding`."""

    def open(self, shape, symbols: int | None, coder: tuple | None = None) -> Lane:
        """Begin a chunk.

        Parameters
        ----------
        shape : (C, h, w)
        symbols : int, optional
            How many there may be, of an encoder.
        coder : tuple, of a decoder
            The table of each context, uint8 (sides, contexts); slots, uint32; and streams, with
            arrays words, bits, places, limits as `kernels.linear.decode` wants them.

        Returns
        -------
        Lane, to be given back to `close`

        Raises
        ------
        Exception
            Of the driver, when there is no memory for it.
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
"""Those of this process."""
