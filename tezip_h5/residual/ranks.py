"""Partitioned entropy encoding (PEE): symbols <-> ranks by frequency.

Roy et al., CCGrid 2021: the most frequent symbol becomes 0, the next 1, and so on, so that
few distinct symbols need few bytes whatever their values. The table of symbols in the
order of their ranks travels with the stream. Ties are broken by the symbol, so the table
is a function of the symbols alone. Symbols and ranks lie in the host's memory or on a CUDA
device, tables on the host.
"""

from __future__ import annotations

import numpy as np

from tezip_h5 import kernels
from tezip_h5.errors import FormatError
from tezip_h5.kernels import arrays

__all__ = ["Counter", "Ranking", "decode", "encode", "table"]


class Counter:
    """Count the symbols of a stream, frame after frame.

    Parameters
    ----------
    width : 1, 2 or 4, bytes of a symbol
    """

    def __init__(self, width: int):
        self._type = np.dtype(f"i{width}")
        self._bins = 1 << 8 * width
        self._frames: list[np.ndarray] = []  # on the host: counted when all are there
        self._counts = None  # on a device

    def add(self, symbols) -> None:
        """Count one frame: int32, flat. All frames lie in the same place."""
        device = arrays.device_of(symbols)
        if device == "cpu" or self._type.itemsize == 4:
            self._frames.append(arrays.at(symbols, "cpu").astype(self._type))
            return
        if self._counts is None:
            self._counts = arrays.at(np.zeros(self._bins, np.int64), device)
        kernels.of(symbols).count(symbols, self._bins // 2, self._counts)

    def table(self) -> np.ndarray:
        """Distinct symbols, most frequent first: integers of the stream's width, flat."""
        if self._type.itemsize == 4:
            distinct, counts = np.unique(np.concatenate(self._frames), return_counts=True)
        else:
            counts = self._counted()
            distinct = np.flatnonzero(counts)
            counts, distinct = counts[distinct], distinct + np.iinfo(self._type).min
        return distinct[np.argsort(-counts, kind="stable")].astype(self._type)

    def _counted(self) -> np.ndarray:
        """How often every symbol occurs, in increasing order of the symbols."""
        if self._counts is not None:
            return arrays.at(self._counts, "cpu")
        unsigned = np.concatenate(self._frames).view(f"u{self._type.itemsize}")
        return np.roll(np.bincount(unsigned, minlength=self._bins), self._bins // 2)


class Ranking:
    """A table of symbols by rank, which translates between symbols and ranks.

    Parameters
    ----------
    table : distinct symbols, most frequent first, as `Counter.table` gives it
    """

    def __init__(self, table: np.ndarray):
        self._table = table
        self._lookups: dict[tuple, tuple] = {}

    def _lookup(self, device: str, name: str, make) -> tuple:
        """Arrays for the lookup of symbols, which are made and copied to the device once."""
        if (device, name) not in self._lookups:
            self._lookups[device, name] = tuple(arrays.at(array, device) for array in make())
        return self._lookups[device, name]

    def encode(self, symbols):
        """Ranks (int32, flat) of `symbols` (int32, flat), each of which is in the table."""
        device, kernel = arrays.device_of(symbols), kernels.of(symbols)
        if self._table.dtype.itemsize <= 2:
            (inverse,) = self._lookup(device, "inverse", self._inverse)
            ranks = arrays.empty(device, symbols.size)
            kernel.table_lookup(symbols, inverse, -int(np.iinfo(self._table.dtype).min), ranks)
            return ranks
        order, ordered = self._lookup(device, "order", self._order)
        if device == "cpu":
            return order[np.searchsorted(ordered, symbols)]
        ranks = arrays.empty(device, symbols.size)
        kernel.table_search(symbols, ordered, order, ranks)
        return ranks

    def decode(self, ranks, symbols) -> None:
        """Inverse of `encode`: fill `symbols` (int32, flat). The two may be the same array."""
        low, high = arrays.extremes(ranks) if ranks.size else (0, 0)
        if low < 0 or high >= self._table.size:
            raise FormatError(f"a rank lies outside its table of {self._table.size} symbols")
        (table,) = self._lookup(arrays.device_of(ranks), "table", self._symbols)
        kernels.of(ranks).table_lookup(ranks, table, 0, symbols)

    def _inverse(self):
        low = np.iinfo(self._table.dtype).min
        inverse = np.zeros(1 << 8 * self._table.dtype.itemsize, np.int32)
        inverse[self._table.astype(np.int64) - low] = np.arange(self._table.size, dtype=np.int32)
        return (inverse,)

    def _order(self):
        order = np.argsort(self._table, kind="stable").astype(np.int32)
        return order, self._table[order].astype(np.int32)

    def _symbols(self):
        return (self._table.astype(np.int32),)


def table(symbols) -> np.ndarray:
    """Distinct symbols, most frequent first: the dtype of `symbols`, flat."""
    counter = Counter(symbols.dtype.itemsize)
    counter.add(arrays.convert(symbols, np.int32).reshape(-1))
    return counter.table()


def encode(symbols, ranked: np.ndarray):
    """Ranks (int32, flat) of `symbols` (int32, flat), each of which is in the table `ranked`."""
    return Ranking(ranked).encode(symbols)


def decode(ranks, ranked: np.ndarray, symbols) -> None:
    """Inverse of `encode`: fill `symbols` (int32, flat). The two may be the same array."""
    Ranking(ranked).decode(ranks, symbols)
