"""How many threads."""

from __future__ import annotations

import os

__all__ = ["default_threads"]


def default_threads() -> int:
    """Threads when the caller names no number: the processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
