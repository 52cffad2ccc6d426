"""What the CUDA kernels that quantize share: the cell of a residual, and wrapping."""

from __future__ import annotations

from numba import int64, uint32

from tezip_h5.kernels.cuda.launch import device

__all__ = ["cell", "reciprocal", "wrapped"]


def reciprocal(tolerance: int, top: int) -> int:
    """2**40 / step, rounded up; 0 where products with it could be inexact (see `kernels.cpu`)."""
    return (1 << 40) // (2 * tolerance + 1) + 1 if top < 65536 else 0


@device
def cell(residual, tolerance, step, factor):
    """Index of the cell of width step = 2 * tolerance + 1 that holds the residual."""
    sign = residual >> 63
    magnitude = ((residual ^ sign) - sign) + tolerance
    if factor:
        index = (magnitude * factor) >> 40
    else:
        index = int64(uint32(magnitude) // uint32(step))
    return (index ^ sign) - sign


@device
def wrapped(value):
    """The int32 of the lowest 32 bits, as int64: a device would wrap a value that it stores as
    int32 by itself, the simulator refuses to."""
    return ((value + (int64(1) << 31)) & 0xFFFFFFFF) - (int64(1) << 31)
