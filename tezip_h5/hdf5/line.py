"""A waiting line between a camera and the disk: jobs done in order by one thread of their own."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

from tezip_h5.errors import InputError, OverrunError

__all__ = ["Line"]

WHEN_FULL = ("block", "raise")


class Line:
    """Take jobs from any thread and do them one after the other; frames in it are counted.

    The first job that fails ends the line: what waits is not done, and its error comes to whoever
    next asks for room, or waits.

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
        self._jobs = 0
        self._error: BaseException | None = None
        self._told = False  # the error has reached the caller
        self._given_up = self._closed = False
        # Its thread is joined when the interpreter ends, other than that of a plain queue.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tezip-line")

    @property
    def frames(self) -> int:
        """Frames in the line."""
        return self._frames

    @property
    def empty(self) -> bool:
        """Whether no job waits behind the one that is being done."""
        return self._jobs <= 1

    @property
    def failed(self) -> bool:
        """Whether a job has failed."""
        return self._error is not None

    def enter(self, count: int) -> None:
        """Make room for `count` frames, at most `limit`.

        Raises
        ------
        OverrunError
            When there is none and the line does not block. Nothing has changed then.
        InputError
            When the line is closed while it waits.
        """
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
                self._changed.wait()

    def leave(self, count: int) -> None:
        """Say that `count` frames have been written."""
        with self._changed:
            self._frames -= count
            self._changed.notify_all()

    def put(self, job, *arguments, **options) -> Future:
        """Have ``job(*arguments, **options)`` done after all that was put before.

        Raises
        ------
        InputError
            When the line was closed meanwhile, by the handler of a signal.
        """
        with self._changed:
            if self._closed:
                raise InputError("the writer was closed; the last frames were not taken")
            self._jobs += 1
        return self._thread.submit(self._do, job, arguments, options)

    def _do(self, job, arguments, options) -> None:
        try:
            if self._error is None and not self._given_up:
                job(*arguments, **options)
        except BaseException as error:
            with self._changed:
                self._error = error
        finally:
            with self._changed:
                self._jobs -= 1
                self._changed.notify_all()

    def wait(self) -> None:
        """Until all jobs are done. Raises the error of the one that failed."""
        with self._changed:
            while self._jobs and self._error is None:
                self._changed.wait()
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
        self._thread.shutdown(wait=True)
