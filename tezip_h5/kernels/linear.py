"""Kernels of the linear coder: what encoder and decoder share, and the decoder.

A frame's planes lie in int32 (C, h + 3, w + 4): two rows above, one below, two columns left
and right of the samples. `own` is a tuple of four such arrays: the frame being coded, the
frame that predicts it, and the magnitudes of both frames' symbols. `plan` holds the numbers
of one plane, at the indices below. FORMAT.md, section 8, says what is computed, and
``tests/naive_linear.py`` computes it one sample at a time.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import int32, int64, types, uint8, uint16, uint32, uint64, void

from tezip_h5.kernels.compiling import inlined, kernel
from tezip_h5.kernels.cpu import _median

SHIFT = 12  # fraction bits of a weight
CLASSES, PATTERNS, FRACTIONS = 24, 81, 4
CONTEXTS = CLASSES * PATTERNS * FRACTIONS  # of one kind of surroundings
DIRECT = 32  # symbols below stand for themselves, above for four classes per octave
PRECISION = 12  # a table's frequencies add up to 2**12
LOWEST = 1 << 16  # of a rANS state
WIDEST = 4095  # the largest energy
LARGEST = 1023  # magnitude of a symbol that counts
LAG = 4  # samples that an odd row stays behind the row above it

# What `plan` holds. The own weights are in the order W, WW, N, NW, NE, median.
CHANNEL, TOLERANCE, LOW, HIGH, BIAS, PREDICTED, SIDE = range(7)
SCALE, DRIFT, WIDE, SMALL, FINE, OWN = range(7, 13)
PLAN = OWN + 6
SIDE_OWN, SIDE_BEFORE, SIDE_CHANNEL = range(3)  # where a pixel's surroundings are looked at

_PLANES = int32[:, :, ::1]
_PLANE = int32[:, ::1]
_OWN = types.UniTuple(_PLANES, 4)
_TAPS = int64[:, ::1]


@inlined
def _weights(plan, y):
    """Weights of W, WW, N, NW, NE and the median in row `y`."""
    one, zero = int64(1) << SHIFT, int64(0)
    if y == 0:
        return one, zero, zero, zero, zero, zero
    if y == 1:
        return zero, zero, zero, zero, zero, one
    own = plan[OWN:]
    return own[0], own[1], own[2], own[3], own[4], own[5]


@numba.njit(nogil=True)
def _expect(y, own, plan, taps, sums, guess):
    """What a row's predictions hold of rows and frames that are known before it.

    `guess` (w,) is int64, or int32 where `plan` says that predictions fit in it.
    """
    frame, before, _, _ = own
    channel = plan[CHANNEL]
    for x in range(guess.size):
        guess[x] = int64(1) << (SHIFT - 1)
    if y == 0:
        if plan[PREDICTED] or channel > 0:
            row = before[channel, 2] if plan[PREDICTED] else frame[channel - 1, 2]
            for x in range(guess.size):
                guess[x] += (int64(row[x + 2]) - int64(row[x + 1])) << SHIFT
    elif y > 1:
        for x in range(guess.size):
            guess[x] += plan[BIAS]
        sums[:] = 0
        for k in range(len(taps)):
            source = taps[k, 0]
            plane = before[channel] if source == 1 else frame[channel - max(source - 1, 0)]
            row = plane[y + 2 + taps[k, 1]][2 + taps[k, 2] :]
            if plan[WIDE]:
                for x in range(guess.size):
                    guess[x] += int64(row[x]) * taps[k, 3]
            else:  # the same in half the width, four times as fast
                weight = np.int32(taps[k, 3])
                for x in range(guess.size):
                    sums[x] += np.int32(row[x]) * weight
        for x in range(guess.size):
            guess[x] += sums[x]


@numba.njit(nogil=True)
def _surroundings(y, own, plan, energy):
    """What a row's energies hold of rows and frames that are known before it."""
    _, _, magnitudes, earlier = own
    channel = plan[CHANNEL]
    if plan[SIDE] == SIDE_OWN:
        above = magnitudes[channel, y]
        for x in range(energy.size):
            energy[x] = 2 * above[x + 2]
    else:
        plane = earlier[channel] if plan[SIDE] == SIDE_BEFORE else magnitudes[channel - 1]
        row, above, below = plane[y + 2], plane[y + 1], plane[y + 3]
        for x in range(energy.size):
            energy[x] = 2 * row[x + 2] + row[x + 1] + row[x + 3] + above[x + 2] + below[x + 2]


@inlined
def _begin_row(frame, channel, y):
    """Set what lies left of a row, and return it."""
    left = int64(frame[channel, y + 1, 2]) if y > 0 else int64(0)
    frame[channel, y + 2, 0] = left
    frame[channel, y + 2, 1] = left
    return left


