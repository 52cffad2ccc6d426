"""Estimating the bits that symbols will take, for choices that only the encoder makes."""

from __future__ import annotations

import numpy as np

__all__ = ["estimate"]

_CLASSES = 128  # classes of symbols: 64 of the magnitude (up to 2**63), for each of two signs


def estimate(symbols: np.ndarray) -> float:
    """Estimate the bits that coding `symbols` (integers, shape (..., rows, columns)) takes.

    The classes 0, 1, 2..3, 4..7, … of the magnitudes, with signs, are coded at their
    empirical entropy given how small the symbols to the left and above were, and the rest of
    each symbol in plain bits, as in Elias' gamma code. This holds for few distinct symbols
    and for wide ones, for scattered zeros and for regions of them.
    """
    _, exponents = np.frexp(np.abs(symbols.astype(np.float32)))
    classes = np.where(symbols < 0, _CLASSES // 2 + exponents, exponents)
    small = np.minimum(exponents, 2)
    context = np.zeros_like(classes)
    context[..., 1:] = small[..., :-1]
    context[..., 1:, :] += 3 * small[..., :-1, :]
    counts = np.bincount((context * _CLASSES + classes).reshape(-1), minlength=9 * _CLASSES)
    counts = counts.reshape(9, _CLASSES)
    totals = np.broadcast_to(counts.sum(axis=1, keepdims=True), counts.shape)
    seen = counts > 0
    entropy = float(np.sum(counts[seen] * np.log2(totals[seen] / counts[seen])))
    return entropy + float(np.maximum(exponents - 1, 0).sum())
