"""The linear coder on the device: a wave of sixteen rows, each two columns behind the one above.

Each thread has one row of sixteen, and two chunks share a warp. A step mostly waits for memory,
such as the tables of a decoder, and that takes as long for sixteen threads as for thirty-two. A
thread keeps the surroundings of its sample in registers. It receives the sample above and to the
right, the sample two rows above, and their magnitudes from the thread of the row above. The first
of sixteen rows reads them from slots, where the wave before has written them. Memory is read one
step ahead.
"""

from __future__ import annotations

import numpy as np
from numba import cuda, int32, int64, uint8, uint16, uint32, void

from tezip_h5.kernels.cuda.cells import cell
from tezip_h5.kernels.cuda.launch import SIMULATED, device, kernel
from tezip_h5.kernels.cuda.linear.sample import (
    BITS,
    COLUMNS,
    ENTRIES,
    LANE,
    ROWS,
    class_of,
    coarse_of,
    fold_of,
    pattern_of,
    rules_of,
    steps_of,
    value_of,
    weights_of,
)
from tezip_h5.kernels.linear.plan import (
    CONTEXTS,
    DIRECT,
    HIGH,
    LANES,
    LARGEST,
    LOW,
    LOWEST,
    PRECISION,
    PREDICTED,
    SCALE,
    SHIFT,
    SIDE,
    SIDE_OWN,
    TOLERANCE,
    WIDEST,
)

__all__ = ["decode_rows", "grid", "model_rows"]

_CHUNKS = 1 if SIMULATED else 2  # chunks of a block
_THREADS = LANES * _CHUNKS
_ALL = 0xFFFFFFFF

_PLAN, _TAPS = int64[:, ::1], int64[:, :, ::1]
_SLOTS, _PASTS = int32[:, ::1], int32[:, :, ::1]
_WORDS, _UNSIGNED = uint16[:, ::1], uint32[:, ::1]
_KNOWN = (_PLAN, _TAPS, int64[:, ::1], _SLOTS, _PASTS, _SLOTS, uint16[:, ::1])


