"""The context-mixing coder's kernel for the processor (numba, no GIL, compiled once and cached).

`coarse` and `fine` are modules of one such kernel each, so that only what is used is compiled.

numba's cache on disk knows a kernel by its code, by the values that it closes over, and by this
file. What the kernel calls is compiled, and new to the cache in every process, so it is a global
here, which the cache does not look at; that the cache knows other sources by `_made_of`.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from types import FunctionType

import numpy as np
from numba import boolean, int32, int64, uint8, uint16, uint32

from tezip_h5.kernels import blending, nearby
from tezip_h5.kernels.arithmetic import RATES
from tezip_h5.kernels.compiling import kernel, uncounted
from tezip_h5.kernels.curves import CURVE
from tezip_h5.kernels.mixing import SQUASH, STRETCH
from tezip_h5.kernels.pixels import SHARES, TAPS, VOTERS
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


core = None
"""What a kernel calls: of every one, a global of its own."""


_SOURCES = ("arithmetic", "blending", "compiling", "curves", "mixing", "nearby", "pixels")


def _made_of() -> int:
    """A number that changes when a source that the kernel is made of does."""
    found = 0
    for name in _SOURCES:
        found = zlib.crc32(Path(__file__).with_name(f"{name}.py").read_bytes(), found)
    return found


def compiled(sizes: Sizes):
    """`code_plane` for one set of sizes, for the processor."""
    plane = uncounted(blending.build(sizes))
    places, inputs, curves = sizes.places, sizes.inputs + 1, sizes.curves
    marks, made_of = sizes.marks, _made_of()

    def code_plane(
        decoding, levels, tolerance, top, flags, alone,
        current, previous, before, mean, finer, guess, other, other_errors,
        symbols, past_symbols, errors, misses, past_misses, usual, sums, past_sums, fitted,
        voter_errors, filters, learned, tones, bias,
        counters, weights, refined, coder, stream,
    ):  # fmt: skip
        if made_of < 0:  # never: it makes `made_of` one of the values closed over
            return int64(0)
        return core(
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

    names = {**globals(), "core": plane}
    own = FunctionType(
        code_plane.__code__, names, code_plane.__name__, None, code_plane.__closure__
    )
    own.__qualname__ = code_plane.__qualname__
    return kernel(_signature)(own)
