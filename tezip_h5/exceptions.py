"""Exceptions: samples that no level brings back within the bound, stored exactly.

NaN, infinities, and what float rounding pushes out of its cell. Their masks change little
from frame to frame, so each is stored as its difference from the one before: a still mask of
missing data costs almost nothing.
"""

from __future__ import annotations

import numpy as np
import zstandard

from tezip_h5.errors import FormatError
from tezip_h5.inflate import inflate

__all__ = ["ExceptionReader", "ExceptionWriter", "parts"]


class ExceptionWriter:
    """Collect samples that are stored exactly: masks (differences from frame to frame)."""

    def __init__(self):
        self._masks: list[bytes] = []
        self._values: list[bytes] = []
        self._previous: np.ndarray | None = None
        self._any = False

    def add(self, bad: np.ndarray | None, frame: np.ndarray | None) -> None:
        """Add one frame's exceptions: bool (h, w, C), and its samples."""
        if bad is None:
            return
        packed = np.packbits(bad)
        before = self._previous if self._previous is not None else np.zeros_like(packed)
        self._masks.append((packed ^ before).tobytes())
        self._previous = packed
        if packed.any():
            self._any = True
            values = frame[bad]
            self._values.append(values.astype(values.dtype.newbyteorder("<")).tobytes())

    def pack(self) -> bytes:
        """The exceptions section; empty when there are none."""
        if not self._any:
            return b""
        return zstandard.compress(b"".join(self._masks) + b"".join(self._values), 9)


class ExceptionReader:
    """Inverse of `ExceptionWriter`, frame by frame."""

    def __init__(self, data: bytes | None, valid: tuple[int, int, int], channels: int, dtype):
        self._masks = None
        g, h, w = valid
        self._shape = (h, w, channels)
        if data is None:
            return
        samples = h * w * channels
        mask_bytes = g * ((samples + 7) // 8)
        raw = inflate(data, mask_bytes + g * samples * dtype.itemsize, "the exceptions")
        masks = np.frombuffer(raw[:mask_bytes], np.uint8)
        if masks.size != mask_bytes or (len(raw) - mask_bytes) % dtype.itemsize:
            raise FormatError("the exceptions section is too short for its masks")
        self._masks = np.bitwise_xor.accumulate(masks.reshape(g, -1), axis=0)
        self._values = np.frombuffer(raw[mask_bytes:], dtype)
        self._next = 0

    def mask(self, t: int) -> np.ndarray:
        """Which samples of frame `t` are exceptions, bool (h, w, C)."""
        if self._masks is None:
            return np.zeros(self._shape, bool)
        count = int(np.prod(self._shape))
        return np.unpackbits(self._masks[t], count=count).astype(bool).reshape(self._shape)

    def apply(self, values: np.ndarray, t: int) -> None:
        """Put the exact samples of frame `t` into `values` (h, w, C)."""
        if self._masks is None:
            return
        bad = self.mask(t)
        stop = self._next + int(np.count_nonzero(bad))
        if stop > self._values.size:
            raise FormatError("the exceptions section holds fewer samples than its masks mark")
        values[bad] = self._values[self._next : stop]
        self._next = stop

    def finish(self) -> None:
        """FormatError unless the frames so far were all."""
        if self._masks is not None and self._next != self._values.size:
            raise FormatError("the exceptions section holds more samples than its masks mark")


def parts(data: bytes) -> dict[str, int]:
    """What the section's bytes are, by name."""
    return {"samples stored exactly": len(data)}
