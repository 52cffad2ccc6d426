"""What the linear coder's encoder does with predicted samples: symbols, contexts, counts."""

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

# A block of columns, of whose samples one array holds all: a compiler vectorizes a loop over
# fields that lie at distances it knows.
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
"""Of ``model(levels, own, taps, plan, classes, found, bits, filled)``, which finds symbols,
contexts and low bits of one plane; its reconstruction goes into `own`.

`found`: symbols and contexts, both (h, w), and how often each symbol (column) was found in each
context (row). `bits`: words of low bits for each lane, zero where none are yet; `filled` counts
the bits there.
"""

_OCTAVES = np.maximum(np.frexp(np.arange(4096))[1] - 1, 0).astype(np.uint8)  # floor of log2


@inlined
def _part_low_bits(symbol, bits, position):
    """Put a symbol's low bits in `bits` from `position` on, if it has any; no branch.

    Returns what the tables know of it, and where its bits end.
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
    """Store and count what `fields` hold of as many samples as `symbols` (n,) and `contexts` take.

    The low bits of large symbols are put aside from `position` on; returns where they end.
    """
    large = 0
    for i in range(symbols.size):
        large += np.int32(fields[SYMBOL + i] >= DIRECT)
    many = large > symbols.size // 2  # where many are, a branch would be mispredicted
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
