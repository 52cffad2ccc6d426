"""Sample values <-> integer levels: what the predictive codec works on.

Every chunk is brought to int32 levels before prediction and back after it, by one of seven
scales. A scale says how a value becomes a code; the chunk's smallest code is then
subtracted, so levels count from 0 to `top`. Float values leave and enter by one float64
operation and one rounding each; everything after that is integers. A value that its scale
cannot bring back within the bound is an *exception*, stored exactly beside the levels.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
import zstandard

from tezip_h5.errors import FormatError
from tezip_h5.inflate import inflate

__all__ = [
    "DTYPES",
    "Companded",
    "Grid",
    "Integers",
    "Listed",
    "LogBits",
    "OrderedBits",
    "Scale",
    "Truncated",
    "unpack",
]

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
"""Sample types; the index is the number on the wire."""

_WIDEST = 2**31 - 1  # the largest `top` for which clipping and tolerances are int32-safe
LARGEST_TABLE = 1 << 16


def _bits(values: np.ndarray) -> np.ndarray:
    """The IEEE bit patterns of float values, as signed integers of the same width."""
    return values.view(np.int32 if values.dtype == np.float32 else np.int64)


def ordered(values: np.ndarray) -> np.ndarray:
    """Integers in the order of the values: themselves, or made of the bit patterns of floats."""
    if values.dtype.kind != "f":
        return values.astype(np.int64 if values.dtype == np.uint32 else np.int32)
    bits = _bits(values)
    return np.where(bits < 0, bits ^ bits.dtype.type(np.iinfo(bits.dtype).max), bits)


def unordered(keys: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The inverse of `ordered`, of integers modulo the range of what it makes."""
    if dtype.kind != "f":
        return keys.astype(dtype)
    keys = keys.astype(np.int32 if dtype == np.float32 else np.int64)
    return np.where(keys < 0, keys ^ keys.dtype.type(np.iinfo(keys.dtype).max), keys).view(dtype)


@dataclass
class Scale:
    """How one chunk's values become levels. `codes` and `values` are inverse within a bound.

    Attributes
    ----------
    dtype : numpy dtype, the stack's
    offset : int, subtracted from codes
    top : int, the largest level; levels lie in 0..top (or wrap, when top = 2**32 - 1)
    """

    dtype: np.dtype
    offset: int = 0
    top: int = 0

    kind = -1

    @property
    def width(self) -> int:
        """Bytes that hold a level: 1, 2 or 4."""
        return 1 if self.top < 1 << 8 else 2 if self.top < 1 << 16 else 4

    def codes(self, values: np.ndarray) -> np.ndarray:
        """Codes of `values`, any integer dtype, same shape."""
        raise NotImplementedError

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Values of `codes`, in the stack's dtype, same shape."""
        raise NotImplementedError

    def to_levels(self, values: np.ndarray) -> np.ndarray:
        """Levels of `values`: int32, C-contiguous, same shape."""
        codes = self.codes(values)
        if self.offset:  # wraps in int32 exactly where the difference fits again
            codes -= codes.dtype.type(self.offset)
        return np.ascontiguousarray(codes, np.int32)

    def outside(self, values: np.ndarray) -> np.ndarray:
        """Whether the levels of `values` would lie outside 0..top, bool."""
        codes = self.codes(values).astype(np.int64)
        return (codes < self.offset) | (codes > self.offset + self.top)

    def to_values(self, levels: np.ndarray) -> np.ndarray:
        """Values of `levels` (int32), in the stack's dtype, same shape."""
        return self.decode(levels.astype(np.int64) + self.offset)

    # The wire form: offset (int64), top (uint32), then what the kind adds.
    def pack(self) -> bytes:
        return struct.pack("<qI", self.offset, self.top) + self._pack()

    def _pack(self) -> bytes:
        return b""

    def _unpack(self, data: bytes):
        if data:
            raise FormatError(f"{len(data)} bytes too many in the levels section; expected none")

    def fitted(self, codes_low: int, codes_high: int) -> Scale | None:
        """Set offset and top for codes in low..high; None when they need more than 31 bits."""
        self.offset, self.top = int(codes_low), int(codes_high) - int(codes_low)
        return self if self.top < _WIDEST and abs(self.offset) < 1 << 62 else None


class Integers(Scale):
    """Integers as they are."""

    kind = 0

    def codes(self, values):
        return values.astype(np.int64 if values.dtype == np.uint32 else np.int32)

    def decode(self, codes):
        return codes.astype(self.dtype)

    def to_values(self, levels):
        values = levels.astype(self.dtype)  # modulo the dtype's range, as the sum below
        if self.offset:
            values += np.array(self.offset).astype(self.dtype)
        return values


