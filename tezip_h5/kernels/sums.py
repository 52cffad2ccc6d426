"""Sums for least squares (numba): used by encoders only, so floating point is no matter here.

A general matrix product would do, but its own threads get in the way of a pool of encoders.
"""

from __future__ import annotations

from numba import float64, int64, void

from tezip_h5.kernels.compiling import kernel


@kernel(
    void(float64[:, ::1], float64[::1], int64[::1], float64[:, :, ::1], float64[:, ::1]),
    fastmath=True,
)
def accumulate(taps, target, kinds, grams, products):
    """Add every row's products to the sums of its kind.

    `taps` is (n, T), `target` and `kinds` (n,); `grams` (kinds, T, T), of which the lower
    triangle is filled, and `products` (kinds, T).
    """
    for i in range(taps.shape[0]):
        row, gram, product = taps[i], grams[kinds[i]], products[kinds[i]]
        for a in range(row.size):
            value = row[a]
            if value == 0.0:
                continue
            line = gram[a]
            for b in range(a + 1):
                line[b] += value * row[b]
            product[a] += value * target[i]
