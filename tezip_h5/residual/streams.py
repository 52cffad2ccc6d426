"""One stream of the context-mixing coder: a band of rows of all frames, and what it remembers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tezip_h5 import kernels
from tezip_h5.kernels.sizes import COARSE, FINE, FIRST_COUNTER, Sizes

__all__ = ["MODELS", "Stream", "Weights"]

_WORST_BYTES = 16  # of one pixel, more than any decision path needs
MODELS = {0: ("coarse", COARSE), 1: ("fine", FINE)}
"""Kernel and sizes by number."""


@dataclass(frozen=True)
class Weights:
    """Transmitted weights: 0 unused, 1 as one more voter, 2 alone; and every channel's."""

    use: int = 0
    of_channels: list[np.ndarray] | None = None


class _Channel:
    """What one channel of one stream remembers."""

    def __init__(self, kernel, model: Sizes, size: tuple[int, int]):
        padded = (size[0] + kernel.TOP + kernel.BOTTOM, size[1] + kernel.LEFT + kernel.RIGHT)
        self.planes = np.zeros((3, *padded), np.int32)  # this frame's, the last, before that
        self.mean = np.zeros(padded if model.fine else (0, 0), np.int32)
        self.symbols = np.zeros((2, *padded), np.int32)
        self.errors = np.zeros(padded, np.int32)
        self.misses = np.zeros((2, *(padded if model.fine else (0, 0))), np.int32)
        self.sums = kernels.load("nearby").Sums(*(size if model.fine else (0, 0)))
        self.filters = np.zeros((3, kernel.TAPS), np.int32)
        self.filters[0, :2] = 1 << 15
        self.filters[1:, 12] = 1 << 16
        self.bias = np.zeros((16 * 8 + 1, 2), np.int64)
        self.counters = np.full(sum(model.contexts) * model.slots, FIRST_COUNTER, np.uint32)
        self.weights = np.zeros((sum(model.mixers) * model.slots, model.inputs + 1), np.int32)
        self.weights[:, :-1] = model.first_weight
        tables = kernels.load("mixing")
        self.refined = np.zeros((sum(model.refiners) * model.slots, 33), np.uint16)
        self.refined[:] = tables.FIRST_REFINED
        self.seen = 0  # frames since the last keyframe

    def begin(self, keyframe: bool) -> None:
        """A frame begins."""
        if keyframe:
            self.seen = 0
            self.symbols[1] = 0
        if self.seen <= 1:
            self.sums.forget()
        self.symbols[0] = 0
        self.misses[0] = 0

    def turn(self, top: int) -> None:
        """The frame is done: this one becomes the last."""
        if self.mean.size:
            kernels.load("mean").remember(self.planes[0], self.seen, top, self.mean)
        self.seen += 1
        self.sums.turn()
        self.planes = self.planes[[2, 0, 1]]
        self.symbols = self.symbols[::-1]
        self.misses = self.misses[::-1]


