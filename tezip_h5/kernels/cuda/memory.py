"""Memory for CUDA: copies between host and device, pinned buffers, scratch arrays.

A pinned buffer is host memory that the device reads and writes by itself, while this thread
goes on. Making one takes longer than using it: they are kept and lent out again.
"""

from __future__ import annotations

import threading

import numpy as np
from numba import cuda

from tezip_h5.kernels.cuda.launch import SIMULATED, finish, stream

__all__ = ["Fetching", "Pinned", "Sending", "empty", "scratch", "to_device", "to_host"]

_KEPT_BYTES = 1 << 28  # of pinned buffers that nobody uses

_lock = threading.Lock()
_free: list[np.ndarray] = []
_here = threading.local()


def empty(shape, dtype):
    """A device array with anything in it."""
    return cuda.device_array(shape, dtype, stream=stream())


def to_device(array: np.ndarray):
    """Copy to the device: a device array of the same shape and dtype."""
    out = empty(array.shape, array.dtype)
    if array.size:
        out.copy_to_device(np.ascontiguousarray(array), stream=stream())
    return out


def to_host(array, out: np.ndarray | None = None) -> np.ndarray:
    """Copy to the host, once all that was launched before is done."""
    if out is None:
        out = np.empty(tuple(array.shape), array.dtype)
    if array.size:
        array.copy_to_host(out, stream=stream())
    finish()
    return out


def scratch(name: str, shape: tuple[int, ...], dtype):
    """An array of this host thread that is used again by whoever asks by the same name.

    What is in it is lost at the next call: kernels of one stream run in order, so the last ones
    that use it are done before the next begin.
    """
    kept = _here.__dict__.setdefault("scratch", {})
    size = int(np.prod(shape))
    if name not in kept or kept[name].size < size or kept[name].dtype != dtype:
        kept[name] = None  # the old one first: there may be no room for both
        kept[name] = empty((max(size, 1),), dtype)
    return kept[name][:size].reshape(*shape)


class Pinned:
    """A pinned host buffer and the event that says when the device is done with it.

    Attributes
    ----------
    array : the host's side, of the shape and dtype asked for
    """

    def __init__(self, shape: tuple[int, ...], dtype):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._raw = _borrow(size)
        self.array = self._raw[:size].view(dtype).reshape(shape)
        self._event = cuda.event()

    def send(self, target) -> None:
        """Begin to copy to the device array `target`; `array` must not change before `wait`."""
        target.copy_to_device(self.array, stream=stream())
        self._event.record(stream())

    def fetch(self, source) -> None:
        """Begin to copy from the device array `source`; it is in `array` after `wait`."""
        source.copy_to_host(self.array, stream=stream())
        self._event.record(stream())

    def wait(self) -> None:
        """Wait for the last copy."""
        self._event.synchronize()

    def close(self) -> None:
        """Give the buffer back; `array` must not be used any more."""
        self.wait()
        raw, self._raw, self.array = self._raw, None, None
        with _lock:
            if raw is not None and sum(a.nbytes for a in _free) + raw.nbytes <= _KEPT_BYTES:
                _free.append(raw)


class Fetching:
    """Arrays of one shape that come from the device one after the other, each while the one
    before is used."""

    def __init__(self, shape, dtype):
        self._slots = [(empty(shape, dtype), Pinned(shape, dtype)) for _ in range(2)]
        self._count = 0

    def next(self):
        """The device array to fill next."""
        return self._slots[self._count % 2][0]

    def fetch(self) -> np.ndarray | None:
        """Begin to fetch it; returns the host's copy of the one before, if there is one."""
        device, pinned = self._slots[self._count % 2]
        pinned.fetch(device)
        self._count += 1
        return self._host(self._count - 2) if self._count > 1 else None

    def last(self) -> np.ndarray:
        """The host's copy of the last one."""
        return self._host(self._count - 1)

    def _host(self, number: int) -> np.ndarray:
        pinned = self._slots[number % 2][1]
        pinned.wait()
        return pinned.array

    def close(self) -> None:
        """Give the buffers back."""
        for _, pinned in self._slots:
            pinned.close()


class Sending:
    """Arrays of one shape that go to the device one after the other, each while the one before
    is used."""

    def __init__(self, shape, dtype):
        self._device = empty(shape, dtype)
        self._slots = [_lent(k, shape, dtype) for k in range(2)]

    def next(self) -> np.ndarray:
        """The host's array to fill next."""
        self._slots.reverse()
        self._slots[0].wait()
        return self._slots[0].array

    def send(self):
        """Begin to send it; returns the device array, which the next one overwrites."""
        self._slots[0].send(self._device)
        return self._device


def _lent(slot: int, shape, dtype) -> Pinned:
    """A pinned buffer that this host thread keeps, for all that it sends."""
    kept = _here.__dict__.setdefault("pinned", {})
    key = slot, tuple(shape), np.dtype(dtype)
    if key not in kept:
        if len(kept) >= 8:
            kept.clear()  # who still has one keeps it
        kept[key] = Pinned(shape, dtype)
    return kept[key]


def _borrow(size: int) -> np.ndarray:
    with _lock:
        fitting = [i for i, a in enumerate(_free) if size <= a.nbytes <= 4 * size + 4096]
        if fitting:
            return _free.pop(min(fitting, key=lambda i: _free[i].nbytes))
    size = max(size, 1)
    return np.empty(size, np.uint8) if SIMULATED else cuda.pinned_array(size, np.uint8)
