"""Kernels of the stages for CUDA. Names, arguments and results are those of `kernels.cpu`.

Results are the same bit for bit. Arrays are C-contiguous and lie on the device. Calls return at
once, except those that return a number. The same host thread can use results in its next call
(see `launch`). Scans that are sequential on the CPU have parallel forms with the same result:
`merge` (run merging), `median` (keyframes), `reduce` (sums and prefix sums).
"""

from __future__ import annotations

from numba import cuda, int8, int16, int32, int64, uint8, void

from tezip_h5.kernels.cuda.cells import cell, reciprocal, wrapped
from tezip_h5.kernels.cuda.launch import SIMULATED, grid, kernel
from tezip_h5.kernels.cuda.median import median_decode, median_encode
from tezip_h5.kernels.cuda.merge import merge_encode
from tezip_h5.kernels.cuda.reduce import difference_decode, extremes, largest_error, squared_error

__all__ = [
    "convert",
    "count",
    "difference_decode",
    "difference_encode",
    "extremes",
    "largest_error",
    "median_decode",
    "median_encode",
    "merge_encode",
    "pack_signed",
    "pack_unsigned",
    "squared_error",
    "table_lookup",
    "table_search",
    "uniform_decode",
    "uniform_encode",
    "unpack_signed",
    "unpack_unsigned",
]

_FLAT = int32[::1]
_PLANES = uint8[:, ::1]
_NEAR = 16 if SIMULATED else 4096  # counts of symbols around 0 that a block keeps in its own memory


# --- uniform quantization ---------------------------------------------------------------


@kernel(void(_FLAT, _FLAT, int64, int64, int64, int64, _FLAT, _FLAT))
def _uniform_encode(levels, prediction, tolerance, top, mask, factor, symbols, reconstruction):
    half = (mask + 1) >> 1
    step = 2 * tolerance + 1
    for i in range(cuda.grid(1), levels.size, cuda.gridsize(1)):
        guess = int64(prediction[i])
        residual = int64(levels[i]) - guess
        if tolerance == 0:
            symbols[i] = ((residual + half) & mask) - half
            reconstruction[i] = levels[i]
        else:
            index = cell(residual, tolerance, step, factor)
            symbols[i] = index
            reconstruction[i] = min(max(guess + index * step, 0), top)


def uniform_encode(levels, prediction, tolerance, top, mask, symbols, reconstruction) -> None:
    """As in `kernels.cpu`."""
    tolerance, top = int(tolerance), int(top)
    factor = reciprocal(tolerance, top)
    _uniform_encode(
        *grid(levels.size),
        levels,
        prediction,
        tolerance,
        top,
        int(mask),
        factor,
        symbols,
        reconstruction,
    )


@kernel(void(_FLAT, _FLAT, int64, int64, int64, _FLAT))
def _uniform_decode(symbols, prediction, tolerance, top, mask, reconstruction):
    step = 2 * tolerance + 1
    for i in range(cuda.grid(1), symbols.size, cuda.gridsize(1)):
        value = int64(prediction[i]) + int64(symbols[i]) * step
        if tolerance == 0:
            reconstruction[i] = wrapped(value & mask)
        else:
            reconstruction[i] = min(max(value, 0), top)


def uniform_decode(symbols, prediction, tolerance, top, mask, reconstruction) -> None:
    """As in `kernels.cpu`."""
    sizes = int(tolerance), int(top), int(mask)
    _uniform_decode(*grid(symbols.size), symbols, prediction, *sizes, reconstruction)


# --- density-based spatial encoding (its inverse is in reduce) --------------------------


@kernel(void(_FLAT, int64, _FLAT))
def _difference_encode(symbols, mask, differences):
    half = (mask + 1) >> 1
    for i in range(cuda.grid(1), symbols.size, cuda.gridsize(1)):
        previous = int64(symbols[i - 1]) if i else int64(0)
        differences[i] = ((previous - int64(symbols[i]) + half) & mask) - half


def difference_encode(symbols, mask, differences) -> None:
    """As in `kernels.cpu`; `symbols` and `differences` must be different arrays."""
    _difference_encode(*grid(symbols.size), symbols, int(mask), differences)


# --- partitioned entropy encoding -------------------------------------------------------


