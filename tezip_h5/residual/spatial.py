"""Density-based spatial encoding (DBSE): symbols <-> differences of neighbours.

Roy et al., CCGrid 2021: where neighbouring residuals resemble each other, their
differences lie more densely around zero. The inverse is a prefix sum.
"""

from __future__ import annotations

import numpy as np

from tezip_h5 import kernels

__all__ = ["decode", "encode"]


def encode(symbols: np.ndarray, width: int) -> np.ndarray:
    """Replace each symbol by its predecessor (0 before the first) minus itself.

    `symbols` is int32, flat; differences wrap in `width` bytes.
    """
    differences = np.empty_like(symbols)
    kernels.load().difference_encode(symbols, (1 << 8 * width) - 1, differences)
    return differences


def decode(differences: np.ndarray, width: int, symbols: np.ndarray) -> None:
    """Inverse of `encode`: fill `symbols`; the two may be the same array."""
    kernels.load().difference_decode(differences, (1 << 8 * width) - 1, symbols)
