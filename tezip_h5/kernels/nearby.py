"""Least squares from what was decoded nearby, in integers (numba, inlined where it matters).

A frame is cut into blocks. Every block keeps the sums of products of its pixels' taps; the weights
of a block come from the blocks above it and from those around it in the frames before.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import int64

ROWS, COLUMNS = 8, 16
"""Size of a block."""
MOST = 24
"""Most taps."""
ENTRIES = (MOST + 1) * (MOST + 2) // 2
MARGIN = 2
"""Empty blocks around all, so that every block has neighbours."""
WEIGHT_BITS = 16


@numba.njit(nogil=True, inline="always")
def observe(sums, taps, count):
    """Add one pixel's products; `taps[count]` is what the taps should add up to."""
    place = 0
    for i in range(count + 1):
        for j in range(i + 1):
            sums[place + j] += int64(taps[i]) * int64(taps[j])
        place += i + 1


@numba.njit(nogil=True)
def solve(sums, count, floor, RIDGE, lower, scaled, weights):
    """Weights (16 fraction bits) that solve the normal equations in `sums`; False if none."""
    largest = int64(0)
    trace = int64(0)
    place = 0
    for i in range(count + 1):
        largest = max(largest, sums[place + i])
        if i < count:
            trace += sums[place + i] // count
        place += i + 1
    if largest <= 0:
        return False
    down = 0
    while (largest >> down) >= (1 << 30):
        down += 1
    up = 0
    while (largest << up) < (1 << 28):
        up += 1
    ridge = (((trace >> RIDGE) + floor) << up >> down) + 64
    place = 0
    for i in range(count + 1):
        for j in range(i + 1):
            if j == count:
                break
            total = sums[place + j] << up >> down
            if i == j:
                total += ridge
            dot = int64(0)
            for k in range(j):
                dot += lower[i, k] * scaled[j, k]
            total -= dot >> WEIGHT_BITS
            if i == j:
                total = max(total, ridge)
                scaled[i, j] = total
                lower[i, j] = 1 << WEIGHT_BITS
            else:
                scaled[i, j] = total
                ratio = (total << WEIGHT_BITS) // scaled[j, j]
                lower[i, j] = min(max(ratio, -(1 << 26)), 1 << 26)
        place += i + 1
    # The last row holds the forward substitution.
    for i in range(count - 1, -1, -1):
        total = lower[count, i]
        dot = int64(0)
        for k in range(i + 1, count):
            dot += lower[k, i] * weights[k]
        weights[i] = min(max(total - (dot >> WEIGHT_BITS), -(1 << 21)), 1 << 21)
    return True


@numba.njit(nogil=True)
def fit_row(now, past, block_row, blocks, count, floor, RIDGE, total, lower, scaled, weights):
    """Weights of one row of blocks: int64 (blocks, MOST)."""
    entries = (count + 1) * (count + 2) // 2
    y = block_row + MARGIN
    for b in range(blocks):
        x = b + MARGIN
        for e in range(entries):
            value = now[y - 1, x - 1, e] + now[y - 1, x, e] + now[y - 1, x + 1, e]
            value = 2 * value + now[y - 1, x - 2, e] + now[y - 1, x + 2, e]
            value += now[y - 2, x - 1, e] + now[y - 2, x, e] + now[y - 2, x + 1, e]
            value += past[y, x - 1, e] + 2 * past[y, x, e] + past[y, x + 1, e]
            value += past[y + 1, x, e] + past[y - 1, x, e]
            total[e] = value
        if not solve(total, count, floor, RIDGE, lower, scaled, weights[b]):
            if b > 0:
                weights[b, :] = weights[b - 1, :]


import os
RIDGE = int(os.environ.get("RIDGE", "10"))
