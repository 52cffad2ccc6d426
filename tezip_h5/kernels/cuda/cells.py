"""Functions that the CUDA kernels for quantization share: the cell of a residual, and wrapping."""

from __future__ import annotations

from numba import int64, uint32

from tezip_h5.kernels.cuda.launch import device

__all__ = ["cell", "reciprocal", "wrapped"]


def reciprocal(tolerance: int, top: int) -> int:
    """2**40 / step, rounded up; 0 if quotients could be wrong (see `kernels.cpu`)."""
    return (1 << 40) // (2 * tolerance + 1) + 1 if top < 65536 else 0


@device
def cell(residual, tolerance, step, factor):
    """The index of the cell that holds the residual; cells are step = 2 * tolerance + 1 wide."""
    sign = residual >> 63
    magnitude = ((residual ^ sign) - sign) + tolerance
    if factor:
        index = (magnitude * factor) >> 40
    else:
        index = int64(uint32(magnitude) // uint32(step))
    return (index ^ sign) - sign


@device
def wrapped(value):
    """Wrap an integer to the range of int32; the result is int64.

    A device would wrap a value when it stores it as int32, but the simulator raises an error.
    """
    return ((value + (int64(1) << 31)) & 0xFFFFFFFF) - (int64(1) << 31)
