"""The last step of the encoder kernels of the linear coder: store and count symbols."""

from __future__ import annotations

import numpy as np
from numba import int32, int64, types, uint8, uint16, uint32, uint64, void

from tezip_h5.kernels.compiling import inlined
from tezip_h5.kernels.linear.plan import _OWN, _TAPS, DIRECT
from tezip_h5.kernels.linear.sample import ACTIVITY, PATTERN

__all__ = [
    "BLOCK",
    "CONTEXT",
    "FIELDS",
    "MODEL",
    "SIZE",
    "SYMBOL",
    "emit",
]

# One array holds all fields of a block of columns. The distances of fields are constants, so the
# compiler can vectorize loops over them.
BLOCK = 256
CONTEXT, SYMBOL, SIZE = 0, BLOCK, 2 * BLOCK
FIELDS = 3 * BLOCK

MODEL = void(
    int32[:, ::1],
    _OWN,
    _TAPS,
    int64[::1],
    uint16[::1],
    types.Tuple((uint8[:, ::1], uint16[:, ::1], int32[:, ::1])),
    uint32[:, ::1],
    int64[::1],
)
"""The signature of ``model(levels, own, taps, plan, classes, found, bits, filled)``, which finds
the symbols, contexts and low bits of one plane, and writes its reconstruction to `own`.

`found` receives symbols and contexts, both (h, w), and the counts of each symbol (column) in each
context (row). `bits` receives the low bits of each lane; it must be zero beyond them. `filled` is
the number of low bits of each lane.
"""

_OCTAVES = np.maximum(np.frexp(np.arange(4096))[1] - 1, 0).astype(np.uint8)  # log2, rounded down


@inlined
def _part_low_bits(symbol, bits, position):
    """Write the low bits of a symbol, if it has any, to `bits` at `position`, without branches.

    Returns the symbol without low bits, which is the one in the tables, and the new position.
    """
    mask = -int64(symbol >= DIRECT)
    octave = int64(_OCTAVES[uint64(min(symbol, _OCTAVES.size - 1))])
    while symbol >> (octave + 1):
        octave += 1
    count = (octave - 2) & mask
    part = (symbol & ((int64(1) << count) - 1)) << (position & 31)
    word = uint64(position >> 5)
    bits[word] |= uint32(part)
    bits[word + uint64(1)] |= uint32(part >> 32)
    coarse = DIRECT + 4 * (octave - 5) + ((symbol >> count) & 3)
    return symbol + ((coarse - symbol) & mask), position + count


@inlined
def emit(fields, classes, symbols, contexts, counts, bits, position):
    """Store and count the first n samples in `fields`; `symbols` and `contexts` are (n,).

    The low bits of large symbols are written to `bits` at `position`. Returns the new position.
    """
    large = 0
    for i in range(symbols.size):
        large += np.int32(fields[SYMBOL + i] >= DIRECT)
    many = large > symbols.size // 2  # then a branch for large symbols would not pay
    for i in range(symbols.size):
        found = uint64(fields[CONTEXT + i])
        context = int64(classes[found >> uint64(ACTIVITY)]) + int64(found & uint64(PATTERN))
        symbol = int64(fields[SYMBOL + i])
        if many or symbol >= DIRECT:
            symbol, position = _part_low_bits(symbol, bits, position)
        symbols[i] = symbol
        contexts[i] = context
        counts[uint64(context), uint64(symbol)] += 1
    return position
