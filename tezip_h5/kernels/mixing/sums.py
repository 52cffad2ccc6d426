"""Sums for least squares (numba). Only encoders use them, so floating point is allowed here.

NumPy's matrix product would do, too, but its threads compete with those of the encoders.
"""

from __future__ import annotations

import numpy as np
from numba import float64, int32, int64, void

from tezip_h5.kernels.compiling import kernel
from tezip_h5.kernels.mixing.pixels import (
    HAS_GUESS,
    HAS_OTHER,
    LEFT,
    TAPS,
    TOP,
    base_of,
    gather,
    surroundings,
)

_plane = int32[:, ::1]


@kernel(
    void(
        int32[:, :], int64, int64, int64, int64, _plane, _plane, _plane, _plane, int64, _plane,
        float64[:, :, ::1], float64[:, ::1], int64[::1],
    ),
    fastmath=True,
)  # fmt: skip
def accumulate(
    original, start, stride, narrow, flags, current, previous, before, mean, finer, other,
    grams, products, counts,
):  # fmt: skip
    """Add the samples of every `stride`-th row of a frame, from row `start` on, to the sums.

    There are sums for each kind of surroundings. `original` are the values that weighted taps
    should add up to. `current` to `other` are padded planes as for `code_plane`, in which the
    neighbours are. `grams` is (kinds, TAPS, TAPS), and only its lower triangle is filled.
    `products` is (kinds, TAPS), and `counts` is (kinds,). The taps of a network and of the
    previous channel's errors are zeros here, because they are not known yet.
    """
    nothing = np.zeros_like(current)
    taps, row = np.zeros(TAPS, np.int32), np.zeros(TAPS)
    unguided = flags & ~(HAS_GUESS | HAS_OTHER)
    guessed = gather(
        taps, int64(TOP), int64(LEFT), int64(0), narrow, unguided, current, previous, before, mean,
        finer, nothing, other, nothing,
    )  # fmt: skip
    for y in range(start + TOP, original.shape[0] + TOP, stride):
        for x in range(LEFT, original.shape[1] + LEFT):
            base = base_of(y, x, flags, current, previous)
            used = gather(
                taps, y, x, base, narrow, flags, current, previous, before, mean, finer, nothing,
                other, nothing,
            )  # fmt: skip
            if flags & HAS_GUESS:
                taps[guessed : guessed + 3] = 0
            for a in range(used):
                row[a] = taps[a]
            kind = surroundings(y, x, flags, current, previous)
            target = float64((int64(original[y - TOP, x - LEFT]) - base) >> narrow)
            gram, product = grams[kind], products[kind]
            counts[kind] += 1
            for a in range(used):
                value = row[a]
                product[a] += value * target
                line = gram[a]
                for b in range(a + 1):
                    line[b] += value * row[b]
