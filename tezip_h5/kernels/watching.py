"""Announce and time the compilation of kernels.

Users are told before the first compilation begins, since it takes a minute or two. The time is
measured, so that reports of a codec's speed can leave it out. numba sends an event for each
function that it compiles, and none for kernels that are read from disk.
"""

from __future__ import annotations

import logging
import time

from numba.core import event

from tezip_h5.kernels.compiling import cache_folder

__all__ = ["Compiles"]

_log = logging.getLogger("tezip_h5")


class Compiles(event.Listener):
    """A context manager that notices whether kernels are compiled inside it.

    Only one may be entered at a time.

    Attributes
    ----------
    seconds : float
        The wall time spent inside, counting only the times when a kernel was compiled.
    """

    def __init__(self):
        self.seconds, self._told, self._began = 0.0, False, False

    def __enter__(self) -> Compiles:
        self._began, self._entered = False, time.perf_counter()
        event.register("numba:compile", self)
        return self

    def __exit__(self, *exception) -> None:
        event.unregister("numba:compile", self)
        if self._began:
            self.seconds += time.perf_counter() - self._entered

    def on_start(self, event) -> None:
        """numba calls this before it compiles any function, also one of other packages."""
        module = event.data["dispatcher"].py_func.__module__
        if self._began or not module.startswith("tezip_h5."):
            return
        self._began = True
        if not self._told:
            self._told = True
            kept = "once" if cache_folder() else "in every process (`tezip-h5 doctor` says why)"
            _log.warning("compiling for this processor, %s; this takes a minute or two", kept)

    def on_end(self, event) -> None:
        """numba calls this after it has compiled a function."""
