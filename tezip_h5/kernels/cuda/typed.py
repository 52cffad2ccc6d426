"""Functions that kernels for the CPU and kernels for the device share.

numba's CUDA compiler takes the plain function. The functions that it calls may be decorated for
the CPU. The simulator would run the plain function as Python code, a thousand times slower, and
with Python's numbers. So in the simulator, the kernel that was compiled for the CPU is called
instead, on contiguous copies of arrays. Tests in the simulator therefore test everything around
such a function. Another test makes sure that these functions compile for the device.
"""

from __future__ import annotations

from inspect import signature

import numpy as np
from numba import cuda

from tezip_h5.kernels.cuda.launch import SIMULATED

__all__ = ["shared"]


def shared(function, compiled):
    """Make a function that kernels for the device can call.

    Parameters
    ----------
    function : callable
        The plain function, which is compiled for the device.
    compiled : callable
        The same function, compiled for the CPU. Its parameters must have the same names.

    Raises
    ------
    TypeError
        If the names of the parameters differ.
    """
    names = [list(signature(getattr(f, "py_func", f)).parameters) for f in (function, compiled)]
    if names[0] != names[1]:
        raise TypeError(f"the device is given {names[0]}, and the processor {names[1]}")
    if not SIMULATED:
        return cuda.jit(device=True)(function)

    def on_copies(*arguments):
        pairs = []
        result = compiled(*(_copied(argument, pairs) for argument in arguments))
        # Find all arrays that were written before copying any back, because an unused array may
        # share memory with another.
        written = [array != copy for array, copy in pairs]
        for (array, copy), where in zip(pairs, written, strict=True):
            np.copyto(array, copy, where=where)
        return result

    return on_copies


def _copied(value, pairs):
    """A value with its arrays replaced by numpy copies; `pairs` receives each array and copy."""
    if isinstance(value, tuple):
        return tuple(_copied(part, pairs) for part in value)
    value = getattr(value, "_item", value)
    value = getattr(value, "_ary", value)
    if isinstance(value, np.ndarray):
        pairs.append((value, value.copy()))
        return pairs[-1][1]
    return value
