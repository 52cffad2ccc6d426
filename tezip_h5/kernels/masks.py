"""Code masks of samples, each with an earlier mask as context (numba, without the GIL).

The context of a bit consists of neighbours in both masks, as in the generic refinement regions of
JBIG2 (ITU-T T.88, 6.3). In this mask they are neighbours that were coded before. In the earlier
mask, they surround the bit on all sides.
"""

from __future__ import annotations

from numba import boolean, int64, uint8, uint32

from tezip_h5.kernels.arithmetic import RATES, code_bit, learned
from tezip_h5.kernels.compiling import inlined, kernel

BEFORE, BEHIND = 2, 1
"""The margins of zeros around a mask: `BEFORE` above and left, `BEHIND` below and right."""

ROWS, SAMPLES = 4, 1 << 12
"""The numbers of counters: for whether a row equals that of the other mask, and for single bits."""


@inlined
def _decision(decoding, bit, place, counters, coder, stream):
    """Code one decision with the counter at `place`, which learns from it."""
    counter = int64(counters[place])
    chance = min(max(counter >> 16, int64(1)), int64(65535))
    bit = code_bit(decoding, bit, chance, coder, stream)
    counters[place] = learned(counter, bit, RATES)
    return bit


@inlined
def _context(mask, other, y, x):
    """The context of a bit: eleven neighbours, six in this mask and five in the other one."""
    found = int64(mask[y, x - 1]) | int64(mask[y, x - 2]) << 1
    found |= int64(mask[y - 1, x - 1]) << 2 | int64(mask[y - 1, x]) << 3
    found |= int64(mask[y - 1, x + 1]) << 4 | int64(mask[y - 2, x]) << 5
    found |= int64(other[y, x]) << 6 | int64(other[y, x + 1]) << 7 | int64(other[y, x - 1]) << 8
    return found | int64(other[y + 1, x]) << 9 | int64(other[y - 1, x]) << 10


@kernel(
    int64(boolean, uint8[:, ::1], uint8[:, ::1], int64, uint32[::1], int64[::1], uint8[::1]),
)
def code_mask(decoding, mask, other, kind, counters, coder, stream):
    """Encode or decode `mask` with `other` as context; returns 0.

    Both have margins. `kind`, 0 or 1, selects a half of the counters.
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
