"""Logistic distributions of the sample around predictions, as inputs of the context mixing.

The idea is from Meyer, Tischer, *TMW*, 1997. All arithmetic is in integers, so that every machine
computes the same.
"""

from __future__ import annotations

import numpy as np
from numba import int64

from tezip_h5.kernels.compiling import inlined

CURVE_BITS, _CURVE_STEP = 40, 64  # fraction bits of probabilities; table entries per unit
_CURVE_MOST = 20 * _CURVE_STEP  # the last entry on either side of the centre


def _curve() -> np.ndarray:
    """The table CURVE[z + 1280] = 2**40 / (1 + exp(z / 64)): tails of the logistic distribution."""
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
"""Indices of the numbers of a distribution: its centre, in 1/64 symbols; its sharpness, which is
2**16 / its scale in symbols; and the probabilities of lying beyond three edges."""


@inlined
def place_curve(curves, m, off_centre, per_step, times, missed, finer):
    """Set centre and sharpness of distribution `m`.

    `off_centre` is the distance of its centre from the centre of symbol 0, in 1/64 levels. The
    sharpness comes from misses, the errors of predictions nearby. `missed` is the sum of `times` /
    1.4 misses, in 1/64 symbols with `finer` more bits.
    """
    curves[m, CENTRE] = (off_centre * per_step) >> 24
    curves[m, SHARPNESS] = (int64(64 * times) << (16 + finer)) // (missed + (40 << finer))


@inlined
def repeat_curve(curves, m, other):
    """Copy distribution `other` to distribution `m`."""
    for i in range(5):
        curves[m, i] = curves[other, i]


@inlined
def beyond(tail, curve, edge, sign):
    """The probability, in units of 2**-40, that a symbol lies beyond `edge` / 2.

    It is the probability of a larger symbol if `sign` is 1. If `sign` is -1, it is that of a
    symbol below -`edge` / 2. `tail` is `CURVE`.
    """
    z = ((edge * 32 - sign * curve[CENTRE]) * curve[SHARPNESS]) >> 16
    return tail[min(max(z, -_CURVE_MOST), _CURVE_MOST) + _CURVE_MOST]
