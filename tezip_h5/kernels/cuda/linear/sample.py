"""The linear coder on the device: plans, slots and functions of samples that its kernels share.

`plan` has the same parameters of a plane as on the CPU (`kernels.linear.plan`), and then those at
the indices below. A wave computes sixteen rows at a time, each two columns behind the row above
it. Arrays that a wave reads and writes are in the order of its steps, with a *slot* for each step
and row. The slot of row y and column x is
``(y // 16 * steps + x + 2 + 2 * (y % 16)) * 16 + y % 16``, where ``steps = w + 32`` is the number
of steps for sixteen rows. So the sixteen threads of a step read and write adjacent memory.
"""

from __future__ import annotations

from numba import int32, int64

from tezip_h5.kernels.cuda.launch import cuda, device
from tezip_h5.kernels.cuda.scalar import of
from tezip_h5.kernels.linear import plan, sample
from tezip_h5.kernels.linear.plan import DIRECT, FRACTIONS, LANES, PATTERNS

__all__ = [
    "BITS",
    "COLUMNS",
    "ENTRIES",
    "ENTRY_BITS",
    "FROM",
    "LANE",
    "MOST_TAPS",
    "PLAN",
    "ROWS",
    "TAPS",
    "TURN",
    "class_of",
    "coarse_of",
    "fold_of",
    "pattern_of",
    "rules_of",
    "slot_of",
    "steps_of",
    "value_of",
    "weights_of",
]

# Indices of further parameters: the lane of the slab, the size of the frame, the number of frames
# so far, the number of taps, and whether a prediction was sent.
LANE, ROWS, COLUMNS, TURN, TAPS, FROM = range(plan.PLAN, plan.PLAN + 6)
PLAN = plan.PLAN + 6
MOST_TAPS = 20

BITS = 21  # bits of an entry below the low bits: the context in 13 bits, the symbol in 8
ENTRY_BITS = 31 - BITS  # the number of low bits that fit in entries of 32 bits

ENTRIES = (int32[:, ::1], int64[:, ::1])
"""The types of arrays (n, slots) of entries. An entry is the sum of a context, a symbol ``<< 13``,
and the low bits of that symbol ``<< BITS``."""


value_of, pattern_of = of(sample.value_of), of(sample.pattern_of)
rules_of, weights_of = of(sample.rules_of), of(plan.weights_of)
fold_of = of(plan.fold_of)


@device
def steps_of(columns):
    """The number of steps for sixteen rows."""
    return columns + 2 * LANES


@device
def slot_of(y, x, columns):
    """The slot of row y and column x."""
    lane = y % LANES
    return ((y // LANES) * steps_of(columns) + x + 2 + 2 * lane) * LANES + lane


@device
def class_of(activity):
    """The first context of the class that an activity belongs to."""
    found = activity
    if activity > 3:
        octave = 31 - cuda.clz(int32(activity))
        found = 2 * octave + ((activity >> (octave - 1)) & 1)
    return found * (PATTERNS * FRACTIONS)


@device
def coarse_of(symbol):
    """The part of a symbol that is coded with tables, its low bits, and their number."""
    if symbol < DIRECT:
        return symbol, int64(0), int64(0)
    shift = 16 if symbol >> 16 else 0
    octave = int64(shift + 31 - cuda.clz(int32(symbol >> shift)))
    count = octave - 2
    coarse = DIRECT + 4 * (octave - 5) + ((symbol >> count) & 3)
    return coarse, symbol & ((int64(1) << count) - 1), count