@kernel(void(_FLAT, int64, int64[::1]))
def _count(symbols, offset, counts):
    """Count symbols. Most are near 0, so each block counts those in its own memory first."""
    near = cuda.shared.array(_NEAR, int32)
    for k in range(cuda.threadIdx.x, _NEAR, cuda.blockDim.x):
        near[k] = 0
    cuda.syncthreads()
    first = offset - _NEAR // 2
    for i in range(cuda.grid(1), symbols.size, cuda.gridsize(1)):
        place = int64(symbols[i]) + offset
        if 0 <= place - first < _NEAR:
            cuda.atomic.add(near, place - first, 1)
        else:
            cuda.atomic.add(counts, place, 1)
    cuda.syncthreads()
    for k in range(cuda.threadIdx.x, _NEAR, cuda.blockDim.x):
        if near[k] > 0:
            cuda.atomic.add(counts, first + k, int64(near[k]))


def count(symbols, offset, counts) -> None:
    """Add 1 to counts[s + offset] (int64) for each symbol s. All symbols must be in range."""
    blocks, threads = grid(symbols.size)
    _count(min(blocks, 512), threads, symbols, int(offset), counts)


@kernel(void(_FLAT, _FLAT, int64, _FLAT))
def _table_lookup(symbols, table, offset, out):
    for i in range(cuda.grid(1), symbols.size, cuda.gridsize(1)):
        out[i] = table[int64(symbols[i]) + offset]


def table_lookup(symbols, table, offset, out) -> None:
    """As in `kernels.cpu`; `symbols` and `out` may be the same array."""
    _table_lookup(*grid(symbols.size), symbols, table, int(offset), out)


@kernel(void(_FLAT, _FLAT, _FLAT, _FLAT))
def _table_search(symbols, ordered, values, out):
    for i in range(cuda.grid(1), symbols.size, cuda.gridsize(1)):
        symbol = symbols[i]
        low, high = int64(0), int64(ordered.size - 1)
        while low < high:
            middle = (low + high) >> 1
            if ordered[middle] < symbol:
                low = middle + 1
            else:
                high = middle
        out[i] = values[low]


def table_search(symbols, ordered, values, out) -> None:
    """Write values[k] for each symbol, where the symbol is ordered[k]; `ordered` is ascending."""
    _table_search(*grid(symbols.size), symbols, ordered, values, out)


# --- symbol packing ---------------------------------------------------------------------


@kernel(void(_FLAT, int64, _PLANES))
def _pack_signed(symbols, width, planes):
    for i in range(cuda.grid(1), symbols.size, cuda.gridsize(1)):
        value = int64(symbols[i])
        folded = (value << 1) ^ (value >> 63)
        for k in range(width):
            planes[k, i] = (folded >> (8 * k)) & 0xFF


@kernel(void(_PLANES, int64, _FLAT))
def _unpack_signed(planes, width, symbols):
    for i in range(cuda.grid(1), symbols.size, cuda.gridsize(1)):
        folded = int64(0)
        for k in range(width):
            folded |= int64(planes[k, i]) << (8 * k)
        symbols[i] = (folded >> 1) ^ -(folded & 1)


@kernel(void(_FLAT, int64, _PLANES))
def _pack_unsigned(symbols, width, planes):
    for i in range(cuda.grid(1), symbols.size, cuda.gridsize(1)):
        value = int64(symbols[i])
        for k in range(width):
            planes[k, i] = (value >> (8 * k)) & 0xFF


@kernel(void(_PLANES, int64, _FLAT))
def _unpack_unsigned(planes, width, symbols):
    for i in range(cuda.grid(1), symbols.size, cuda.gridsize(1)):
        value = int64(0)
        for k in range(width):
            value |= int64(planes[k, i]) << (8 * k)
        symbols[i] = wrapped(value)


def pack_signed(symbols, width, planes) -> None:
    """As in `kernels.cpu`."""
    _pack_signed(*grid(symbols.size), symbols, int(width), planes)


def unpack_signed(planes, width, symbols) -> None:
    """As in `kernels.cpu`."""
    _unpack_signed(*grid(symbols.size), planes, int(width), symbols)


def pack_unsigned(symbols, width, planes) -> None:
    """As in `kernels.cpu`."""
    _pack_unsigned(*grid(symbols.size), symbols, int(width), planes)


def unpack_unsigned(planes, width, symbols) -> None:
    """As in `kernels.cpu`."""
    _unpack_unsigned(*grid(symbols.size), planes, int(width), symbols)


# --- types ------------------------------------------------------------------------------


@kernel(
    void(_FLAT, int8[::1]),
    void(_FLAT, int16[::1]),
    void(_FLAT, _FLAT),
    void(int8[::1], _FLAT),
    void(int16[::1], _FLAT),
)
def _convert(source, out):
    for i in range(cuda.grid(1), source.size, cuda.gridsize(1)):
        out[i] = source[i]


def convert(source, out) -> None:
    """Copy a flat array to one of another integer dtype, which must hold all values."""
    _convert(*grid(source.size), source, out)
