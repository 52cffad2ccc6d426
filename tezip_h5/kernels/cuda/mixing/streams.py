"""The context-mixing coder on the device: streams of many chunks are coded together.

A stream, which is a band of rows of one chunk, is sequential. One thread of the device codes it,
slowly. A GPU is fast only if it codes thousands of streams at once. Each frame of a chunk waits
for the one before, because a network predicts it from that. So frames of many chunks are gathered.
"""

from __future__ import annotations

from tezip_h5.kernels.cuda.gather import Gathering, one_of_process
from tezip_h5.kernels.cuda.mixing.slabs import Lane, Slab, Work

__all__ = ["Streams", "Work", "streams"]


class Streams(Gathering):
    """The slabs of streams. A piece of work is a `Work`."""

    def open(self, model: int, shapes, learned, codes, **common) -> list[Lane]:
        """Reserve lanes for the streams of one chunk, for all of them or for none.

        Parameters
        ----------
        model : int
            0 for the coarse model, 1 for the fine one.
        shapes : list of (C, h, w), one for each stream
        learned : list of int32 (kinds, TAPS), one for each channel, or None
            Transmitted weights.
        codes : int64 (streams, 4)
            The initial states of the arithmetic coders.
        common : top, finer, alone, guided
            Attributes that all lanes of a chunk share; see `Lane`.

        Returns
        -------
        list of Lane
            They must be passed to `close` in the end.

        Raises
        ------
        Exception
            An error of the driver, if there is not enough memory.
        """
        taught = len(learned[0]) if learned else 0
        lanes: list[Lane] = []
        with self._changed:
            try:
                for shape in shapes:
                    slab = self._slab_like(model, shape, shapes, len(shapes) - len(lanes))
                    number = slab.free.pop()
                    lanes.append(Lane(slab, number, tuple(shape), taught=taught, **common))
                for slab, ours in _by_slab(lanes):
                    at = [lanes.index(lane) for lane in ours]
                    slab.begin(ours, [learned] * len(ours), codes[at])
            except BaseException:
                self._give_back(lanes)
                raise
            self._open += len(lanes)
        return lanes

    def _slab_like(self, model: int, shape, shapes, count: int) -> Slab:
        """Find or make a slab with a free lane for a stream of `shape`; the lock must be held."""
        like = [s for s in shapes if 2 * s[1] * s[2] >= shape[1] * shape[2] and s[0] == shape[0]]
        rows, columns = max(s[1] for s in like), max(s[2] for s in like)
        if 2 * shape[1] * shape[2] < rows * columns:
            rows, columns = shape[1:]
        return self._slab(
            lambda slab: slab.fits(model, shape),
            lambda lanes: Slab(model, shape[0], rows, columns, lanes),
            count,
        )


streams = one_of_process(Streams)
"""A function that returns the only `Streams` of this process."""


def _by_slab(lanes: list[Lane]):
    """Group lanes by slab: a (slab, lanes) for each slab."""
    groups: dict[int, list[Lane]] = {}
    for lane in lanes:
        groups.setdefault(id(lane.slab), []).append(lane)
    return [(group[0].slab, group) for group in groups.values()]
