"""The low mantissa bits of floats, which truncated levels leave out.

Bits below the noise of a measurement cannot be predicted, so they are stored without prediction.
They are stored in bit planes, so that constant planes cost nothing. Floats that were counts, or
that have only half the precision, have such planes.
"""

from __future__ import annotations

import numpy as np
import zstandard

from tezip_h5 import kernels
from tezip_h5.errors import FormatError
from tezip_h5.inflate import inflate
from tezip_h5.levels import Truncated

__all__ = ["MantissaReader", "MantissaWriter", "parts"]

_LEVEL = 3  # zstd's compression level


class MantissaWriter:
    """Collect the mantissa bits that the levels of frames leave out.

    Parameters
    ----------
    scale : Truncated
    """

    def __init__(self, scale: Truncated):
        self._scale = scale
        self._parts: list[bytes] = []

    def add(self, values, frame, levels, holes: np.ndarray | None = None) -> None:
        """Add one frame, and complete `values` by it.

        Parameters
        ----------
        values : (h, w, C) float array, the values that `levels` alone decode to; it is changed
        frame : (h, w, C), the original
        levels : int32 (h, w, C)
        holes : bool (h, w, C), optional
            Samples whose bits do not matter.
        """
        scale = self._scale
        widths = scale.widths(levels).reshape(-1)
        bits = np.ascontiguousarray(frame).reshape(-1).view(scale.bits_type)
        low = bits.astype(np.uint64) & scale.masks(widths)
        if holes is not None:
            bits = np.where(holes.reshape(-1), 0, bits)
            low[holes.reshape(-1)] = 0
        planes = np.empty(widths.size * scale.mantissa // 8 + scale.mantissa + 1, np.uint8)
        size = kernels.load("bits").pack_planes(low, widths, scale.mantissa, planes)
        unknown = levels.reshape(-1) + scale.offset == 0
        small = bits[unknown]
        self._parts += [
            planes[:size].tobytes(),
            small.astype(small.dtype.newbyteorder("<")).tobytes(),
        ]
        _complete(values, low, unknown, small)

    def pack(self) -> bytes:
        """The mantissa section."""
        return zstandard.compress(b"".join(self._parts), _LEVEL)


class MantissaReader:
    """Inverse of `MantissaWriter`, frame by frame."""

    def __init__(self, data: bytes, scale: Truncated, frames: int, samples: int):
        self._scale = scale
        most = frames * (
            samples * (scale.mantissa // 8 + 1 + scale.dtype.itemsize) + scale.mantissa
        )
        self._data = np.frombuffer(bytearray(inflate(data, most, "the mantissa bits")), np.uint8)

    def apply(self, values: np.ndarray, levels: np.ndarray) -> None:
        """Complete `values`, (h, w, C), what `levels` alone decode to."""
        scale = self._scale
        widths = scale.widths(levels).reshape(-1)
        low = np.zeros(widths.size, np.uint64)
        size = kernels.load("bits").unpack_planes(self._data, widths, scale.mantissa, low)
        unknown = levels.reshape(-1) + scale.offset == 0
        stop = size + int(np.count_nonzero(unknown)) * scale.dtype.itemsize
        if size < 0 or stop > self._data.size:
            raise FormatError("the mantissa bits end before the frames do; the payload is damaged")
        small = self._data[size:stop].view(np.dtype(scale.bits_type).newbyteorder("<"))
        self._data = self._data[stop:]
        _complete(values, low, unknown, small)

    def finish(self) -> None:
        """FormatError unless the frames so far were all."""
        if self._data.size:
            raise FormatError(f"{self._data.size} bytes of bits are left behind the last frame")


def _complete(values, low, unknown, small) -> None:
    bits = values.reshape(-1).view(small.dtype.newbyteorder("="))
    bits |= low.astype(bits.dtype)
    bits[unknown] = small


def parts(data: bytes) -> dict[str, int]:
    """Number of bytes of each part of the section."""
    return {"mantissa bits below the noise": len(data)}
