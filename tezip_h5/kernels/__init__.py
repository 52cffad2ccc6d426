"""Kernels: arrays in, arrays out, integers, no allocation.

`load(name)` gives a module of them. Loading compiles (once per machine, then cached on
disk); it happens on first use, never at ``import tezip_h5``, and is told of on the logger
"tezip_h5". `of(array)` gives the module for where an array lies: the host's memory or a CUDA
device's. Both have the same names.
"""

from __future__ import annotations

import gc
import importlib
import threading

import numpy as np

from tezip_h5.kernels import sources  # noqa: F401 (it notes how they are before any is imported)

__all__ = ["compile_seconds", "load", "of"]

_lock = threading.Lock()
_loaded = {}
_compiles = None  # a `watching.Compiles`, once there was something to load


def load(name: str = "cpu"):
    """Return the module `name` of kernels; those for the CPU compiled, those for CUDA (which
    are in the room "cuda") to be compiled when they are first called.

    Cyclic garbage collection is off meanwhile: a collection could close an h5py object and
    wait for h5py's lock, which a filter callback that waits for us may hold.
    """
    if name not in _loaded:
        with _lock:
            if name not in _loaded:
                collecting = gc.isenabled()
                gc.disable()
                try:
                    with _watched():
                        _loaded[name] = importlib.import_module(f"tezip_h5.kernels.{name}")
                finally:
                    if collecting:
                        gc.enable()
    return _loaded[name]


def _watched():
    global _compiles
    if _compiles is None:  # not before: numba takes half a second to import
        _compiles = importlib.import_module("tezip_h5.kernels.watching").Compiles()
    return _compiles


def compile_seconds() -> float:
    """Wall time that this process has spent on compiling kernels for the CPU so far."""
    return 0.0 if _compiles is None else _compiles.seconds


def of(array):
    """Return the module of kernels for where `array` lies: "cpu" for numpy's, else "cuda"."""
    return load("cpu" if isinstance(array, np.ndarray) else "cuda")
