"""How many bits symbols will take: an estimate, for choices that only the encoder makes."""

from __future__ import annotations

import numpy as np

__all__ = ["estimate"]


def estimate(symbols: np.ndarray) -> float:
    """Estimate the bits that coding `symbols` (integers, any shape) takes.

    The classes 0, 1, 2..3, 4..7, … of the magnitudes, with signs, are coded at their
    empirical entropy and the rest of each symbol in plain bits, as in Elias' gamma code.
    This holds for few distinct symbols and for wide ones alike.
    """
    symbols = symbols.reshape(-1).astype(np.float64)
    _, exponents = np.frexp(np.abs(symbols))
    classes = np.where(symbols < 0, -exponents, exponents)
    counts = np.bincount(classes - classes.min())
    counts = counts[counts > 0]
    entropy = float(np.sum(counts * np.log2(symbols.size / counts)))
    return entropy + float(np.maximum(exponents - 1, 0).sum())
