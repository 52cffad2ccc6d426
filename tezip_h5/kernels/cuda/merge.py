"""Run merging on CUDA: the CPU's greedy scan, in parallel, with the same runs.

A run goes on while the largest minus the least of its residuals is at most twice the tolerance;
the next begins where it ends. Where a run that begins at a sample ends depends on nothing
before it. So, with the frame cut into blocks:

1. every sample of a block, as if a run began there, follows the runs to the last that begins
   in the block, and keeps the least and largest residual of its part there (`_tails`);
2. the same two of 1, 2, 4, ... whole blocks from every block on are tabulated (`_double`);
3. with them every sample finds where that last run ends: the first run of a later block, as if
   one began here, and the middle of the last run before it (`_crossings`);
4. one thread follows these from the first sample, a step for each block at most: only now it
   is known which runs there are (`_chase`);
5. every block writes its runs, from where its first begins (`_apply`).

Work is n log n at worst, where a run spans the frame; step 4 alone is sequential.
"""

from __future__ import annotations

from numba import cuda, int32, int64, void

from tezip_h5.kernels.cuda import memory
from tezip_h5.kernels.cuda.launch import SIMULATED, device, grid, kernel

__all__ = ["merge_encode"]

_FLAT = int32[::1]
_TABLE = int64[:, ::1]
_SPAN = 8 if SIMULATED else 256  # samples of a block


@device
def _walk(residuals, start, count, spread):
    """Where the run from `start` ends, at most at `count`, and its least and largest residual."""
    low = residuals[start]
    high = low
    stop = start + 1
    while stop < count:
        value = residuals[stop]
        if max(high, value) - min(low, value) > spread:
            break
        low, high = min(low, value), max(high, value)
        stop += 1
    return stop, low, high


@kernel(void(_FLAT, _FLAT, int64, _TABLE, int64[:, :, ::1]))
def _tails(levels, prediction, spread, runs, spans):
    """Rows 0 and 1 of `runs` and of spans[0]: the least and the largest residual of every
    sample's last run in its block, and of every block."""
    residuals = cuda.shared.array(_SPAN, int64)
    ends = cuda.shared.array((3, _SPAN), int64)
    thread = cuda.threadIdx.x
    block = cuda.blockIdx.x
    i = block * _SPAN + thread
    count = min(_SPAN, levels.size - block * _SPAN)
    if thread < count:
        residuals[thread] = int64(levels[i]) - int64(prediction[i])
    cuda.syncthreads()
    if thread < count:
        stop, low, high = _walk(residuals, thread, count, spread)
        ends[0, thread], ends[1, thread], ends[2, thread] = stop, low, high
    cuda.syncthreads()
    if thread < count:
        last = thread
        while ends[0, last] < count:
            last = ends[0, last]
        runs[0, i], runs[1, i] = ends[1, last], ends[2, last]
    if thread == 0:
        low, high = residuals[0], residuals[0]
        for k in range(1, count):
            low, high = min(low, residuals[k]), max(high, residuals[k])
        spans[0, 0, block], spans[0, 1, block] = low, high


@kernel(void(int64, int64[:, :, ::1]))
def _double(level, spans):
    """spans[level]: of 2**level blocks from every block on, of which as many are left."""
    reach = int64(1) << (level - 1)
    for block in range(cuda.grid(1), spans.shape[2] - 2 * reach + 1, cuda.gridsize(1)):
        low, high = spans[level - 1, 0, block], spans[level - 1, 1, block]
        spans[level, 0, block] = min(low, spans[level - 1, 0, block + reach])
        spans[level, 1, block] = max(high, spans[level - 1, 1, block + reach])


