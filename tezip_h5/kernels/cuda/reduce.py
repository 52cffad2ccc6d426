"""CUDA kernels for sums, largest values and prefix sums of arrays.

All sums are sums of integers in int64, and cannot overflow, so their order does not matter.
"""

from __future__ import annotations

from numba import cuda, int32, int64, void

from tezip_h5 import kernels
from tezip_h5.kernels.cuda import memory
from tezip_h5.kernels.cuda.launch import SIMULATED, THREADS, grid, kernel

__all__ = ["difference_decode", "extremes", "largest_error", "squared_error"]

_FLAT = int32[::1]
_LOWEST = -(1 << 62)  # less than any value
_EACH = 3 if SIMULATED else 8  # samples that a thread of a prefix sum adds up
_TILE = THREADS * _EACH  # samples of a block, which are its tile
_EXACT = 1 << 53  # float64 holds all integers up to this magnitude


# --- one value from all samples ---------------------------------------------------------


@kernel(void(_FLAT, _FLAT, int64[::1]))
def _largest_error(levels, reconstruction, out):
    shared = cuda.shared.array(THREADS, int64)
    thread = cuda.threadIdx.x
    largest = int64(0)
    for i in range(cuda.grid(1), levels.size, cuda.gridsize(1)):
        largest = max(largest, abs(int64(levels[i]) - int64(reconstruction[i])))
    shared[thread] = largest
    cuda.syncthreads()
    half = THREADS // 2
    while half:
        if thread < half:
            shared[thread] = max(shared[thread], shared[thread + half])
        cuda.syncthreads()
        half //= 2
    if thread == 0:
        cuda.atomic.max(out, 0, shared[0])


@kernel(void(_FLAT, int64[::1]))
def _extremes(array, out):
    """Find the largest value, and the largest negated value."""
    shared = cuda.shared.array((2, THREADS), int64)
    thread = cuda.threadIdx.x
    high, low = int64(_LOWEST), int64(_LOWEST)
    for i in range(cuda.grid(1), array.size, cuda.gridsize(1)):
        high, low = max(high, int64(array[i])), max(low, -int64(array[i]))
    shared[0, thread], shared[1, thread] = high, low
    cuda.syncthreads()
    half = THREADS // 2
    while half:
        if thread < half:
            for k in range(2):
                shared[k, thread] = max(shared[k, thread], shared[k, thread + half])
        cuda.syncthreads()
        half //= 2
    if thread < 2:
        cuda.atomic.max(out, thread, shared[thread, 0])


@kernel(void(_FLAT, _FLAT, int64[::1]))
def _squared_error(levels, prediction, out):
    """Add up the three parts of squares (a * 2**16 + b)**2, which are a * a, a * b and b * b."""
    shared = cuda.shared.array((3, THREADS), int64)
    thread = cuda.threadIdx.x
    high, middle, low = int64(0), int64(0), int64(0)
    for i in range(cuda.grid(1), levels.size, cuda.gridsize(1)):
        error = abs(int64(levels[i]) - int64(prediction[i]))
        a, b = error >> 16, error & 0xFFFF
        high += a * a
        middle += a * b
        low += b * b
    shared[0, thread], shared[1, thread], shared[2, thread] = high, middle, low
    cuda.syncthreads()
    half = THREADS // 2
    while half:
        if thread < half:
            for k in range(3):
                shared[k, thread] += shared[k, thread + half]
        cuda.syncthreads()
        half //= 2
    if thread < 3:
        cuda.atomic.add(out, thread, shared[thread, 0])


def largest_error(levels, reconstruction) -> int:
    """As in `kernels.cpu`; waits for the result."""
    out = _filled(1, 0)
    _largest_error(*grid(levels.size), levels, reconstruction, out)
    return int(memory.to_host(out)[0])


def extremes(array) -> tuple[int, int]:
    """The smallest and largest value of a flat int32 array; waits for the result."""
    out = _filled(2, _LOWEST)
    _extremes(*grid(array.size), array, out)
    high, low = memory.to_host(out)
    return -int(low), int(high)


