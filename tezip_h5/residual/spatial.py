"""Density-based spatial encoding (DBSE): symbols <-> differences of neighbours.

Roy et al., CCGrid 2021: where neighbouring residuals resemble each other, their
differences lie more densely around zero. The inverse is a prefix sum. Arrays lie in the host's
memory or on a CUDA device.
"""

from __future__ import annotations

from tezip_h5 import kernels
from tezip_h5.kernels import arrays

__all__ = ["decode", "encode"]


def encode(symbols, width: int):
    """Replace each symbol by its predecessor (0 before the first) minus itself.

    `symbols` is int32, flat; differences wrap in `width` bytes.
    """
    differences = arrays.empty(arrays.device_of(symbols), symbols.size)
    kernels.of(symbols).difference_encode(symbols, (1 << 8 * width) - 1, differences)
    return differences


def decode(differences, width: int, symbols) -> None:
    """Inverse of `encode`: fill `symbols`; the two may be the same array."""
    kernels.of(symbols).difference_decode(differences, (1 << 8 * width) - 1, symbols)
