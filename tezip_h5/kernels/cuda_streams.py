"""The context-mixing coder on the device: streams of many chunks, coded together.

A stream (a band of rows of one chunk) is sequential: one thread of the device codes it, slowly,
and what makes a GPU fast is that thousands of them run at once. Chunks are coded by threads of
the host, though, each frame after frame, because a network predicts a frame from the one before.
So these threads bring the next frame of their streams to `Streams.code` and wait. The first who
comes gathers: when everybody who has streams is there, or nobody has come for a moment (a launch
takes far longer than that), he codes the frames of all in one launch for every slab, while the
next who comes gathers the next. Nobody waits for another's turn, so no order of arrival can stop
them, and there is no thread besides theirs.

Where memory is short, slabs become smaller; where none can be had, the driver's error is raised,
and the caller has fewer chunks at a time.
"""

from __future__ import annotations

import os
import threading
import weakref
from dataclasses import dataclass

from tezip_h5.kernels.cuda_launch import SIMULATED
from tezip_h5.kernels.cuda_slabs import Lane, Slab, Work

__all__ = ["Streams", "Work", "streams"]

_LEAST_LANES = 4 if SIMULATED else 32
_PATIENCE = 0.02  # seconds; a launch takes more


def _no_memory(error: Exception) -> bool:
    text = f"{type(error).__name__} {error}".lower().replace("_", " ")
    return "out of memory" in text or isinstance(error, MemoryError)


@dataclass(eq=False)
class _Call:
    """What one host thread waits for."""

    works: list[Work]
    room: int
    done: bool = False
    error: Exception | None = None


class Streams:
    """Slabs, and the calls of threads that are gathered; any thread may use it."""

    def __init__(self):
        self._changed = threading.Condition()
        self._slabs: list[Slab] = []
        self._open = 0
        self._waiting: list[_Call] = []
        self._gathering = False

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
                    slab = self._slab(model, shape, shapes, len(shapes) - len(lanes))
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

    def close(self, lanes: list[Lane]) -> None:
        """Give the lanes of one `open` back."""
        with self._changed:
            self._give_back(lanes)
            self._open -= len(lanes)
            self._changed.notify_all()

    def closing(self, owner, lanes: list[Lane]):
        """A function that gives lanes back, once; called at the latest when `owner` is gone."""
        return weakref.finalize(owner, self.close, lanes)

    def code(self, works: list[Work], room: int) -> None:
        """Code one frame of some streams; results are filled in.

        `room` is how many bytes a sample may take when encoding.
        """
        call = _Call(works, room)
        with self._changed:
            self._waiting.append(call)
            self._changed.notify_all()
            if self._gathering:
                self._changed.wait_for(lambda: call.done)
            else:
                calls = self._gathered()
        if not call.done:
            self._run(calls)
        if call.error is not None:
            raise call.error

    def forget(self) -> None:
        """Free the slabs that nobody uses."""
        with self._changed:
            self._forget()

    def _gathered(self) -> list[_Call]:
        """The calls of all who have come; the lock is held, and given away while waiting."""
        self._gathering = True
        try:
            while self._come() < self._open:
                came = len(self._waiting)
                if not self._changed.wait_for(
                    lambda came=came: len(self._waiting) != came, _PATIENCE
                ):
                    break
        except BaseException:
            for call in self._waiting:
                call.done, call.error = True, RuntimeError("who would have coded it was stopped")
            self._changed.notify_all()
            raise
        finally:
            self._gathering = False
            calls, self._waiting = self._waiting, []
        return calls

    def _come(self) -> int:
        """Streams of which a frame waits."""
        return sum(len(call.works) for call in self._waiting)

    def _run(self, calls: list[_Call]) -> None:
        """Code what was gathered. An error of a launch is everybody's whose frames were in it."""
        groups: dict = {}
        for call in calls:
            for work in call.works:
                key = (id(work.lane.slab), work.decoding, call.room)
                groups.setdefault(key, []).append(work)
        try:
            for (_, _, room), works in groups.items():
                self._launch(works, room)
        except Exception as error:
            for call in calls:
                call.error = error
        finally:
            with self._changed:
                for call in calls:
                    call.done = True
                self._changed.notify_all()

    def _launch(self, works: list[Work], room: int) -> None:
        """One launch, or two after each other where there is no memory for the frames of one."""
        try:
            works[0].lane.slab.code(works, room)
        except Exception as error:
            # What is sent is sent before a launch: no stream has moved on yet.
            if not _no_memory(error) or len(works) == 1 or any(w.coder is not None for w in works):
                raise
            self.forget()
            half = len(works) // 2
            self._launch(works[:half], room)
            self._launch(works[half:], room)

    def _slab(self, model: int, shape, shapes, count: int) -> Slab:
        """A slab with a free lane for a stream like `shape`; the lock is held."""
        for slab in self._slabs:
            if slab.free and slab.fits(model, shape):
                return slab
        like = [s for s in shapes if 2 * s[1] * s[2] >= shape[1] * shape[2] and s[0] == shape[0]]
        rows, columns = max(s[1] for s in like), max(s[2] for s in like)
        if 2 * shape[1] * shape[2] < rows * columns:
            rows, columns = shape[1:]
        # As many lanes again as there are, so that the slabs, and the launches, stay few.
        alike = sum(slab.lanes for slab in self._slabs if slab.fits(model, shape))
        lanes = max(_LEAST_LANES, -(-count // _LEAST_LANES) * _LEAST_LANES, alike)
        freed = False
        while True:
            try:
                slab = Slab(model, shape[0], rows, columns, lanes)
            except Exception as error:
                if not _no_memory(error):
                    raise
                if not freed:
                    self._forget()
                    freed = True
                elif lanes == 1:
                    raise
                else:
                    lanes = max(1, lanes // 2)
                continue
            self._slabs.append(slab)
            return slab

    def _forget(self) -> None:
        self._slabs = [slab for slab in self._slabs if len(slab.free) < slab.lanes]

    def _give_back(self, lanes: list[Lane]) -> None:
        for lane in lanes:
            lane.slab.free.append(lane.number)


_only = Streams()


def streams() -> Streams:
    """Those of this process."""
    return _only


def _begin_anew() -> None:
    """A forked process has no device, and no threads that wait."""
    global _only
    _only = Streams()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def _by_slab(lanes: list[Lane]):
    """(slab, its lanes), for every slab."""
    groups: dict[int, list[Lane]] = {}
    for lane in lanes:
        groups.setdefault(id(lane.slab), []).append(lane)
    return [(group[0].slab, group) for group in groups.values()]
