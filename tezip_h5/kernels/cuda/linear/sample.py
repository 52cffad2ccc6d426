"""The linear coder on the device: what its kernels share, of plans, slots and samples.

`plan` says of a plane what the processor's does (`kernels.linear.plan`), and behind that what is at
the places below. Sixteen rows go as a wave, each two columns behind the one above, and so do arrays
lie that are read and written by the way: in the order in which a wave comes by, a *slot* for each
step and row. Slot ``(y // 16 * steps + x + 2 + 2 * (y % 16)) * 16 + y % 16`` is that of row y and
column x, where ``steps = w + 32`` is how many steps sixteen rows take. So what sixteen threads read
or write in a step lies side by side.
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

# Behind what a plan says anyway: which lane of the slab, the frame's size, how often frames have
# taken turns, how many taps there are, and whether a prediction was sent along.
LANE, ROWS, COLUMNS, TURN, TAPS, FROM = range(plan.PLAN, plan.PLAN + 6)
PLAN = plan.PLAN + 6
MOST_TAPS = 20

BITS = 21  # of an entry below a symbol's low bits: the context in 13 bits, the symbol in 8
ENTRY_BITS = 31 - BITS  # low bits that entries of 32 bits have room for

ENTRIES = (int32[:, ::1], int64[:, ::1])
"""n, slots: a context, ``<< 13`` its symbol, ``<< BITS`` that symbol's low bits."""


value_of, pattern_of = of(sample.value_of), of(sample.pattern_of)
rules_of, weights_of = of(sample.rules_of), of(plan.weights_of)
fold_of = of(plan.fold_of)


@device
def steps_of(columns):
    """Steps that sixteen rows take."""
    return columns + 2 * LANES


@device
def slot_of(y, x, columns):
    """Where a wave has row y and column x."""
    lane = y % LANES
    return ((y // LANES) * steps_of(columns) + x + 2 + 2 * lane) * LANES + lane


@device
def class_of(activity):
    """The first context of the class of an activity."""
    found = activity
    if activity > 3:
        octave = 31 - cuda.clz(int32(activity))
        found = 2 * octave + ((activity >> (octave - 1)) & 1)
    return found * (PATTERNS * FRACTIONS)


@device
def coarse_of(symbol):
    """What tables know of a symbol, its low bits, and how many there are."""
    if symbol < DIRECT:
        return symbol, int64(0), int64(0)
    shift = 16 if symbol >> 16 else 0
    octave = int64(shift + 31 - cuda.clz(int32(symbol >> shift)))
    count = octave - 2
    coarse = DIRECT + 4 * (octave - 5) + ((symbol >> count) & 3)
    return coarse, symbol & ((int64(1) << count) - 1), count
