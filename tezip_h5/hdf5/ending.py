"""Writers that are still open when the interpreter ends: they are closed then."""

from __future__ import annotations

import logging
import os
import threading
import weakref

__all__ = ["close_at_exit"]

_log = logging.getLogger("tezip_h5")
_open = weakref.WeakKeyDictionary()  # writers, and the process that each was made in
_processes = set()  # in which it is arranged


def close_at_exit(writer) -> None:
    """Have `writer` closed, with a warning, if nobody has done so when the interpreter ends.

    Before its pools of threads stop, which `atexit` is too late for; Python has no public way.
    """
    process = os.getpid()
    if process not in _processes and hasattr(threading, "_register_atexit"):
        threading._register_atexit(_close_all, process)
        _processes.add(process)
    _open[writer] = process


def _close_all(process: int) -> None:
    for writer, maker in list(_open.items()):
        if not writer.closed and maker == process == os.getpid():  # not a parent's, in a fork
            _log.warning("%r was not closed; it is now, as the interpreter ends", writer)
            writer.close()
