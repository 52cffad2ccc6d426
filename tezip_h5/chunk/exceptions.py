"""Exceptions: samples that no level can represent within the bound. They are stored exactly.

Exceptions are NaN, infinities, sentinel values, masked pixels, and samples that float rounding
pushes out of their cell. A mask says where they are. It changes little from frame to frame and
from channel to channel, so each mask is coded with an earlier one as context. A mask of missing
data that never changes costs almost nothing, and a moving one costs little.
"""

from __future__ import annotations

import struct

import numpy as np
import zstandard

from tezip_h5 import arithmetic, kernels
from tezip_h5.errors import FormatError
from tezip_h5.inflate import inflate
from tezip_h5.kernels.sizes import AHEAD, BEYOND, FIRST_COUNTER

__all__ = ["ExceptionReader", "ExceptionWriter", "parts"]

_SIZE = struct.Struct("<I")
_MOST_BYTES = 4  # the most bytes that one binary decision can take in the arithmetic coder


class _Masks:
    """The masks of all frames, one after the other, encoded or decoded.

    Parameters
    ----------
    shape : (h, w, C)
    data : bytes, optional
        To decode.
    """

    def __init__(self, shape: tuple[int, int, int], data: bytes | None = None):
        self._kernel = kernel = kernels.load("masks")
        self._shape, self._decoding = shape, data is not None
        h, w, channels = shape
        margins = kernel.BEFORE + kernel.BEHIND
        # The last plane is the first channel of the previous frame, the context of channel 0.
        self._planes = np.zeros((channels + 1, h + margins, w + margins), np.uint8)
        self._inner = self._planes[
            :-1, kernel.BEFORE : -kernel.BEHIND, kernel.BEFORE : -kernel.BEHIND
        ]
        self._counters = np.full(kernel.ROWS + kernel.SAMPLES, FIRST_COUNTER, np.uint32)
        self._coder = arithmetic.begin(data)
        self._stream = np.frombuffer(data or b"", np.uint8).copy()
        self._done: list[bytes] = []

    def code(self, mask: np.ndarray | None = None) -> np.ndarray:
        """Code the next frame's mask, bool (h, w, C), and return it."""
        self._planes[-1] = self._planes[0]
        if self._decoding:
            self._inner[...] = 0
        else:
            self._inner[...] = np.moveaxis(mask, 2, 0)
            h, w, channels = self._shape
            self._stream = np.empty(_MOST_BYTES * h * (w + 1) * channels, np.uint8)
        for c in range(len(self._planes) - 1):
            self._kernel.code_mask(
                self._decoding,
                self._planes[c],
                self._planes[c - 1],
                int(c > 0),
                self._counters,
                self._coder,
                self._stream,
            )
        if not self._decoding:
            self._done.append(self._stream[: self._coder[3]].tobytes())
            self._coder[3] = 0
        elif self._coder[3] > self._stream.size + BEYOND:
            raise FormatError("the masks of exceptions end before the frames do")
        return np.moveaxis(self._inner, 0, 2).astype(bool)

    def finish(self) -> bytes:
        """The bytes of an encoder; FormatError where a decoder's go on behind the last frame."""
        if self._decoding and self._coder[3] < self._stream.size + AHEAD:
            raise FormatError("the masks of exceptions go on behind the last frame")
        return b"".join(self._done) + arithmetic.ending(self._coder)


class ExceptionWriter:
    """Collect samples that are stored exactly, and their masks."""

    def __init__(self):
        self._masks: _Masks | None = None
        self._before = 0  # frames without exceptions before the first one with some
        self._values: list[bytes] = []

    def add(self, bad: np.ndarray | None, frame: np.ndarray) -> None:
        """Add one frame's exceptions: bool (h, w, C) or None for none, and its samples."""
        if bad is None:
            bad = np.zeros(frame.shape, bool)
        if self._masks is None:
            if not bad.any():
                self._before += 1
                return
            self._masks = _Masks(frame.shape)
            for _ in range(self._before):
                self._masks.code(np.zeros(frame.shape, bool))
        self._masks.code(bad)
        values = frame[bad]
        self._values.append(values.astype(values.dtype.newbyteorder("<")).tobytes())

    def pack(self) -> bytes:
        """The exceptions section; empty when there are none."""
        if self._masks is None:
            return b""
        masks = self._masks.finish()
        return _SIZE.pack(len(masks)) + masks + zstandard.compress(b"".join(self._values), 9)


class ExceptionReader:
    """Inverse of `ExceptionWriter`, frame by frame."""

    def __init__(self, data: bytes | None, valid: tuple[int, int, int], channels: int, dtype):
        self._masks = None
        if data is None:
            return
        g, h, w = valid
        stop = _masks_stop(data)
        self._masks = _Masks((h, w, channels), data[_SIZE.size : stop])
        raw = inflate(data[stop:], g * h * w * channels * dtype.itemsize, "the exceptions")
        if len(raw) % dtype.itemsize:
            raise FormatError(f"exceptions of {len(raw)} bytes are no whole number of samples")
        self._values = np.frombuffer(raw, dtype)
        self._next = 0

    def apply(self, values: np.ndarray) -> None:
        """Put the exact samples of the next frame into `values` (h, w, C)."""
        if self._masks is None:
            return
        bad = self._masks.code()
        stop = self._next + int(np.count_nonzero(bad))
        if stop > self._values.size:
            raise FormatError("the exceptions section holds fewer samples than its masks mark")
        values[bad] = self._values[self._next : stop]
        self._next = stop

    def finish(self) -> None:
        """FormatError unless the frames so far were all."""
        if self._masks is None:
            return
        self._masks.finish()
        if self._next != self._values.size:
            raise FormatError("the exceptions section holds more samples than its masks mark")


def _masks_stop(data: bytes) -> int:
    """The position in a section's bytes where the masks end."""
    stop = _SIZE.size + int.from_bytes(data[: _SIZE.size], "little")
    if stop > len(data):
        raise FormatError(f"an exceptions section of {len(data)} bytes is too short for its masks")
    return stop


def parts(data: bytes, stored: str = "samples stored exactly") -> dict[str, int]:
    """Number of bytes of each part of the section."""
    stop = _masks_stop(data)
    return {"masks": stop, stored: len(data) - stop}
