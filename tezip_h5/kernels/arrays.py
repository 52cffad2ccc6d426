"""Arrays wherever they lie: numpy's on the host, numba's on a CUDA device.

What stages need besides kernels, so that data stay where they are.
"""

from __future__ import annotations

import numpy as np

from tezip_h5 import kernels

__all__ = ["convert", "copy", "empty", "extremes", "on_host", "to_host"]


def on_host(array) -> bool:
    """Whether it is a numpy array."""
    return isinstance(array, np.ndarray)


def empty(like, shape, dtype=np.int32):
    """An array with anything in it, where `like` lies."""
    if on_host(like):
        return np.empty(shape, dtype)
    return kernels.load("cuda_memory").empty(shape, dtype)


def to_host(array) -> np.ndarray:
    """The array itself, or a copy of it on the host."""
    return array if on_host(array) else kernels.load("cuda_memory").to_host(array)


def convert(array, dtype):
    """A copy with another integer type, which holds every value."""
    if on_host(array):
        return array.astype(dtype)
    out = kernels.load("cuda_memory").empty(array.shape, dtype)
    kernels.load("cuda").convert(array.reshape(-1), out.reshape(-1))
    return out


def copy(source, target) -> None:
    """Copy between two arrays of the same shape and dtype that lie in the same place."""
    if on_host(source):
        np.copyto(target, source)
    else:
        kernels.load("cuda").convert(source.reshape(-1), target.reshape(-1))


def extremes(array) -> tuple[int, int]:
    """Smallest and largest value of an int32 array; it must not be empty."""
    if on_host(array):
        return int(array.min()), int(array.max())
    return kernels.load("cuda").extremes(array.reshape(-1))
