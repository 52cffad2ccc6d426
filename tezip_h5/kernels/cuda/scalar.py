"""numpy's functions of scalars for the device, where numba does not have them.

``linear/sample.py`` is written with numpy's functions, because they keep to 32 bits where its CPU
kernels need that. Here they are defined as operators in 64 bits. `of` converts functions that use
them to device functions, so that they need to be written only once. In the simulator, the
functions for the CPU are called.
"""

from __future__ import annotations

import sys
import types

from numba.core.dispatcher import Dispatcher

from tezip_h5.kernels.cuda.launch import SIMULATED, device

__all__ = ["of"]


@device
def add(a, b):
    return a + b


@device
def subtract(a, b):
    return a - b


@device
def multiply(a, b):
    return a * b


@device
def minimum(a, b):
    return min(a, b)


@device
def maximum(a, b):
    return max(a, b)


@device
def bitwise_and(a, b):
    return a & b


@device
def bitwise_or(a, b):
    return a | b


@device
def left_shift(a, b):
    return a << b


@device
def right_shift(a, b):
    return a >> b


def of(function):
    """Convert a function that was compiled for CPU kernels to a device function.

    All its numbers must be int64. Functions that it calls are converted, too.
    """
    if SIMULATED:
        return lambda *arguments: function(*map(_plain, arguments))
    plain = function.py_func
    names = dict(plain.__globals__, np=sys.modules[__name__])
    for name in plain.__code__.co_names:
        if isinstance(names.get(name), Dispatcher):
            names[name] = of(names[name])
    return device(types.FunctionType(plain.__code__, names, plain.__name__))


def _plain(value):
    """An array of the simulator as a numpy array; other values as they are."""
    value = getattr(value, "_item", value)
    return getattr(value, "_ary", value)