def grid(n: int) -> tuple[int, int]:
    """The blocks and threads for the planes of `n` chunks."""
    return -(-n // _CHUNKS), _THREADS


if SIMULATED:

    def _from_above(step, sample, sample_above, sizes):
        """The values of the thread before this one; 0 for the first thread."""
        box = cuda.shared.array((2, 3, _THREADS), int32)
        thread = cuda.threadIdx.x
        now = box[step & 1]  # slower threads may still read the other one
        now[0, thread], now[1, thread], now[2, thread] = sample, sample_above, sizes
        cuda.syncthreads()
        before = max(thread - 1, 0)
        return now[0, before], now[1, before], now[2, before]

else:

    @device
    def _from_above(step, sample, sample_above, sizes):
        cuda.syncwarp(_ALL)  # the first row reads memory that other threads wrote
        return (
            cuda.shfl_up_sync(_ALL, sample, 1),
            cuda.shfl_up_sync(_ALL, sample_above, 1),
            cuda.shfl_up_sync(_ALL, sizes, 1),
        )


@device
def _left_by(t, x, columns, samples, sizes):
    """What the first row of a wave needs at column `x` from the last rows of the wave before.

    This is the sample above and to the right, the sample above that one, and two magnitudes in one
    number.
    """
    begin = t - x - 2 - steps_of(columns)  # the first slot of the wave before
    right = min(x + 1, columns - 1)
    if x == -2:  # the margin left of the row two above holds a sample of the row above that
        return int32(0), samples[(begin + 2 + 2 * (LANES - 3)) * LANES + LANES - 3], int32(0)
    last, last2 = begin + 2 + 2 * (LANES - 1), begin + 2 + 2 * (LANES - 2)
    size = int64(0)
    if x + 1 < columns:
        size = int64(sizes[(last + x + 1) * LANES + LANES - 1])
    if x >= 0:
        size |= int64(sizes[(last2 + x) * LANES + LANES - 2]) << 16
    return (
        samples[(last + right) * LANES + LANES - 1],
        samples[(last2 + right) * LANES + LANES - 2],
        int32(size),
    )


@device
def _weights(y, plan, taps):
    """The weights of row `y`: those of W, WW, N, NW, NE, the median, and three two rows above.

    They are int32, so that products multiply 32 bits by 32 bits.
    """
    own = weights_of(plan, y)
    above = int64(0), int64(0), int64(0)
    if y > 1:
        above = taps[0, 3], taps[1, 3], taps[2, 3]
    return (
        int32(own[0]),
        int32(own[1]),
        int32(own[2]),
        int32(own[3]),
        int32(own[4]),
        int32(own[5]),
        int32(above[0]),
        int32(above[1]),
        int32(above[2]),
    )


@device
def _steps(plan, k, chunks):
    """The number of steps of a block, which is the largest of its chunks."""
    most = int64(0)
    first = k - k % _CHUNKS
    for i in range(first, min(first + _CHUNKS, chunks)):
        waves = (plan[i, ROWS] + LANES - 1) // LANES
        most = max(most, waves * steps_of(plan[i, COLUMNS]))
    return most


@device
def _ask(t, of_lane, columns, x, active, predicted, guesses, energies, pasts, samples):
    """Read a slot for a step; nothing is read if the row has no sample in that step."""
    if not active or x < -1 or x >= columns:
        return int64(0), int32(0), int32(0), int32(0), int32(0)
    slot = t * LANES + of_lane
    past, past_above = int32(0), int32(0)
    if predicted:
        past, past_above = pasts[0, slot], pasts[1, slot]
    if x < 0:
        return int64(0), int32(0), past, past_above, int32(0)
    return guesses[slot], energies[slot], past, past_above, samples[slot]


@device
def _foretell(expected, energy, around, past, sizes, weights, rules, limits):
    """Compute the prediction and the context of a sample."""
    west, west2, corner, above, right, corner2, above2, right2 = around
    size_w, size_nw, size_n, size_ne, size_nn = sizes
    near = int64(west), int64(west2), int64(above), int64(corner), int64(right)
    w0, w1, w2, w3, w4, w5, w6, w7, w8 = weights
    value = expected + int64(w6) * int64(above2)
    value += int64(w7) * int64(corner2) + int64(w8) * int64(right2)
    weights = int64(w0), int64(w1), int64(w2), int64(w3), int64(w4), int64(w5)
    value = value_of(value, weights, near, past, rules)
    low, high, tolerance, _, _, _, own, _ = limits
    prediction = min(max(value >> SHIFT, low), high)
    lowest, highest = prediction - tolerance, prediction + tolerance
    pattern = pattern_of(np.int64, value, lowest, highest, near, past[0], rules)
    nearest = size_nw + size_ne + 2 * (size_w + size_n)
    if own:
        total = 3 * nearest + 2 * size_nn
    else:
        total = int64(energy) + 2 * nearest
    return prediction, class_of(min(int64(total) >> 2, int64(WIDEST))) + pattern


@device
def _look_up(context, stream, ends, tables, slots, words, bits):
    """Decode the next symbol of a stream.

    Returns the symbol with its low bits, the new state, and the new positions in words and bits.
    Nothing is read beyond their ends.
    """
    state, position, start = stream
    table = int64(tables[context]) << PRECISION
    slot = int64(slots[table | (state & 4095)])
    state = int64(uint32(((slot >> 12) & 4095) + 1) * uint32(state >> PRECISION))
    state += slot & 4095
    if state < LOWEST:
        state = state << 16 | int64(words[min(position, ends[0])])
        position += 1
    symbol = slot >> 24
    if symbol >= DIRECT:
        count = ((symbol - DIRECT) >> 2) + 3
        word = min(start, ends[1]) >> 5
        pair = int64(bits[word]) | int64(bits[word + 1]) << 32
        low = (pair >> (start & 31)) & ((int64(1) << count) - 1)
        symbol = (4 | (symbol & 3)) << count | low
        start += count
    return symbol, (state, position, start)


@device
def _limits(plan):
    """The parameters of a plan that each sample needs, to keep them in registers.

    They are the lowest and the highest level, the tolerance, the shift of magnitudes, the width of
    cells, the largest useful cell (see `kernels.linear.decode`), whether energies come from this
    plane alone, and `fold_of`. The compiler would load them again for each sample, since it cannot
    know that the plan is not written to.
    """
    low, high, tolerance = plan[LOW], plan[HIGH], plan[TOLERANCE]
    stride = 2 * tolerance + 1
    return (
        low,
        high,
        tolerance,
        plan[SCALE],
        stride,
        (high - low) // stride + 1,
        plan[SIDE] == SIDE_OWN,
        fold_of(plan),
    )


@device
def _settle(symbol, prediction, limits):
    """The sample and the magnitude of a symbol, as in `kernels.linear.decode`."""
    low, high, _, scale, stride, most, _, fold = limits
    size = (symbol + fold) >> fold
    index = min(size, most)
    if symbol & fold:
        index = -index
    sample = min(max(prediction + index * stride, low), high)
    return sample, min(size >> scale, int64(LARGEST))


@device
def _quantize(level, prediction, factor, limits):
    """The symbol, sample and magnitude of a level, as in `kernels.linear.closed`."""
    low, high, tolerance, scale, stride, _, _, fold = limits
    index = int64(0)
    if level >= low:
        index = cell(int64(level) - prediction, tolerance, stride, factor)
    sample = min(max(prediction + index * stride, low), high)
    size = abs(index)
    return (size << fold) - (1 if index < 0 else 0), sample, min(size >> scale, int64(LARGEST))


def _build(decoding: bool, name: str, signatures):
    """Make the kernel for decoding or for encoding."""

    def rows(plan, taps, guesses, energies, pasts, samples, sizes, first, second, third,
             fourth, fifth):  # fmt: skip
        """Decode or encode one plane of each chunk.

        Parameters
        ----------
        plan : int64 (n, PLAN)
        taps : int64 (n, MOST_TAPS, 4)
        guesses, energies, pasts, samples : see `known`; samples receive the reconstruction
        sizes : uint16 (lanes, slots), the magnitudes of symbols
        first, ... : arrays
            For decoding: coders, tables, slots, words and bits of a `Slab`. For encoding: entries,
            counts and filled as in `exact_contexts`, and two arrays that are not used.
        """
        thread = cuda.threadIdx.x
        of_lane = thread % LANES
        chunks = plan.shape[0]
        k = cuda.blockIdx.x * _CHUNKS + thread // LANES
        total = _steps(plan, k, chunks)
        here = k < chunks
        k = min(k, chunks - 1)
        ours, own_taps = plan[k], taps[k]
        number, height, width = ours[LANE], ours[ROWS], ours[COLUMNS]
        predicted, side = ours[PREDICTED] != 0, ours[SIDE]
        rules, limits = rules_of(np.int64, ours), _limits(ours)
        factor = int64(0)
        if limits[1] < 65536:
            factor = (int64(1) << 40) // limits[4] + 1  # see `cells.reciprocal`
        guess_here, energy_here = guesses[number], energies[number]
        past_here, samples_here, sizes_here = pasts[number], samples[number], sizes[number]
        x, y = int64(-2 - 2 * of_lane), int64(of_lane)
        weights = _weights(y, ours, own_taps)
        west, west2, corner, above, right = int32(0), int32(0), int32(0), int32(0), int32(0)
        corner2, above2, right2 = int32(0), int32(0), int32(0)
        size_w, size_nw, size_n, size_ne = int32(0), int32(0), int32(0), int32(0)
        past, past_left, past_above, past_corner = int32(0), int32(0), int32(0), int32(0)
        low_bits = int64(0)
        if decoding:
            stream = first[number, 0, of_lane], first[number, 1, of_lane], first[number, 2, of_lane]
            ends = first[number, 3, of_lane], first[number, 4, of_lane]
        last = width + 2 * (LANES - 1 - of_lane) - 1  # the column in the last step of a wave
        coming = _ask(
            int64(0), of_lane, width, x, here and y < height, predicted,
            guess_here, energy_here, past_here, samples_here,
        )  # fmt: skip
        left = int32(0), int32(0), int32(0)
        for t in range(total):
            arrived = _from_above(t, west, above, int32(size_w | size_nw << 16))
            if of_lane == 0:
                arrived = left
            corner, above, right = above, right, arrived[0]
            corner2, above2, right2 = above2, right2, arrived[1]
            size_nw, size_n, size_ne = size_n, size_ne, int32(arrived[2] & 0xFFFF)
            size_nn = int32(arrived[2] >> 16)
            guess, energy, now, now_above, level = coming
            past_left, past_corner = past, past_above
            past, past_above = now, now_above
            active = here and y < height and 0 <= x < width
            next_x, next_y = x + 1, y
            if x == last:
                next_x, next_y = int64(-2 - 2 * of_lane), y + LANES
            coming = _ask(
                int64(t) + 1, of_lane, width, next_x, here and next_y < height, predicted,
                guess_here, energy_here, past_here, samples_here,
            )  # fmt: skip
            left = int32(0), int32(0), int32(0)
            if of_lane == 0 and here and 0 < next_y < height and next_x < width:
                left = _left_by(int64(t) + 1, next_x, width, samples_here, sizes_here)
            size_now = int64(0)
            if active:
                prediction, context = _foretell(
                    guess, energy, (west, west2, corner, above, right, corner2, above2, right2),
                    (int64(past), int64(past_left), int64(past_above), int64(past_corner)),
                    (size_w, size_nw, size_n, size_ne, size_nn), weights, rules, limits,
                )  # fmt: skip
                slot = t * LANES + of_lane
                if decoding:
                    symbol, stream = _look_up(
                        side * CONTEXTS + context, stream, ends, second[number], third[number],
                        fourth[number], fifth[number],
                    )  # fmt: skip
                    sample, size_now = _settle(symbol, prediction, limits)
                else:
                    symbol, sample, size_now = _quantize(level, prediction, factor, limits)
                    coarse, low, count = coarse_of(symbol)
                    first[k, slot] = context | coarse << 13 | low << BITS
                    cuda.atomic.add(second, (number, side, context, coarse), 1)
                    low_bits += count
                samples_here[slot], sizes_here[slot] = sample, size_now
                west2 = west
                west = int32(sample)
            size_w = int32(size_now)
            if x == -1:  # the margin left of a row is the first sample of the row above
                west, west2, above = right, right, right2
            if x == last:
                weights = _weights(next_y, ours, own_taps)
            x, y = next_x, next_y
        if decoding and here:
            first[number, 0, of_lane], first[number, 1, of_lane], first[number, 2, of_lane] = stream
        if not decoding and here:
            third[number, of_lane] += low_bits

    rows.__name__ = name
    return kernel(*signatures)(rows)


def _signatures():
    nothing = _WORDS, _UNSIGNED
    for entries in ENTRIES:
        yield void(*_KNOWN, entries, int32[:, :, :, ::1], int64[:, ::1], *nothing)


decode_rows = _build(
    True,
    "decode_rows",
    [
        void(
            *_KNOWN, int64[:, :, ::1], uint8[:, ::1], uint32[:, ::1], uint16[:, ::1], uint32[:, ::1]
        )
    ],
)
model_rows = _build(False, "model_rows", list(_signatures()))
