"""How many threads."""

from __future__ import annotations

import os

from tezip_h5.errors import InputError
from tezip_h5.frames import is_count

__all__ = ["chunks_under_way", "default_threads", "threads_or_default"]

_CHUNKS_ON_GPU = 64
"""Coded side by side: each is a thread of the CPU, which mostly waits for the GPU. How many are
best has not been measured yet."""


def default_threads() -> int:
    """Threads when the caller names no number: the processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def chunks_under_way(threads: int, device: str) -> int:
    """How many chunks to code at a time, with so many threads of the CPU, or on the GPU."""
    return threads if device == "cpu" else max(threads, _CHUNKS_ON_GPU)


def threads_or_default(threads) -> int:
    """A number of threads that a caller gave, or None for the default.

    Raises
    ------
    InputError
        When it is none.
    """
    if threads is None:
        return default_threads()
    if not is_count(threads):
        raise InputError(f"threads={threads!r} is no number of threads; give an int >= 1")
    return int(threads)
