"""Functions of the context-mixing coder for a pixel and its neighbours (numba, inlined)."""

from __future__ import annotations

import numba
import numpy as np
from numba import int64, uint64

from tezip_h5.kernels.compiling import inlined

FRACTION = 6  # fraction bits of predictions
TOP, LEFT, BOTTOM, RIGHT = 3, 4, 3, 4
"""The margins of padded planes."""

# Flags that say which planes exist: the last frame, the one before it, a network's prediction,
# the previous channel, the running mean.
HAS_PREVIOUS, HAS_BEFORE, HAS_GUESS, HAS_OTHER, HAS_MEAN = 1, 2, 4, 8, 16
TAPS = 40  # room for taps, the neighbours that filters use
VOTERS = 16  # room for voters, the predictions that are blended
KINDS = 3
"""The kinds of surroundings that have transmitted weights of their own; see `surroundings`."""
ACTIVITIES = 20  # classes of local activity

# Places of taps: in this frame, in the last frame, and in all other planes.
NEAR_Y = np.array([0, -1, -1, -1, 0, -2, -1, -1, -2, -2, -2, -2])
NEAR_X = np.array([-1, 0, -1, 1, -2, 0, 2, -2, -1, 1, -2, 2])
PAST_Y = np.array([0, 0, 1, 0, -1, 1, 1, -1, -1, 0, 2, 0, -2])
PAST_X = np.array([0, 1, 0, -1, 0, 1, -1, 1, -1, 2, 0, -2, 0])
AHEAD_Y = np.array([0, 0, 1])
AHEAD_X = np.array([0, 1, 0])