class OrderedBits(Scale):
    """Lossless float32: bit patterns in the order of the values, wrapping in 32 bits."""

    kind = 1

    def codes(self, values):
        return ordered(values)

    def decode(self, codes):
        return unordered(codes, np.dtype(np.float32))


@dataclass
class Grid(Scale):
    """Bounded floats: the nearest multiple of `step`; or floats that are multiples of it.

    `slack` is for the encoder alone: what the grid itself takes of a bound, default half a step.
    """

    step: float = 0.0
    slack: float | None = None
    kind = 2

    def codes(self, values):
        with np.errstate(invalid="ignore", over="ignore"):
            codes = np.rint(values.astype(np.float64) / self.step)
        return np.where(np.abs(codes) < 2.0**62, codes, 0.0).astype(np.int64)

    def decode(self, codes):
        with np.errstate(over="ignore"):
            return (codes.astype(np.float64) * self.step).astype(self.dtype)

    def _pack(self):
        return struct.pack("<d", self.step)

    def _unpack(self, data):
        if len(data) != 8:
            raise FormatError(f"the grid's step takes 8 bytes, found {len(data)}")
        (self.step,) = struct.unpack("<d", data)
        if not 0 < self.step < np.inf:
            raise FormatError(f"the grid's step is {self.step}; expected a positive number")


