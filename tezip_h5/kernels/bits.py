"""Pack and unpack bit planes of integers of different widths (numba).

The loops have no branch on whether a value is wide enough for a plane. That is as good as random,
so a processor could not predict the branch.
"""

from __future__ import annotations

from numba import int64, uint8, uint64

from tezip_h5.kernels.compiling import inlined, kernel


@inlined
def _highest(widths, most):
    """The number of the highest plane that is not empty; it is below `most`."""
    widest = uint8(0)
    for i in range(widths.size):
        widest = max(widest, widths[i])
    return min(int64(widest), most) - 1


@kernel(int64(uint64[::1], uint8[::1], int64, uint8[::1]))
def pack_planes(values, widths, most, out):
    """Write the bit planes of `values`, the highest plane first; returns the number of bytes.

    Plane k, below `most`, holds bit k of all values whose width is above k. Each plane begins with
    a new byte, and the first value is the highest bit of a byte. `out` must be large enough.
    """
    place = int64(0)
    for k in range(_highest(widths, most), -1, -1):
        held, bits = int64(0), uint64(0)
        for i in range(values.size):
            has = uint64(widths[i] > k)
            bits = (bits << has) | ((values[i] >> uint64(k)) & has)
            held += int64(has)
            if held == 64:
                for byte in range(8):
                    out[place + byte] = bits >> uint64(56 - 8 * byte)
                place += 8
                held, bits = int64(0), uint64(0)
        while held > 0:
            shift = held - 8
            out[place] = bits >> uint64(shift) if shift >= 0 else bits << uint64(-shift)
            place += 1
            held = shift
    return place


@kernel(int64(uint8[::1], uint8[::1], int64, uint64[::1]))
def unpack_planes(data, widths, most, values):
    """The inverse of `pack_planes`; `values` must be zeros.

    Returns the number of bytes that were read, or -1 if `data` is too short.
    """
    place = int64(0)
    for k in range(_highest(widths, most), -1, -1):
        at, held, bits = int64(0), int64(0), uint64(0)
        for i in range(values.size):
            has = uint64(widths[i] > k)
            if held == 0:
                if not has:
                    continue
                first = place + (at >> 3)
                held = 8 * min(data.size - first, 8)
                if held <= 0:
                    return int64(-1)
                for byte in range(held >> 3):
                    bits |= uint64(data[first + byte]) << uint64(56 - 8 * byte)
            values[i] |= ((bits >> uint64(63)) & has) << uint64(k)
            bits <<= has
            held -= int64(has)
            at += int64(has)
        place += (at + 7) >> 3
    return place
