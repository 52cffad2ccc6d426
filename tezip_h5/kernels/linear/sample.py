"""Functions of the linear coder for one sample, for kernels that vectorize over samples.

`kind` is int32 or int64, whichever holds the predictions of a plane. In numba, operators widen
their arguments to 64 bits. numpy's functions do not, so they are used here; that lets the compiler
vectorize.
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

ACTIVITY = 9  # a number from `context_of` has an activity above this many bits
PATTERN = (1 << ACTIVITY) - 1  # and a pattern in these bits


@inlined
def context_of(kind, activity, pattern):
    """Put an activity and a pattern into one number. The class of the activity is found later."""
    return np.bitwise_or(np.left_shift(activity, kind(ACTIVITY)), pattern)


@inlined
def rules_of(kind, plan):
    """The parameters of a plan for `value_of` and `pattern_of`, as bit masks."""
    return (
        kind(-plan[DRIFT]),
        kind(-1 if plan[SIDE] == SIDE_BEFORE else 0),
        kind(3 if plan[FINE] else 0),
        kind(0 if plan[FINE] else 3),
    )


@inlined
def weighted(total, weight, sample):
    """total + weight * sample."""
    return np.add(total, np.multiply(weight, sample))


@inlined
def compared(kind, sample, lowest, highest):
    """0, 1 or 2 if a sample is below, within or above the range lowest..highest."""
    return np.add(kind(sample >= lowest), kind(sample > highest))


@inlined
def _median(a, b, c):
    """The median of a, b and a + b - c."""
    d = np.subtract(np.add(a, b), c)
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), d))


@inlined
def value_of(known, weights, near, past, rules):
    """Compute a prediction with fraction bits, not yet clipped.

    `known` is the part from earlier rows and frames. `weights` are those of `near` (W, WW, N, NW,
    NE) and of the median. `past` are the samples of the last frame here and at W, N, NW.
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
    """The pattern of a context: comparisons of neighbours with the prediction, and a last digit.

    The last digit is the fraction of the prediction, or one more comparison.
    """
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
