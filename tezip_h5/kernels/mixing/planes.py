"""Compile the kernel of the context-mixing coder for the CPU (numba, without the GIL).

The modules `coarse` and `fine` contain one such kernel each, so that only those in use are
compiled.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, int32, int64, uint8, uint16, uint32

from tezip_h5.kernels.arithmetic import RATES
from tezip_h5.kernels.compiling import kernel, uncounted
from tezip_h5.kernels.mixing import blending, nearby
from tezip_h5.kernels.mixing.curves import CURVE
from tezip_h5.kernels.mixing.decisions import SQUASH, STRETCH
from tezip_h5.kernels.mixing.pixels import SHARES, TAPS, VOTERS
from tezip_h5.kernels.sizes import Sizes

_plane = int32[:, ::1]
_signature = int64(
    boolean, int32[:, :], int64, int64, int64, boolean,
    _plane, _plane, _plane, _plane, int64, _plane, _plane, _plane,
    _plane, _plane, _plane, _plane, _plane, _plane,
    int64[:, :, :, ::1], int64[:, :, :, ::1], int64[:, :, ::1],
    int32[:, :, ::1], _plane, _plane, _plane, int64[:, ::1],
    uint32[::1], _plane, uint16[:, ::1], int64[::1], uint8[::1],
)  # fmt: skip


def compiled(sizes: Sizes):
    """`code_plane` for one set of sizes, compiled for the CPU."""
    plane = uncounted(blending.build(sizes))
    places, inputs, curves, marks = sizes.places, sizes.inputs + 1, sizes.curves, sizes.marks

    @kernel(_signature)
    def code_plane(
        decoding, levels, tolerance, top, flags, alone,
        current, previous, before, mean, finer, guess, other, other_errors,
        symbols, past_symbols, errors, misses, past_misses, usual, sums, past_sums, fitted,
        voter_errors, filters, learned, tones, bias,
        counters, weights, refined, coder, stream,
    ):  # fmt: skip
        return plane(
            decoding, levels, tolerance, top, flags, alone,
            (current, previous, before, mean, guess, other, other_errors), finer,
            (symbols, past_symbols, errors, misses, past_misses, usual), (sums, past_sums, fitted),
            voter_errors, filters, learned, tones, bias,
            counters, weights, refined, (STRETCH, SQUASH, RATES, CURVE), SHARES,
            (
                np.zeros(VOTERS, np.int64), np.zeros(VOTERS, np.int32), np.zeros(TAPS, np.int32),
                np.zeros(nearby.MOST + 1, np.int32), np.zeros(nearby.MOST + 1, np.int32),
                np.zeros(places, np.int64), np.zeros(inputs, np.int32),
                np.zeros((curves, 5), np.int64), np.zeros(marks, np.int64),
                np.zeros((nearby.MOST + 1, nearby.COLUMNS), np.int32),
                np.zeros((nearby.MOST + 1, nearby.COLUMNS), np.int32),
            ),
            (
                np.zeros(nearby.ENTRIES, np.int64),
                np.zeros((nearby.MOST + 1, nearby.MOST), np.int64),
                np.zeros((nearby.MOST + 1, nearby.MOST), np.int64),
            ),
            coder, stream,
        )  # fmt: skip

    return code_plane
