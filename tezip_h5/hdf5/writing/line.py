"""The queue between a camera and the disk: one thread does its jobs in order."""

from __future__ import annotations

import queue
import threading

from tezip_h5.errors import InputError, OverrunError
from tezip_h5.frames import is_count

__all__ = ["Line", "line_for"]

WHEN_FULL = ("block", "raise")
_BYTES = 256 << 20  # default limit of the queue, in bytes of frames
_PAUSE = 0.1  # seconds between checks while waiting


class _Job:
    """A function call to make; when it is done, it keeps no references to its arguments."""

    def __init__(self, function, arguments, options):
        self.call = (function, arguments, options)
        self.done = self.ended = False  # done without an error; ended in any way


class Line:
    """A queue that takes jobs from any thread, does them one after the other, and counts frames.

    After a job fails, no further job is done. Its error is raised by the next `enter` or `wait`.
    A signal handler may call any method while any other method runs, so no method holds a lock
    that the handler would have to wait for.

    Parameters
    ----------
    limit : int
        Largest number of frames in the queue.
    when_full : "block" | "raise"
        The action of `enter` if there is no room.
    """

    def __init__(self, limit: int, when_full: str):
        if when_full not in WHEN_FULL:
            raise InputError(f"when_full={when_full!r} is unknown; choose one of block, raise")
        self.limit, self.blocks = limit, when_full == "block"
        self._changed = threading.Condition()
        self._frames = 0
        self._error: BaseException | None = None
        self._told = False  # whether a caller has got the error
        self._given_up = self._closed = self._ended = False
        # The only queue of Python whose `put` is reentrant: a signal handler may call it during
        # another `put`.
        self._jobs = queue.SimpleQueue()
        self._unended: set[_Job] = set()
        # A daemon, so that a queue that nobody closed does not keep the interpreter from ending;
        # `ending` closes those of writers.
        self._thread = threading.Thread(target=self._work, name="tezip-line", daemon=True)
        self._thread.start()

    @property
    def frames(self) -> int:
        """Number of frames in the queue."""
        return self._frames

    @property
    def empty(self) -> bool:
        """Whether no job waits (one may be running)."""
        return self._jobs.empty()

    @property
    def failed(self) -> bool:
        """Whether a job has failed."""
        return self._error is not None

    def enter(self, count: int) -> None:
        """Reserve room in the queue for `count` frames.

        Raises
        ------
        OverrunError
            When there is no room and the queue does not block. Nothing has changed then.
        InputError
            When the queue is closed meanwhile, or `count` exceeds its limit.
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
        """Wait for a change, but only for a moment.

        A signal handler may have changed the state just before this waits, so a notification may
        be missed. The caller therefore checks again.
        """
        self._changed.wait(_PAUSE)

    def leave(self, count: int) -> None:
        """Release the room of `count` frames, which have been written."""
        with self._changed:
            self._frames -= count
            self._changed.notify_all()

    def put(self, function, *arguments, **options) -> None:
        """Add the job ``function(*arguments, **options)`` to the queue.

        Raises
        ------
        InputError
            When a signal handler has closed the queue meanwhile.
        """
        job = _Job(function, arguments, options)
        if not self._closed:
            self._jobs.put(job)
            with self._changed:  # after `put`, so that a handler waits only for queued jobs
                if not job.ended:
                    self._unended.add(job)
        if self._closed and not job.done:  # a handler closed the queue first
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
        """Wait until all jobs are done; raises the error of one that failed."""
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
        """Stop the thread after all jobs; with `give_up`, waiting jobs are dropped."""
        with self._changed:
            self._closed = True
            self._given_up = self._given_up or give_up
            self._changed.notify_all()
        self._jobs.put(None)
        with self._changed:
            # Not `join`: if a handler interrupted code that holds the lock, the thread needs it to
            # end, and only this wait releases it.
            while not self._ended:
                self._pause()


def line_for(chunk: int, frame_bytes: int, limit: int | None, when_full: str) -> Line:
    """A queue for `limit` frames, by default 256 MiB; InputError if `limit` is below two chunks."""
    if limit is None:
        limit = max(2 * chunk, _BYTES // frame_bytes)
    if not is_count(limit, 2 * chunk):
        raise InputError(
            f"queue_frames={limit!r}; give at least {2 * chunk}, the frames of two chunks, or a "
            "smaller chunk_frames"
        )
    return Line(int(limit), when_full)
