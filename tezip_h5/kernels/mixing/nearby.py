"""Fit prediction weights to nearby decoded samples by least squares, in integers (numba).

A *tap* is a neighbour of a sample that predicts it. A plane is divided into blocks. Each block
keeps sums of products of the taps of its samples. The weights of a block are fitted to the sums of
the blocks above it, and of those around it in the frames before. Fitting weights to a causal
neighbourhood is from Li, Orchard, *Edge-directed prediction for lossless compression of natural
images*, IEEE Trans. Image Processing 10, 2001. Here each block solves one system of equations, by
LDL^T in fixed point.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import int64

from tezip_h5.kernels.compiling import inlined
from tezip_h5.kernels.mixing.pixels import HAS_BEFORE, HAS_GUESS, HAS_MEAN, HAS_OTHER, HAS_PREVIOUS

__all__ = [
    "COLUMNS", "CORRECTION", "ENTRIES", "FIT", "MARGIN", "MOST", "ROWS", "USES", "Sums", "choose",
    "fit_row", "observe",
]  # fmt: skip

ROWS, COLUMNS = 8, 16
"""The numbers of rows and columns of a block."""
MOST = 24
"""The largest number of taps."""
MARGIN = 2
"""The number of empty blocks on each side of a plane, so that every block has neighbours."""
FIT, CORRECTION = 0, 1
USES = 2
"""There are two fits: a prediction from taps, and a correction of the blend from all votes."""

ENTRIES = (MOST + 1) * (MOST + 2) // 2  # sums of products of a block: a triangle of a matrix
_BITS = 16  # fraction bits of weights
FIRST_WEIGHT = 1 << (_BITS - 1)
"""The weights of the samples to the west and north, as long as nothing is known."""
_LIMIT = 1 << 21  # largest magnitude of a weight
_FLATTEN = np.array([10, 5], np.int64)  # the diagonal gets its mean >> this added, for each fit


class Sums:
    """The sums of products of all blocks of a plane. With 0 rows, they are empty.

    Attributes
    ----------
    now, past : int64 (USES, blocks down + 4, blocks across + 4, entries)
        The sums of this frame, and those of earlier frames, each half as much as the next.
    weights : int64 (USES, blocks across, MOST)
        The weights of the current row of blocks.
    """

    def __init__(self, rows: int, columns: int):
        down, across = -(-rows // ROWS), -(-columns // COLUMNS)
        margin = 2 * MARGIN if rows else 0
        shape = (USES, down + margin, across + margin, ENTRIES)
        self.now, self.past = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self.weights = np.zeros((USES, across, MOST), np.int64)
        self.forget()

    def forget(self) -> None:
        """Reset all sums: at keyframes, and in the frame after them, which has other taps."""
        self.now[:], self.past[:] = 0, 0
        self.weights[:] = 0
        self.weights[FIT, :, :2] = FIRST_WEIGHT

    def turn(self) -> None:
        """Add the sums of a finished frame to those of earlier frames, which are halved."""
        self.past >>= 1
        self.past += self.now
        self.now[:] = 0


@inlined
def choose(chosen, taps, used, flags):
    """Fill `chosen` with the taps to fit, which are some of the `used` taps of the filters."""
    for i in range(8):
        chosen[i] = taps[i]
    count = 8
    if flags & HAS_PREVIOUS:
        for i in range(9):
            chosen[8 + i] = taps[12 + i]
        chosen[17] = taps[25] if flags & HAS_BEFORE else 0
        chosen[18] = taps[28] if flags & HAS_MEAN else 0
        count = 19
    others = 5 if flags & HAS_OTHER else 0
    if flags & HAS_GUESS:
        chosen[count] = taps[used - others - 3]
        count += 1
    if flags & HAS_OTHER:
        for i in range(3):
            chosen[count + i] = taps[used - others + i]


@inlined
def observe(sums, taps, count, samples):
    """Add the products of a row of samples of a block to `sums`.

    `taps` (int32 (MOST + 1, COLUMNS)) has a column for each sample. Row `count` is the value that
    the weighted taps should add up to.
    """
    entry = 0
    for i in range(count + 1):
        for j in range(i + 1):
            total = int64(0)
            for k in range(samples):
                total += int64(taps[i, k]) * int64(taps[j, k])
            sums[entry] += total
            entry += 1


@numba.njit(nogil=True)
def _solve(sums, count, flatten, floor, lower, scaled, weights):
    """Solve the normal equations in `sums`, whose largest number is at most 2**62.

    Returns False, and writes no weights, if all sums are 0.
    """
    largest, trace = int64(0), int64(0)
    place = 0
    for i in range(count + 1):
        largest = max(largest, sums[place + i])
        if i < count:
            trace += sums[place + i] // count
        place += i + 1
    if largest <= 0:
        return False
    down, up = 0, 0
    while (largest >> down) >= 1 << 30:
        down += 1
    while (largest << up) < 1 << 28:
        up += 1
    trace >>= flatten
    if down:
        ridge = (trace + floor) >> down
    else:
        ridge = (trace + min(floor, (int64(1) << 34) >> up)) << up
    ridge += 64
    place = 0
    for i in range(count + 1):
        for j in range(min(i + 1, count)):
            dot = int64(0)
            for k in range(j):
                dot += lower[i, k] * scaled[j, k]
            total = ((sums[place + j] << up) >> down) - (dot >> _BITS)
            if i == j:
                scaled[i, i] = max(total, int64(0)) + ridge
            else:
                total = min(max(total, -(int64(1) << 31)), int64(1) << 31)
                scaled[i, j] = total
                ratio = (total << _BITS) // scaled[j, j]
                lower[i, j] = min(max(ratio, -(1 << 26)), 1 << 26)
        place += i + 1
    # Row `count` of `lower` is the right side after forward substitution.
    for i in range(count - 1, -1, -1):
        dot = int64(0)
        for k in range(i + 1, count):
            dot += lower[k, i] * weights[k]
        weights[i] = min(max(lower[count, i] - (dot >> _BITS), -_LIMIT), _LIMIT)
    return True


@numba.njit(nogil=True)
def fit_row(now, past, use, block_row, count, floor, scratch, weights):
    """Fit the weights of one row of blocks to the sums of known blocks around them.

    Parameters
    ----------
    now, past : int64 (blocks, blocks, entries)
    count : int
        The number of taps.
    floor : int
        The least noise in the sums of squares; at most 2**57.
    scratch : int64 (ENTRIES), int64 (MOST + 1, MOST) and another, with undefined content
    weights : int64 (blocks across, MOST)
        Receives the weights. A block without sums takes those of its neighbour to the left.
    """
    total, lower, scaled = scratch
    y = block_row + MARGIN
    for b in range(weights.shape[0]):
        x = b + MARGIN
        for e in range((count + 1) * (count + 2) // 2):
            near = now[y - 1, x - 1, e] + now[y - 1, x, e] + now[y - 1, x + 1, e]
            far = now[y - 1, x - 2, e] + now[y - 1, x + 2, e]
            far += now[y - 2, x - 1, e] + now[y - 2, x, e] + now[y - 2, x + 1, e]
            before = past[y, x - 1, e] + 2 * past[y, x, e] + past[y, x + 1, e]
            before += past[y + 1, x, e] + past[y - 1, x, e]
            total[e] = 2 * near + far + before
        if not _solve(total, count, _FLATTEN[use], floor, lower, scaled, weights[b]) and b > 0:
            for i in range(MOST):
                weights[b, i] = weights[b - 1, i]
