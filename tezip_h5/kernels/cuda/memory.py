"""Memory for CUDA: copies between host and device, pinned buffers, scratch arrays.

A pinned buffer is host memory that the device reads and writes on its own, while the host thread
goes on. Making one takes longer than using it, so buffers are kept for later use.
"""

from __future__ import annotations

import threading

import numpy as np
from numba import cuda

from tezip_h5.kernels.cuda.launch import SIMULATED, finish, stream

__all__ = ["Fetching", "Pinned", "Sending", "empty", "scratch", "to_device", "to_host"]

_KEPT_BYTES = 1 << 28  # most bytes of unused pinned buffers that are kept

_lock = threading.Lock()
_free: list[np.ndarray] = []
_here = threading.local()


def empty(shape, dtype):
    """A new device array with undefined content."""
    return cuda.device_array(shape, dtype, stream=stream())


def to_device(array: np.ndarray):
    """Copy an array to the device; returns a device array of the same shape and dtype."""
    out = empty(array.shape, array.dtype)
    if array.size:
        out.copy_to_device(np.ascontiguousarray(array), stream=stream())
    return out


def to_host(array, out: np.ndarray | None = None) -> np.ndarray:
    """Copy a device array to the host, once all earlier launches are done."""
    if out is None:
        out = np.empty(tuple(array.shape), array.dtype)
    if array.size:
        array.copy_to_host(out, stream=stream())
    finish()
    return out


def scratch(name: str, shape: tuple[int, ...], dtype):
    """A working array of this host thread. Calls with the same name return the same memory.

    Its content is lost at the next call. That is safe, because kernels of one stream run in order:
    those that use the array are done before the next ones begin.
    """
    kept = _here.__dict__.setdefault("scratch", {})
    size = int(np.prod(shape))
    if name not in kept or kept[name].size < size or kept[name].dtype != dtype:
        kept[name] = None  # free the old array first; there may be no memory for both
        kept[name] = empty((max(size, 1),), dtype)
    return kept[name][:size].reshape(*shape)


class Pinned:
    """A pinned host buffer, and the event that tells when the device is done with it.

    Attributes
    ----------
    array : numpy array in the buffer, of the given shape and dtype
    """

    def __init__(self, shape: tuple[int, ...], dtype):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._raw = _borrow(size)
        self.array = self._raw[:size].view(dtype).reshape(shape)
        self._event = cuda.event()

    def send(self, target) -> None:
        """Start copying to the device array `target`; `array` must not change before `wait`."""
        target.copy_to_device(self.array, stream=stream())
        self._event.record(stream())

    def fetch(self, source) -> None:
        """Start copying from the device array `source`; `array` is valid after `wait`."""
        source.copy_to_host(self.array, stream=stream())
        self._event.record(stream())

    def wait(self) -> None:
        """Wait until the last copy is done."""
        self._event.synchronize()

    def close(self) -> None:
        """Return the buffer; `array` must not be used any more."""
        self.wait()
        raw, self._raw, self.array = self._raw, None, None
        with _lock:
            if raw is not None and sum(a.nbytes for a in _free) + raw.nbytes <= _KEPT_BYTES:
                _free.append(raw)


class Fetching:
    """Copy arrays of one shape from the device, each while the host uses the one before."""

    def __init__(self, shape, dtype):
        self._slots = [(empty(shape, dtype), Pinned(shape, dtype)) for _ in range(2)]
        self._count = 0

    def next(self):
        """The device array to fill next."""
        return self._slots[self._count % 2][0]

    def fetch(self) -> np.ndarray | None:
        """Start copying the array that was filled; returns the host's copy of the one before."""
        device, pinned = self._slots[self._count % 2]
        pinned.fetch(device)
        self._count += 1
        return self._host(self._count - 2) if self._count > 1 else None

    def last(self) -> np.ndarray:
        """The host's copy of the last array."""
        return self._host(self._count - 1)

    def _host(self, number: int) -> np.ndarray:
        pinned = self._slots[number % 2][1]
        pinned.wait()
        return pinned.array

    def close(self) -> None:
        """Return the buffers."""
        for _, pinned in self._slots:
            pinned.close()


class Sending:
    """Copy arrays of one shape to the device, each while the device uses the one before."""

    def __init__(self, shape, dtype):
        self._device = empty(shape, dtype)
        self._slots = [_lent(k, shape, dtype) for k in range(2)]

    def next(self) -> np.ndarray:
        """The host array to fill next."""
        self._slots.reverse()
        self._slots[0].wait()
        return self._slots[0].array

    def send(self):
        """Start copying the array that was filled; returns the device array.

        The next call overwrites it.
        """
        self._slots[0].send(self._device)
        return self._device


def _lent(slot: int, shape, dtype) -> Pinned:
    """A pinned buffer of this host thread, which all its `Sending` objects of one shape share."""
    kept = _here.__dict__.setdefault("pinned", {})
    key = slot, tuple(shape), np.dtype(dtype)
    if key not in kept:
        if len(kept) >= 8:
            kept.clear()  # a buffer that is still in use is not freed by this
        kept[key] = Pinned(shape, dtype)
    return kept[key]


def _borrow(size: int) -> np.ndarray:
    """A pinned buffer of at least `size` bytes: one that was kept, or a new one."""
    with _lock:
        fitting = [i for i, a in enumerate(_free) if size <= a.nbytes <= 4 * size + 4096]
        if fitting:
            return _free.pop(min(fitting, key=lambda i: _free[i].nbytes))
    size = max(size, 1)
    return np.empty(size, np.uint8) if SIMULATED else cuda.pinned_array(size, np.uint8)
