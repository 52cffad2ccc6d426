"""Scales that are tables. The encoder makes a table, and the payload contains it."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
import zstandard

from tezip_h5.errors import FormatError
from tezip_h5.inflate import inflate
from tezip_h5.levels.scale import Scale, ordered, unordered

__all__ = ["LARGEST_TABLE", "Companded", "Listed"]

LARGEST_TABLE = 1 << 16
"""The largest number of entries of a table."""


@dataclass
class Companded(Scale):
    """Integers with a pointwise bound: the place of a magnitude in a table of representatives.

    The table is greedy. The smallest magnitude v without a representative gets the largest one
    that the bound allows. For a relative bound b that is r = v + floor(b * v), which serves every
    x with |x - r| <= b * x. Zero is an entry of its own, so zeros stay exact. A code has the sign
    of the sample.
    """

    table: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    kind = 4

    def codes(self, values):
        magnitude = np.abs(values.astype(np.int64))
        right = np.searchsorted(self.table, magnitude)
        # The last entry may be the magnitude of the most negative value. No positive value of the
        # dtype is that large, so positive samples may not take that entry.
        last = self.table.size - 1 - (self.table[-1] > np.iinfo(self.dtype).max)
        right = np.minimum(right, np.where(values < 0, self.table.size - 1, last))
        left = np.maximum(right - 1, 0)
        # In a greedy table, the next entry above or the next entry below is within the bound.
        nearer = np.abs(magnitude - self.table[left]) < np.abs(self.table[right] - magnitude)
        nearer &= self.table[left] > 0
        index = np.where(nearer, left, right)
        return np.where(values < 0, -index, index)

    def decode(self, codes):
        index = np.minimum(np.abs(codes.astype(np.int64)), self.table.size - 1)
        values = np.where(codes < 0, -self.table[index], self.table[index])
        return values.astype(self.dtype)

    def _pack(self):
        steps = np.diff(self.table).astype("<u4").tobytes()
        return struct.pack("<I", self.table.size) + zstandard.compress(steps, 9)

    def _unpack(self, data):
        if len(data) < 4:
            raise FormatError(f"the table of representatives has {len(data)} bytes, expected >= 4")
        (size,) = struct.unpack_from("<I", data)
        if not 1 <= size <= LARGEST_TABLE + 1:
            raise FormatError(f"the table has {size} representatives; at most {LARGEST_TABLE}")
        raw = inflate(data[4:], 4 * size, "a table of representatives")
        if len(raw) % 4:
            raise FormatError(f"the table of representatives has {len(raw)} bytes")
        steps = np.frombuffer(raw, "<u4")
        if steps.size != size - 1:
            raise FormatError(f"the table has {steps.size + 1} representatives, expected {size}")
        self.table = np.concatenate([[0], np.cumsum(steps, dtype=np.int64)])


@dataclass
class Listed(Scale):
    """The code of a sample is the place of its value, or of a value near it, in a table.

    Attributes
    ----------
    table : (n,) array of the stack's dtype
        At most `LARGEST_TABLE` values, in the order of `ordered`.
    first : (n,) integers, optional
        The smallest key, as `ordered` gives it, that each entry stands for. The default is the
        key of the entry. Only an encoder needs it.
    longest : int
        The largest number of entries that a decoder accepts.
    """

    table: np.ndarray = field(default_factory=lambda: np.zeros(1, np.uint8))
    first: np.ndarray | None = None
    longest: int = LARGEST_TABLE
    # The code of every key from the first to the last; only if their range is narrow.
    _places: np.ndarray | None = field(default=None, repr=False)
    kind = 6

    def codes(self, values):
        first = ordered(self.table) if self.first is None else self.first
        keys = ordered(values)
        if int(first[-1]) - int(first[0]) >= LARGEST_TABLE:
            return np.maximum(np.searchsorted(first, keys, "right") - 1, 0)
        if self._places is None:
            steps = np.zeros(int(first[-1] - first[0]) + 1, np.int32)
            steps[first[1:] - first[0]] = 1
            # Assigned in one step, since threads share it: none may see a part of it.
            self._places = np.cumsum(steps, dtype=np.int32)
        return self._places[np.clip(keys - first[0], 0, self._places.size - 1)]

    def decode(self, codes):
        return self.table[np.clip(codes, 0, self.table.size - 1)]

    def _pack(self):
        width = self._key_bytes()
        keys = ordered(self.table).astype(np.int64)
        steps = np.diff(keys, prepend=np.int64(0)).astype(f"<u{width}")
        planes = steps.view(np.uint8).reshape(-1, width).T
        return struct.pack("<I", self.table.size) + zstandard.compress(planes.tobytes(), 9)

    def _unpack(self, data):
        if len(data) < 4:
            raise FormatError(f"the table of values has {len(data)} bytes, expected >= 4")
        (size,) = struct.unpack_from("<I", data)
        most = min(self.longest, LARGEST_TABLE)
        if not 1 <= size <= most:
            raise FormatError(f"the table has {size} values; expected 1 to {most}")
        width = self._key_bytes()
        raw = inflate(data[4:], width * size, "a table of values")
        if len(raw) != width * size:
            raise FormatError(f"the table of {size} values has {len(raw)} bytes")
        planes = np.frombuffer(raw, np.uint8).reshape(width, size)
        steps = np.ascontiguousarray(planes.T).view(f"<u{width}").reshape(-1)
        keys = np.cumsum(steps.astype(np.uint64), dtype=np.uint64)
        self.table = unordered(keys, self.dtype)

    def _key_bytes(self) -> int:
        """The bytes of a key in the payload."""
        return 8 if self.dtype.itemsize == 8 else 4
