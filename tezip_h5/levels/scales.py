"""Scales that are formulas: integers, multiples of a step, lines, bit patterns."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np

from tezip_h5.errors import FormatError
from tezip_h5.levels.scale import Scale, float_bits, integers, ordered, unordered

__all__ = ["Affine", "Grid", "Integers", "LogBits", "OrderedBits", "Truncated"]

_FARTHEST = 2.0**62  # codes below this magnitude fit in int64 with their offset


class Integers(Scale):
    """Integers: the code of a sample is its value."""

    kind = 0

    def codes(self, values):
        return integers(values)

    def decode(self, codes):
        return codes.astype(self.dtype)

    def to_values(self, levels):
        values = levels.astype(self.dtype)  # may wrap around, as the sum below, which is then right
        if self.offset:
            values += np.array(self.offset).astype(self.dtype)
        return values


class OrderedBits(Scale):
    """Lossless float32 and float16: bit patterns, in the order of the values (see `ordered`).

    Codes wrap around in 32 or 16 bits.
    """

    kind = 1

    def codes(self, values):
        return ordered(values)

    def decode(self, codes):
        return unordered(codes, self.dtype)


class _Multiples(Scale):
    """Floats that are multiples of `step`."""

    step: float

    def decode(self, codes):
        with np.errstate(over="ignore"):
            return (codes.astype(np.float64) * self.step).astype(self.dtype)

    def _pack(self):
        return struct.pack("<d", self.step)


@dataclass
class Grid(_Multiples):
    """Floats that become the nearest multiple of `step`.

    It serves floats with a bound, and lossless floats that are multiples of a number.

    Attributes
    ----------
    step : float
    slack : float, optional
        The part of a bound that the rounding to this grid takes, default half a step. Only an
        encoder needs it.
    """

    step: float = 0.0
    slack: float | None = None
    kind = 2

    def codes(self, values):
        with np.errstate(invalid="ignore", over="ignore"):
            codes = np.rint(values.astype(np.float64) / self.step)
            if not np.max(np.abs(codes), initial=0.0) < _FARTHEST:  # or not a number
                codes = np.where(np.abs(codes) < _FARTHEST, codes, 0.0)
        return codes.astype(np.int64)

    def _unpack(self, data):
        if len(data) != 8:
            raise FormatError(f"the grid's step takes 8 bytes, found {len(data)}")
        (self.step,) = struct.unpack("<d", data)
        if not 0 < self.step < np.inf:
            raise FormatError(f"the grid's step is {self.step}; expected a positive number")


@dataclass
class Affine(Scale):
    """Floats on a line: code * step / divisor + intercept, then rounded.

    It is the scale of one frame, in an `EachFrame`. An encoder sets the step or the divisor to 1.
    Both exist because k / 255 and k * (1 / 255) often differ in the last bit.
    """

    step: float = 1.0
    divisor: float = 1.0
    intercept: float = 0.0
    kind = 7

    @property
    def spacing(self) -> float:
        """The difference of two neighbouring values."""
        return self.step / self.divisor

    @property
    def slack(self) -> float:
        """The part of a bound that rounding takes: that of a sample and that of its value.

        It is infinite where the levels reach beyond the largest float.
        """
        largest = np.abs(self.decode(np.array([self.offset, self.offset + self.top], np.float64)))
        return float(np.spacing(largest.max())) if np.isfinite(largest).all() else math.inf

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """The codes of the nearest values on the line, as float64. They are not limited to the
        range of this scale."""
        return np.rint((values.astype(np.float64) - self.intercept) / self.spacing)

    def codes(self, values):
        codes = np.clip(self.nearest(values), self.offset, self.offset + self.top)
        return codes.astype(np.int64)

    def decode(self, codes):
        with np.errstate(over="ignore"):
            return (codes * self.step / self.divisor + self.intercept).astype(self.dtype)

    def _pack(self):
        return struct.pack("<ddd", self.step, self.divisor, self.intercept)

    def _unpack(self, data):
        if len(data) != 24:
            raise FormatError(f"step, divisor and intercept take 24 bytes, found {len(data)}")
        self.step, self.divisor, self.intercept = numbers = struct.unpack("<ddd", data)
        if not (self.step > 0 and self.divisor > 0 and np.isfinite(numbers).all()):
            raise FormatError(
                f"step, divisor and intercept are {numbers}; expected finite numbers, the first "
                "two positive"
            )


@dataclass
class LogBits(Scale):
    """Floats with a pointwise relative bound: bit patterns, rounded to multiples of `step`.

    The bit pattern is that of the magnitude; the code has the sign of the sample. If two bit
    patterns differ by d, and the mantissa has m bits, then the floats differ by at most d / 2**m,
    relative to their magnitude. So a step of 2 * floor(b * 2**m) + 1 keeps the bound b.
    """

    step: int = 1
    kind = 3

    def codes(self, values):
        bits = float_bits(values)
        magnitude = bits & np.iinfo(bits.dtype).max
        rounded = magnitude.astype(np.int64) // self.step
        rounded += magnitude - rounded * self.step > self.step >> 1
        return np.where(bits < 0, -rounded, rounded)

    def decode(self, codes):
        codes = codes.astype(np.int64)
        bits_type = np.dtype(f"i{self.dtype.itemsize}")
        limit = int(np.iinfo(bits_type).max)
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
class Truncated(_Multiples):
    """Lossless floats: the next multiple of `step` towards zero. The step is a power of two.

    The mantissa bits below the step are stored apart from the levels; see the module `mantissa`.
    """

    step: float = 1.0
    kind = 5

    @property
    def mantissa(self) -> int:
        """The number of mantissa bits that the dtype stores."""
        return np.finfo(self.dtype).nmant

    @property
    def bits_type(self) -> np.dtype:
        """The unsigned integer dtype that is as wide as the floats."""
        return np.dtype(f"u{self.dtype.itemsize}")

    def codes(self, values):
        with np.errstate(invalid="ignore", over="ignore"):
            codes = np.trunc(values.astype(np.float64) / self.step)
        return np.where(np.abs(codes) < 2.0**31, codes, 0.0).astype(np.int64)

    def widths(self, levels: np.ndarray) -> np.ndarray:
        """The number of mantissa bits that each level leaves out, uint8.

        It is 0 for code 0, since samples of code 0 are stored whole.
        """
        codes = np.abs(levels.astype(np.int64) + self.offset)
        doublings = np.frexp(codes.astype(np.float64))[1] - 1
        return np.where(codes > 0, np.maximum(self.mantissa - doublings, 0), 0).astype(np.uint8)

    def masks(self, widths: np.ndarray) -> np.ndarray:
        """uint64 numbers in which the lowest `widths` bits are set."""
        return (np.uint64(1) << widths.astype(np.uint64)) - np.uint64(1)

    def _unpack(self, data):
        if len(data) != 8:
            raise FormatError(f"the step of truncated levels takes 8 bytes, found {len(data)}")
        (self.step,) = struct.unpack("<d", data)
        floats = np.finfo(self.dtype)
        smallest, largest = float(floats.smallest_normal), float(floats.max)
        if not smallest <= self.step <= largest or np.frexp(self.step)[0] != 0.5:
            raise FormatError(f"the step of truncated levels is {self.step}; expected a power of 2")
        if self.top > 2**30 or abs(self.offset) > 2**30:
            raise FormatError(f"truncated levels from {self.offset} up to {self.top} are too wide")
