"""The linear coder on the device: code symbols with rANS, from the last sample to the first.

Each thread codes one stream, as in ``wave.py``. A launch goes backwards through the slots of one
plane of each chunk; the next launch continues with the plane before it. Words and low bits are
written backwards, from the ends of their buffers.
"""

from __future__ import annotations

from numba import cuda, int64, uint8, uint16, uint32, void

from tezip_h5.kernels.cuda.launch import SIMULATED, device, kernel
from tezip_h5.kernels.cuda.linear.sample import BITS, ENTRIES, steps_of
from tezip_h5.kernels.linear.plan import CONTEXTS, DIRECT, LANES, PRECISION

__all__ = ["HEIGHT", "PLAN", "SYMBOLS", "WIDTH", "gather", "grid", "rans_encode"]

HEIGHT, WIDTH, SYMBOLS = range(3)
"""Indices of the plan of a chunk: the size of its frames, and the symbols of its tables."""
PLAN = 3

_THREADS = LANES if SIMULATED else 2 * LANES


def grid(n: int) -> tuple[int, int]:
    """The blocks and threads for `n` chunks."""
    return -(-n * LANES // _THREADS), _THREADS


@device
def _entry(t, x, y, width, height, lane, entries):
    """The entry in a slot; -1 if there is no sample."""
    if y < 0 or y >= height or x < 0 or x >= width:
        return int64(-1)
    return int64(entries[t * LANES + lane])


@device
def _ask(entry, side, symbols, tables, slots):
    """The frequency and start of an entry's symbol; 0 if there is no sample."""
    if entry < 0:
        return int64(0)
    table = int64(tables[side * CONTEXTS + (entry & 8191)])
    return int64(slots[table * symbols + ((entry >> 13) & 255)])


@device
def _before(x, y, lane, steps):
    """The place of a thread one step earlier."""
    if x > -2 - 2 * lane:
        return x - 1, y
    return steps - 3 - 2 * lane, y - LANES


_SIGNATURES = [
    void(
        int64[:, ::1], int64[:, ::1], entries, uint8[:, ::1], uint32[:, ::1],
        uint16[:, :, ::1], uint32[:, :, ::1], int64[:, :, ::1], int64[:, :, ::1],
    )
    for entries in ENTRIES
]  # fmt: skip


@kernel(*_SIGNATURES)
def rans_encode(which, plan, entries, tables, slots, words, bits, coders, marks):
    """Code one plane of some chunks, backwards.

    Parameters
    ----------
    which : (m, 3)
        For each plane: the chunk, the row of `entries`, and the side of its contexts.
    plan : (n, PLAN)
        One row for each chunk.
    entries : see `sample.ENTRIES`
    tables, slots : (n, sides * contexts) and (n, ...)
        As in `kernels.linear.rans`.
    words, bits : (n, LANES, ...)
        Filled backwards; bits must be 0 at first.
    coders : (n, 3, LANES)
        States, positions of the last words, positions of the last low bits.
    marks : (m, 2, LANES)
        Receives these positions after the plane.
    """
    thread = cuda.grid(1)
    lane, m = thread % LANES, thread // LANES
    if m >= which.shape[0]:
        return
    k, side = which[m, 0], which[m, 2]
    height, width, symbols = plan[k, HEIGHT], plan[k, WIDTH], plan[k, SYMBOLS]
    ours, our_tables, our_slots = entries[which[m, 1]], tables[k], slots[k]
    our_words, our_bits = words[k, lane], bits[k, lane]
    state, place, end = coders[k, 0, lane], coders[k, 1, lane], coders[k, 2, lane]
    word = end >> 5
    held = int64(our_bits[word])
    steps = steps_of(width)
    y = ((height - 1) // LANES) * LANES + lane
    x = steps - 3 - 2 * lane
    t = ((height - 1) // LANES + 1) * steps - 1
    # Entries are loaded two steps ahead, and table entries one step ahead, so that no load waits
    # for another load or for the state.
    entry = _entry(t, x, y, width, height, lane, ours)
    coming = _ask(entry, side, symbols, our_tables, our_slots)
    t, (x, y) = t - 1, _before(x, y, lane, steps)
    next_entry = _entry(t, x, y, width, height, lane, ours)
    for _ in range(t + 2):
        slot, done = coming, entry
        entry = next_entry
        coming = _ask(entry, side, symbols, our_tables, our_slots)
        t, (x, y) = t - 1, _before(x, y, lane, steps)
        next_entry = _entry(t, x, y, width, height, lane, ours)
        if slot == 0:
            continue
        frequency = slot >> PRECISION
        if state >= frequency << 20:
            place -= 1
            our_words[place] = state & 0xFFFF
            state >>= 16
        quotient = int64(uint32(state) // uint32(frequency))
        state += quotient * (4096 - frequency) + (slot & 4095)
        coarse = (done >> 13) & 255
        if coarse >= DIRECT:
            end -= ((coarse - DIRECT) >> 2) + 3
            part = (done >> BITS) << (end & 31)
            if end >> 5 != word:
                our_bits[word] = held | part >> 32
                word, held = end >> 5, int64(0)
            held |= part & 0xFFFFFFFF
    our_bits[word] = held
    coders[k, 0, lane], coders[k, 1, lane], coders[k, 2, lane] = state, place, end
    marks[m, 0, lane], marks[m, 1, lane] = place, end


@kernel(void(uint16[::1], int64[:, ::1], uint16[::1]))
def gather(words, places, out):
    """Copy pieces of `words` to `out`; `places` (n, 3) are source, target and length of each."""
    k = cuda.blockIdx.x
    for i in range(cuda.threadIdx.x, places[k, 2], cuda.blockDim.x):
        out[places[k, 1] + i] = words[places[k, 0] + i]
