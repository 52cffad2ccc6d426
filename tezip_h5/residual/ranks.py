"""Partitioned entropy encoding (PEE): symbols <-> ranks by frequency.

Roy et al., CCGrid 2021: the most frequent symbol becomes 0, the next 1, and so on, so that
few distinct symbols need few bytes whatever their values. The table of symbols in the
order of their ranks travels with the stream. Ties are broken by the symbol, so the table
is a function of the symbols alone.
"""

from __future__ import annotations

import numpy as np

from tezip_h5 import kernels
from tezip_h5.errors import FormatError

__all__ = ["decode", "encode", "table"]


def table(symbols: np.ndarray) -> np.ndarray:
    """Distinct symbols, most frequent first: the dtype of `symbols`, flat."""
    if symbols.dtype.itemsize <= 2:
        low = np.iinfo(symbols.dtype).min
        unsigned = symbols.view(f"u{symbols.dtype.itemsize}")
        counts = np.bincount(unsigned.reshape(-1), minlength=1 << 8 * symbols.dtype.itemsize)
        counts = np.roll(counts, -low)  # now counts[i] belongs to symbol i + low
        distinct = np.flatnonzero(counts)
        counts, distinct = counts[distinct], distinct + low
    else:
        distinct, counts = np.unique(symbols, return_counts=True)
    return distinct[np.argsort(-counts, kind="stable")].astype(symbols.dtype)


def encode(symbols: np.ndarray, ranked: np.ndarray) -> np.ndarray:
    """Ranks (int32, flat) of `symbols` (int32, flat), each of which is in `ranked`."""
    if ranked.dtype.itemsize <= 2:
        low = np.iinfo(ranked.dtype).min
        inverse = np.zeros(1 << 8 * ranked.dtype.itemsize, np.int32)
        inverse[ranked.astype(np.int64) - low] = np.arange(ranked.size, dtype=np.int32)
        ranks = np.empty_like(symbols)
        kernels.load().table_lookup(symbols, inverse, -low, ranks)
        return ranks
    order = np.argsort(ranked, kind="stable").astype(np.int32)
    return order[np.searchsorted(ranked, symbols, sorter=order)]


def decode(ranks: np.ndarray, ranked: np.ndarray, symbols: np.ndarray) -> None:
    """Inverse of `encode`: fill `symbols` (int32, flat). The two may be the same array."""
    if (ranks.size and not 0 <= int(ranks.max()) < ranked.size) or ranks.min(initial=0) < 0:
        raise FormatError(f"a rank lies outside its table of {ranked.size} symbols")
    kernels.load().table_lookup(ranks, ranked.astype(np.int32), 0, symbols)
