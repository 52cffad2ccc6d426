"""Writers that are still open when the interpreter ends: they are closed then."""

from __future__ import annotations

import logging
import os
import threading

__all__ = ["close_at_exit", "let_go"]

_log = logging.getLogger("tezip_h5")
_open = {}  # writers, and the process that each was made in; held, or their frames would be lost
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


def let_go(writer) -> None:
    """Forget a writer that is closed."""
    _open.pop(writer, None)


def _close_all(process: int) -> None:
    for writer, maker in list(_open.items()):
        if writer.closed or not maker == process == os.getpid():  # not a parent's, in a fork
            continue
        _log.warning("%r was not closed; it was closed as the interpreter ended", writer)
        try:
            writer.close()
        except BaseException as error:  # the others are closed all the same
            _log.error("%r could not be closed: %s: %s", writer, type(error).__name__, error)
