"""Closing writers that are still open when the interpreter ends."""

from __future__ import annotations

import logging
import os
import threading

__all__ = ["close_at_exit", "let_go"]

_log = logging.getLogger("tezip_h5")
_open = {}  # open writers, and the process that made each; kept alive so that no frames are lost
_processes = set()  # processes that have registered `close_at_exit`'s callback


def close_at_exit(writer) -> None:
    """Close `writer`, with a warning, if it is still open when the interpreter ends.

    That must happen before thread pools stop. `atexit` is too late for it, and Python has no public
    function for it.
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
        if writer.closed or not maker == process == os.getpid():  # the parent's, in a fork
            continue
        _log.warning("%r was not closed; it was closed as the interpreter ended", writer)
        try:
            writer.close()
        except BaseException as error:  # the other writers must still be closed
            _log.error("%r could not be closed: %s: %s", writer, type(error).__name__, error)
