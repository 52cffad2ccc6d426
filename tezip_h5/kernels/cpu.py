"""Kernels of the stages for the CPU (numba, without the GIL, compiled once and kept on disk).

A frame of one channel is int32 (rows, columns), or flat. `top` is the largest level. `mask` is
2**(8 * width) - 1 for symbols of `width` bytes. Intermediate values are int64. Residuals wrap
modulo mask + 1, so every step can be inverted exactly. Simple versions of these kernels, which
define their results, are in ``tests/naive.py``.
"""

from __future__ import annotations

import numba
from numba import int32, int64, uint8, uint32, void

from tezip_h5.kernels.compiling import inlined, kernel

_FLAT = int32[::1]
_PLANE = int32[:, ::1]


# --- uniform quantization ---------------------------------------------------------------


@inlined
def _reciprocal(step, top):
    """2**40 / step, rounded up; 0 if quotients computed with it could be wrong.

    For a numerator n <= top + tolerance < 2**17 and step < 2**17, n * step is below 2**40. Then
    n * reciprocal >> 40 equals n // step.
    """
    return (int64(1) << 40) // step + 1 if top < 65536 else int64(0)


@inlined
def _cell(residual, tolerance, step, reciprocal):
    """The index of the cell that holds the residual; cells are step = 2 * tolerance + 1 wide.

    There is no branch on the sign, because a processor could not predict it.
    """
    sign = residual >> 63
    magnitude = ((residual ^ sign) - sign) + tolerance
    if reciprocal:
        index = (magnitude * reciprocal) >> 40
    else:
        index = int64(uint32(magnitude) // uint32(step))
    return (index ^ sign) - sign


@kernel(void(_FLAT, _FLAT, int64, int64, int64, _FLAT, _FLAT))
def uniform_encode(levels, prediction, tolerance, top, mask, symbols, reconstruction):
    half = (mask + 1) >> 1
    if tolerance == 0:
        for i in range(levels.size):
            residual = int64(levels[i]) - int64(prediction[i])
            symbols[i] = ((residual + half) & mask) - half
            reconstruction[i] = levels[i]
        return
    step = 2 * tolerance + 1
    reciprocal = _reciprocal(step, top)
    for i in range(levels.size):
        index = _cell(int64(levels[i]) - int64(prediction[i]), tolerance, step, reciprocal)
        symbols[i] = index
        reconstruction[i] = min(max(int64(prediction[i]) + index * step, 0), top)


@kernel(void(_FLAT, _FLAT, int64, int64, int64, _FLAT))
def uniform_decode(symbols, prediction, tolerance, top, mask, reconstruction):
    if tolerance == 0:
        for i in range(symbols.size):
            reconstruction[i] = (int64(prediction[i]) + int64(symbols[i])) & mask
        return
    step = 2 * tolerance + 1
    for i in range(symbols.size):
        value = int64(prediction[i]) + int64(symbols[i]) * step
        reconstruction[i] = min(max(value, 0), top)


# --- run-merging quantization -----------------------------------------------------------


@kernel(void(_FLAT, _FLAT, int64, int64, int64, _FLAT, _FLAT))
def merge_encode(levels, prediction, tolerance, top, mask, symbols, reconstruction):
    half = (mask + 1) >> 1
    start = 0
    while start < levels.size:
        residual = int64(levels[start]) - int64(prediction[start])
        low = residual - tolerance
        high = residual + tolerance
        stop = start + 1
        while stop < levels.size:
            residual = int64(levels[stop]) - int64(prediction[stop])
            if residual - tolerance > high or residual + tolerance < low:
                break
            low = max(low, residual - tolerance)
            high = min(high, residual + tolerance)
            stop += 1
        middle = (low + high) >> 1
        for i in range(start, stop):
            value = min(max(int64(prediction[i]) + middle, 0), top)
            reconstruction[i] = value
            symbols[i] = ((value - int64(prediction[i]) + half) & mask) - half
        start = stop


# --- median edge detector, for keyframes ------------------------------------------------


@inlined
def _median(left, above, corner):
    """The median of left, above and left + above - corner, computed without branches."""
    return max(min(left, above), min(max(left, above), left + above - corner))


@kernel(void(_PLANE, int64, int64, int64, _PLANE, _PLANE))
def median_encode(levels, tolerance, top, mask, symbols, reconstruction):
    half = (mask + 1) >> 1
    step = 2 * tolerance + 1
    reciprocal = _reciprocal(step, top)
    for row in range(levels.shape[0]):
        # In the first row, the sample above is taken to be the left neighbour. At the start of a
        # row, the left neighbour is taken to be the sample above.
        above_row = reconstruction[max(row - 1, 0)]
        left = int64(above_row[0]) if row > 0 else int64(0)
        corner = left
        for column in range(levels.shape[1]):
            above = int64(above_row[column]) if row > 0 else corner
            prediction = _median(left, above, corner)
            corner = above
            level = int64(levels[row, column])
            residual = level - prediction
            if tolerance == 0:
                symbols[row, column] = ((residual + half) & mask) - half
                left = level
            else:
                index = _cell(residual, tolerance, step, reciprocal)
                symbols[row, column] = index
                left = min(max(prediction + index * step, 0), top)
            reconstruction[row, column] = left
            if row == 0:
                corner = left


@kernel(void(_PLANE, int64, int64, int64, _PLANE))
def median_decode(symbols, tolerance, top, mask, reconstruction):
    step = 2 * tolerance + 1
    for row in range(symbols.shape[0]):
        above_row = reconstruction[max(row - 1, 0)]
        left = int64(above_row[0]) if row > 0 else int64(0)
        corner = left
        for column in range(symbols.shape[1]):
            above = int64(above_row[column]) if row > 0 else corner
            value = _median(left, above, corner) + int64(symbols[row, column]) * step
            corner = above
            if tolerance == 0:
                # Wide levels wrap into negative int32, as they do when stored.
                left = int64(int32(value & mask))
            else:
                left = min(max(value, 0), top)
            reconstruction[row, column] = left
            if row == 0:
                corner = left


# --- density-based spatial encoding -----------------------------------------------------


@kernel(void(_FLAT, int64, _FLAT))
def difference_encode(symbols, mask, differences):
    half = (mask + 1) >> 1
    previous = int64(0)
    for i in range(symbols.size):
        value = int64(symbols[i])
        differences[i] = ((previous - value + half) & mask) - half
        previous = value


@kernel(void(_FLAT, int64, _FLAT))
def difference_decode(differences, mask, symbols):
    half = (mask + 1) >> 1
    value = int64(0)
    for i in range(differences.size):
        value = ((value - int64(differences[i]) + half) & mask) - half
        symbols[i] = value


# --- partitioned entropy encoding -------------------------------------------------------


@kernel(void(_FLAT, _FLAT, int64, _FLAT))
def table_lookup(symbols, table, offset, out):
    for i in range(symbols.size):
        out[i] = table[symbols[i] + offset]


# --- symbol packing ---------------------------------------------------------------------


@kernel(void(_FLAT, int64, uint8[:, ::1]))
def pack_signed(symbols, width, planes):
    if width == 1:  # the most frequent width; the compiler vectorises this loop
        for i in range(symbols.size):
            planes[0, i] = (symbols[i] << 1) ^ (symbols[i] >> 31)
        return
    for i in range(symbols.size):
        value = int64(symbols[i])
        folded = (value << 1) ^ (value >> 63)
        for k in range(width):
            planes[k, i] = (folded >> (8 * k)) & 0xFF


@kernel(void(uint8[:, ::1], int64, _FLAT))
def unpack_signed(planes, width, symbols):
    if width == 1:
        for i in range(symbols.size):
            narrow = int32(planes[0, i])
            symbols[i] = (narrow >> 1) ^ -(narrow & 1)
        return
    for i in range(symbols.size):
        folded = int64(0)
        for k in range(width):
            folded |= int64(planes[k, i]) << (8 * k)
        symbols[i] = (folded >> 1) ^ -(folded & 1)


@kernel(void(_FLAT, int64, uint8[:, ::1]))
def pack_unsigned(symbols, width, planes):
    for i in range(symbols.size):
        value = int64(symbols[i])
        for k in range(width):
            planes[k, i] = (value >> (8 * k)) & 0xFF


@kernel(void(uint8[:, ::1], int64, _FLAT))
def unpack_unsigned(planes, width, symbols):
    for i in range(symbols.size):
        value = int64(0)
        for k in range(width):
            value |= int64(planes[k, i]) << (8 * k)
        symbols[i] = value


@kernel(int64(_FLAT, _FLAT))
def largest_error(levels, reconstruction):
    largest = int64(0)
    for i in range(levels.size):
        largest = max(largest, abs(int64(levels[i]) - int64(reconstruction[i])))
    return largest


@kernel(numba.float64(_FLAT, _FLAT), fastmath={"reassoc"})
def _squared_error(levels, prediction):
    total = 0.0
    for i in range(levels.size):
        error = float(levels[i]) - float(prediction[i])
        total += error * error
    return total


@kernel(numba.float64(_FLAT, _FLAT))
def squared_error(levels, prediction):
    total = _squared_error(levels, prediction)
    if total < 2.0**53:  # all partial sums were exact integers, so their order did not matter
        return total
    total = 0.0
    for i in range(levels.size):
        error = float(levels[i]) - float(prediction[i])
        total += error * error
    return total


__all__ = [
    name for name, value in list(globals().items()) if hasattr(value, "py_func") and name[0] != "_"
]
