"""Logistic distributions of the residual around predictions, as inputs of the context mixing.

Their use: Meyer, Tischer, *TMW*, 1997. All in integers, so that every machine computes the same.
"""

from __future__ import annotations

import numpy as np
from numba import int64

from tezip_h5.kernels.compiling import inlined

CURVE_BITS, _CURVE_STEP = 40, 64
_CURVE_MOST = 20 * _CURVE_STEP


def _curve() -> np.ndarray:
    """CURVE[z + 1280] = 2**40 / (1 + exp(z / 64)), the logistic distribution's tail."""
    one = 1 << 96
    ratio, term, n = 0, one, 0
    while term:  # the series of exp(-1/64)
        ratio += -term if n % 2 else term
        n += 1
        term //= _CURVE_STEP * n
    tails = np.zeros(2 * _CURVE_MOST + 1, np.int64)
    power = one
    for z in range(_CURVE_MOST + 1):
        value = (power << CURVE_BITS) // (one + power)
        tails[_CURVE_MOST + z], tails[_CURVE_MOST - z] = value, (1 << CURVE_BITS) - value
        power = power * ratio >> 96
    return tails


CURVE = _curve()
CENTRE, SHARPNESS, NEARER, FARTHER, BETWEEN = range(5)
"""Places of a distribution: its centre in 1/64 symbols, 2**16 over its scale in symbols, and the
chances of lying beyond three edges."""


@inlined
def place_curve(curves, m, off_centre, per_step, times, missed, finer):
    """Distribution `m`, centred `off_centre` (in 1/64 levels) beside the symbols' centre, the
    sharper the less was missed: `missed` is a sum of `times` / 1.4 misses, in 1/64 symbols with
    `finer` more bits."""
    curves[m, CENTRE] = (off_centre * per_step) >> 24
    curves[m, SHARPNESS] = (int64(64 * times) << (16 + finer)) // (missed + (40 << finer))


@inlined
def repeat_curve(curves, m, other):
    """Distribution `m` as `other`."""
    for i in range(5):
        curves[m, i] = curves[other, i]


@inlined
def beyond(tail, curve, edge, sign):
    """Chance, of 2**40, of lying more than `edge` / 2 symbols up (sign 1) or down (-1); `tail` is
    `CURVE`."""
    z = ((edge * 32 - sign * curve[CENTRE]) * curve[SHARPNESS]) >> 16
    return tail[min(max(z, -_CURVE_MOST), _CURVE_MOST) + _CURVE_MOST]
