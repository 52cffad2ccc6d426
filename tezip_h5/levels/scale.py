"""`Scale`, the base of all scales, and integers that are ordered as sample values are."""

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
    "steps_between",
    "unordered",
]

DTYPES = (
    *("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"),
    *("int64", "uint64", "float16", "bool"),
)
"""The dtypes of samples. The index of a dtype is its number in the header of a payload."""

_ENDS = struct.Struct("<qI")  # offset and top, with which every levels section begins
_WIDEST = 2**31 - 1  # below this `top`, sums of levels and tolerances are clipped within int32


def carrier(dtype: np.dtype) -> np.dtype:
    """The dtype of samples while they are coded: uint8 for bool, else their own."""
    return np.dtype(np.uint8) if dtype == np.bool_ else dtype


def full_scale(dtype: np.dtype) -> float | None:
    """The range of a dtype, which counts as 1.0 in mean squared errors.

    None for floats, and for 64-bit integers, whose range no instrument fills. Their largest level
    counts as 1.0.
    """
    if dtype == np.bool_:
        return 1.0
    if dtype.kind == "f" or dtype.itemsize == 8:
        return None
    return float(int(np.iinfo(dtype).max) - int(np.iinfo(dtype).min))


def float_bits(values: np.ndarray) -> np.ndarray:
    """The IEEE bit patterns of floats, as signed integers of the same width."""
    return values.view(f"i{values.dtype.itemsize}")


def integers(values: np.ndarray) -> np.ndarray:
    """Convert integers to int32 or int64, whichever holds all values of their dtype.

    Values of uint64 from 2**63 on wrap around.
    """
    wide = values.dtype.itemsize == 8 or values.dtype == np.uint32
    return values.astype(np.int64 if wide else np.int32)


def ordered(values: np.ndarray) -> np.ndarray:
    """Convert values to integers that are in the same order.

    Integers stay as they are. The integers of floats are made from their bit patterns, so
    neighbouring floats have neighbouring integers.
    """
    if values.dtype.kind != "f":
        return integers(values)
    bits = float_bits(values)
    return integers(np.where(bits < 0, bits ^ bits.dtype.type(np.iinfo(bits.dtype).max), bits))


def steps_between(sizes: np.ndarray, counts: np.ndarray, dtype: np.dtype) -> tuple[float, float]:
    """The least and the largest step of which so many make these sizes, rounded to a float dtype.

    Every size was rounded, so it bounds the step from both sides. There is no such step if the
    first number is above the second.
    """
    half = np.spacing(sizes.astype(dtype)).astype(np.float64) / 2
    return float(((sizes - half) / counts).max()), float(((sizes + half) / counts).min())


def unordered(keys: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The inverse of `ordered`. Keys may differ from its results by multiples of 2**bits."""
    if dtype.kind != "f":
        return keys.astype(dtype)
    keys = keys.astype(f"i{dtype.itemsize}")
    return np.where(keys < 0, keys ^ keys.dtype.type(np.iinfo(keys.dtype).max), keys).view(dtype)


@dataclass
class Scale:
    """The way in which the values of one chunk become levels.

    `codes` and `decode` are inverse to each other, within the bound that the scale is made for.

    Attributes
    ----------
    dtype : numpy dtype of the stack
    offset : int
        The difference between the code of a value and its level.
    top : int
        The largest level; levels lie in 0..top. If top is 2**32 - 1, they wrap around in int32.
    """

    dtype: np.dtype
    offset: int = 0
    top: int = 0

    kind = -1  # the number of the scale in a payload's header
    corrected = False  # whether small differences between samples and levels are stored, too

    def of_frame(self, t: int) -> Scale:
        """The scale of frame `t`. It is this one, except in an `EachFrame`."""
        return self

    @property
    def width(self) -> int:
        """The bytes of a level: 1, 2 or 4."""
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
        if self.offset:  # int32 may wrap around here, but levels fit in it, so they are right
            codes -= codes.dtype.type(self.offset)
        return np.ascontiguousarray(codes, np.int32)

    def outside(self, values: np.ndarray) -> np.ndarray:
        """Whether the level of each value would lie outside 0..top: bool, same shape."""
        codes = self.codes(values).astype(np.int64)
        return (codes < self.offset) | (codes > self.offset + self.top)

    def to_values(self, levels: np.ndarray) -> np.ndarray:
        """Values of `levels` (int32), in the stack's dtype, same shape."""
        return self.decode(levels.astype(np.int64) + self.offset)

    def pack(self) -> bytes:
        """The levels section: offset (int64), top (uint32), then the numbers of this scale."""
        return _ENDS.pack(self.offset, self.top) + self._pack()

    def unpacked(self, data: bytes):
        """This scale, with its numbers read from the bytes of a levels section."""
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
        """This scale, with offset and top for codes in low..high; None if levels need more than
        31 bits."""
        self.offset, self.top = int(codes_low), int(codes_high) - int(codes_low)
        return self if self.top < _WIDEST and abs(self.offset) < 1 << 62 else None