_most = 16 * 65535  # the largest share of a voter
_LARGEST = np.int32((1 << 31) - 1)  # the largest int32
UNUSED = 1 << 28
"""The error of a voter that does not exist, which is larger than that of any other."""
SHARES = np.array([min(_most, (1 << 30) // (n + 1) ** 3) for n in range(1024)], np.int32)
"""The share of a voter in the blend, 1 / (n + 1)**3, where n is the scaled sum of its errors."""


@inlined
def median(a, b, c):
    """The median of a, b and a + b - c."""
    largest, smallest = max(a, b), min(a, b)
    if c >= largest:
        return smallest
    if c <= smallest:
        return largest
    return a + b - c


@inlined
def bit_length(value):
    """The number of bits of a number >= 0. LLVM turns this loop into one instruction."""
    left, bits = uint64(value), int64(0)
    while left != uint64(0):
        left >>= uint64(1)
        bits += 1
    return bits


@inlined
def log_class(value):
    """The logarithmic class of a number: 0, 1, 2, 3, then two classes for each doubling."""
    doublings = max(bit_length(value) - 2, int64(0))
    return 2 * doublings + (value >> doublings)


@inlined
def clipped(value, limit):
    """Clip a value to -limit..limit, and shift it to 0..2 * limit."""
    return min(max(value, -limit), limit) + limit


@inlined
def signed_class(difference):
    """The class of a difference, 0..14: one each from -3 to 3, then four on either side."""
    size = abs(difference)
    if size > 3:
        size = 4 if size < 6 else 5 if size < 12 else 6 if size < 32 else 7
    return 7 + size if difference >= 0 else 7 - size


@inlined
def quantized(residual, tolerance, step):
    """The symbol of a residual: the nearest integer to residual / step."""
    if residual >= 0:
        return (residual + tolerance) // step
    return -((tolerance - residual) // step)


@inlined
def gradient_adjusted(w, n, nw, ne, ww, nn, nne, step):
    """CALIC's spatial prediction, with FRACTION bits. Thresholds grow with the quantizer's step."""
    horizontal = abs(w - ww) + abs(n - nw) + abs(n - ne)
    vertical = abs(w - nw) + abs(n - nn) + abs(ne - nne)
    slope = vertical - horizontal
    flat = ((w + n) << (FRACTION - 1)) + ((ne - nw) << (FRACTION - 2))
    if slope > 80 * step:
        return w << FRACTION
    if slope < -80 * step:
        return n << FRACTION
    if slope > 32 * step:
        return (flat + (w << FRACTION)) >> 1
    if slope < -32 * step:
        return (flat + (n << FRACTION)) >> 1
    if slope > 8 * step:
        return (3 * flat + (w << FRACTION)) >> 2
    if slope < -8 * step:
        return (3 * flat + (n << FRACTION)) >> 2
    return flat


@inlined
def vote(base, change, narrow, top):
    """The prediction of a filter, limited in case the filter diverges."""
    limit = top << FRACTION
    change = min(max(change >> (16 - FRACTION), -(limit >> narrow)), limit >> narrow)
    return (base << FRACTION) + (change << narrow)


@inlined
def blended(votes, count, voter_errors, now, x, shares, recent):
    """Blend votes with `SHARES`, by the errors that each voter made nearby.

    Returns the blend, and the difference of the largest and the smallest vote. `recent` receives
    the sums of errors.
    """
    then = 1 - now
    wide = (count + 3) & -4  # a multiple of 4, for which the compiler vectorises loops
    least = _LARGEST
    for v in range(wide):
        total = (voter_errors[now, x - 1, v] + voter_errors[then, x, v]) << 1
        total += voter_errors[then, x - 1, v] + voter_errors[then, x + 1, v]
        total += voter_errors[now, x - 2, v]
        recent[v] = total
        least = min(least, total)
    down = max(bit_length(least) - 6, int64(0))
    over, under = int64(0), int64(0)
    low, high = votes[0], votes[0]
    for v in range(wide):  # from `count` on, the first vote again, with share 0
        share = int64(shares[min(recent[v] >> down, 1023)]) if v < count else int64(0)
        vote = votes[v] if v < count else votes[0]
        over += share * (vote - votes[0])
        under += share
        low, high = min(low, vote), max(high, vote)
    return votes[0] + over // under, high - low


@inlined
def adapt(weights, taps, count, speed, down):
    """Adapt a filter by one step: weights += speed * taps / 2**down, within 32 bits."""
    speed = min(max(speed, -(int64(1) << 30)), int64(1) << 30)
    for i in range(count):
        weight = int64(weights[i]) + ((speed * int64(taps[i])) >> down)
        weights[i] = min(max(weight, -(int64(1) << 26)), int64(1) << 26)


@numba.njit(nogil=True)
def narrowed(top):
    """The number of low bits that filters ignore.

    Filters work on numbers of at most 20 bits, so that their sums fit in 64 bits.
    """
    narrow = int64(0)
    while (top >> narrow) > 1 << 20:
        narrow += 1
    return narrow


@inlined
def surroundings(y, x, flags, current, previous):
    """The kind of surroundings of a pixel, by which transmitted weights are selected.

    It is 0, 1 or 2 if changes since the last frame are smaller than, similar to or larger than
    differences of neighbours. It is 3 if there is no last frame.
    """
    if flags & HAS_PREVIOUS == 0:
        return int64(KINDS)
    w, n = int64(current[y, x - 1]), int64(current[y - 1, x])
    nw, ne = int64(current[y - 1, x - 1]), int64(current[y - 1, x + 1])
    space = abs(w - nw) + abs(n - nw) + abs(n - ne)
    time = abs(w - int64(previous[y, x - 1])) + abs(n - int64(previous[y - 1, x]))
    time += abs(ne - int64(previous[y - 1, x + 1]))
    return int64(0) if 2 * time < space else int64(1) if time < 2 * space else int64(2)


@inlined
def base_of(y, x, flags, current, previous):
    """The value that neighbours are compared with: a mean of the nearest ones, as `blending` has
    it."""
    around = int64(current[y, x - 1]) + int64(current[y - 1, x])
    if flags & HAS_PREVIOUS:
        return (2 * int64(previous[y, x]) + around + 2) >> 2
    return (around + 1) >> 1


@inlined
def gather(
    taps, y, x, base, narrow, flags, current, previous, before, mean, finer, guess, other,
    other_errors,
):  # fmt: skip
    """Fill `taps` with the differences of neighbours from `base`; returns their number."""
    for i in range(12):
        taps[i] = (int64(current[y + NEAR_Y[i], x + NEAR_X[i]]) - base) >> narrow
    used = 12
    if flags & HAS_PREVIOUS:
        for i in range(13):
            taps[12 + i] = (int64(previous[y + PAST_Y[i], x + PAST_X[i]]) - base) >> narrow
        used = 25
    if flags & HAS_BEFORE:
        for i in range(3):
            taps[used + i] = (int64(before[y + AHEAD_Y[i], x + AHEAD_X[i]]) - base) >> narrow
        used += 3
    if flags & HAS_MEAN:
        for i in range(3):
            value = int64(mean[y + AHEAD_Y[i], x + AHEAD_X[i]]) >> finer
            taps[used + i] = (value - base) >> narrow
        used += 3
    if flags & HAS_GUESS:
        for i in range(3):
            taps[used + i] = (int64(guess[y + AHEAD_Y[i], x + AHEAD_X[i]]) - base) >> narrow
        used += 3
    if flags & HAS_OTHER:
        o = int64(other[y, x])
        taps[used] = int64(other_errors[y, x]) >> narrow
        taps[used + 1] = (o - int64(other[y, x - 1])) >> narrow
        taps[used + 2] = (o - int64(other[y - 1, x])) >> narrow
        taps[used + 3] = (o - int64(other[y, x + 1])) >> narrow
        taps[used + 4] = (o - int64(other[y + 1, x])) >> narrow
        used += 5
    return used


@numba.njit(nogil=True)
def begin_row(y, width, flags, top, current, previous, other):
    """Fill the margins that the next row needs.

    They repeat neighbouring samples. Above the first row, they repeat the last frame.
    """
    if y == TOP:
        for i in range(current.shape[1]):
            value = int64(top + 1) // 2
            if flags & HAS_PREVIOUS:
                value = int64(previous[y, i])
            elif flags & HAS_OTHER:
                value = int64(other[y, i])
            current[y - 1, i] = value
            current[y - 2, i] = value
            current[y - 3, i] = value
    else:
        for i in range(RIGHT):
            current[y - 1, LEFT + width + i] = current[y - 1, LEFT + width - 1]
    for i in range(LEFT):
        current[y, i] = current[y - 1, LEFT]


@inlined
def class_of(difference, per_step, scale, most):
    """The class of a difference, in units that grow with the quantizer and the local activity."""
    scaled = ((difference * per_step) >> 24) >> scale
    if most == 7:
        return signed_class(scaled)
    size = abs(scaled)
    size = size if size < 3 else 3 if size < 6 else 4
    return 4 + size if scaled >= 0 else 4 - size


@inlined
def equalities(w, n, nw, ne, p, centre):
    """Which pairs of a pixel's neighbours and its prediction are equal: one bit for each pair."""
    equal = (1 if n == w else 0) + (2 if w == nw else 0) + (4 if centre == w else 0)
    equal += (8 if centre == p else 0) + (16 if p == w else 0) + (32 if ne == n else 0)
    return equal + (64 if n == nw else 0) + (128 if p == n else 0)


@inlined
def add_up(sums, place, value):
    """Add a value to a sum, and 1 to its count. Both are halved when the count reaches 512."""
    sums[place, 0] += value
    sums[place, 1] += 1
    if sums[place, 1] >= 512:
        sums[place, 0] >>= 1
        sums[place, 1] >>= 1


@inlined
def moving(symbols, past_symbols, y, x):
    """Weighted sums of the magnitudes of symbols around a pixel: in this frame, in the last one."""
    here = 3 * (abs(int64(symbols[y, x - 1])) + abs(int64(symbols[y - 1, x])))
    here += 2 * (abs(int64(symbols[y - 1, x - 1])) + abs(int64(symbols[y - 1, x + 1])))
    here += abs(int64(symbols[y, x - 2])) + abs(int64(symbols[y - 2, x]))
    around = abs(int64(past_symbols[y, x + 1])) + abs(int64(past_symbols[y + 1, x]))
    around += abs(int64(past_symbols[y, x - 1])) + abs(int64(past_symbols[y - 1, x]))
    return here, 2 * abs(int64(past_symbols[y, x])) + around


@inlined
def smoothed(plane, y, x):
    """The weighted mean of the nine samples of a plane at and around a place."""
    total = 4 * int64(plane[y, x]) + plane[y - 1, x - 1] + plane[y - 1, x + 1]
    total += int64(plane[y + 1, x - 1]) + plane[y + 1, x + 1]
    total += 2 * (int64(plane[y, x - 1]) + plane[y - 1, x] + plane[y, x + 1] + plane[y + 1, x])
    return total >> 4


@inlined
def note(means, place, value, rates):
    """Add a value to a running mean.

    Row 0 of `means` holds means, row 1 the numbers of values. `rates` is the share of a new value,
    by the number of values before it.
    """
    seen = int64(means[1, place])
    change = (value - int64(means[0, place])) * int64(rates[uint64(seen)])
    means[0, place] = int64(means[0, place]) + (change >> 16)
    means[1, place] = min(seen + 1, int64(rates.size - 1))


@numba.njit(nogil=True)
def pad(plane, rows, columns):
    """Fill the margins of a plane with its edges."""
    for y in range(TOP, TOP + rows):
        for i in range(LEFT):
            plane[y, i] = plane[y, LEFT]
        for i in range(RIGHT):
            plane[y, LEFT + columns + i] = plane[y, LEFT + columns - 1]
    for y in range(TOP + rows, TOP + rows + BOTTOM):
        for x in range(plane.shape[1]):
            plane[y, x] = plane[TOP + rows - 1, x]
    for y in range(TOP):
        for x in range(plane.shape[1]):
            plane[y, x] = plane[TOP, x]
