"""Compiling, watched: said once before it begins, so that nobody waits for a minute without a
word, and timed, so that nobody takes it for the speed of a codec.

numba tells of every function that it compiles, and of none that its cache on disk has.
"""

from __future__ import annotations

import logging
import time

from numba.core import event

from tezip_h5.kernels.compiling import cache_folder

__all__ = ["Compiles"]

_log = logging.getLogger("tezip_h5")


class Compiles(event.Listener):
    """What is compiled while this is entered; only one may be at a time.

    Attributes
    ----------
    seconds : float
        Wall time of all visits in which a kernel was compiled.
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
        """Called by numba before it compiles a function, whoever's it is."""
        module = event.data["dispatcher"].py_func.__module__
        if self._began or not module.startswith("tezip_h5."):
            return
        self._began = True
        if not self._told:
            self._told = True
            kept = "once" if cache_folder() else "in every process (`tezip-h5 doctor` says why)"
            _log.warning("compiling for this processor, %s; this takes a minute or two", kept)

    def on_end(self, event) -> None:
        """Called by numba afterwards."""