@dataclass
class LogBits(Scale):
    """Pointwise-bounded floats: IEEE magnitudes, rounded to multiples of `step`.

    A difference of d between bit patterns is a relative difference of at most d / 2**m (m
    mantissa bits), so a step of 2 * floor(b * 2**m) + 1 keeps the bound b.
    """

    step: int = 1
    kind = 3

    def codes(self, values):
        bits = _bits(values)
        magnitude = bits & np.iinfo(bits.dtype).max
        rounded = magnitude.astype(np.int64) // self.step
        rounded += magnitude - rounded * self.step > self.step >> 1
        return np.where(bits < 0, -rounded, rounded)

    def decode(self, codes):
        codes = codes.astype(np.int64)
        bits_type = np.int32 if self.dtype == np.float32 else np.int64
        limit = np.iinfo(bits_type).max
        magnitude = np.minimum(np.abs(codes), limit // self.step) * self.step
        values = magnitude.astype(bits_type).view(self.dtype)
        return np.where(codes < 0, -values, values)

    def _pack(self):
        return struct.pack("<Q", self.step)

    def _unpack(self, data):
        if len(data) != 8:
            raise FormatError(f"the step of the bit patterns takes 8 bytes, found {len(data)}")
        (self.step,) = struct.unpack("<Q", data)
        if not 1 <= self.step < 1 << 62:
            raise FormatError(f"the step of the bit patterns is {self.step}; expected >= 1")


@dataclass
class Companded(Scale):
    """Pointwise-bounded integers: each magnitude's entry in a table of representatives.

    The table is greedy: the entry that serves v is r = v + floor(b * v), and serves every
    x with |x - r| <= b * x. Zero is an entry of its own, so zeros stay exact.
    """

    table: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    kind = 4

    def codes(self, values):
        magnitude = np.abs(values.astype(np.int64))
        right = np.searchsorted(self.table, magnitude)
        # The magnitude of the most negative value is no positive value of the dtype.
        last = self.table.size - 1 - (self.table[-1] > np.iinfo(self.dtype).max)
        right = np.minimum(right, np.where(values < 0, self.table.size - 1, last))
        left = np.maximum(right - 1, 0)
        # The greedy table has an entry above within the bound, or the last one below has.
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
class Truncated(Scale):
    """Lossless floats: multiples of `step`, a power of two, cut off towards zero.

    The mantissa bits below the step are no part of the level; see `rests`.
    """

    step: float = 1.0
    kind = 5

    @property
    def mantissa(self) -> int:
        """Stored mantissa bits of the dtype."""
        return np.finfo(self.dtype).nmant

    @property
    def bits_type(self) -> type:
        """The unsigned integer type of bit patterns."""
        return np.uint32 if self.dtype == np.float32 else np.uint64

    def codes(self, values):
        with np.errstate(invalid="ignore", over="ignore"):
            codes = np.trunc(values.astype(np.float64) / self.step)
        return np.where(np.abs(codes) < 2.0**31, codes, 0.0).astype(np.int64)

    def decode(self, codes):
        with np.errstate(over="ignore"):
            return (codes.astype(np.float64) * self.step).astype(self.dtype)

    def widths(self, levels: np.ndarray) -> np.ndarray:
        """Mantissa bits that each level leaves out, uint8; none of a code 0, which says nothing."""
        codes = np.abs(levels.astype(np.int64) + self.offset)
        doublings = np.frexp(codes.astype(np.float64))[1] - 1
        return np.where(codes > 0, np.maximum(self.mantissa - doublings, 0), 0).astype(np.uint8)

    def masks(self, widths: np.ndarray) -> np.ndarray:
        """uint64 with the lowest `widths` bits set."""
        return (np.uint64(1) << widths.astype(np.uint64)) - np.uint64(1)

    def _pack(self):
        return struct.pack("<d", self.step)

    def _unpack(self, data):
        if len(data) != 8:
            raise FormatError(f"the step of truncated levels takes 8 bytes, found {len(data)}")
        (self.step,) = struct.unpack("<d", data)
        smallest = float(np.finfo(self.dtype).smallest_normal)
        if not smallest <= self.step < np.inf or np.frexp(self.step)[0] != 0.5:
            raise FormatError(f"the step of truncated levels is {self.step}; expected a power of 2")
        if self.top > 2**30 or abs(self.offset) > 2**30:
            raise FormatError(f"truncated levels from {self.offset} up to {self.top} are too wide")


@dataclass
class Listed(Scale):
    """The place of a sample's value, or of one near it, in a table of values.

    Attributes
    ----------
    table : (n,) array of the stack's dtype, ascending as `ordered`, at most `LARGEST_TABLE` long
    first : (n,) integers, for the encoder alone
        The least, as `ordered`, that each entry stands for; default: just itself.
    """

    table: np.ndarray = field(default_factory=lambda: np.zeros(1, np.uint8))
    first: np.ndarray | None = None
    _places: np.ndarray | None = field(default=None, repr=False)  # by value, where it is narrow
    kind = 6

    def codes(self, values):
        first = ordered(self.table) if self.first is None else self.first
        keys = ordered(values)
        if int(first[-1]) - int(first[0]) >= LARGEST_TABLE:
            return np.maximum(np.searchsorted(first, keys, "right") - 1, 0)
        if self._places is None:
            self._places = np.zeros(int(first[-1] - first[0]) + 1, np.int32)
            self._places[first[1:] - first[0]] = 1
            self._places = np.cumsum(self._places, dtype=np.int32)
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
        if not 1 <= size <= LARGEST_TABLE:
            raise FormatError(f"the table has {size} values; expected 1 to {LARGEST_TABLE}")
        width = self._key_bytes()
        raw = inflate(data[4:], width * size, "a table of values")
        if len(raw) != width * size:
            raise FormatError(f"the table of {size} values has {len(raw)} bytes")
        planes = np.frombuffer(raw, np.uint8).reshape(width, size)
        steps = np.ascontiguousarray(planes.T).view(f"<u{width}").reshape(-1)
        keys = np.cumsum(steps.astype(np.uint64), dtype=np.uint64)
        self.table = unordered(keys, self.dtype)

    def _key_bytes(self) -> int:
        return 8 if self.dtype == np.float64 else 4


_SCALES = {
    scale.kind: scale
    for scale in (Integers, OrderedBits, Grid, LogBits, Companded, Truncated, Listed)
}


def _takes(scale: type[Scale], dtype: np.dtype) -> bool:
    """Whether `choose` can pick this scale for samples of this dtype."""
    if scale is Listed:
        return True
    if scale is OrderedBits:
        return dtype == np.float32
    return (dtype.kind == "f") == (scale in (Grid, LogBits, Truncated))


def unpack(kind: int, dtype: np.dtype, data: bytes) -> Scale:
    """Read a scale from the levels section; `kind` is the header's."""
    if kind not in _SCALES:
        raise FormatError(f"unknown scale {kind}; this version knows {sorted(_SCALES)}")
    if not _takes(_SCALES[kind], dtype):
        raise FormatError(f"scale {kind} makes no levels of {dtype} samples")
    if len(data) < 12:
        raise FormatError(f"the levels section has {len(data)} bytes, expected at least 12")
    scale = _SCALES[kind](dtype)
    scale.offset, scale.top = struct.unpack_from("<qI", data)
    if abs(scale.offset) >= 1 << 62:
        raise FormatError(f"the level offset {scale.offset} is out of range")
    scale._unpack(data[12:])
    return scale
