"""numpy's functions of scalars for the device, where numba has none: operators, in 64 bits.

``linear/sample.py`` is written with numpy's, which keep to 32 bits where its kernels want that.
`of` makes functions of such a module functions of the device, so that they are written once. In
the simulator they are the processor's.
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
    """`function`, compiled for the processor's kernels, for those of the device.

    Everything in it must be int64. Functions that it calls become the device's, too.
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
    """An array of the simulator as numpy's; anything else as it is."""
    value = getattr(value, "_item", value)
    return getattr(value, "_ary", value)
