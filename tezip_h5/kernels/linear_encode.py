"""Kernels of the linear coder's encoder: symbols and contexts of a plane, and rANS."""

from __future__ import annotations

import numpy as np
from numba import int32, int64, types, uint8, uint16, uint32, uint64, void

from tezip_h5.kernels.compiling import inlined, kernel
from tezip_h5.kernels.cpu import _cell, _median, _reciprocal
from tezip_h5.kernels.linear import (
    _OWN,
    _TAPS,
    CHANNEL,
    DIRECT,
    DRIFT,
    FINE,
    FRACTIONS,
    HIGH,
    LARGEST,
    LOW,
    LOWEST,
    PRECISION,
    SCALE,
    SHIFT,
    SIDE,
    SIDE_BEFORE,
    SIDE_OWN,
    SMALL,
    TOLERANCE,
    WIDEST,
    _begin_row,
    _end_row,
    _expect,
    _surroundings,
    _weights,
)
from tezip_h5.kernels.linear_emit import part_low_bits
from tezip_h5.kernels.linear_exact import exact


@inlined
def _rows(levels, own, taps, plan, classes, found, bits, filled, scratch):
    """`model`, sample by sample."""
    symbols, contexts, counts = found
    height, width = levels.shape
    frame, before, magnitudes, _ = own
    channel, tolerance = plan[CHANNEL], plan[TOLERANCE]
    low, high, scale = plan[LOW], plan[HIGH], plan[SCALE]
    step = 2 * tolerance + 1
    drift, compare_past = -plan[DRIFT], plan[SIDE] == SIDE_BEFORE
    factor = 3 if plan[SIDE] == SIDE_OWN else 2
    fine = plan[FINE]
    reciprocal = _reciprocal(step, high - low)
    guess, energy, sums = scratch
    many = False  # whether many symbols of the last row had low bits: no branch then
    for y in range(height):
        _expect(y, own, plan, taps, sums, guess)
        _surroundings(y, own, plan, energy)
        row, above_row = frame[channel, y + 2][2:], frame[channel, y + 1][3:]
        past_row, past_above = before[channel, y + 2][2:], before[channel, y + 1][2:]
        sizes, above_sizes = magnitudes[channel, y + 2][2:], magnitudes[channel, y + 1][3:]
        w_left, w_left2, w_above, w_corner, w_right, w_median = _weights(plan, y)
        left = _begin_row(frame, channel, y)
        left2, above, corner = (
            left,
            int64(frame[channel, y + 1, 2]),
            int64(frame[channel, y + 1, 1]),
        )
        left_past = int64(before[channel, y + 2, 1]) & drift
        corner_past = int64(before[channel, y + 1, 1]) & drift
        size, size_corner, size_above = int64(0), int64(0), int64(magnitudes[channel, y + 1, 2])
        low_bits, position = bits[y & 1], filled[y & 1]
        begun = position
        for x in range(width):
            at = uint64(x)
            right, size_right = int64(above_row[at]), int64(above_sizes[at])
            now, now_above = int64(past_row[at]), int64(past_above[at])
            value = guess[at] + w_left * left + w_left2 * left2 + w_above * above
            value += w_corner * corner + w_right * right
            change = _median(left - left_past, above - (now_above & drift), corner - corner_past)
            value += w_median * (change + (now & drift))
            prediction = min(max(value >> SHIFT, low), high)
            near = 2 * (size_above + size) + size_corner + size_right
            activity = min((energy[at] + factor * near) >> 2, WIDEST)
            under, over = prediction - tolerance, prediction + tolerance
            other = now if compare_past else corner
            last = (value >> (SHIFT - 2)) & 3
            if not fine:
                last = int64(left2 >= under) + int64(left2 > over)
            context = (
                int64(classes[uint64(activity)])
                + (27 * FRACTIONS) * (int64(left >= under) + int64(left > over))
                + (9 * FRACTIONS) * (int64(above >= under) + int64(above > over))
                + (3 * FRACTIONS) * (int64(right >= under) + int64(right > over))
                + FRACTIONS * (int64(other >= under) + int64(other > over))
                + last
            )
            level = int64(levels[y, x])
            cell = _cell(level - prediction, tolerance, step, reciprocal)
            left2 = left
            corner, above = above, right
            left_past, corner_past = now & drift, now_above & drift
            size_corner, size_above = size_above, size_right
            left = min(max(prediction + cell * step, low), high)
            size = min(abs(cell) >> scale, LARGEST)
            row[at] = left
            sizes[at] = size
            symbol = (cell << 1) ^ (cell >> 63)
            if many or symbol >= DIRECT:
                symbol, position = part_low_bits(symbol, low_bits, position)
            symbols[y, x] = symbol
            contexts[y, x] = context
            counts[context, symbol] += 1
        filled[y & 1] = position
        many = position - begun > width // 2
        _end_row(frame[channel, y + 2], width)


