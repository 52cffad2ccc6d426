"""The linear coder on the device: kernels that compute all samples of planes in parallel.

A launch works on one plane of each of `n` chunks; `plan` is (n, PLAN). Threads go through samples
in the order of planes. When they write to slots (see `sample`), only a quarter of each memory
transfer is used.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, cuda, int32, int64, uint16, uint32, void

from tezip_h5.kernels.cuda.launch import SIMULATED, device, kernel
from tezip_h5.kernels.cuda.linear.sample import (
    BITS,
    COLUMNS,
    ENTRIES,
    FROM,
    LANE,
    ROWS,
    TAPS,
    TURN,
    class_of,
    coarse_of,
    fold_of,
    pattern_of,
    rules_of,
    slot_of,
    value_of,
    weights_of,
)
from tezip_h5.kernels.linear.plan import (
    BIAS,
    CHANNEL,
    DIRECT,
    FLAT,
    HIGH,
    LANES,
    LARGEST,
    LOW,
    PREDICTED,
    SCALE,
    SHIFT,
    SIDE,
    SIDE_BEFORE,
    SIDE_OWN,
    WIDEST,
)

__all__ = ["blocks", "clear", "deliver", "exact_contexts", "exact_symbols", "known", "surround"]

_THREADS = 8 if SIMULATED else 256
_MOST_BLOCKS = 1 if SIMULATED else 64  # largest number of blocks for each chunk

# Axes: lanes, (frame, frame, magnitudes, magnitudes), C, h + 3, w + 4.
_PLANES = int32[:, :, :, :, ::1]
_PLAN, _TAPS = int64[:, ::1], int64[:, :, ::1]
_SENT = int32[:, :, ::1]  # axes: lanes, (levels or reconstruction, prediction), samples


def blocks(n: int, samples: int) -> tuple[tuple[int, int], int]:
    """The blocks and threads for kernels that loop over the samples of each chunk."""
    return (max(1, min(-(-samples // _THREADS), _MOST_BLOCKS)), n), _THREADS


@device
def _row_and_column(i, wide):
    """The row and column of place `i`. The division is in 32 bits, which is much faster."""
    row = int64(uint32(i) // uint32(wide))
    return row, i - row * wide


@kernel(void(_PLAN, _SENT, int64, _PLANES))
def surround(plan, sent, which, planes):
    """Copy what was sent to a plane, and fill its margins; see `plan.surround`.

    If `which` is 0, levels are copied to the plane of this frame. If it is 1, a prediction is
    copied to the plane of the frame that predicts, if one was sent.
    """
    k = cuda.blockIdx.y
    rows, columns, turn = plan[k, ROWS], plan[k, COLUMNS], plan[k, TURN] & 1
    if which == 1 and plan[k, FROM] == 0:
        return
    samples = sent[plan[k, LANE], which]
    plane = planes[plan[k, LANE], 1 - turn if which == 1 else turn, plan[k, CHANNEL]]
    stride = cuda.gridDim.x * cuda.blockDim.x
    first = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    wide = columns + 4
    for i in range(first, (rows + 3) * wide, stride):
        at, column = _row_and_column(i, wide)
        y = min(at, rows + 1) - 2
        value = int32(0)
        if y >= 0 and column >= 2:
            value = samples[y * columns + min(column - 2, columns - 1)]
        elif y > 0:
            value = samples[(y - 1) * columns]
        plane[at, column] = value


@device
def _expected(y, x, k, plan, taps, first_tap, lane_planes):
    """The part of a sample's prediction from earlier rows and frames; see `plan.expect`."""
    channel, turn = plan[k, CHANNEL], plan[k, TURN] & 1
    frame, before = lane_planes[turn], lane_planes[1 - turn, channel]
    guess = int64(1) << (SHIFT - 1)
    flat = plan[k, FLAT] != 0
    if y == 0 and not flat:
        if plan[k, PREDICTED] != 0:
            guess += (int64(before[2, x + 2]) - int64(before[2, x + 1])) << SHIFT
        elif channel > 0:
            row = frame[channel - 1, 2]
            guess += (int64(row[x + 2]) - int64(row[x + 1])) << SHIFT
    elif y > 1 or flat:
        guess += plan[k, BIAS]
        for j in range(first_tap, plan[k, TAPS]):
            source = taps[k, j, 0]
            row, column = y + 2 + taps[k, j, 1], x + 2 + taps[k, j, 2]
            if source == 1:
                sample = before[row, column]
            else:
                sample = frame[channel - max(source - 1, 0), row, column]
            guess += int64(sample) * int64(int32(taps[k, j, 3]))
    return guess


