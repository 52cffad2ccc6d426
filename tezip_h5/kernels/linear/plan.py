"""Constants and functions that the encoder and decoder kernels of the linear coder share.

The planes of a frame are int32 (C, h + 3, w + 4), with margins of two rows above, one row below,
and two columns on the left and right. `own` is a tuple of four such arrays: this frame, the frame
that predicts it, and the magnitudes of the symbols of both frames. `plan` is an array with the
parameters of one plane; their indices are below. FORMAT.md, chapter 8, specifies the results, and
``tests/naive_linear.py`` computes them one sample at a time.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import int32, int64, types, void

from tezip_h5.kernels.compiling import inlined, kernel
from tezip_h5.kernels.sizes import LANES  # noqa: F401 (one of the numbers that others take here)

SHIFT = 12  # fraction bits of a weight
CLASSES, PATTERNS, FRACTIONS = 24, 81, 4  # activity classes, patterns, last digits of contexts
CONTEXTS = CLASSES * PATTERNS * FRACTIONS  # number of contexts of one kind of surroundings
DIRECT = 32  # in tables, symbols below have entries of their own, others four per octave
PRECISION = 12  # the frequencies of a table add up to 2**12
LOWEST = 1 << 16  # smallest state of rANS
WIDEST = 4095  # largest activity
LARGEST = 1023  # largest magnitude of a symbol that is recorded

# Indices of `plan`. From OWN on, it holds the weights of W, WW, N, NW, NE and the median.
CHANNEL, TOLERANCE, LOW, HIGH, BIAS, PREDICTED, SIDE = range(7)
SCALE, DRIFT, WIDE, SMALL, FINE, FLAT, CLOSED, OWN = range(7, 15)
PLAN = OWN + 6
# Values of SIDE: activity comes from this plane alone, from the last frame, or from the previous
# channel, too.
SIDE_OWN, SIDE_BEFORE, SIDE_CHANNEL = range(3)

_PLANES = int32[:, :, ::1]
_PLANE = int32[:, ::1]
_OWN = types.UniTuple(_PLANES, 4)
_TAPS = int64[:, ::1]


@inlined
def fold_of(plan):
    """The number of sign bits of a symbol, below its magnitude: 0 in flat planes, else 1."""
    return int64(0) if plan[FLAT] else int64(1)


@inlined
def weights_of(plan, y):
    """The weights of W, WW, N, NW, NE and the median in row `y`."""
    one, zero = int64(1) << SHIFT, int64(0)
    if y == 0 and not plan[FLAT]:
        return one, zero, zero, zero, zero, zero
    if y == 1 and not plan[FLAT]:
        return zero, zero, zero, zero, zero, one
    own = plan[OWN:]
    return own[0], own[1], own[2], own[3], own[4], own[5]


@numba.njit(nogil=True)
def expect(y, own, plan, taps, sums, guess):
    """Compute the part of a row's predictions that comes from earlier rows and frames.

    `guess` (w,) receives it. It is int64, or int32 if `plan` says that predictions fit in that.
    """
    frame, before, _, _ = own
    channel = plan[CHANNEL]
    for x in range(guess.size):
        guess[x] = int64(1) << (SHIFT - 1)
    if y == 0 and not plan[FLAT]:
        if plan[PREDICTED] or channel > 0:
            row = before[channel, 2] if plan[PREDICTED] else frame[channel - 1, 2]
            for x in range(guess.size):
                guess[x] += (int64(row[x + 2]) - int64(row[x + 1])) << SHIFT
    elif y > 1 or plan[FLAT]:
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
            else:  # the same in 32 bits, which is four times as fast
                weight = np.int32(taps[k, 3])
                for x in range(guess.size):
                    sums[x] += np.int32(row[x]) * weight
        for x in range(guess.size):
            guess[x] += sums[x]


@numba.njit(nogil=True)
def surroundings(y, own, plan, energy):
    """Compute the part of a row's energies that comes from earlier rows and frames.

    An energy is a weighted sum of the magnitudes of symbols around a sample.
    """
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
def border(plane, y, width):
    """Fill the margins left and right of row `y` of a plane, once the row is complete."""
    row = plane[y + 2]
    row[0] = row[1] = plane[y + 1, 2]
    row[width + 2] = row[width + 3] = row[width + 1]


@inlined
def repeat_last(plane, height):
    """Copy the last row to the margin below it.

    This is a loop, because numba takes seconds to compile `a[i] = b[j]`.
    """
    last, beyond = plane[height + 1], plane[height + 2]
    for x in range(last.size):
        beyond[x] = last[x]


@kernel(void(int32[:, ::1], _PLANE))
def surround(samples, plane):
    """Copy samples (h, w) to a plane, and fill its margins."""
    height, width = samples.shape
    plane[:2] = 0
    for y in range(height):
        row = plane[y + 2]
        for x in range(width):
            row[x + 2] = samples[y, x]
        border(plane, y, width)
    repeat_last(plane, height)