def squared_error(levels, prediction) -> float:
    """As in `kernels.cpu`, where squares are added in float64 from the first sample to the last.

    A sum below 2**53 is exact there, whatever the order, so this function adds integers. A larger
    sum needs levels of more than 16 bits, or very large frames. Then the CPU computes it, in its
    order. Waits for the result.
    """
    out = _filled(3, 0)
    _squared_error(*grid(levels.size), levels, prediction, out)
    high, middle, low = (int(part) for part in memory.to_host(out))
    total = (high << 32) + (middle << 17) + low
    if total < _EXACT:
        return float(total)
    arrays = (memory.to_host(array) for array in (levels, prediction))
    return kernels.load("cpu").squared_error(*arrays)


@kernel(void(int64[::1], int64))
def _fill(out, value):
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[i] = value


def _filled(size: int, value: int):
    out = memory.scratch("result", (size,), "int64")
    _fill(*grid(size), out, value)
    return out


# --- prefix sum: the inverse of density-based spatial encoding --------------------------


@kernel(void(_FLAT, int64[::1]))
def _tile_sums(differences, sums):
    """Compute the sum of each tile."""
    shared = cuda.shared.array(THREADS, int64)
    thread = cuda.threadIdx.x
    first = cuda.blockIdx.x * _TILE
    total = int64(0)
    for i in range(first + thread, min(first + _TILE, differences.size), THREADS):
        total += int64(differences[i])
    shared[thread] = total
    cuda.syncthreads()
    half = THREADS // 2
    while half:
        if thread < half:
            shared[thread] += shared[thread + half]
        cuda.syncthreads()
        half //= 2
    if thread == 0:
        sums[cuda.blockIdx.x] = shared[0]


@kernel(void(int64[::1]))
def _scan_sums(sums):
    """Replace the sum of each tile by the sum of all tiles before it. This runs in one block."""
    shared = cuda.shared.array(THREADS, int64)
    thread = cuda.threadIdx.x
    carry = int64(0)
    for first in range(0, sums.size, THREADS):
        i = first + thread
        own = sums[i] if i < sums.size else int64(0)
        shared[thread] = own
        cuda.syncthreads()
        step = 1
        while step < THREADS:
            before = shared[thread - step] if thread >= step else int64(0)
            cuda.syncthreads()
            shared[thread] += before
            cuda.syncthreads()
            step *= 2
        if i < sums.size:
            sums[i] = carry + shared[thread] - own
        carry += shared[THREADS - 1]
        cuda.syncthreads()


@kernel(void(_FLAT, int64[::1], int64, _FLAT))
def _scan_tiles(differences, sums, mask, symbols):
    """Compute the symbols of each tile.

    The two arrays may be the same, because a thread reads its samples before it writes them, and
    no other thread reads them.
    """
    shared = cuda.shared.array(THREADS, int64)
    thread = cuda.threadIdx.x
    half = (mask + 1) >> 1
    first = cuda.blockIdx.x * _TILE + thread * _EACH
    stop = min(first + _EACH, differences.size)
    own = int64(0)
    for i in range(first, stop):
        own += int64(differences[i])
    shared[thread] = own
    cuda.syncthreads()
    step = 1
    while step < THREADS:
        before = shared[thread - step] if thread >= step else int64(0)
        cuda.syncthreads()
        shared[thread] += before
        cuda.syncthreads()
        step *= 2
    total = sums[cuda.blockIdx.x] + shared[thread] - own
    for i in range(first, stop):
        total += int64(differences[i])
        symbols[i] = ((half - total) & mask) - half


def difference_decode(differences, mask, symbols) -> None:
    """As in `kernels.cpu`: a prefix sum modulo mask + 1. The two arrays may be the same.

    It has three steps (Blelloch, *Prefix Sums and Their Applications*, 1990): the sums of tiles,
    the prefix sums of these, and the prefix sums in each tile.
    """
    tiles = max(1, -(-differences.size // _TILE))
    sums = memory.scratch("sums", (tiles,), "int64")
    _tile_sums(tiles, THREADS, differences, sums)
    _scan_sums(1, THREADS, sums)
    _scan_tiles(tiles, THREADS, differences, sums, int(mask), symbols)
