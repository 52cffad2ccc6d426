"""The decoder kernel of the linear coder."""

from __future__ import annotations

import numba
import numpy as np
from numba import int64, types, uint8, uint16, uint32, uint64

from tezip_h5.kernels.compiling import inlined, kernel
from tezip_h5.kernels.linear.plan import (
    _OWN,
    _TAPS,
    CHANNEL,
    DIRECT,
    HIGH,
    LARGEST,
    LOW,
    LOWEST,
    PRECISION,
    SCALE,
    SMALL,
    TOLERANCE,
    border,
    fold_of,
    repeat_last,
)
from tezip_h5.kernels.linear.sample import ACTIVITY, PATTERN, rules_of
from tezip_h5.kernels.linear.wave import (
    ACTIVE,
    CONTEXT,
    END,
    LANES,
    LINE,
    NOW,
    PREDICTION,
    SAMPLES,
    SIZES,
    STEPS,
    begin,
    deliver,
    fetch,
    foretell,
    go_on,
    mend,
)

CELL = END
WAVE = END + LANES


@inlined
def _look_up(kind, wave, first, end, classes, tables, slots, words, lanes):
    """Decode the symbols of some lanes in a step. Returns the bitwise or of all of them."""
    states, positions = lanes[0], lanes[1]
    seen = int64(0)
    for i in range(first, end):
        lane = uint64(i)
        found = uint64(wave[uint64(CONTEXT) + lane])
        context = uint64(classes[found >> uint64(ACTIVITY)]) + (found & uint64(PATTERN))
        state, position = states[lane], positions[lane]
        table = uint64(tables[context]) << uint64(PRECISION)
        slot = int64(slots[table | uint64(state & 4095)])
        state = (((slot >> 12) & 4095) + 1) * (state >> PRECISION) + (slot & 4095)
        short = (state - LOWEST) >> 63  # a comparison would be compiled to a branch
        state = (state << (short & 16)) | (int64(words[uint64(position)]) & short)
        states[lane], positions[lane] = state, position - short
        seen |= slot >> 24
        wave[uint64(CELL) + lane] = kind(slot >> 24)
    return seen


@inlined
def _complete(kind, wave, first, end, bits, lanes):
    """Read the low bits of large symbols."""
    for i in range(first, end):
        lane = uint64(i)
        symbol, start = int64(wave[uint64(CELL) + lane]), lanes[2, lane]
        large = -int64(symbol >= DIRECT)
        count = (((symbol - DIRECT) >> 2) + 3) & large
        word = uint64(start >> 5)
        pair = int64(bits[word]) | (int64(bits[word + uint64(1)]) << 32)
        pair = (pair >> (start & 31)) & ((int64(1) << count) - 1)
        symbol += (((4 | (symbol & 3)) << count) - symbol) & large
        wave[uint64(CELL) + lane] = kind(symbol | pair)
        lanes[2, lane] = start + count


@inlined
def _settle(kind, wave, now, plan):
    """Compute samples and magnitudes from symbols and predictions."""
    low, high = kind(plan[LOW]), kind(plan[HIGH])
    scale, stride = kind(plan[SCALE]), kind(2 * plan[TOLERANCE] + 1)
    # Larger cells would not change a sample any more. The limit keeps products small.
    most = kind((plan[HIGH] - plan[LOW]) // (2 * plan[TOLERANCE] + 1) + 1)
    zero, fold, largest = kind(0), kind(fold_of(plan)), kind(LARGEST)
    for i in range(LANES):
        lane = uint64(i)
        symbol = wave[uint64(CELL) + lane]
        sign = np.subtract(zero, np.bitwise_and(symbol, fold))
        size = np.right_shift(np.add(symbol, fold), fold)
        cell = np.subtract(np.bitwise_xor(np.minimum(size, most), sign), sign)
        sample = np.add(wave[uint64(PREDICTION) + lane], np.multiply(cell, stride))
        wave[now + uint64(SAMPLES) + lane] = np.minimum(np.maximum(sample, low), high)
        size = np.minimum(np.right_shift(size, scale), largest)
        wave[now + uint64(SIZES) + lane] = np.bitwise_and(size, wave[uint64(ACTIVE) + lane])


@numba.njit(nogil=True, error_model="numpy")
def _decode(kind, own, taps, plan, classes, coder, words, bits, lanes, limits):
    tables, slots = coder
    frame, channel = own[0], plan[CHANNEL]
    height, width = frame.shape[1] - 3, frame.shape[2] - 4
    wave = np.zeros(WAVE, kind)
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
            for step in range(first, min(first + STEPS, total)):
                now = uint64(NOW + (step - first) * LINE)
                foretell(kind, wave, now, step, width, plan, rules)
                begun = max((step - width + 2) >> 1, 0)
                ended = min((step >> 1) + 1, rows)
                seen = _look_up(kind, wave, begun, ended, classes, tables, slots, words, lanes)
                if seen >= DIRECT:
                    _complete(kind, wave, begun, ended, bits, lanes)
                _settle(kind, wave, now, plan)
                mend(wave, now, step, width)
            deliver(first, top, rows, width, wave, SAMPLES, frame[channel])
            deliver(first, top, rows, width, wave, SIZES, own[2][channel])
            go_on(wave)
        for y in range(top, top + rows):
            border(frame[channel], y, width)
        for lane in range(rows):
            if lanes[1, lane] > limits[0, lane] or lanes[2, lane] > limits[1, lane]:
                return 1
    repeat_last(frame[channel], height)
    return 0


@kernel(
    int64(
        _OWN,
        _TAPS,
        int64[::1],
        uint16[::1],
        types.Tuple((uint8[::1], uint32[::1])),
        uint16[::1],
        uint32[::1],
        int64[:, ::1],
        int64[:, ::1],
    )
)
def decode(own, taps, plan, classes, coder, words, bits, lanes, limits):
    """Decode one plane into `own` (see `plan`).

    A lane is one of `LANES` streams. `coder` has two arrays: the table of each context, and
    symbol << 24 | frequency - 1 << 12 | place for each slot of each table. `lanes` (3, lanes)
    holds the state of each stream and its positions in `words` and `bits`, and continues from
    plane to plane. `limits` (2, lanes) says where its words and bits end. After the words of each
    stream there must be w more words, and after its bits w + 2 more words, of any value. Returns 1
    if a stream ended too early, else 0.
    """
    if plan[SMALL]:
        return _decode(np.int32, own, taps, plan, classes, coder, words, bits, lanes, limits)
    return _decode(np.int64, own, taps, plan, classes, coder, words, bits, lanes, limits)
