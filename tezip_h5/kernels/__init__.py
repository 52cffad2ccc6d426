"""Kernels: arrays in, arrays out, integers, no allocation.

`load(name)` gives a module of them. Loading compiles (once per machine, then cached on
disk); it happens on first use, never at ``import tezip_h5``.
"""

from __future__ import annotations

import gc
import importlib
import threading

__all__ = ["load"]

_lock = threading.Lock()
_loaded = {}


def load(name: str = "cpu"):
    """Return the module `name` of CPU kernels, compiled.

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
