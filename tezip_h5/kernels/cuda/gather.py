"""Gather the work of several host threads, so that one launch does it on the device.

Each host thread codes a chunk frame by frame. A frame of one chunk is too little work for a
device. So the threads call `Gathering.code` with a piece of work, and wait until it is done. The
first thread that calls becomes the gatherer. It waits until all threads with lanes have called, or
until no thread has called for a moment, which is much shorter than a launch. Then it launches the
work of all threads, once for each slab. Meanwhile the next thread that calls becomes the next
gatherer. No thread waits for a certain other one, so any order of calls works. No additional
threads are needed.

A *slab* is memory on the device. It is divided into *lanes*, and a chunk has one or more of them
while it is coded. If memory is short, slabs are made smaller. If there is none at all, the error
of the driver is raised, and the caller must code fewer chunks at a time.
"""

from __future__ import annotations

import os
import threading
import weakref
from dataclasses import dataclass

from tezip_h5.kernels.cuda.launch import SIMULATED

__all__ = ["Gathering", "one_of_process"]

_LEAST_LANES = 4 if SIMULATED else 32  # smallest number of lanes of a slab, if there is memory
_PATIENCE = 0.02  # seconds that a gatherer waits for another call; a launch takes longer

_all: weakref.WeakSet = weakref.WeakSet()  # all `Gathering` objects of this process


def _no_memory(error: Exception) -> bool:
    """Whether an error means that there is no memory left on the device."""
    text = f"{type(error).__name__} {error}".lower().replace("_", " ")
    return "out of memory" in text or isinstance(error, MemoryError)


@dataclass(eq=False)
class _Call:
    """The work of one call of `Gathering.code`."""

    works: list
    done: bool = False
    error: Exception | None = None


class Gathering:
    """Slabs, and the calls that wait to be launched. Any thread may use it.

    A piece of work is an object with these attributes:

    - `lane`, which no other piece of work has at the same time;
    - `group`, a tuple; works of one slab with equal groups are launched together;
    - ``launch(works)``, which is called on one of them;
    - `moved_on`, whether the launch has changed its lane already.

    A lane has a `slab` and its `number` there. A slab has `lanes`, the number of its lanes, and
    `free`, the numbers of those that are not in use.
    """

    def __init__(self):
        self._changed = threading.Condition()
        self._slabs: list = []
        self._open = 0
        self._waiting: list[_Call] = []
        self._gathering = False
        _all.add(self)

    def close(self, lanes: list) -> None:
        """Return the lanes of one chunk."""
        with self._changed:
            self._give_back(lanes)
            self._open -= len(lanes)
            self._changed.notify_all()

    def closing(self, owner, lanes: list):
        """A function that returns lanes, once. It is called when `owner` is deleted, or earlier."""
        return weakref.finalize(owner, self.close, lanes)

    def code(self, works: list) -> None:
        """Do some work, and wait for it. The results are attributes of the works afterwards."""
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
        """Wait until another thread has done the work of `call`; the lock must be held.

        After an interrupt, the work is withdrawn or finished, so that it cannot be launched later,
        when its lane may belong to another chunk.
        """
        try:
            self._changed.wait_for(lambda: call.done)
        except BaseException:
            if call in self._waiting:
                self._waiting.remove(call)
            else:
                self._changed.wait_for(lambda: call.done)
            raise

    def forget(self) -> None:
        """Free all slabs that are not in use.

        This includes slabs of other `Gathering` objects, unless their lock is held at the moment.
        """
        for other in list(_all):
            if other._changed.acquire(blocking=other is self):
                try:
                    other._slabs = [s for s in other._slabs if len(s.free) < s.lanes]
                finally:
                    other._changed.release()

    def _gathered(self) -> list[_Call]:
        """Wait for calls, and return all of them; the lock must be held."""
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
                call.done, call.error = True, RuntimeError("the launching thread was interrupted")
            self._changed.notify_all()
            raise
        finally:
            self._gathering = False
            calls, self._waiting = self._waiting, []
        return calls

    def _come(self) -> int:
        """The number of pieces of work that wait."""
        return sum(len(call.works) for call in self._waiting)

    def _run(self, calls: list[_Call]) -> None:
        """Launch the gathered work. An error is reported to all of these calls."""
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
        except BaseException:  # an interrupt is raised in this thread; others get an error
            for call in calls:
                call.error = RuntimeError("the launching thread was interrupted")
            raise
        finally:
            with self._changed:
                for call in calls:
                    call.done = True
                self._changed.notify_all()

    def _launch(self, works: list) -> None:
        """Launch works together, or in halves if there is not enough memory."""
        try:
            works[0].launch(works)
        except Exception as error:
            # Data are sent to the device before a launch, so no lane has changed yet.
            if not _no_memory(error) or len(works) == 1 or any(w.moved_on for w in works):
                raise
            self.forget()
            half = len(works) // 2
            self._launch(works[:half])
            self._launch(works[half:])

    def _slab(self, fits, make, count: int, least: int = _LEAST_LANES, most: int = 1 << 30):
        """Find or make a slab with a free lane; the lock must be held.

        Parameters
        ----------
        fits : callable
            A function that says whether a slab is suitable.
        make : callable
            A function that makes a slab with a given number of lanes.
        count : int
            The number of lanes wanted.
        least, most : int
            The smallest and largest number of lanes of a new slab, if there is memory.
        """
        for slab in self._slabs:
            if slab.free and fits(slab):
                return slab
        # A new slab doubles the number of lanes, so that there are few slabs and few launches.
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
    """A function that returns the only `kind`, a subclass of `Gathering`, of this process.

    A forked process gets a new one, since it has no device and no waiting threads.
    """
    only = [kind()]

    def begin_anew():
        only[0] = kind()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=begin_anew)
    return lambda: only[0]
