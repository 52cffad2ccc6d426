"""The number of threads, and their distribution to chunks."""

from __future__ import annotations

import os

from tezip_h5.errors import InputError
from tezip_h5.frames import is_count

__all__ = ["Shares", "chunks_under_way", "default_threads", "threads_or_default"]

_CHUNKS_ON_GPU = 64
"""Coded side by side: each is a thread of the CPU, which mostly waits for the GPU. How many are
best has not been measured yet."""


def default_threads() -> int:
    """Threads when the caller names no number: the processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def chunks_under_way(threads: int, device: str) -> int:
    """Number of chunks to code at a time, with `threads` of the CPU, or on the GPU."""
    return threads if device == "cpu" else max(threads, _CHUNKS_ON_GPU)


def threads_or_default(threads) -> int:
    """A number of threads that a caller gave, or None for the default.

    Raises
    ------
    InputError
        When it is not a number of threads.
    """
    if threads is None:
        return default_threads()
    if not is_count(threads):
        raise InputError(f"threads={threads!r} is no number of threads; give an int >= 1")
    return int(threads)


class Shares:
    """The number of threads for each tile of a step, step by step.

    Steps are encoded in groups that keep all threads busy. A smaller group shares the threads among
    its tiles. If the last step is short, its threads help with the step before it.

    Parameters
    ----------
    threads : int
    tiles : int
        Number of tiles of a step.
    chunk_frames : int
    count : int, optional
        Frames of the whole stack, when known.
    """

    def __init__(self, threads: int, tiles: int, chunk_frames: int, count: int | None = None):
        self._threads, self._tiles = threads, tiles
        self._left = -(-count // chunk_frames) if count else 1 << 62  # steps
        self._uneven = count is not None and count % chunk_frames != 0  # the last one is short
        self._group = self._each = 0  # steps to come in it, threads of each of their tiles

    def next(self, alone: bool) -> int:
        """Threads for each tile of the next step, which may have to be encoded `alone`."""
        threads, tiles = self._threads, self._tiles
        if alone:
            self._group, self._each = 1, max(1, threads // tiles)
        elif self._group == 0:
            self._group = max(1, min(threads // tiles, self._left))
            shorter = self._uneven and self._left == self._group
            self._each = max(1, threads // (tiles if shorter else self._group * tiles))
        self._group -= 1
        self._left -= 1
        return self._each
