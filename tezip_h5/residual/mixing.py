"""The context-mixing coder: adaptive prediction of every pixel, logistic mixing of contexts.

Unlike the stages it sees pixels, not residuals: every pixel is predicted by a blend of its
neighbours, the frames before, the network and adaptive filters; what is left is quantised in
closed loop and coded as binary decisions whose probabilities are mixed from many contexts.
Keyframes go the same way, without frames before them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from tezip_h5 import kernels
from tezip_h5.errors import FormatError
from tezip_h5.residual import lessons
from tezip_h5.residual.lessons import Known

__all__ = ["MOST_TOP", "RESIDUALS", "MixingDecoder", "MixingEncoder"]

RESIDUALS = "residuals"

_PREFIX = struct.Struct("<BBBBH")  # model, flags, use of weights, 0, bands
_SIZE = struct.Struct("<I")
_GUIDED = 1
MOST_TOP = 2**30
"""Largest level it takes."""
_BAND_PIXELS = 1 << 20  # of one frame; fewer make no second band
_LEAST_TAUGHT = 4096  # pixels of a frame; weights cost more than they gain in smaller ones
_TRIAL_FRAMES = 4
_WORST_BYTES = 16  # of one pixel, more than any decision path needs


@dataclass(frozen=True)
class _Model:
    """Sizes of the adaptive state.

    Attributes
    ----------
    contexts, mixers, refiners : tuple of int
        Number of contexts of every kind of context, mixer selector and refining table.
    slots : int
        Decisions told apart in every context.
    memory : int
        Decisions after which a counter's rate falls no further.
    """

    contexts: tuple[int, ...]
    mixers: tuple[int, ...]
    refiners: tuple[int, ...]
    slots: int
    memory: int
    rate: int
    coarse: bool

    def plan(self) -> np.ndarray:
        """The plan the kernel takes."""
        head = [
            len(self.contexts),
            self.memory,
            self.rate,
            self.coarse,
            self.slots,
            len(self.mixers),
            len(self.refiners),
            0,
        ]
        rows = np.zeros(21, np.int64)
        for start, sizes in ((0, self.contexts), (16, self.mixers), (19, self.refiners)):
            rows[start : start + len(sizes)] = np.cumsum((0, *sizes[:-1]))
        return np.array([*head, *rows], np.int64)

    @property
    def state_bytes(self) -> int:
        """Bytes of one channel's counters, weights and refining tables."""
        inputs = len(self.contexts) + 1
        weights = 4 * inputs * sum(self.mixers)
        return self.slots * (4 * sum(self.contexts) + weights + 2 * 33 * sum(self.refiners))


MODELS = {
    0: _Model(
        contexts=(80, 81, 81, 81, 81, 90),
        mixers=(20, 9),
        refiners=(20,),
        slots=12,
        memory=255,
        rate=14,
        coarse=True,
    ),
    1: _Model(
        contexts=(80, 225, 225, 225, 225, 225, 256, 150, 324, 320, 405, 225, 256, 225),
        mixers=(20, 15, 16),
        refiners=(20, 25),
        slots=22,
        memory=255,
        rate=14,
        coarse=False,
    ),
}
_MODEL_OF = {"fast": 0, "balanced": 0, "best": 1}


@dataclass(frozen=True)
class Weights:
    """Transmitted weights: 0 unused, 1 as one more voter, 2 alone; and every channel's."""

    use: int = 0
    of_channels: list[np.ndarray] | None = None


class _Channel:
    """What one channel of one stream remembers."""

    def __init__(self, kernel, model: _Model, size: tuple[int, int]):
        self._kernel = kernel
        padded = (size[0] + kernel.TOP + kernel.BOTTOM, size[1] + kernel.LEFT + kernel.RIGHT)
        self.planes = np.zeros((3, *padded), np.int32)  # this frame's, the last, before that
        self.symbols = np.zeros((2, *padded), np.int32)
        self.errors = np.zeros(padded, np.int32)
        self.filters = np.zeros((3, kernel.TAPS), np.int64)
        self.filters[0, :2] = 1 << 15
        self.filters[1:, 12] = 1 << 16
        self.bias = np.zeros((16 * 8, 2), np.int64)
        self.counters = np.full(sum(model.contexts) * model.slots, 1 << 31, np.uint32)
        inputs = len(model.contexts)
        self.weights = np.zeros((sum(model.mixers) * model.slots, kernel.INPUTS), np.int32)
        self.weights[:, :inputs] = 78643 // inputs  # 1.2 in all
        steps = np.clip(np.arange(33) * 128 - 2048, -2047, 2047) + kernel.SQUASH_ZERO
        self.refined = np.zeros((max(sum(model.refiners), 1) * model.slots, 33), np.uint16)
        self.refined[:] = kernel.SQUASH[steps]
        self.seen = 0  # frames since the last keyframe

    def turn(self) -> None:
        """The frame is done: this one becomes the last."""
        self.planes = self.planes[[2, 0, 1]]
        self.symbols = self.symbols[[1, 0]]


