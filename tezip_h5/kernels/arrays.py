"""Arrays wherever they lie: numpy's on the host ("cpu"), numba's on a CUDA device ("cuda").

What stages need besides kernels, so that data stay where they are.
"""

from __future__ import annotations

import numpy as np

from tezip_h5 import kernels

__all__ = ["at", "convert", "copy", "device_of", "empty", "extremes"]


def device_of(array) -> str:
    """ "cpu" for numpy's arrays, else "cuda"."""
    return "cpu" if isinstance(array, np.ndarray) else "cuda"


def empty(device: str, shape, dtype=np.int32):
    """An array with anything in it."""
    if device == "cpu":
        return np.empty(shape, dtype)
    return kernels.load("cuda.memory").empty(shape, dtype)


def at(array, device: str):
    """The array itself where it lies on `device`, else a copy of it there."""
    if device_of(array) == device:
        return array
    memory = kernels.load("cuda.memory")
    return memory.to_host(array) if device == "cpu" else memory.to_device(array)


def convert(array, dtype):
    """A copy with another integer type, which holds every value."""
    if device_of(array) == "cpu":
        return array.astype(dtype)
    out = kernels.load("cuda.memory").empty(tuple(array.shape), dtype)
    kernels.load("cuda").convert(array.reshape(-1), out.reshape(-1))
    return out


def copy(source, target) -> None:
    """Copy between two int32 arrays of the same shape that lie in the same place."""
    if device_of(source) == "cpu":
        np.copyto(target, source)
    else:
        kernels.load("cuda").convert(source.reshape(-1), target.reshape(-1))


def extremes(array) -> tuple[int, int]:
    """Smallest and largest value of an int32 array; it must not be empty."""
    if device_of(array) == "cpu":
        return int(array.min()), int(array.max())
    return kernels.load("cuda").extremes(array.reshape(-1))
