"""Kernels: arrays in, arrays out, integers, no allocation.

`load()` gives the kernel module of a device. Loading compiles (once per machine, then
cached on disk); it happens on first use, never at ``import tezip_h5``.
"""

from __future__ import annotations

import gc
import threading

_lock = threading.Lock()
_cpu = None


def load():
    """Return the module of CPU kernels, compiled.

    Cyclic garbage collection is off meanwhile: a collection could close an h5py object and
    wait for h5py's lock, which a filter callback that waits for us may hold.
    """
    global _cpu
    if _cpu is None:
        with _lock:
            if _cpu is None:
                collecting = gc.isenabled()
                gc.disable()
                try:
                    from tezip_h5.kernels import cpu
                finally:
                    if collecting:
                        gc.enable()
                _cpu = cpu
    return _cpu
