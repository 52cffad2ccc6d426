"""Functions for arrays in either memory: numpy arrays on the host, numba arrays on a CUDA device.

The host is called "cpu" and the device "cuda". With these functions and the kernels, stages can
work on data without moving them.
"""

from __future__ import annotations

import numpy as np

from tezip_h5 import kernels

__all__ = ["at", "convert", "copy", "device_of", "empty", "extremes"]


def device_of(array) -> str:
    """The memory that an array lies in: "cpu" for numpy arrays, else "cuda"."""
    return "cpu" if isinstance(array, np.ndarray) else "cuda"


def empty(device: str, shape, dtype=np.int32):
    """A new array with undefined content."""
    if device == "cpu":
        return np.empty(shape, dtype)
    return kernels.load("cuda.memory").empty(shape, dtype)


def at(array, device: str):
    """The array itself if it lies on `device`, else a copy of it on `device`."""
    if device_of(array) == device:
        return array
    memory = kernels.load("cuda.memory")
    return memory.to_host(array) if device == "cpu" else memory.to_device(array)


def convert(array, dtype):
    """A copy with another integer dtype, which must hold all values."""
    if device_of(array) == "cpu":
        return array.astype(dtype)
    out = kernels.load("cuda.memory").empty(tuple(array.shape), dtype)
    kernels.load("cuda").convert(array.reshape(-1), out.reshape(-1))
    return out


def copy(source, target) -> None:
    """Copy one int32 array to another of the same shape, in the same memory."""
    if device_of(source) == "cpu":
        np.copyto(target, source)
    else:
        kernels.load("cuda").convert(source.reshape(-1), target.reshape(-1))


def extremes(array) -> tuple[int, int]:
    """The smallest and the largest value of an int32 array, which must not be empty."""
    if device_of(array) == "cpu":
        return int(array.min()), int(array.max())
    return kernels.load("cuda").extremes(array.reshape(-1))
