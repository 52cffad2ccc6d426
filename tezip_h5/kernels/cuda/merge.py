"""Run merging on CUDA: a parallel form of the greedy scan of the CPU, with the same runs.

A run continues as long as its largest residual minus its smallest is at most twice the tolerance.
The next run begins where it ends. The end of a run depends only on the sample that it begins with.
So the frame is divided into blocks, and the steps are:

1. For each sample, assume that a run begins there. Follow the runs up to the last one that begins
   in the same block, and keep the smallest and the largest residual of its part in the block
   (`_tails`).
2. Make a table of the smallest and largest residuals of 1, 2, 4, ... successive blocks (`_double`).
3. With this table, find the end of that last run for each sample. This gives the first run of a
   later block, and the middle of the last run before it (`_crossings`).
4. One thread follows these results from the first sample, with at most one step per block. Only
   now it is known which runs exist (`_chase`).
5. Each block writes its runs, from the beginning of its first run (`_apply`).

The work is n log n at worst, if one run spans the whole frame. Only step 4 is sequential.
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
    """The end of the run from `start`, at most `count`, and its smallest and largest residual."""
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
    """Write smallest and largest residuals to rows 0 and 1 of `runs` and of spans[0].

    In `runs` they are those of each sample's last run in its block; in spans[0], of each block.
    """
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
    """Fill spans[level]: residuals of 2**level blocks from each block on, if there are as many."""
    reach = int64(1) << (level - 1)
    for block in range(cuda.grid(1), spans.shape[2] - 2 * reach + 1, cuda.gridsize(1)):
        low, high = spans[level - 1, 0, block], spans[level - 1, 1, block]
        spans[level, 0, block] = min(low, spans[level - 1, 0, block + reach])
        spans[level, 1, block] = max(high, spans[level - 1, 1, block + reach])


@kernel(void(_FLAT, _FLAT, int64, int64[:, :, ::1], _TABLE))
def _crossings(levels, prediction, spread, spans, runs):
    """Write the end of each sample's last run in its block to row 0 of `runs`, and its middle to
    row 1."""
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
    """Find, for each block, the first sample of its first run, and the middle of the run before it.

    If no run begins in a block, the sample is the number of samples. One thread does this.
    """
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
    ends = cuda.shared.array((2, _SPAN), int64)  # the end of each run, and its middle
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
    """As in `kernels.cpu`. It needs 16 bytes of device memory per sample, which it keeps."""
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
