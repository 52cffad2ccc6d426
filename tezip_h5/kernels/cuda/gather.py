"""Work for the device that threads of the host bring, gathered into few launches.

Chunks are coded by threads of the host, each frame after frame, and what a chunk gives the device
to do at a time is little. So these threads bring it to `Gathering.code` and wait. The first who
comes gathers: when everybody who has lanes is there, or nobody has come for a moment (a launch
takes far longer than that), he launches the work of all, once for every slab, while the next who
comes gathers the next. Nobody waits for another's turn, so no order of arrival can stop them, and
there is no thread besides theirs.

A slab is memory for some lanes, of which a chunk has one or more while it is coded. Where memory
is short, slabs become smaller; where none can be had, the driver's error is raised, and the caller
has fewer chunks at a time.
"""

from __future__ import annotations

import os
import threading
import weakref
from dataclasses import dataclass

from tezip_h5.kernels.cuda.launch import SIMULATED

__all__ = ["Gathering", "one_of_process"]

_LEAST_LANES = 4 if SIMULATED else 32
_PATIENCE = 0.02  # seconds; a launch takes more

_all: weakref.WeakSet = weakref.WeakSet()


def _no_memory(error: Exception) -> bool:
    text = f"{type(error).__name__} {error}".lower().replace("_", " ")
    return "out of memory" in text or isinstance(error, MemoryError)


@dataclass(eq=False)
class _Call:
    """What one host thread waits for."""

    works: list
    done: bool = False
    error: Exception | None = None


class Gathering:
    """Slabs, and the calls of threads that are gathered; any thread may use it.

    A piece of work has a `lane`, of which it is the only one at a time; a `group`, a tuple: what
    has the same is launched together, by ``launch(works)`` of one of them; and `moved_on`: whether
    its lane is no longer as it was before the launch. A lane has a `slab` and a `number` there, a
    slab `lanes`, how many it has, and `free`, the numbers of those that nobody has.
    """

    def __init__(self):
        self._changed = threading.Condition()
        self._slabs: list = []
        self._open = 0
        self._waiting: list[_Call] = []
        self._gathering = False
        _all.add(self)

    def close(self, lanes: list) -> None:
        """Give the lanes of one chunk back."""
        with self._changed:
            self._give_back(lanes)
            self._open -= len(lanes)
            self._changed.notify_all()

    def closing(self, owner, lanes: list):
        """A function that gives lanes back, once; called at the latest when `owner` is gone."""
        return weakref.finalize(owner, self.close, lanes)

    def code(self, works: list) -> None:
        """Do some work; results are filled in."""
        call = _Call(works)
        with self._changed:
            self._waiting.append(call)
            self._changed.notify_all()
            if self._gathering:
                self._wait(call)
            else:
                calls = self._gathered()
        if not call.done:
            self._run(calls)
        if call.error is not None:
            raise call.error

    def _wait(self, call: _Call) -> None:
        """Until another thread has done what is called for; the lock is held. An interrupt leaves
        nothing behind that could be launched when the lane is another's."""
        try:
            self._changed.wait_for(lambda: call.done)
        except BaseException:
            if call in self._waiting:
                self._waiting.remove(call)
            else:
                self._changed.wait_for(lambda: call.done)
            raise

    def forget(self) -> None:
        """Free the slabs that nobody uses, others' too unless they are at work just now."""
        for other in list(_all):
            if other._changed.acquire(blocking=other is self):
                try:
                    other._slabs = [s for s in other._slabs if len(s.free) < s.lanes]
                finally:
                    other._changed.release()

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
        """Lanes of which work waits."""
        return sum(len(call.works) for call in self._waiting)

    def _run(self, calls: list[_Call]) -> None:
        """Do what was gathered. An error of a launch is everybody's whose work was in it."""
        groups: dict = {}
        for call in calls:
            for work in call.works:
                groups.setdefault((id(work.lane.slab), *work.group), []).append(work)
        try:
            for works in groups.values():
                self._launch(works)
        except Exception as error:
            for call in calls:
                call.error = error
        except BaseException:  # an interrupt is for the thread that launched
            for call in calls:
                call.error = RuntimeError("who would have coded it was stopped")
            raise
        finally:
            with self._changed:
                for call in calls:
                    call.done = True
                self._changed.notify_all()

    def _launch(self, works: list) -> None:
        """One launch, or two after each other where there is no memory for the work of one."""
        try:
            works[0].launch(works)
        except Exception as error:
            # What is sent is sent before a launch: no lane has moved on yet.
            if not _no_memory(error) or len(works) == 1 or any(w.moved_on for w in works):
                raise
            self.forget()
            half = len(works) // 2
            self._launch(works[:half])
            self._launch(works[half:])

    def _slab(self, fits, make, count: int, least: int = _LEAST_LANES, most: int = 1 << 30):
        """A slab with a free lane; the lock is held.

        Parameters
        ----------
        fits : callable
            Whether a slab is of the right kind.
        make : callable
            Make a slab of so many lanes.
        count : int
            Lanes that are wanted in all.
        least, most : int
            Lanes that a slab has, where there is memory for them.
        """
        for slab in self._slabs:
            if slab.free and fits(slab):
                return slab
        # As many lanes again as there are, so that the slabs, and the launches, stay few.
        alike = sum(slab.lanes for slab in self._slabs if fits(slab))
        lanes = min(max(-(-count // least) * least, alike), most)
        freed = False
        while True:
            try:
                slab = make(lanes)
            except Exception as error:
                if not _no_memory(error):
                    raise
                if not freed:
                    self.forget()
                    freed = True
                elif lanes == 1:
                    raise
                else:
                    lanes = max(1, lanes // 2)
                continue
            self._slabs.append(slab)
            return slab

    def _give_back(self, lanes: list) -> None:
        for lane in lanes:
            lane.slab.free.append(lane.number)


def one_of_process(kind):
    """A function that gives the only `kind` of `Gathering` of this process. A forked process begins
    anew: it has no device, and no threads that wait."""
    only = [kind()]

    def begin_anew():
        only[0] = kind()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=begin_anew)
    return lambda: only[0]