@inlined
def _end_row(row, width):
    row[width + 2] = row[width + 1]
    row[width + 3] = row[width + 1]


@kernel(void(int32[:, ::1], _PLANE))
def surround(samples, plane):
    """Copy samples (h, w) into a plane, with what lies around them."""
    height, width = samples.shape
    plane[:2] = 0
    for y in range(height):
        row = plane[y + 2]
        row[0] = row[1] = plane[y + 1, 2] if y > 0 else 0
        for x in range(width):
            row[x + 2] = samples[y, x]
        _end_row(row, width)
    plane[height + 2] = plane[height + 1]


@kernel(
    int64(
        _OWN,
        _TAPS,
        int64[::1],
        uint16[::1],
        types.Tuple((uint8[::1], uint32[::1])),
        types.UniTuple(uint16[::1], 2),
        types.UniTuple(uint32[::1], 2),
        int64[::1],
    )
)
def decode(own, taps, plan, classes, coder, both_words, both_bits, limits):
    """Decode one plane into `own`. Two rows at a time, the lower a few samples behind: they
    have a stream each, so that neither waits for the other.

    `coder`: the table of each context; symbol << 24 | frequency - 1 << 12 | place of each slot.
    `limits`: words and bits that each stream has, in the order words 0, words 1, bits 0, bits
    1. Behind them there are w words and w + 1 words of bits more, of whatever value. Returns 0
    when all streams ended where they should, 1 when not.
    """
    frame, before, magnitudes, _ = own
    tables, slots = coder
    words, words_b = both_words
    bits, bits_b = both_bits
    height, width = frame.shape[1] - 3, frame.shape[2] - 4
    channel, tolerance = plan[CHANNEL], plan[TOLERANCE]
    low, high, scale = plan[LOW], plan[HIGH], plan[SCALE]
    step = 2 * tolerance + 1
    drift, compare_past = -plan[DRIFT], plan[SIDE] == SIDE_BEFORE
    factor = 3 if plan[SIDE] == SIDE_OWN else 2
    fine = plan[FINE]
    guess, energy = np.empty(width, np.int64), np.empty(width, np.int64)
    guess_b, energy_b = np.empty(width, np.int64), np.empty(width, np.int64)
    state, position, start = int64(words[0]) | int64(words[1]) << 16, int64(2), int64(0)
    state_b, position_b, start_b = int64(words_b[0]) | int64(words_b[1]) << 16, int64(2), int64(0)
    following, following_b = int64(words[2]), int64(words_b[2])
    # Where many symbols have low bits, all are treated alike: no branch to mispredict.
    many = limits[2] + limits[3] > height * width // 2
    lag = min(int64(LAG), width)
    left_b = left2_b = above_b = corner_b = left_past_b = corner_past_b = int64(0)
    size_b = size_corner_b = size_above_b = int64(0)
    sums = np.empty(width, np.int32)
    frame[channel, :2] = 0
    for y in range(0, height, 2):
        if position > limits[0] or start > limits[2]:
            return 1
        if height > 1 and (position_b > limits[1] or start_b > limits[3]):
            return 1
        both = y + 1 < height
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
        if both:
            _expect(y + 1, own, plan, taps, sums, guess_b)
            _surroundings(y + 1, own, plan, energy_b)
        row_b, above_row_b = frame[channel, y + 3][2:], frame[channel, y + 2][3:]
        past_row_b, past_above_b = before[channel, y + 3][2:], before[channel, y + 2][2:]
        sizes_b, above_sizes_b = magnitudes[channel, y + 3][2:], magnitudes[channel, y + 2][3:]
        w_left_b, w_left2_b, w_above_b, w_corner_b, w_right_b, w_median_b = _weights(plan, y + 1)
        for x in range(width + lag):
            if x < width:
                at = uint64(x)
                right, size_right = int64(above_row[at]), int64(above_sizes[at])
                now, now_above = int64(past_row[at]), int64(past_above[at])
                value = guess[at] + w_left * left + w_left2 * left2 + w_above * above
                value += w_corner * corner + w_right * right
                change = _median(
                    left - left_past, above - (now_above & drift), corner - corner_past
                )
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
                slot = int64(
                    slots[
                        (uint64(tables[uint64(context)]) << uint64(PRECISION))
                        | uint64(state & 4095)
                    ]
                )
                state = (((slot >> 12) & 4095) + 1) * (state >> PRECISION) + (slot & 4095)
                short = (state - LOWEST) >> 63
                state = (state << (short & 16)) | (following & short)
                position -= short
                following = int64(words[uint64(position)])
                folded = slot >> 24
                if many or folded >= DIRECT:
                    large = -int64(folded >= DIRECT)
                    count = (((folded - DIRECT) >> 2) + 3) & large
                    word = uint64(start >> 5)
                    pair = int64(bits[word]) | (int64(bits[word + uint64(1)]) << 32)
                    pair = (pair >> (start & 31)) & ((int64(1) << count) - 1)
                    folded += (((4 | (folded & 3)) << count) - folded) & large
                    folded |= pair
                    start += count
                left2 = left
                corner, above = above, right
                left_past, corner_past = now & drift, now_above & drift
                size_corner, size_above = size_above, size_right
                size = (folded + 1) >> 1
                sign = -(folded & 1)
                left = min(max(prediction + ((size ^ sign) - sign) * step, low), high)
                size = min(size >> scale, LARGEST)
                row[at] = left
                sizes[at] = size
                if x == width - 1:
                    _end_row(frame[channel, y + 2], width)
            if both and x >= lag:
                if x == lag:
                    left_b = _begin_row(frame, channel, y + 1)
                    left2_b, above_b, corner_b = (
                        left_b,
                        int64(frame[channel, y + 2, 2]),
                        int64(frame[channel, y + 2, 1]),
                    )
                    left_past_b = int64(before[channel, y + 3, 1]) & drift
                    corner_past_b = int64(before[channel, y + 2, 1]) & drift
                    size_b, size_corner_b, size_above_b = (
                        int64(0),
                        int64(0),
                        int64(magnitudes[channel, y + 2, 2]),
                    )
                at = uint64(x - lag)
                right_b, size_right_b = int64(above_row_b[at]), int64(above_sizes_b[at])
                now, now_above = int64(past_row_b[at]), int64(past_above_b[at])
                value = guess_b[at] + w_left_b * left_b + w_left2_b * left2_b + w_above_b * above_b
                value += w_corner_b * corner_b + w_right_b * right_b
                change = _median(
                    left_b - left_past_b, above_b - (now_above & drift), corner_b - corner_past_b
                )
                value += w_median_b * (change + (now & drift))
                prediction = min(max(value >> SHIFT, low), high)
                near = 2 * (size_above_b + size_b) + size_corner_b + size_right_b
                activity = min((energy_b[at] + factor * near) >> 2, WIDEST)
                under, over = prediction - tolerance, prediction + tolerance
                other = now if compare_past else corner_b
                last = (value >> (SHIFT - 2)) & 3
                if not fine:
                    last = int64(left2_b >= under) + int64(left2_b > over)
                context = (
                    int64(classes[uint64(activity)])
                    + (27 * FRACTIONS) * (int64(left_b >= under) + int64(left_b > over))
                    + (9 * FRACTIONS) * (int64(above_b >= under) + int64(above_b > over))
                    + (3 * FRACTIONS) * (int64(right_b >= under) + int64(right_b > over))
                    + FRACTIONS * (int64(other >= under) + int64(other > over))
                    + last
                )
                slot = int64(
                    slots[
                        (uint64(tables[uint64(context)]) << uint64(PRECISION))
                        | uint64(state_b & 4095)
                    ]
                )
                state_b = (((slot >> 12) & 4095) + 1) * (state_b >> PRECISION) + (slot & 4095)
                short = (state_b - LOWEST) >> 63
                state_b = (state_b << (short & 16)) | (following_b & short)
                position_b -= short
                following_b = int64(words_b[uint64(position_b)])
                folded = slot >> 24
                if many or folded >= DIRECT:
                    large = -int64(folded >= DIRECT)
                    count = (((folded - DIRECT) >> 2) + 3) & large
                    word = uint64(start_b >> 5)
                    pair = int64(bits_b[word]) | (int64(bits_b[word + uint64(1)]) << 32)
                    pair = (pair >> (start_b & 31)) & ((int64(1) << count) - 1)
                    folded += (((4 | (folded & 3)) << count) - folded) & large
                    folded |= pair
                    start_b += count
                left2_b = left_b
                corner_b, above_b = above_b, right_b
                left_past_b, corner_past_b = now & drift, now_above & drift
                size_corner_b, size_above_b = size_above_b, size_right_b
                size_b = (folded + 1) >> 1
                sign = -(folded & 1)
                left_b = min(max(prediction + ((size_b ^ sign) - sign) * step, low), high)
                size_b = min(size_b >> scale, LARGEST)
                row_b[at] = left_b
                sizes_b[at] = size_b
        if both:
            _end_row(frame[channel, y + 3], width)
    frame[channel, height + 2] = frame[channel, height + 1]
    whole = state == LOWEST and position == limits[0] and start == limits[2]
    if height > 1:
        whole &= state_b == LOWEST and position_b == limits[1] and start_b == limits[3]
    return 0 if whole else 1
