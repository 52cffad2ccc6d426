"""The encoder kernel of the linear coder for lossless planes, computed row by row.

All reconstructed samples are known beforehand, so the samples of a row are computed in parallel.
"""

from __future__ import annotations

import numba
import numpy as np

from tezip_h5.kernels.compiling import inlined, kernel
from tezip_h5.kernels.linear.emit import (
    BLOCK,
    CONTEXT,
    FIELDS,
    MODEL,
    SIZE,
    SYMBOL,
    emit,
)
from tezip_h5.kernels.linear.plan import (
    CHANNEL,
    HIGH,
    LANES,
    LARGEST,
    LOW,
    SCALE,
    SHIFT,
    SIDE,
    SIDE_OWN,
    SMALL,
    WIDEST,
    expect,
    fold_of,
    surround,
    surroundings,
    weights_of,
)
from tezip_h5.kernels.linear.sample import context_of, pattern_of, rules_of, value_of


@inlined
def _symbols(kind, y, first, count, own, plan, rules, guess, fields):
    """Compute symbols, their magnitudes and patterns of contexts of the columns from `first` on."""
    frame, before, _, _ = own
    channel = plan[CHANNEL]
    row, above_row = frame[channel, y + 2][first:], frame[channel, y + 1][first:]
    past_row, past_above = before[channel, y + 2][first:], before[channel, y + 1][first:]
    guess = guess[first:]
    numbers = weights_of(plan, y)
    weights = (
        kind(numbers[0]),
        kind(numbers[1]),
        kind(numbers[2]),
        kind(numbers[3]),
        kind(numbers[4]),
        kind(numbers[5]),
    )
    low, high, scale = kind(plan[LOW]), kind(plan[HIGH]), kind(plan[SCALE])
    shift, fold, largest = kind(SHIFT), kind(fold_of(plan)), kind(LARGEST)
    for i in range(count):
        near = (
            kind(row[i + 1]),
            kind(row[i]),
            kind(above_row[i + 2]),
            kind(above_row[i + 1]),
            kind(above_row[i + 3]),
        )
        past = (
            kind(past_row[i + 2]),
            kind(past_row[i + 1]),
            kind(past_above[i + 2]),
            kind(past_above[i + 1]),
        )
        value = value_of(guess[i], weights, near, past, rules)
        prediction = np.minimum(np.maximum(np.right_shift(value, shift), low), high)
        pattern = pattern_of(kind, value, prediction, prediction, near, past[0], rules)
        cell = np.subtract(kind(row[i + 2]), prediction)
        magnitude = np.absolute(cell)
        fields[CONTEXT + i] = pattern
        fields[SYMBOL + i] = np.subtract(np.left_shift(magnitude, fold), kind(cell < 0))
        fields[SIZE + i] = np.minimum(np.right_shift(magnitude, scale), largest)


@inlined
def _activities(kind, y, first, count, own, plan, energy, fields):
    """Compute activities from `energy` (see `surroundings`) and the magnitudes left and above."""
    magnitudes, channel = own[2], plan[CHANNEL]
    row, above = magnitudes[channel, y + 2][first:], magnitudes[channel, y + 1][first:]
    energy = energy[first:]
    factor = np.int32(3 if plan[SIDE] == SIDE_OWN else 2)
    for i in range(count):
        near = np.int32(2 * (row[i + 1] + above[i + 2]) + above[i + 1] + above[i + 3])
        total = np.int32(energy[i] + np.int32(factor * near))
        activity = min(kind(total >> 2), kind(WIDEST))
        fields[CONTEXT + i] = context_of(kind, activity, fields[CONTEXT + i])


@numba.njit(nogil=True)
def _model(kind, levels, own, taps, plan, classes, found, bits, filled):
    symbols, contexts, counts = found
    height, width = levels.shape
    surround(levels, own[0][plan[CHANNEL]])
    guess, fields = np.empty(width, kind), np.empty(FIELDS, kind)
    sums, energy = np.empty(width, np.int32), np.empty(width, np.int32)
    rules = rules_of(kind, plan)
    for y in range(height):
        expect(y, own, plan, taps, sums, guess)
        surroundings(y, own, plan, energy)
        sizes = own[2][plan[CHANNEL], y + 2]
        for first in range(0, width, BLOCK):
            end = min(first + BLOCK, width)
            _symbols(kind, y, first, end - first, own, plan, rules, guess, fields)
            block = sizes[first + 2 : end + 2]
            for i in range(block.size):
                block[i] = fields[SIZE + i]
            _activities(kind, y, first, end - first, own, plan, energy, fields)
            lane = y % LANES
            filled[lane] = emit(
                fields,
                classes,
                symbols[y, first:end],
                contexts[y, first:end],
                counts,
                bits[lane],
                filled[lane],
            )


@kernel(MODEL)
def model(levels, own, taps, plan, classes, found, bits, filled):
    """Encode a lossless plane, as `emit.MODEL` describes."""
    if plan[SMALL]:
        _model(np.int32, levels, own, taps, plan, classes, found, bits, filled)
    else:
        _model(np.int64, levels, own, taps, plan, classes, found, bits, filled)
