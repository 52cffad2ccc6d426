"""The kernel that codes the symbols of the linear coder with rANS."""

from __future__ import annotations

from numba import int64, uint8, uint16, uint32, void

from tezip_h5.kernels.compiling import inlined, kernel
from tezip_h5.kernels.linear.plan import LANES, PRECISION


@inlined
def _push(state, position, words, slot):
    """Code a symbol. Returns the new state, and the position of the last word written."""
    frequency = slot >> PRECISION
    words[position - 1] = state & 0xFFFF
    over = ~(state - (frequency << 20)) >> 63  # a comparison would be compiled to a branch
    position += over
    state >>= over & 16
    quotient = int64(uint32(state) // uint32(frequency))
    return state + quotient * (4096 - frequency) + (slot & 4095), position


@kernel(
    void(
        uint8[:, ::1],
        uint16[:, ::1],
        uint8[::1],
        uint32[:, ::1],
        uint16[:, ::1],
        int64[::1],
        int64[::1],
    )
)
def rans_encode(symbols, contexts, tables, slots, words, states, places):
    """Code the symbols of a plane from the last sample to the first.

    Each row is coded in the stream of its lane. Four rows are coded at a time, so that their
    divisions overlap.

    `tables` is the table of each context; `slots` is 4096 * frequency + start for each symbol of
    each table. Each row of `words` is filled backwards, from `places` on. `states` continue from
    the plane after this one.
    """
    height, width = symbols.shape
    for top in range((height - 1) // LANES * LANES, -1, -LANES):
        rows = min(LANES, height - top)
        for lane in range(0, rows & ~3, 4):
            y = top + lane
            a, b, c, d = states[lane], states[lane + 1], states[lane + 2], states[lane + 3]
            at, at_b, at_c, at_d = (
                places[lane],
                places[lane + 1],
                places[lane + 2],
                places[lane + 3],
            )
            words_a, words_b, words_c, words_d = (
                words[lane],
                words[lane + 1],
                words[lane + 2],
                words[lane + 3],
            )
            for x in range(width - 1, -1, -1):
                slot = int64(slots[tables[contexts[y, x]], symbols[y, x]])
                a, at = _push(a, at, words_a, slot)
                slot = int64(slots[tables[contexts[y + 1, x]], symbols[y + 1, x]])
                b, at_b = _push(b, at_b, words_b, slot)
                slot = int64(slots[tables[contexts[y + 2, x]], symbols[y + 2, x]])
                c, at_c = _push(c, at_c, words_c, slot)
                slot = int64(slots[tables[contexts[y + 3, x]], symbols[y + 3, x]])
                d, at_d = _push(d, at_d, words_d, slot)
            states[lane], states[lane + 1], states[lane + 2], states[lane + 3] = a, b, c, d
            places[lane], places[lane + 1] = at, at_b
            places[lane + 2], places[lane + 3] = at_c, at_d
        for lane in range(rows & ~3, rows):
            state, place = states[lane], places[lane]
            for x in range(width - 1, -1, -1):
                slot = int64(slots[tables[contexts[top + lane, x]], symbols[top + lane, x]])
                state, place = _push(state, place, words[lane], slot)
            states[lane], places[lane] = state, place
