"""Arrays in a GPU's memory, whoever made them: to the host and back.

Arrays of CuPy, PyTorch and numba have ``__cuda_array_interface__``, numba's protocol for arrays on
a GPU (version 3). Bounds, checksums and file output are computed on the host, so frames of such an
array are copied there, only those that are asked for.
"""

from __future__ import annotations

import importlib

import numpy as np

from tezip_h5 import devices, failover
from tezip_h5.errors import InputError

__all__ = ["OnGpu", "is_gpu_array", "to_device", "to_host"]


def is_gpu_array(array) -> bool:
    """Whether the array lies in a GPU's memory (or in that of numba's simulator)."""
    return hasattr(array, "__cuda_array_interface__") or getattr(array, "__cuda_ndarray__", False)


def to_host(array) -> np.ndarray:
    """A copy in the host's memory of an array on a GPU; anything else through ``np.asarray``.

    Raises
    ------
    InputError
        When the array's GPU cannot be reached from here.
    """
    if not is_gpu_array(array):
        return np.asarray(array)
    for name in ("copy_to_host", "get"):  # numba's, CuPy's
        if callable(getattr(array, name, None)):
            return np.asarray(getattr(array, name)())
    if callable(getattr(array, "cpu", None)):  # PyTorch's
        return np.asarray(array.cpu())
    found = devices.status()
    if not found.usable:
        raise InputError(
            f"a {type(array).__name__} lies in a GPU's memory, but {found.reason}: {found.advice}; "
            "or copy it to the host yourself"
        )
    if found.simulated:
        return np.array(_Simulated(array))
    return importlib.import_module("numba.cuda").as_cuda_array(array).copy_to_host()


class _Simulated:
    """An array of numba's simulator, whose GPU memory is the host's memory."""

    def __init__(self, array):
        self.__array_interface__ = dict(array.__cuda_array_interface__)


def to_device(array: np.ndarray):
    """A copy in the GPU's memory, of the same shape and dtype.

    If there can be none, returns the array itself, with a `devices.DeviceWarning`.
    """
    array = np.ascontiguousarray(array).reshape(np.shape(array))  # which makes 0-d arrays 1-d

    def work(device: str):
        if device == "cpu":
            return array
        return importlib.import_module("numba.cuda").to_device(array)

    return failover.run(work, "cuda")


class OnGpu:
    """An array on a GPU that is sliced like any array; each slice is copied to the host.

    Parameters
    ----------
    array : object with ``__cuda_array_interface__`` that can be sliced

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy dtype
    """

    def __init__(self, array):
        self._array = array
        interface = getattr(array, "__cuda_array_interface__", None)
        self.shape = tuple(int(n) for n in array.shape)
        self.dtype = np.dtype(array.dtype if interface is None else interface["typestr"])

    def __getitem__(self, index) -> np.ndarray:
        return to_host(self._array[index])

    def __len__(self):
        return self.shape[0]
