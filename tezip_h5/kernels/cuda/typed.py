"""Functions that the processor's kernels and the device's share.

numba's CUDA compiler takes the plain function, and what that calls may be decorated for the
processor. The simulator would run it as Python, a thousand times slower, and with Python's
numbers; there the processor's kernel of the same function is called instead, on copies that lie as
it wants them. What is tested in the simulator is all that is around such a function, and that
they compile for the device is tested apart.
"""

from __future__ import annotations

from inspect import signature

import numpy as np
from numba import cuda

from tezip_h5.kernels.cuda.launch import SIMULATED

__all__ = ["shared"]


def shared(function, compiled):
    """A function that kernels of the device call.

    Parameters
    ----------
    function : callable
        For the device.
    compiled : callable
        The same for the processor: with parameters of the same names.

    Raises
    ------
    TypeError
        The parameters have other names.
    """
    names = [list(signature(getattr(f, "py_func", f)).parameters) for f in (function, compiled)]
    if names[0] != names[1]:
        raise TypeError(f"the device is given {names[0]}, and the processor {names[1]}")
    if not SIMULATED:
        return cuda.jit(device=True)(function)

    def on_copies(*arguments):
        pairs = []
        result = compiled(*(_copied(argument, pairs) for argument in arguments))
        # What was written, before any is: arrays that nobody looks at may lie where others do.
        written = [array != copy for array, copy in pairs]
        for (array, copy), where in zip(pairs, written, strict=True):
            np.copyto(array, copy, where=where)
        return result

    return on_copies


def _copied(value, pairs):
    """A value with copies of its arrays, numpy's, which are noted beside these."""
    if isinstance(value, tuple):
        return tuple(_copied(part, pairs) for part in value)
    value = getattr(value, "_item", value)
    value = getattr(value, "_ary", value)
    if isinstance(value, np.ndarray):
        pairs.append((value, value.copy()))
        return pairs[-1][1]
    return value