@kernel(
    void(
        int32[:, ::1],
        _OWN,
        _TAPS,
        int64[::1],
        uint16[::1],
        types.Tuple((uint8[:, ::1], uint16[:, ::1], int32[:, ::1])),
        uint32[:, ::1],
        int64[::1],
    )
)
def model(levels, own, taps, plan, classes, found, bits, filled):
    """Symbols, contexts and low bits of one plane; its reconstruction goes into `own`.

    `found`: symbols and contexts, both (h, w), and how often each symbol (column) was found
    in each context (row). `bits`: two rows of zeroed words, for even and odd rows of the
    plane; `filled` counts the bits in each.
    """
    height, width = levels.shape
    if plan[TOLERANCE] == 0:
        if plan[SMALL]:
            exact(np.int32, levels, own, taps, plan, classes, found, bits, filled)
        else:
            exact(np.int64, levels, own, taps, plan, classes, found, bits, filled)
        return
    frame = own[0][plan[CHANNEL]]
    frame[:2] = 0
    guess, energy = np.empty(width, np.int64), np.empty(width, np.int64)
    scratch = guess, energy, np.empty(width, np.int32)
    _rows(levels, own, taps, plan, classes, found, bits, filled, scratch)
    frame[height + 2] = frame[height + 1]


@kernel(void(uint8[:, ::1], uint16[:, ::1], uint8[::1], uint32[:, ::1], uint16[:, ::1], int64[::1]))
def rans_encode(symbols, contexts, tables, slots, words, starts):
    """Code the even rows in one stream and the odd rows in another, from the last sample to
    the first; both at once, so that neither waits for the other's divisions.

    `tables`: the table of each context; `slots`: 4096 * frequency + start of each symbol. Each
    row of `words` is filled from its end; `starts` says where its stream begins.
    """
    height, width = symbols.shape
    words_a, words_b = words[0], words[1]
    position_a = position_b = int64(words.shape[1])
    state_a = state_b = int64(LOWEST)
    for y in range((height - 1) & ~1, -1, -2):
        both = y + 1 < height
        below = min(y + 1, height - 1)
        for x in range(width - 1, -1, -1):
            slot = int64(slots[tables[contexts[y, x]], symbols[y, x]])
            frequency = slot >> PRECISION
            if state_a >= frequency << 20:
                position_a -= 1
                words_a[position_a] = state_a & 0xFFFF
                state_a >>= 16
            quotient = int64(uint32(state_a) // uint32(frequency))
            state_a += quotient * (4096 - frequency) + (slot & 4095)
            if both:
                slot = int64(slots[tables[contexts[below, x]], symbols[below, x]])
                frequency = slot >> PRECISION
                if state_b >= frequency << 20:
                    position_b -= 1
                    words_b[position_b] = state_b & 0xFFFF
                    state_b >>= 16
                quotient = int64(uint32(state_b) // uint32(frequency))
                state_b += quotient * (4096 - frequency) + (slot & 4095)
    words_a[position_a - 2] = state_a & 0xFFFF
    words_a[position_a - 1] = state_a >> 16
    words_b[position_b - 2] = state_b & 0xFFFF
    words_b[position_b - 1] = state_b >> 16
    starts[0], starts[1] = position_a - 2, position_b - 2