class Stream:
    """One band of rows of all frames: its own adaptive state and bytes.

    Parameters
    ----------
    number : int
        Of the model, see `MODELS`.
    shape : (C, h, w) of the band
    top : largest level
    guided : bool
        Whether a network predicts.
    weights : Weights
    vectors : int8 (T, blocks down, blocks across, 2), optional
        How blocks moved since the frame before.
    brightness : list of int64 (T, (gain, offset)), optional
        Of every channel, since the frame before, with 16 fraction bits.
    data : bytes, optional
        To decode.
    """

    def __init__(
        self,
        number: int,
        shape,
        top: int,
        guided: bool,
        weights: Weights,
        vectors: np.ndarray | None = None,
        brightness: list[np.ndarray] | None = None,
        data: bytes | None = None,
    ):
        self._kernel = kernels.load("pixels")
        name, model = MODELS[number]
        self._code_plane = kernels.load(name).code_plane
        self._fine = model.fine
        self._shape, self._top, self._guided = shape, top, guided
        self._finer = kernels.load("mean").finer(top)
        self._decoding = data is not None
        self._alone, self._weights = weights.use == 2, weights.of_channels
        self._vectors, self._brightness, self._frame = vectors, brightness, 0
        self._channels = [_Channel(self._kernel, model, shape[1:]) for _ in range(shape[0])]
        padded = self._channels[0].errors.shape
        self._nothing = np.zeros(padded, np.int32)
        self._guess = np.zeros(padded, np.int32)
        self._voter_errors = np.zeros((2, padded[1], self._kernel.VOTERS), np.int32)
        self._no_weights = np.zeros((0, self._kernel.TAPS), np.int32)
        self._coder = np.array([0, 0xFFFFFFFF, 0, 0], np.int64)
        self.data = np.zeros(0, np.uint8)
        if data is not None:
            self.data = np.frombuffer(bytes(data), np.uint8).copy()
            head = bytes(data[:4]).ljust(4, b"\0")
            self._coder[2], self._coder[3] = int.from_bytes(head, "big"), 4

    @property
    def position(self) -> int:
        """Bytes read or written."""
        return int(self._coder[3])

    def code(self, levels, prediction, tolerances, keyframe: bool) -> np.ndarray:
        """Encode or decode one frame of the band; returns its reconstruction, int32 (C, h, w)."""
        kernel = self._kernel
        _, rows, columns = self._shape
        out = np.empty(self._shape, np.int32)
        inner = (
            slice(kernel.TOP, kernel.TOP + rows),
            slice(kernel.LEFT, kernel.LEFT + columns),
        )
        other = None
        for c, channel in enumerate(self._channels):
            channel.begin(keyframe)
            flags = kernel.HAS_PREVIOUS if channel.seen > 0 else 0
            flags |= kernel.HAS_BEFORE if channel.seen > 1 else 0
            flags |= kernel.HAS_MEAN if channel.seen > 1 and self._fine else 0
            flags |= kernel.HAS_OTHER if other is not None else 0
            if self._guided and not keyframe:
                flags |= kernel.HAS_GUESS
                self._guess[inner] = prediction[c]
                kernel.pad(self._guess, rows, columns)
            if not self._decoding:
                self._make_room(rows * columns)
            previous, before, symbols, misses = self._past(c, channel)
            self._code_plane(
                self._decoding,
                out[c] if self._decoding else levels[c],
                int(tolerances[c]),
                self._top,
                flags,
                self._alone,
                channel.planes[0],
                previous,
                before,
                channel.mean,
                self._finer,
                self._guess,
                other.planes[0] if other is not None else self._nothing,
                other.errors if other is not None else self._nothing,
                channel.symbols[0],
                symbols,
                channel.errors,
                channel.misses[0],
                misses,
                channel.sums.now,
                channel.sums.past,
                channel.sums.weights,
                self._voter_errors,
                channel.filters,
                self._weights[c] if self._weights else self._no_weights,
                channel.bias,
                channel.counters,
                channel.weights,
                channel.refined,
                self._coder,
                self.data,
            )
            out[c] = channel.planes[0][inner]
            other = channel
        for channel in self._channels:
            channel.turn(self._top)
        self._frame += 1
        return out

    def _past(self, c: int, channel: _Channel) -> tuple[np.ndarray, ...]:
        """The last frames' planes: as bright as this frame, and every block where it has it."""
        t, vectors, brightness = self._frame, self._vectors, self._brightness
        if brightness is not None and channel.seen > 0 and t < len(brightness[c]):
            for plane in channel.planes[1:]:
                kernels.load("motion").brighten(plane, *brightness[c][t], self._top)
            gain, offset = brightness[c][t]
            kernels.load("motion").brighten(
                channel.mean, gain, offset << self._finer, self._top << self._finer
            )
        planes = (*channel.planes[1:], channel.symbols[1], channel.misses[1])
        if vectors is None or channel.seen == 0 or t >= len(vectors) or not vectors[t].any():
            return planes
        kernel, (_, rows, columns) = self._kernel, self._shape
        moved = tuple(np.zeros_like(plane) for plane in (*planes, channel.mean))
        for plane, out in zip((*planes, channel.mean), moved, strict=True):
            if plane.size:
                kernels.load("motion").follow(
                    plane, kernel.TOP, kernel.LEFT, rows, columns, vectors[t], out
                )
        *planes, channel.mean = moved
        for plane in (*planes[:2], channel.mean):
            if plane.size:
                kernel.pad(plane, rows, columns)
        return planes

    def _make_room(self, pixels: int) -> None:
        need = self.position + _WORST_BYTES * pixels + 64
        if need > self.data.size:
            self.data = np.concatenate([self.data, np.zeros(need, np.uint8)])

    def finish(self) -> bytes:
        """The bytes of the stream."""
        # Any number within the coder's range tells the decoder the rest; one byte is enough
        # when the bytes after it may be zeros or the next stream's.
        low = int(self._coder[0])
        tail = ((low >> 24) + 1 & 0xFF, 0, 0, 0) if low else (0,)
        return self.data[: self.position].tobytes() + bytes(tail).rstrip(b"\0")
