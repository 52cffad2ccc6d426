"""Planes of single bits, packed (numba). Whether a value has a bit is no branch: it is noise."""

from __future__ import annotations

from numba import int64, uint8, uint64

from tezip_h5.kernels.compiling import inlined, kernel


@inlined
def _highest(widths, most):
    """The highest plane that holds anything, and planes below it."""
    widest = uint8(0)
    for i in range(widths.size):
        widest = max(widest, widths[i])
    return min(int64(widest), most) - 1


@kernel(int64(uint64[::1], uint8[::1], int64, uint8[::1]))
def pack_planes(values, widths, most, out):
    """Write bit k of all values wider than k, for k from `most` - 1 down to 0, every plane from a
    new byte on, highest bits first; returns the number of bytes. `out` is large enough.
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
    """The inverse, into zeros; returns the bytes read, or -1 when there are too few."""
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
