"""What a scale is, and values as integers in their order."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from tezip_h5.errors import FormatError

__all__ = [
    "DTYPES",
    "Scale",
    "carrier",
    "float_bits",
    "full_scale",
    "integers",
    "ordered",
    "unordered",
]

DTYPES = (
    *("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"),
    *("int64", "uint64", "float16", "bool"),
)
"""Sample types; the index is the number on the wire."""

_ENDS = struct.Struct("<qI")
_WIDEST = 2**31 - 1  # the largest `top` for which clipping and tolerances are int32-safe


def carrier(dtype: np.dtype) -> np.dtype:
    """What samples are taken for while they are coded: themselves, or bytes if they are bool."""
    return np.dtype(np.uint8) if dtype == np.bool_ else dtype


def full_scale(dtype: np.dtype) -> float | None:
    """What makes 1.0 on the scale of mean squared errors; None where that is the largest level:
    of floats, and of 64 bits, which no instrument fills."""
    if dtype == np.bool_:
        return 1.0
    if dtype.kind == "f" or dtype.itemsize == 8:
        return None
    return float(int(np.iinfo(dtype).max) - int(np.iinfo(dtype).min))


def float_bits(values: np.ndarray) -> np.ndarray:
    """The IEEE bit patterns of float values, as signed integers of the same width."""
    return values.view(f"i{values.dtype.itemsize}")


def integers(values: np.ndarray) -> np.ndarray:
    """Integers as signed ones that hold them, those of `uint64` from 2**63 on excepted."""
    wide = values.dtype.itemsize == 8 or values.dtype == np.uint32
    return values.astype(np.int64 if wide else np.int32)


def ordered(values: np.ndarray) -> np.ndarray:
    """Integers in the order of the values: themselves, or made of the bit patterns of floats."""
    if values.dtype.kind != "f":
        return integers(values)
    bits = float_bits(values)
    return integers(np.where(bits < 0, bits ^ bits.dtype.type(np.iinfo(bits.dtype).max), bits))


def unordered(keys: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The inverse of `ordered`, of integers modulo the range of what it makes."""
    if dtype.kind != "f":
        return keys.astype(dtype)
    keys = keys.astype(f"i{dtype.itemsize}")
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
    corrected = False  # whether samples may differ from what their levels say, and are corrected

    def of_frame(self, t: int) -> Scale:
        """The scale of frame `t`. It is this one, except in an `EachFrame`."""
        return self

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
        return _ENDS.pack(self.offset, self.top) + self._pack()

    def unpacked(self, data: bytes):
        """This scale, with its numbers read from a levels section."""
        if len(data) < _ENDS.size:
            raise FormatError(f"the levels section has {len(data)} bytes, expected at least 12")
        self.offset, self.top = _ENDS.unpack_from(data)
        if abs(self.offset) >= 1 << 62:
            raise FormatError(f"the level offset {self.offset} is out of range")
        self._unpack(data[_ENDS.size :])
        return self

    def _pack(self) -> bytes:
        return b""

    def _unpack(self, data: bytes):
        if data:
            raise FormatError(f"{len(data)} bytes too many in the levels section; expected none")

    def fitted(self, codes_low: int, codes_high: int) -> Scale | None:
        """Set offset and top for codes in low..high; None when they need more than 31 bits."""
        self.offset, self.top = int(codes_low), int(codes_high) - int(codes_low)
        return self if self.top < _WIDEST and abs(self.offset) < 1 << 62 else None
