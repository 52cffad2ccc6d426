"""Planes of single bits, packed (numba)."""

from __future__ import annotations

from numba import int64, uint8, uint64

from tezip_h5.kernels.compiling import kernel


@kernel(int64(uint64[::1], uint8[::1], int64, uint8[::1]))
def pack_planes(values, widths, most, out):
    """Write bit k of all values wider than k, for k from `most` - 1 down to 0, every plane from a
    new byte on, highest bits first; returns the number of bytes. `out` is zero and large enough.
    """
    place = int64(0)
    for k in range(most - 1, -1, -1):
        at = int64(0)
        for i in range(values.size):
            if widths[i] > k:
                if (values[i] >> uint64(k)) & uint64(1):
                    out[place + (at >> 3)] |= uint8(128 >> (at & 7))
                at += 1
        place += (at + 7) >> 3
    return place


@kernel(int64(uint8[::1], uint8[::1], int64, uint64[::1]))
def unpack_planes(data, widths, most, values):
    """The inverse, into zeros; returns the bytes read, or -1 when there are too few."""
    place = int64(0)
    for k in range(most - 1, -1, -1):
        at = int64(0)
        for i in range(values.size):
            if widths[i] > k:
                if place + (at >> 3) >= data.size:
                    return int64(-1)
                bit = (data[place + (at >> 3)] >> (7 - (at & 7))) & 1
                values[i] |= uint64(bit) << uint64(k)
                at += 1
        place += (at + 7) >> 3
    return place
