"""A waiting line between a camera and the disk: jobs done in order by one thread of their own."""

from __future__ import annotations

import queue
import threading

from tezip_h5.errors import InputError, OverrunError
from tezip_h5.frames import is_count

__all__ = ["Line", "line_for"]

WHEN_FULL = ("block", "raise")
_BYTES = 256 << 20  # of frames that may wait, by default
_PAUSE = 0.1  # seconds


class _Job:
    """A call to make; when it is done it holds nothing more."""

    def __init__(self, function, arguments, options):
        self.call = (function, arguments, options)
        self.done = self.ended = False  # without an error; or in any way


class Line:
    """Take jobs from any thread and do them one after the other; frames in it are counted.

    The first job that fails ends the line: what waits is not done, and its error comes to whoever
    next asks for room, or waits. The handler of a signal may call any method, in the midst of any
    other: nothing here holds a lock that it would wait for.

    Parameters
    ----------
    limit : int
        Frames that may be in it at once.
    when_full : "block" | "raise"
        What `enter` does when there is no room.
    """

    def __init__(self, limit: int, when_full: str):
        if when_full not in WHEN_FULL:
            raise InputError(f"when_full={when_full!r} is unknown; choose one of block, raise")
        self.limit, self.blocks = limit, when_full == "block"
        self._changed = threading.Condition()
        self._frames = 0
        self._error: BaseException | None = None
        self._told = False  # the error has reached the caller
        self._given_up = self._closed = self._ended = False
        # Of all queues the one whose `put` a handler may call while it is being called.
        self._jobs = queue.SimpleQueue()
        self._unended: set[_Job] = set()
        # One that nobody closed must not keep the interpreter; `ending` closes those of writers.
        self._thread = threading.Thread(target=self._work, name="tezip-line", daemon=True)
        self._thread.start()

    @property
    def frames(self) -> int:
        """Frames in the line."""
        return self._frames

    @property
    def empty(self) -> bool:
        """Whether no job waits behind the one that is being done."""
        return self._jobs.empty()

    @property
    def failed(self) -> bool:
        """Whether a job has failed."""
        return self._error is not None

    def enter(self, count: int) -> None:
        """Make room for `count` frames.

        Raises
        ------
        OverrunError
            When there is none and the line does not block. Nothing has changed then.
        InputError
            When the line is closed while it waits, or so many never have room.
        """
        if count > self.limit:
            raise InputError(
                f"a block of {count} frames never fits in the {self.limit} of queue_frames; give "
                "smaller blocks, or a larger queue_frames"
            )
        with self._changed:
            while True:
                self._raise_error()
                if self._closed:
                    raise InputError(f"the writer was closed; {count} frames were not taken")
                if self._frames + count <= self.limit:
                    self._frames += count
                    return
                if not self.blocks:
                    raise OverrunError(
                        f"{self._frames} frames wait to be written, {count} more exceed the "
                        f"{self.limit} of queue_frames; these were not taken: append them again "
                        "later, take a faster level, more threads, or when_full='block'"
                    )
                self._pause()

    def _pause(self) -> None:
        """Wait for a change, or a moment: a signal's handler may have changed all there is to
        change, and told nobody, since the caller looked and before this waits."""
        self._changed.wait(_PAUSE)

    def leave(self, count: int) -> None:
        """Say that `count` frames have been written."""
        with self._changed:
            self._frames -= count
            self._changed.notify_all()

    def put(self, function, *arguments, **options) -> None:
        """Have ``function(*arguments, **options)`` done after all that was put before.

        Raises
        ------
        InputError
            When the line was closed meanwhile, by the handler of a signal.
        """
        job = _Job(function, arguments, options)
        if not self._closed:
            self._jobs.put(job)
            with self._changed:  # only now: a handler must not wait for what is not in it yet
                if not job.ended:
                    self._unended.add(job)
        if self._closed and not job.done:  # a handler has closed it, before the job was in it
            raise InputError("the writer was closed; the last frames were not taken")

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._do(job)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _do(self, job: _Job) -> None:
        function, arguments, options = job.call
        job.call, error = None, None
        try:
            if self._error is None and not self._given_up:
                function(*arguments, **options)
                job.done = True
        except BaseException as raised:
            error = raised
        with self._changed:
            self._error = self._error or error
            job.ended = True
            self._unended.discard(job)
            self._changed.notify_all()

    def wait(self) -> None:
        """Until all jobs are done. Raises the error of the one that failed."""
        with self._changed:
            while self._unended and self._error is None:
                self._pause()
            self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            self._told = True
            raise self._error

    def raise_untold(self) -> None:
        """Raise the error of a failed job, if no caller has seen it yet."""
        if not self._told:
            self._raise_error()

    def close(self, *, give_up: bool = False) -> None:
        """Stop the thread; with `give_up` what still waits is not done."""
        with self._changed:
            self._closed = True
            self._given_up = self._given_up or give_up
            self._changed.notify_all()
        self._jobs.put(None)
        with self._changed:
            # Not `join`: a handler's caller may hold the lock, that this lets go and join does not.
            while not self._ended:
                self._pause()


def line_for(chunk: int, frame_bytes: int, limit: int | None, when_full: str) -> Line:
    """A line for `limit` frames, or as many as there should be room for; InputError for fewer than
    those of two chunks."""
    if limit is None:
        limit = max(2 * chunk, _BYTES // frame_bytes)
    if not is_count(limit, 2 * chunk):
        raise InputError(
            f"queue_frames={limit!r}; give at least {2 * chunk}, the frames of two chunks, or a "
            "smaller chunk_frames"
        )
    return Line(int(limit), when_full)
