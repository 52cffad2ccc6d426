"""Kernels: arrays in, arrays out, integers, no allocation.

`load(name)` gives a module of them. Loading compiles (once per machine, then cached on
disk); it happens on first use, never at ``import tezip_h5``. `of(array)` gives the module for
where an array lies: the host's memory or a CUDA device's. Both have the same names.
"""

from __future__ import annotations

import gc
import importlib
import threading

import numpy as np

from tezip_h5.kernels import sources  # noqa: F401 (it notes how they are before any is imported)

__all__ = ["load", "of"]

_lock = threading.Lock()
_loaded = {}


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
                    _loaded[name] = importlib.import_module(f"tezip_h5.kernels.{name}")
                finally:
                    if collecting:
                        gc.enable()
    return _loaded[name]


def of(array):
    """Return the module of kernels for where `array` lies: "cpu" for numpy's, else "cuda"."""
    return load("cpu" if isinstance(array, np.ndarray) else "cuda")