@device
def _surroundings(y, x, k, plan, lane_planes):
    """The part of a sample's energy from other frames and channels; see `plan.surroundings`."""
    channel, turn = plan[k, CHANNEL], plan[k, TURN] & 1
    if plan[k, SIDE] == SIDE_OWN:
        return int64(0)
    plane = lane_planes[2 + turn, max(channel - 1, 0)]
    if plan[k, SIDE] == SIDE_BEFORE:
        plane = lane_planes[3 - turn, channel]
    total = 2 * plane[y + 2, x + 2] + plane[y + 2, x + 1] + plane[y + 2, x + 3]
    return int64(total + plane[y + 1, x + 2] + plane[y + 3, x + 2])


@kernel(
    void(
        _PLAN, _TAPS, _SENT, boolean, _PLANES,
        int64[:, ::1], int32[:, ::1], int32[:, :, ::1], int32[:, ::1],
    )
)  # fmt: skip
def known(plan, taps, sent, encoding, planes, guesses, energies, pasts, samples):
    """Compute everything that is known before the wave, and write it to slots.

    Parameters
    ----------
    sent : see `Slab`
    encoding : bool
    guesses, energies : (lanes, slots)
        Receive the known parts of predictions and energies.
    pasts : (lanes, 2, slots)
        Receives the samples of the last frame at the same place and in the row above.
    samples : (lanes, slots)
        Receives the levels, when encoding.
    """
    k = cuda.blockIdx.y
    lane, rows, columns = plan[k, LANE], plan[k, ROWS], plan[k, COLUMNS]
    before = planes[lane, 1 - (plan[k, TURN] & 1), plan[k, CHANNEL]]
    stride = cuda.gridDim.x * cuda.blockDim.x
    first = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    for i in range(first, rows * (columns + 1), stride):
        y, x = _row_and_column(i, columns + 1)
        x -= 1  # the first place is the margin left of the row
        slot = slot_of(y, x, columns)
        if plan[k, PREDICTED] != 0:
            pasts[lane, 0, slot] = before[y + 2, x + 2]
            pasts[lane, 1, slot] = before[y + 1, x + 2]
        if x >= 0:
            guesses[lane, slot] = _expected(y, x, k, plan, taps, 3, planes[lane])
            energies[lane, slot] = _surroundings(y, x, k, plan, planes[lane])
            if encoding:
                samples[lane, slot] = sent[lane, 0, y * columns + x]


@kernel(void(_PLAN, int32[:, ::1], uint16[:, ::1], _PLANES, _SENT))
def deliver(plan, samples, sizes, planes, sent):
    """Copy samples and magnitudes of symbols from slots to planes.

    Samples are also copied to the memory that levels were sent to.
    """
    k = cuda.blockIdx.y
    lane, rows, columns = plan[k, LANE], plan[k, ROWS], plan[k, COLUMNS]
    turn, channel = plan[k, TURN] & 1, plan[k, CHANNEL]
    frame, magnitudes = planes[lane, turn, channel], planes[lane, 2 + turn, channel]
    stride = cuda.gridDim.x * cuda.blockDim.x
    first = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    wide = columns + 4
    for i in range(first, (rows + 3) * wide, stride):
        at, column = _row_and_column(i, wide)
        y, x = min(at, rows + 1) - 2, min(max(column - 2, 0), columns - 1)
        value = int32(0)
        if y >= 0 and column >= 2:
            value = samples[lane, slot_of(y, x, columns)]
        elif y > 0:
            value = samples[lane, slot_of(y - 1, 0, columns)]
        frame[at, column] = value
        if 2 <= at < rows + 2 and 2 <= column < columns + 2:
            sent[lane, 0, y * columns + x] = value
            magnitudes[at, column] = sizes[lane, slot_of(y, x, columns)]