@kernel(void(_FLAT, _FLAT, int64, int64[:, :, ::1], _TABLE))
def _crossings(levels, prediction, spread, spans, runs):
    """Row 0 of `runs`: where the last run of every sample's block ends; row 1: its middle."""
    blocks = spans.shape[2]
    for i in range(cuda.grid(1), levels.size, cuda.gridsize(1)):
        low, high = runs[0, i], runs[1, i]
        block = i // _SPAN + 1
        for k in range(spans.shape[0]):
            level = spans.shape[0] - 1 - k
            reach = int64(1) << level
            if block + reach <= blocks:
                least = min(low, spans[level, 0, block])
                largest = max(high, spans[level, 1, block])
                if largest - least <= spread:
                    low, high, block = least, largest, block + reach
        stop = block * _SPAN
        while stop < levels.size:
            value = int64(levels[stop]) - int64(prediction[stop])
            if max(high, value) - min(low, value) > spread:
                break
            low, high = min(low, value), max(high, value)
            stop += 1
        runs[0, i], runs[1, i] = min(stop, levels.size), (low + high) >> 1


@kernel(void(_TABLE, _TABLE))
def _chase(runs, carried):
    """Of every block: the sample its first run begins at (the number of samples where none does),
    and the middle of the run before it. One thread."""
    samples, blocks = runs.shape[1], carried.shape[1]
    carried[0, 0], carried[1, 0] = 0, 0
    start = int64(0)
    while start < samples:
        stop, middle = runs[0, start], runs[1, start]
        for block in range(start // _SPAN + 1, min(stop // _SPAN + 1, blocks)):
            carried[0, block], carried[1, block] = samples, middle
        if stop < samples:
            carried[0, stop // _SPAN] = stop
        start = stop


@kernel(void(_FLAT, _FLAT, int64, int64, int64, _TABLE, _TABLE, _FLAT, _FLAT))
def _apply(levels, prediction, spread, top, mask, runs, carried, symbols, reconstruction):
    residuals = cuda.shared.array(_SPAN, int64)
    ends = cuda.shared.array((2, _SPAN), int64)  # where a run ends, and its middle
    begins = cuda.shared.array(_SPAN, int32)
    thread = cuda.threadIdx.x
    block = cuda.blockIdx.x
    i = block * _SPAN + thread
    count = min(_SPAN, levels.size - block * _SPAN)
    begins[thread] = 0
    if thread < count:
        residuals[thread] = int64(levels[i]) - int64(prediction[i])
    cuda.syncthreads()
    if thread < count:
        stop, low, high = _walk(residuals, thread, count, spread)
        ends[0, thread] = stop
        ends[1, thread] = (low + high) >> 1 if stop < count else runs[1, i]
    cuda.syncthreads()
    if thread == 0:
        start = carried[0, block] - block * _SPAN
        while start < count:
            begins[start] = 1
            start = ends[0, start]
    cuda.syncthreads()
    if thread < count:
        start = thread
        while start >= 0 and begins[start] == 0:
            start -= 1
        middle = ends[1, start] if start >= 0 else carried[1, block]
        half = (mask + 1) >> 1
        guess = int64(prediction[i])
        value = min(max(guess + middle, int64(0)), top)
        reconstruction[i] = value
        symbols[i] = ((value - guess + half) & mask) - half


def merge_encode(levels, prediction, tolerance, top, mask, symbols, reconstruction) -> None:
    """As the CPU's. Needs 16 bytes of device memory per sample meanwhile, kept for the next."""
    samples, spread = levels.size, 2 * int(tolerance)
    if not samples:
        return
    blocks = -(-samples // _SPAN)
    runs = memory.scratch("runs", (2, samples), "int64")
    spans = memory.scratch("spans", (blocks.bit_length(), 2, blocks), "int64")
    carried = memory.scratch("carried", (2, blocks), "int64")
    _tails(blocks, _SPAN, levels, prediction, spread, runs, spans)
    for level in range(1, blocks.bit_length()):
        _double(*grid(blocks), level, spans)
    _crossings(*grid(samples), levels, prediction, spread, spans, runs)
    _chase(1, 1, runs, carried)
    sizes = spread, int(top), int(mask)
    _apply(blocks, _SPAN, levels, prediction, *sizes, runs, carried, symbols, reconstruction)
