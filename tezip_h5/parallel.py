"""Threads for the parts of one chunk."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

__all__ = ["each"]

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def _forget() -> None:
    """Forget the thread pool after a fork, because a child process has no threads."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def each(function, items, threads: int) -> list:
    """Return [function(item) for item in items], by at most `threads` threads, this one included.

    `function` must not call `each` with more than one thread. Callbacks of HDF5 must not call it
    with more than one thread: they hold a lock that the other threads may need.
    """
    global _pool
    items = list(items)
    parts = min(threads, len(items))
    if parts <= 1:
        return [function(item) for item in items]
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max(os.cpu_count() or 1, 2), thread_name_prefix="tezip-part")

    def run(part: int) -> list:
        return [function(item) for item in items[part::parts]]

    futures = [_pool.submit(run, part) for part in range(1, parts)]
    try:
        done = [run(0)]
    finally:
        rest = [future.exception() for future in futures]  # all must have ended
    for error in rest:
        if error is not None:
            raise error
    done += [future.result() for future in futures]
    out = [None] * len(items)
    for part, results in enumerate(done):
        out[part::parts] = results
    return out
