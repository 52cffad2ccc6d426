"""Masks of samples, each coded beside one that is known (numba, no GIL).

Contexts are neighbours on both sides, in the manner of JBIG2's generic refinement regions (ITU-T
T.88, 6.3): of this mask those that were coded before, of the other one those around.
"""

from __future__ import annotations

from numba import boolean, int64, uint8, uint32

from tezip_h5.kernels.arithmetic import RATES, code_bit, learned
from tezip_h5.kernels.compiling import inlined, kernel

BEFORE, BEHIND = 2, 1
"""Margins of zeros above and left of a mask, and below and right of it."""

ROWS, SAMPLES = 4, 1 << 12
"""Counters: of rows that are those of the other mask, of samples in the others."""


@inlined
def _decision(decoding, bit, place, counters, coder, stream):
    counter = int64(counters[place])
    chance = min(max(counter >> 16, int64(1)), int64(65535))
    bit = code_bit(decoding, bit, chance, coder, stream)
    counters[place] = learned(counter, bit, RATES)
    return bit


@inlined
def _context(mask, other, y, x):
    found = int64(mask[y, x - 1]) | int64(mask[y, x - 2]) << 1
    found |= int64(mask[y - 1, x - 1]) << 2 | int64(mask[y - 1, x]) << 3
    found |= int64(mask[y - 1, x + 1]) << 4 | int64(mask[y - 2, x]) << 5
    found |= int64(other[y, x]) << 6 | int64(other[y, x + 1]) << 7 | int64(other[y, x - 1]) << 8
    return found | int64(other[y + 1, x]) << 9 | int64(other[y - 1, x]) << 10


@kernel(
    int64(boolean, uint8[:, ::1], uint8[:, ::1], int64, uint32[::1], int64[::1], uint8[::1]),
)
def code_mask(decoding, mask, other, kind, counters, coder, stream):
    """Encode or decode `mask` beside `other`, both with margins; returns 0.

    `kind` (0 or 1) tells which half of the counters serves it.
    """
    rows, columns = mask.shape[0] - BEHIND, mask.shape[1] - BEHIND
    row_counters, counters = counters[kind * (ROWS // 2) :], counters[ROWS + kind * SAMPLES // 2 :]
    same = int64(1)
    for y in range(BEFORE, rows):
        equal = int64(1)
        if not decoding:
            for x in range(BEFORE, columns):
                if mask[y, x] != other[y, x]:
                    equal = int64(0)
                    break
        same = _decision(decoding, equal, same, row_counters, coder, stream)
        if same == 0:
            for x in range(BEFORE, columns):
                place = _context(mask, other, y, x)
                bit = int64(mask[y, x])
                mask[y, x] = _decision(decoding, bit, place, counters, coder, stream)
        elif decoding:
            for x in range(BEFORE, columns):
                mask[y, x] = other[y, x]
    return int64(0)
