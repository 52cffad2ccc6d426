"""The encoder kernel of the linear coder for planes with a tolerance, computed as a wave.

Here predictions use reconstructed samples (a closed loop), so samples depend on each other.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import int32, int64, uint64
from numba.extending import overload

from tezip_h5.kernels.compiling import inlined, kernel
from tezip_h5.kernels.linear.emit import CONTEXT as ROW_CONTEXT
from tezip_h5.kernels.linear.emit import FIELDS as ROW_FIELDS
from tezip_h5.kernels.linear.emit import MODEL, emit
from tezip_h5.kernels.linear.emit import SYMBOL as ROW_SYMBOL
from tezip_h5.kernels.linear.plan import (
    CHANNEL,
    HIGH,
    LARGEST,
    LOW,
    SCALE,
    SMALL,
    TOLERANCE,
    border,
    fold_of,
    repeat_last,
)
from tezip_h5.kernels.linear.sample import rules_of
from tezip_h5.kernels.linear.wave import (
    ACTIVE,
    CONTEXT,
    END,
    FIELD,
    LANES,
    LINE,
    NOW,
    PREDICTION,
    SAMPLES,
    SIZES,
    STEPS,
    begin,
    bring,
    deliver,
    extent,
    fetch,
    foretell,
    gather,
    go_on,
    mend,
)

# Fields of the wave: the original levels, and the symbols and contexts that are found.
LEVEL, SYMBOL, CONTEXTS = range(END, END + 3 * FIELD, FIELD)
WAVE = END + 3 * FIELD


def _quotient(numerator, stride):
    """The quotient of two numbers >= 0. If they are int32, they have at most 20 bits."""


@overload(_quotient)
def _quotient_of(numerator, stride):
    if numerator == int32:
        # Floats give the exact quotient: (numerator + 1/2) / stride is at least 1/2 / stride away
        # from any integer, and two roundings change it by less.
        return lambda numerator, stride: np.int32(
            (np.float32(numerator) + np.float32(0.5)) * (np.float32(1) / np.float32(stride))
        )
    return lambda numerator, stride: int64(uint64(numerator) // uint64(stride))


@inlined
def _quantize(kind, wave, now, plan):
    """Compute symbols, samples and magnitudes of a step from levels and predictions.

    Where a level is below the lowest level, any sample is allowed, and the prediction is taken.
    """
    low, high, scale = kind(plan[LOW]), kind(plan[HIGH]), kind(plan[SCALE])
    tolerance, stride = kind(plan[TOLERANCE]), kind(2 * plan[TOLERANCE] + 1)
    zero, fold, largest = kind(0), kind(fold_of(plan)), kind(LARGEST)
    for i in range(LANES):
        lane = uint64(i)
        prediction = wave[uint64(PREDICTION) + lane]
        level = wave[now + uint64(LEVEL) + lane]
        residual = np.subtract(level, prediction)
        size = _quotient(np.add(np.absolute(residual), tolerance), stride)
        size = np.bitwise_and(size, np.subtract(zero, kind(level >= low)))
        sign = np.subtract(zero, kind(residual < zero))
        cell = np.subtract(np.bitwise_xor(size, sign), sign)
        sample = np.add(prediction, np.multiply(cell, stride))
        wave[now + uint64(SAMPLES) + lane] = np.minimum(np.maximum(sample, low), high)
        wave[now + uint64(SYMBOL) + lane] = np.subtract(
            np.left_shift(size, fold), kind(cell < zero)
        )
        wave[now + uint64(CONTEXTS) + lane] = wave[uint64(CONTEXT) + lane]
        size = np.minimum(np.right_shift(size, scale), largest)
        wave[now + uint64(SIZES) + lane] = np.bitwise_and(size, wave[uint64(ACTIVE) + lane])


@inlined
def _emit(kind, step, top, rows, width, plan, wave, sizes, classes, found, bits, filled, fields):
    """Store and count the symbols of a block of steps; `sizes` is the plane of magnitudes."""
    symbols, contexts, counts = found
    fold, scale, largest = kind(fold_of(plan)), kind(plan[SCALE]), kind(LARGEST)
    for lane in range(rows):
        column, first, end = extent(step, lane, width)
        if first >= end:
            continue
        gather(wave, SYMBOL + NOW + lane, fields, ROW_SYMBOL - first, first, end)
        gather(wave, CONTEXTS + NOW + lane, fields, ROW_CONTEXT - first, first, end)
        y, x = top + lane, column + first
        row = sizes[y + 2][x + 2 : column + end + 2]
        for i in range(row.size):
            size = np.right_shift(np.add(fields[ROW_SYMBOL + i], fold), fold)
            row[i] = np.minimum(np.right_shift(size, scale), largest)
        filled[lane] = emit(
            fields,
            classes,
            symbols[y, x : column + end],
            contexts[y, x : column + end],
            counts,
            bits[lane],
            filled[lane],
        )


@numba.njit(nogil=True, error_model="numpy")
def _model(kind, levels, own, taps, plan, classes, found, bits, filled):
    height, width = levels.shape
    frame, channel = own[0], plan[CHANNEL]
    wave, fields = np.zeros(WAVE, kind), np.empty(ROW_FIELDS, kind)
    most = min(LANES, height)
    guess, energy = np.empty((most, width), kind), np.empty((most, width), np.int32)
    sums = np.empty(width, np.int32)
    frame[channel, :2] = 0
    rules = rules_of(kind, plan)
    for top in range(0, height, LANES):
        rows = min(LANES, height - top)
        begin(kind, top, rows, own, taps, plan, wave, guess, energy, sums)
        total = width + 2 * (rows - 1)
        for first in range(0, total, STEPS):
            fetch(kind, first, top, rows, width, own, plan, wave, guess, energy)
            bring(kind, first, top, rows, width, levels, wave, LEVEL)
            for step in range(first, min(first + STEPS, total)):
                now = uint64(NOW + (step - first) * LINE)
                foretell(kind, wave, now, step, width, plan, rules)
                _quantize(kind, wave, now, plan)
                mend(wave, now, step, width)
            deliver(first, top, rows, width, wave, SAMPLES, frame[channel])
            sizes = own[2][channel]
            _emit(
                kind, first, top, rows, width, plan, wave, sizes, classes, found, bits, filled,
                fields,
            )  # fmt: skip
            go_on(wave)
        for y in range(top, top + rows):
            border(frame[channel], y, width)
    repeat_last(frame[channel], height)


@kernel(MODEL)
def model(levels, own, taps, plan, classes, found, bits, filled):
    """Encode a plane with a tolerance or with free samples, as `emit.MODEL` describes."""
    if plan[SMALL]:
        _model(np.int32, levels, own, taps, plan, classes, found, bits, filled)
    else:
        _model(np.int64, levels, own, taps, plan, classes, found, bits, filled)
