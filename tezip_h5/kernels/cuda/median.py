"""The median edge detector for keyframes on CUDA, which computes anti-diagonals in parallel.

A pixel depends on its left, upper and upper left neighbours, so all pixels of an anti-diagonal can
be computed at once. One block works on a frame, in bands of as many rows as it has threads. Each
thread has a row, and is one column behind the thread above it, whose last result it needs next. A
frame keeps only one multiprocessor busy, so a GPU is fast only with many chunks at a time.
Without a tolerance, the encoder knows all reconstructed pixels beforehand, and computes all pixels
at once.
"""

from __future__ import annotations

from numba import cuda, int32, int64, void

from tezip_h5.kernels.cuda.cells import cell, reciprocal, wrapped
from tezip_h5.kernels.cuda.launch import SIMULATED, device, grid, kernel

__all__ = ["median_decode", "median_encode"]

_FLAT = int32[::1]
_PLANE = int32[:, ::1]
_ROWS = 4 if SIMULATED else 512  # rows of a band


@device
def _median(left, above, corner):
    return max(min(left, above), min(max(left, above), left + above - corner))


@kernel(void(_PLANE, int64, _PLANE, _PLANE))
def _encode_exactly(levels, mask, symbols, reconstruction):
    half = (mask + 1) >> 1
    columns = levels.shape[1]
    for i in range(cuda.grid(1), levels.shape[0] * columns, cuda.gridsize(1)):
        row = i // columns
        column = i - row * columns
        if row == 0:
            prediction = int64(levels[0, column - 1]) if column else int64(0)
        else:
            above = int64(levels[row - 1, column])
            left, corner = above, above
            if column:
                left = int64(levels[row, column - 1])
                corner = int64(levels[row - 1, column - 1])
            prediction = _median(left, above, corner)
        level = int64(levels[row, column])
        symbols[row, column] = ((level - prediction + half) & mask) - half
        reconstruction[row, column] = levels[row, column]


@kernel(void(_PLANE, int64, int64, int64, _PLANE, _PLANE))
def _encode(levels, tolerance, top, factor, symbols, reconstruction):
    made = cuda.shared.array((2, _ROWS), int32)  # results of all threads: this step, the last one
    thread = cuda.threadIdx.x
    rows, columns = levels.shape
    step = 2 * tolerance + 1
    for first in range(0, rows, _ROWS):
        row = first + thread
        left, corner = int64(0), int64(0)
        for time in range(columns + min(_ROWS, rows - first) - 1):
            column = time - thread
            if 0 <= column < columns and row < rows:
                above = corner
                if thread:
                    above = int64(made[(time + 1) & 1, thread - 1])
                elif row:
                    above = int64(reconstruction[row - 1, column])
                if row and column == 0:
                    left, corner = above, above
                prediction = _median(left, above, corner)
                corner = above
                index = cell(int64(levels[row, column]) - prediction, tolerance, step, factor)
                symbols[row, column] = index
                left = min(max(prediction + index * step, int64(0)), top)
                made[time & 1, thread] = left
                reconstruction[row, column] = left
                if row == 0:
                    corner = left
            cuda.syncthreads()


@kernel(void(_PLANE, int64, int64, int64, _PLANE))
def _decode(symbols, tolerance, top, mask, reconstruction):
    made = cuda.shared.array((2, _ROWS), int32)
    thread = cuda.threadIdx.x
    rows, columns = symbols.shape
    step = 2 * tolerance + 1
    for first in range(0, rows, _ROWS):
        row = first + thread
        left, corner = int64(0), int64(0)
        for time in range(columns + min(_ROWS, rows - first) - 1):
            column = time - thread
            if 0 <= column < columns and row < rows:
                above = corner
                if thread:
                    above = int64(made[(time + 1) & 1, thread - 1])
                elif row:
                    above = int64(reconstruction[row - 1, column])
                if row and column == 0:
                    left, corner = above, above
                value = _median(left, above, corner) + int64(symbols[row, column]) * step
                corner = above
                if tolerance == 0:
                    left = wrapped(value & mask)
                else:
                    left = min(max(value, int64(0)), top)
                made[time & 1, thread] = left
                reconstruction[row, column] = left
                if row == 0:
                    corner = left
            cuda.syncthreads()


def median_encode(levels, tolerance, top, mask, symbols, reconstruction) -> None:
    """As in `kernels.cpu`."""
    tolerance, top = int(tolerance), int(top)
    if tolerance == 0:
        _encode_exactly(*grid(levels.size), levels, int(mask), symbols, reconstruction)
        return
    factor = reciprocal(tolerance, top)
    _encode(1, _ROWS, levels, tolerance, top, factor, symbols, reconstruction)


def median_decode(symbols, tolerance, top, mask, reconstruction) -> None:
    """As in `kernels.cpu`."""
    _decode(1, _ROWS, symbols, int(tolerance), int(top), int(mask), reconstruction)
