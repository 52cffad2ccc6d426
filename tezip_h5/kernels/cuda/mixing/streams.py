"""The context-mixing coder on the device: streams of many chunks, coded together.

A stream (a band of rows of one chunk) is sequential: one thread of the device codes it, slowly,
and what makes a GPU fast is that thousands of them run at once. Each frame of a chunk waits for
the one before, because a network predicts it from that; so frames of many chunks are gathered.
"""

from __future__ import annotations

from tezip_h5.kernels.cuda.gather import Gathering, one_of_process
from tezip_h5.kernels.cuda.mixing.slabs import Lane, Slab, Work

__all__ = ["Streams", "Work", "streams"]


class Streams(Gathering):
    """Slabs of streams; works are `Work`."""

    def open(self, model: int, shapes, learned, codes, **common) -> list[Lane]:
        """Begin streams of one chunk, all or none.

        Parameters
        ----------
        model : int
            0 for the coarse one, 1 for the fine one.
        shapes : of every stream (C, h, w)
        learned : list of int32 (kinds, TAPS), one for every channel, or None
        codes : int64 (streams, 4)
            What the arithmetic coders begin with.
        common : top, finer, alone, guided
            What all the `Lane` of a chunk share.

        Returns
        -------
        list of Lane, to be given back to `close`

        Raises
        ------
        Exception
            Of the driver, when there is no memory for them.
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
        """A slab with a free lane for a stream like `shape`; the lock is held."""
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
"""Those of this process."""


def _by_slab(lanes: list[Lane]):
    """(slab, its lanes), for every slab."""
    groups: dict[int, list[Lane]] = {}
    for lane in lanes:
        groups.setdefault(id(lane.slab), []).append(lane)
    return [(group[0].slab, group) for group in groups.values()]