@kernel(*(void(_PLAN, _TAPS, _PLANES, entries) for entries in ENTRIES))
def exact_symbols(plan, taps, planes, entries):
    """Compute symbols of lossless samples, their magnitudes, and the patterns of their contexts."""
    k = cuda.blockIdx.y
    columns, channel, turn = plan[k, COLUMNS], plan[k, CHANNEL], plan[k, TURN] & 1
    ours = planes[plan[k, LANE]]
    frame, before, magnitudes = (
        ours[turn, channel],
        ours[1 - turn, channel],
        ours[2 + turn, channel],
    )
    rules, predicted = rules_of(np.int64, plan[k]), plan[k, PREDICTED] != 0
    fold = fold_of(plan[k])
    stride = cuda.gridDim.x * cuda.blockDim.x
    first = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    for i in range(first, plan[k, ROWS] * columns, stride):
        y, x = _row_and_column(i, columns)
        row, column = y + 2, x + 2
        near = (
            int64(frame[row, column - 1]),
            int64(frame[row, column - 2]),
            int64(frame[row - 1, column]),
            int64(frame[row - 1, column - 1]),
            int64(frame[row - 1, column + 1]),
        )
        past = (int64(0), int64(0), int64(0), int64(0))
        if predicted:
            past = (
                int64(before[row, column]),
                int64(before[row, column - 1]),
                int64(before[row - 1, column]),
                int64(before[row - 1, column - 1]),
            )
        guess = _expected(y, x, k, plan, taps, 0, ours)
        value = value_of(guess, weights_of(plan[k], y), near, past, rules)
        prediction = min(max(value >> SHIFT, plan[k, LOW]), plan[k, HIGH])
        pattern = pattern_of(np.int64, value, prediction, prediction, near, past[0], rules)
        cell = int64(frame[row, column]) - prediction
        size = abs(cell)
        coarse, low, _ = coarse_of((size << fold) - (1 if cell < 0 else 0))
        entries[k, slot_of(y, x, columns)] = pattern | coarse << 13 | low << BITS
        magnitudes[row, column] = min(size >> plan[k, SCALE], LARGEST)


@kernel(
    *(
        void(_PLAN, _PLANES, entries, int32[:, :, :, ::1], int64[:, ::1])
        for entries in ENTRIES
    )
)  # fmt: skip
def exact_contexts(plan, planes, entries, counts, filled):
    """Replace the patterns from `exact_symbols` by contexts, and count symbols.

    Parameters
    ----------
    counts : (lanes, sides, contexts, symbols)
    filled : (lanes, LANES)
        The number of low bits of each stream.
    """
    k = cuda.blockIdx.y
    lane, columns, channel = plan[k, LANE], plan[k, COLUMNS], plan[k, CHANNEL]
    side = plan[k, SIDE]
    ours = planes[lane]
    sizes = ours[2 + (plan[k, TURN] & 1), channel]
    stride = cuda.gridDim.x * cuda.blockDim.x
    first = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    for i in range(first, plan[k, ROWS] * columns, stride):
        y, x = _row_and_column(i, columns)
        row, column = y + 2, x + 2
        near = 2 * (sizes[row, column - 1] + sizes[row - 1, column])
        near += sizes[row - 1, column - 1] + sizes[row - 1, column + 1]
        if side == SIDE_OWN:
            energy = 3 * near + 2 * sizes[row - 2, column]
        else:
            energy = 2 * near + _surroundings(y, x, k, plan, ours)
        slot = slot_of(y, x, columns)
        entry = int64(entries[k, slot])
        entry += class_of(min(int64(energy) >> 2, int64(WIDEST)))
        entries[k, slot] = entry
        coarse = (entry >> 13) & 255
        cuda.atomic.add(counts, (lane, side, entry & 8191, coarse), 1)
        if coarse >= DIRECT:
            cuda.atomic.add(filled, (lane, y % LANES), ((coarse - DIRECT) >> 2) + 3)


@kernel(void(int64[::1], int32[:, ::1]))
def clear(numbers, arrays):
    """Set the rows `numbers` of `arrays` to 0. They belong to the lanes of these numbers."""
    k = cuda.blockIdx.y
    stride = cuda.gridDim.x * cuda.blockDim.x
    first = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    for i in range(first, arrays.shape[1], stride):
        arrays[numbers[k], i] = 0
