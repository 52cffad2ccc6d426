"""Kernels: compiled functions that take and fill arrays of integers, and allocate nothing.

`load(name)` returns a module of kernels. Loading compiles them, once per machine; after that they
are read from a cache on disk. Modules are loaded on first use, never by ``import tezip_h5``, and
the logger "tezip_h5" announces compilation. `of(array)` returns the module for the memory that an
array lies in: that of the host, or that of a CUDA device. Both modules have the same functions.
"""

from __future__ import annotations

import gc
import importlib
import threading

import numpy as np

from tezip_h5.kernels import sources  # noqa: F401 (it records the sources before any is imported)

__all__ = ["compile_seconds", "load", "of"]

_lock = threading.Lock()
_loaded = {}  # modules of kernels, by name
_compiles = None  # the `watching.Compiles` of this process, once a module was loaded


def load(name: str = "cpu"):
    """Load the module `name` of kernels.

    Kernels for the CPU are compiled now. Kernels for CUDA, in the package "cuda", are compiled
    when they are first called.

    Cyclic garbage collection is switched off meanwhile. A collection could close an h5py object,
    which waits for h5py's lock, and a filter callback may hold that lock while it waits for this
    function.
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
    """The context manager that times and announces compilation."""
    global _compiles
    if _compiles is None:  # imported this late, since importing numba takes half a second
        _compiles = importlib.import_module("tezip_h5.kernels.watching").Compiles()
    return _compiles


def compile_seconds() -> float:
    """Wall time that this process has spent on compiling kernels for the CPU so far."""
    return 0.0 if _compiles is None else _compiles.seconds


def of(array):
    """Load the module of kernels for the memory that `array` lies in.

    It is "cpu" for numpy arrays, else "cuda".
    """
    return load("cpu" if isinstance(array, np.ndarray) else "cuda")
