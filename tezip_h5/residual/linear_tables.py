"""Tables of the linear coder: the table of each context, and the frequencies in each table.

The encoder counts symbols by context, gives contexts with similar symbols a common table, and
transmits the tables. The decoder does not adapt; it only looks up.
"""

from __future__ import annotations

import struct

import numpy as np
import zstandard

from tezip_h5 import kernels
from tezip_h5.errors import FormatError
from tezip_h5.inflate import inflate

__all__ = ["MOST_SYMBOLS", "SIDES", "Tables", "build", "symbols_for"]

SIDES = 3
MOST_SYMBOLS = 144  # symbols of levels of 32 bits
_MOST_TABLES = 32
_TOTAL = 4096  # sum of the frequencies of a table
_PREFIX = struct.Struct("<BBBB")  # energy scale, tables, symbols, sides (a bit each)
_SAMPLES_PER_TABLE = 4000  # with fewer samples per table, tables cost more than they save
_TABLES = 24  # at most so many tables are made
_ROUNDS = 3  # rounds of k-means
_SLACK = 12.0  # bits that it costs when a context has another table than the context before it


def symbols_for(top: int, tolerance: int) -> int:
    """Number of symbols that the levels 0..top can need."""
    largest = max(2 * (top // (2 * tolerance + 1) + 1), 1)
    octave = largest.bit_length() - 1
    return min(32 + 4 * max(octave - 4, 0), MOST_SYMBOLS)


class Tables:
    """The tables of a chunk.

    Attributes
    ----------
    scale : int, magnitudes of symbols are shifted right by this to choose a context
    of_context : uint8 (SIDES, contexts), the number of the table of each context
    frequencies : int64 (tables, symbols); each row adds up to 4096
    """

    def __init__(self, scale, of_context, frequencies):
        self.scale = scale
        self.of_context = of_context
        self.frequencies = frequencies
        self._starts = np.cumsum(frequencies, axis=1) - frequencies

    def encoder_slots(self) -> np.ndarray:
        """4096 * frequency + start of every symbol: uint32 (tables, symbols)."""
        return (self.frequencies * _TOTAL + self._starts).astype(np.uint32)

    def decoder_slots(self) -> np.ndarray:
        """For each table's slots: symbol, frequency - 1, place in it; uint32, flat."""
        count, symbols = self.frequencies.shape
        entry = (np.tile(np.arange(symbols), (count, 1)) << 24) | ((self.frequencies - 1) << 12)
        entry -= self._starts + np.arange(count)[:, None] * _TOTAL
        flat = np.repeat(entry.reshape(-1), self.frequencies.reshape(-1))
        return (flat + np.arange(count * _TOTAL)).astype(np.uint32)

    def pack(self, used: list[int]) -> bytes:
        """The tables section; `used` are the sides whose contexts occur."""
        stored = self.frequencies.astype("<u2")
        body = self.of_context[used].tobytes() + stored.view(np.uint8).reshape(-1, 2).T.tobytes()
        sides = sum(1 << side for side in used)
        return _PREFIX.pack(self.scale, *stored.shape, sides) + zstandard.compress(body, 15)

    @classmethod
    def unpack(cls, data: bytes) -> Tables:
        """Inverse of `pack`. Raises FormatError for anything but valid tables."""
        if len(data) < _PREFIX.size:
            raise FormatError(f"the tables section has {len(data)} bytes; expected more")
        scale, count, symbols, sides = _PREFIX.unpack_from(data)
        if (
            scale > 31
            or not 1 <= count <= _MOST_TABLES
            or not 1 <= symbols <= MOST_SYMBOLS
            or sides >> SIDES
        ):
            raise FormatError(
                f"tables out of range: scale {scale}, {count} tables of {symbols} symbols, "
                f"sides {sides:#x}"
            )
        contexts = kernels.load("linear.plan").CONTEXTS
        used = [side for side in range(SIDES) if sides >> side & 1]
        size = contexts * len(used) + 2 * count * symbols
        body = inflate(data[_PREFIX.size :], size, "a section of tables")
        if len(body) != size:
            raise FormatError(f"the tables have {len(body)} bytes, expected {size}")
        of_context = np.zeros((SIDES, contexts), np.uint8)
        split = contexts * len(used)
        of_context[used] = np.frombuffer(body[:split], np.uint8).reshape(-1, contexts)
        stored = np.frombuffer(body[split:], np.uint8).reshape(2, -1).T.copy().view("<u2")
        frequencies = stored.reshape(count, symbols).astype(np.int64)
        if of_context.max() >= count or (frequencies.sum(axis=1) != _TOTAL).any():
            raise FormatError("a context without a table, or frequencies that do not add up")
        return cls(scale, of_context, frequencies)


def build(counts: np.ndarray, scale: int) -> tuple[Tables, list[int]]:
    """Make tables that code `counts` (int32 (SIDES, contexts, symbols)) in few bits.

    This is k-means with code lengths as distances. Contexts are first grouped by the size of their
    symbols. Then each moves to the table that codes it best, several times.
    """
    fit = kernels.load("linear.fit")
    sides, contexts, symbols = counts.shape
    flat = counts.reshape(-1, symbols)
    found = np.empty(len(flat), np.int64)
    symbols = fit.totals(flat, found) + 1
    present = np.flatnonzero(found)
    rows = np.ascontiguousarray(flat[present, :symbols])
    per_row = found[present]
    used_sides = np.unique(present // contexts).tolist()
    # Sorted by the mean size of symbols, in groups of about as many bits each.
    # No product of BLAS: after a large one, its threads keep a core busy for a tenth of a second.
    bits = (rows * np.log2(np.arange(1, symbols + 1, dtype=np.float32))).sum(axis=1) + 1
    order = np.argsort(bits / per_row, kind="stable")
    passed = np.cumsum(bits[order], dtype=np.float64)
    count = int(np.clip(per_row.sum() // _SAMPLES_PER_TABLE, 1, _TABLES))
    group = np.minimum(passed * (count / passed[-1]), count - 1).astype(np.int64)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    totals = np.add.reduceat(rows[order], starts, axis=0, dtype=np.int64)
    tables = np.zeros(len(rows), np.uint8)
    for turn in range(_ROUNDS):
        totals = totals[totals.any(axis=1)]
        smoothed = totals + 0.02
        lengths = np.log2(smoothed.sum(axis=1) / smoothed.T).astype(np.float32)
        totals = np.zeros_like(totals)
        slack = np.float32(_SLACK if turn == _ROUNDS - 1 else 0)
        fit.assign(rows, np.ascontiguousarray(lengths), slack, tables, totals)
    kept = totals.any(axis=1)
    tables = (np.cumsum(kept) - 1).astype(np.uint8)[tables]
    of_context = np.zeros(sides * contexts, np.uint8)
    # A context that does not occur has the table of the one before it.
    before = np.searchsorted(present, np.arange(of_context.size), side="right") - 1
    of_context[:] = tables[np.maximum(before, 0)]
    frequencies = np.stack([_normalized(row) for row in totals[kept]])
    return Tables(scale, of_context.reshape(sides, contexts), frequencies), used_sides


def _normalized(counts: np.ndarray) -> np.ndarray:
    """Frequencies in proportion to `counts`; they add up to 4096, and are at least 1 for every
    symbol that occurs."""
    frequencies = np.where(counts > 0, np.maximum(counts * _TOTAL // counts.sum(), 1), 0)
    excess = int(frequencies.sum()) - _TOTAL
    while excess > 0:  # many rare symbols: take from the frequent ones
        largest = int(np.argmax(frequencies))
        taken = min(excess, max(int(frequencies[largest]) // 8, 1))
        frequencies[largest] -= taken
        excess -= taken
    frequencies[int(np.argmax(frequencies))] -= excess
    return frequencies
