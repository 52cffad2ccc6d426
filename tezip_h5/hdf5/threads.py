"""How many threads."""

from __future__ import annotations

import os

import numpy as np

from tezip_h5.errors import InputError

__all__ = ["default_threads", "threads_or_default"]


def default_threads() -> int:
    """Threads when the caller names no number: the processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_or_default(threads) -> int:
    """A number of threads that a caller gave, or None for the default.

    Raises
    ------
    InputError
        When it is none.
    """
    if threads is None:
        return default_threads()
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer) or threads < 1:
        raise InputError(f"threads={threads!r} is no number of threads; give an int >= 1")
    return int(threads)
