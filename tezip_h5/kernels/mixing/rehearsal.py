"""Estimate the reconstruction of a plane. The encoder learns from it before it encodes."""

from __future__ import annotations

import numpy as np
from numba import int32, int64, void

from tezip_h5.kernels.compiling import kernel
from tezip_h5.kernels.mixing.pixels import (
    BOTTOM,
    FRACTION,
    LEFT,
    RIGHT,
    TAPS,
    TOP,
    base_of,
    begin_row,
    gather,
    narrowed,
    pad,
    quantized,
    surroundings,
    vote,
)

_plane = int32[:, ::1]


@kernel(
    void(
        int32[:, :],
        int64,
        int64,
        int64,
        _plane,
        _plane,
        _plane,
        _plane,
        int64,
        _plane,
        _plane,
        _plane,
        _plane,
    )
)
def rehearse(
    levels,
    tolerance,
    top,
    flags,
    current,
    previous,
    before,
    mean,
    finer,
    other,
    errors,
    other_errors,
    learned,
):
    """Predict with the learned weights alone, quantise and reconstruct, but code nothing.

    This is a closed loop: predictions use reconstructed samples. The arguments are those of
    `code_plane` in the module `blending`. `current` and `errors` are written.
    """
    rows, columns = current.shape[0] - TOP - BOTTOM, current.shape[1] - LEFT - RIGHT
    step = 2 * tolerance + 1
    taps = np.zeros(TAPS, np.int32)
    narrow = narrowed(top)
    for row in range(rows):
        y = row + TOP
        begin_row(y, columns, flags, top, current, previous, other)
        for column in range(columns):
            x = column + LEFT
            base = base_of(y, x, flags, current, previous)
            used = gather(
                taps, y, x, base, narrow, flags, current, previous, before, mean, finer, other,
                other, other_errors,
            )  # fmt: skip
            kind = surroundings(y, x, flags, current, previous)
            lesson = int64(0)
            for i in range(used):
                lesson += int64(learned[kind, i]) * int64(taps[i])
            predicted = min(max(vote(base, lesson, narrow, top), int64(0)), top << FRACTION)
            centre = (predicted + (1 << (FRACTION - 1))) >> FRACTION
            symbol = quantized(int64(levels[row, column]) - centre, tolerance, step)
            current[y, x] = min(max(centre + symbol * step, int64(0)), top)
            errors[y, x] = current[y, x] - centre
    pad(current, rows, columns)