class _Stream:
    """One band of rows of all frames: its own adaptive state and bytes.

    Parameters
    ----------
    model : _Model
    shape : (C, h, w) of the band
    top : largest level
    data : bytes, optional
        To decode.
    """

    def __init__(
        self,
        model: _Model,
        shape,
        top: int,
        guided: bool,
        weights: Weights,
        data: bytes | None = None,
    ):
        self._kernel = kernels.load("blending")
        self._shape, self._top, self._guided = shape, top, guided
        self._decoding = data is not None
        self._plan = model.plan()
        self._plan[self._kernel.TAUGHT] = weights.use
        self._weights = weights.of_channels
        self._channels = [_Channel(self._kernel, model, shape[1:]) for _ in range(shape[0])]
        padded = self._channels[0].errors.shape
        self._nothing = np.zeros(padded, np.int32)
        self._guess = np.zeros(padded, np.int32)
        self._voter_errors = np.zeros((self._kernel.VOTERS, 2, padded[1]), np.int32)
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
            if keyframe:
                channel.seen = 0
            flags = kernel.HAS_PREVIOUS if channel.seen > 0 else 0
            flags |= kernel.HAS_BEFORE if channel.seen > 1 else 0
            flags |= kernel.HAS_OTHER if other is not None else 0
            if self._guided and not keyframe:
                flags |= kernel.HAS_GUESS
                self._guess[inner] = prediction[c]
                kernel.pad(self._guess, rows, columns)
            channel.symbols[0][:] = 0
            if keyframe:
                channel.symbols[1][:] = 0
            if not self._decoding:
                self._make_room(rows * columns)
            kernel.code_plane(
                self._decoding,
                out[c] if self._decoding else levels[c],
                int(tolerances[c]),
                self._top,
                flags,
                *channel.planes,
                self._guess,
                other.planes[0] if other is not None else self._nothing,
                other.errors if other is not None else self._nothing,
                channel.symbols[0],
                channel.symbols[1],
                channel.errors,
                self._voter_errors,
                channel.filters,
                self._weights[c] if self._weights else self._no_weights,
                channel.bias,
                channel.counters,
                channel.weights,
                channel.refined,
                self._plan,
                self._coder,
                self.data,
            )
            out[c] = channel.planes[0][inner]
            channel.seen += 1
            other = channel
        for channel in self._channels:
            channel.turn()
        return out

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


