"""What the linear coder computes of a sample, for kernels that compute many side by side.

`kind` is int32 or int64, whichever holds the predictions of a plane. numpy's functions keep to
the width of their arguments, which operators widen to 64 bits; so compilers can vectorize.
"""

from __future__ import annotations

import numpy as np

from tezip_h5.kernels.compiling import inlined
from tezip_h5.kernels.linear.plan import DRIFT, FINE, FRACTIONS, SHIFT, SIDE, SIDE_BEFORE

__all__ = [
    "ACTIVITY",
    "PATTERN",
    "compared",
    "context_of",
    "pattern_of",
    "rules_of",
    "value_of",
    "weighted",
]

ACTIVITY = 9  # bits below an activity
PATTERN = (1 << ACTIVITY) - 1  # of a pattern


@inlined
def context_of(kind, activity, pattern):
    """Both in one number: what has a context looks up the class of its activity later."""
    return np.bitwise_or(np.left_shift(activity, kind(ACTIVITY)), pattern)


@inlined
def rules_of(kind, plan):
    """What of a plan `value_of` and `pattern_of` want to know, as masks."""
    return (
        kind(-plan[DRIFT]),
        kind(-1 if plan[SIDE] == SIDE_BEFORE else 0),
        kind(3 if plan[FINE] else 0),
        kind(0 if plan[FINE] else 3),
    )


@inlined
def weighted(total, weight, sample):
    return np.add(total, np.multiply(weight, sample))


@inlined
def compared(kind, sample, lowest, highest):
    """0, 1 or 2: below, between, above."""
    return np.add(kind(sample >= lowest), kind(sample > highest))


@inlined
def _median(a, b, c):
    d = np.subtract(np.add(a, b), c)
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), d))


@inlined
def value_of(known, weights, near, past, rules):
    """A prediction, with its fraction, before it is clipped.

    `known` comes from rows and frames before; `weights` are those of `near` (W, WW, N, NW, NE)
    and of the median; `past` are the frame before's samples here and at W, N, NW.
    """
    drift = rules[0]
    left, left2, above, corner, right = near
    now, past_left, past_above, past_corner = past
    change = _median(
        np.subtract(left, np.bitwise_and(past_left, drift)),
        np.subtract(above, np.bitwise_and(past_above, drift)),
        np.subtract(corner, np.bitwise_and(past_corner, drift)),
    )
    value = weighted(known, weights[0], left)
    value = weighted(value, weights[1], left2)
    value = weighted(value, weights[2], above)
    value = weighted(value, weights[3], corner)
    value = weighted(value, weights[4], right)
    return weighted(value, weights[5], np.add(change, np.bitwise_and(now, drift)))


@inlined
def pattern_of(kind, value, lowest, highest, near, now, rules):
    """How the neighbours compare with a prediction, and the last digit of its context."""
    _, compare_past, fraction, ending = rules
    left, left2, above, corner, right = near
    other = np.bitwise_and(now, compare_past)
    other = np.bitwise_or(other, np.bitwise_and(corner, kind(~compare_past)))
    three = kind(3)
    pattern = compared(kind, left, lowest, highest)
    pattern = weighted(compared(kind, above, lowest, highest), three, pattern)
    pattern = weighted(compared(kind, right, lowest, highest), three, pattern)
    pattern = weighted(compared(kind, other, lowest, highest), three, pattern)
    last = np.bitwise_and(np.right_shift(value, kind(SHIFT - 2)), fraction)
    of_left2 = np.bitwise_and(compared(kind, left2, lowest, highest), ending)
    return weighted(np.bitwise_or(last, of_left2), kind(FRACTIONS), pattern)
