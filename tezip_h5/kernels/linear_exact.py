"""Kernels of the linear coder's encoder for samples that are exact, row by row.

Nothing then waits for the sample before to be quantized: all of a row is computed side by side, in
32 bits where predictions fit.
"""

from __future__ import annotations

import numba
import numpy as np

from tezip_h5.kernels.compiling import inlined
from tezip_h5.kernels.linear import (
    CHANNEL,
    DRIFT,
    FINE,
    FRACTIONS,
    HIGH,
    LARGEST,
    LOW,
    SCALE,
    SHIFT,
    SIDE,
    SIDE_BEFORE,
    SIDE_OWN,
    WIDEST,
    _expect,
    _surroundings,
    _weights,
    surround,
)
from tezip_h5.kernels.linear_emit import BLOCK, ENERGY, FIELDS, PATTERN, SIZE, SYMBOL, emit


@inlined
def _weighted(total, weight, sample):
    return np.add(total, np.multiply(weight, sample))


@inlined
def _compared(kind, sample, guess):
    """0, 1 or 2: below, the same, above."""
    return np.add(kind(sample >= guess), kind(sample > guess))


@inlined
def _median(a, b, c):
    d = np.subtract(np.add(a, b), c)
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), d))


@inlined
def _symbols(kind, y, first, count, own, plan, guess, fields):
    """Symbols, their magnitudes and the patterns of contexts in columns from `first` on.

    numpy's functions keep to their arguments' width, operators do not.
    """
    frame, before, _, _ = own
    channel = plan[CHANNEL]
    row, above_row = frame[channel, y + 2][first:], frame[channel, y + 1][first:]
    past_row, past_above = before[channel, y + 2][first:], before[channel, y + 1][first:]
    guess = guess[first:]
    weights = _weights(plan, y)
    w_left, w_left2, w_above = kind(weights[0]), kind(weights[1]), kind(weights[2])
    w_corner, w_right, w_median = kind(weights[3]), kind(weights[4]), kind(weights[5])
    low, high, scale = kind(plan[LOW]), kind(plan[HIGH]), kind(plan[SCALE])
    drift, compare_past = kind(-plan[DRIFT]), kind(-(plan[SIDE] == SIDE_BEFORE))
    compare_corner = kind(~compare_past)
    fraction, last = kind(3 * (plan[FINE] != 0)), kind(3 * (plan[FINE] == 0))
    shift, shorter, one, three = kind(SHIFT), kind(SHIFT - 2), kind(1), kind(3)
    fractions, largest = kind(FRACTIONS), kind(LARGEST)
    for i in range(count):
        left, left2 = kind(row[i + 1]), kind(row[i])
        above, corner = kind(above_row[i + 2]), kind(above_row[i + 1])
        right, now = kind(above_row[i + 3]), kind(past_row[i + 2])
        change = _median(
            np.subtract(left, np.bitwise_and(kind(past_row[i + 1]), drift)),
            np.subtract(above, np.bitwise_and(kind(past_above[i + 2]), drift)),
            np.subtract(corner, np.bitwise_and(kind(past_above[i + 1]), drift)),
        )
        value = _weighted(guess[i], w_left, left)
        value = _weighted(value, w_left2, left2)
        value = _weighted(value, w_above, above)
        value = _weighted(value, w_corner, corner)
        value = _weighted(value, w_right, right)
        value = _weighted(value, w_median, np.add(change, np.bitwise_and(now, drift)))
        prediction = np.minimum(np.maximum(np.right_shift(value, shift), low), high)
        other = np.bitwise_and(now, compare_past)
        other = np.bitwise_or(other, np.bitwise_and(corner, compare_corner))
        ending = np.bitwise_and(np.right_shift(value, shorter), fraction)
        before_left = np.bitwise_and(_compared(kind, left2, prediction), last)
        ending = np.bitwise_or(ending, before_left)
        pattern = _compared(kind, left, prediction)
        pattern = _weighted(_compared(kind, above, prediction), three, pattern)
        pattern = _weighted(_compared(kind, right, prediction), three, pattern)
        pattern = _weighted(_compared(kind, other, prediction), three, pattern)
        fields[PATTERN + i] = _weighted(ending, fractions, pattern)
        cell = np.subtract(kind(row[i + 2]), prediction)
        magnitude = np.absolute(cell)
        fields[SYMBOL + i] = np.subtract(np.left_shift(magnitude, one), kind(cell < 0))
        fields[SIZE + i] = np.minimum(np.right_shift(magnitude, scale), largest)


@inlined
def _activities(kind, y, first, count, own, plan, energy, fields):
    """Activities: what `_surroundings` says in `energy`, and the magnitudes beside and above."""
    magnitudes, channel = own[2], plan[CHANNEL]
    row, above = magnitudes[channel, y + 2][first:], magnitudes[channel, y + 1][first:]
    energy = energy[first:]
    factor = np.int32(3 if plan[SIDE] == SIDE_OWN else 2)
    for i in range(count):
        near = np.int32(2 * (row[i + 1] + above[i + 2]) + above[i + 1] + above[i + 3])
        total = np.int32(energy[i] + np.int32(factor * near))
        fields[ENERGY + i] = min(kind(total >> 2), kind(WIDEST))


@numba.njit(nogil=True)
def exact(kind, levels, own, taps, plan, classes, found, bits, filled):
    """`model` of a plane; `kind` is a type of integers that predictions fit in."""
    symbols, contexts, counts = found
    height, width = levels.shape
    surround(levels, own[0][plan[CHANNEL]])
    guess, fields = np.empty(width, kind), np.empty(FIELDS, kind)
    sums, energy = np.empty(width, np.int32), np.empty(width, np.int32)
    for y in range(height):
        _expect(y, own, plan, taps, sums, guess)
        _surroundings(y, own, plan, energy)
        sizes = own[2][plan[CHANNEL], y + 2]
        for first in range(0, width, BLOCK):
            end = min(first + BLOCK, width)
            _symbols(kind, y, first, end - first, own, plan, guess, fields)
            block = sizes[first + 2 : end + 2]
            for i in range(block.size):
                block[i] = fields[SIZE + i]
            _activities(kind, y, first, end - first, own, plan, energy, fields)
            filled[y & 1] = emit(
                fields,
                classes,
                symbols[y, first:end],
                contexts[y, first:end],
                counts,
                bits[y & 1],
                filled[y & 1],
            )