def _bands(height: int, width: int) -> int:
    return max(1, min(height // 64, round(height * width / _BAND_PIXELS)))


def _edges(height: int, bands: int) -> list[slice]:
    """Rows of every band, as even as can be."""
    cuts = [height * i // bands for i in range(bands + 1)]
    return [slice(a, b) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]


class MixingEncoder:
    """Encode the frames of one chunk; see `residual` for the protocol.

    Parameters
    ----------
    shape : (C, h, w) of a frame's levels
    scale : what made the levels (its `top` is used, at most 2**30)
    settings : the encoder's options
    quantizer : "uniform", the only one here
    guided : bool
        Whether predictions are a network's, and not just the last frame again.
    """

    learns = True

    def __init__(self, shape, scale, settings, quantizer="uniform", guided: bool = False):
        self._number = _MODEL_OF[settings.level]
        self._guided, self._shape, self._top = guided, shape, scale.top
        self._rows = _edges(shape[1], _bands(*shape[1:]))
        self._sizes = []
        self._open(Weights())

    def _open(self, weights: Weights) -> None:
        self._weights = weights
        self._streams = [
            self._stream((self._shape[0], rows.stop - rows.start, self._shape[2]), weights)
            for rows in self._rows
        ]

    def _stream(self, shape, weights: Weights) -> _Stream:
        return _Stream(MODELS[self._number], shape, self._top, self._guided, weights)

    def prepare(self, channels: list[Known]) -> None:
        """Learn weights from all frames, and choose by a trial how to use them.

        Parameters
        ----------
        channels : list of Known
            What there is to learn from, of every channel.
        """
        if channels[0].original[0].size < _LEAST_TAUGHT:
            return
        learned = [lessons.learn(known) for known in channels]
        sizes = {use: self._trial(channels, Weights(use, learned)) for use in (1, 2)}
        self._open(Weights(min(sizes, key=sizes.get), learned))

    def _trial(self, channels: list[Known], weights: Weights) -> int:
        """Bytes that a part of the first frames takes."""
        height, width = channels[0].original.shape[1:]
        rows = slice(max(0, height // 2 - 32), height // 2 + 32)
        columns = slice(max(0, width // 2 - 256), width // 2 + 256)
        part = np.stack([known.original[:_TRIAL_FRAMES, rows, columns] for known in channels], 1)
        guesses = part
        if channels[0].guesses is not None:
            guesses = np.stack([k.guesses[:_TRIAL_FRAMES, rows, columns] for k in channels], 1)
        stream = self._stream(part.shape[1:], weights)
        tolerances = [known.tolerance for known in channels]
        for t, frame in enumerate(part):
            stream.code(frame, guesses[t], tolerances, channels[0].keyframes[t])
        return stream.position

    def keyframe(self, levels: np.ndarray, tolerances: np.ndarray) -> np.ndarray:
        """Code a frame from itself; returns its reconstruction, int32 (C, h, w)."""
        return self._code(levels, levels, tolerances, keyframe=True)

    def residual(self, levels, prediction, tolerances) -> np.ndarray:
        """Code a frame from what is known; returns its reconstruction, int32 (C, h, w)."""
        return self._code(levels, prediction, tolerances, keyframe=False)

    def _code(self, levels, prediction, tolerances, keyframe):
        before = sum(stream.position for stream in self._streams)
        parts = [
            stream.code(levels[:, rows], prediction[:, rows], tolerances, keyframe)
            for stream, rows in zip(self._streams, self._rows, strict=True)
        ]
        self._sizes.append(sum(stream.position for stream in self._streams) - before)
        return np.concatenate(parts, 1) if len(parts) > 1 else parts[0]

    def finish(self) -> tuple[dict[str, bytes], list[int]]:
        """Return the sections, and the bytes each frame took, in order."""
        streams = [stream.finish() for stream in self._streams]
        head = _PREFIX.pack(
            self._number, _GUIDED * self._guided, self._weights.use, 0, len(streams)
        )
        if self._weights.use:
            head += lessons.pack(self._weights.of_channels)
        head += b"".join(_SIZE.pack(len(stream)) for stream in streams)
        section = head + b"".join(streams)
        sizes = list(self._sizes)
        sizes[-1] += len(section) - sum(sizes)
        return {RESIDUALS: section}, sizes


class MixingDecoder:
    """Decode the frames of one chunk, in order; the inverse of `MixingEncoder`.

    Parameters
    ----------
    sections : the payload's sections
    shape, scale : as for the encoder
    """

    def __init__(self, sections: dict[str, bytes], shape, scale):
        section = sections.get(RESIDUALS, b"")
        if len(section) < _PREFIX.size:
            raise FormatError(f"a section of {len(section)} bytes; its prefix needs {_PREFIX.size}")
        number, flags, use, zero, bands = _PREFIX.unpack_from(section)
        if (
            number not in MODELS
            or flags & ~_GUIDED
            or use > 2
            or zero
            or not 1 <= bands <= shape[1]
            or scale.top > MOST_TOP
        ):
            raise FormatError(
                f"prefix of a mixed section out of range: model {number}, flags {flags}, weights "
                f"{use}, {bands} bands of {shape[1]} rows, levels up to {scale.top}"
            )
        start = _PREFIX.size
        weights = Weights()
        if use:
            learned, size = lessons.unpack(section[start:], shape[0])
            weights = Weights(use, learned)
            start += size
        try:
            sizes = struct.unpack_from(f"<{bands}I", section, start)
        except struct.error:
            raise FormatError(f"a mixed section of {len(section)} bytes is cut short") from None
        start += 4 * bands
        if start + sum(sizes) != len(section):
            raise FormatError(f"streams of {sizes} bytes in a section of {len(section)}")
        self._rows = _edges(shape[1], bands)
        self._streams = []
        for rows, size in zip(self._rows, sizes, strict=True):
            band = (shape[0], rows.stop - rows.start, shape[2])
            data = section[start : start + size]
            self._streams.append(
                _Stream(MODELS[number], band, scale.top, bool(flags), weights, data)
            )
            start += size
        self._shape = shape

    def keyframe(self, tolerances: np.ndarray) -> np.ndarray:
        """Reconstruct a keyframe: int32 (C, h, w)."""
        return self._code(np.zeros(self._shape, np.int32), tolerances, keyframe=True)

    def residual(self, prediction: np.ndarray, tolerances: np.ndarray) -> np.ndarray:
        """Reconstruct a predicted frame: int32 (C, h, w)."""
        return self._code(prediction, tolerances, keyframe=False)

    def _code(self, prediction, tolerances, keyframe):
        parts = [
            stream.code(None, prediction[:, rows], tolerances, keyframe)
            for stream, rows in zip(self._streams, self._rows, strict=True)
        ]
        if any(stream.position > stream.data.size + 16 for stream in self._streams):
            raise FormatError("a stream ends before its frames do; the payload is damaged")
        return np.concatenate(parts, 1) if len(parts) > 1 else parts[0]
