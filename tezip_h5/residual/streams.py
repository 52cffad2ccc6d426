"""Streams of the context-mixing coder. A stream is one band of rows of all frames."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tezip_h5 import arithmetic, kernels, parallel
from tezip_h5.kernels.sizes import COARSE, FINE, FIRST_COUNTER, MISSED_MOST, TONES, Sizes

__all__ = ["MODELS", "Bands", "Stream", "Weights", "follow"]

WORST_BYTES = 16  # room for one pixel when encoding: more than its decisions need
_MOST_BYTES = 48  # the most bytes of one pixel if every decision has the least probability
MODELS = {0: ("mixing.coarse", COARSE), 1: ("mixing.fine", FINE)}
"""Name of the kernel and its sizes, by the number of the model."""


@dataclass(frozen=True)
class Weights:
    """Transmitted weights of every channel, and their `use`: 0 none, 1 as one more predictor of the
    blend, 2 as the only predictor."""

    use: int = 0
    of_channels: list[np.ndarray] | None = None


class _Channel:
    """The state of one channel of one stream."""

    def __init__(self, kernel, model: Sizes, size: tuple[int, int]):
        padded = (size[0] + kernel.TOP + kernel.BOTTOM, size[1] + kernel.LEFT + kernel.RIGHT)
        self.planes = [np.zeros(padded, np.int32) for _ in range(3)]  # this frame, the last two
        self.mean = np.zeros(padded if model.fine else (0, 0), np.int32)
        self.symbols = np.zeros((2, *padded), np.int32)
        self.errors = np.zeros(padded, np.int32)
        self.misses = np.zeros((2, *(padded if model.fine else (0, 0))), np.int32)
        self.usual = np.zeros(padded if model.fine else (0, 0), np.int32)
        self.tones = np.zeros((2, TONES), np.int32)
        self.sums = kernels.load("mixing.nearby").Sums(*(size if model.fine else (0, 0)))
        self.filters = np.zeros((3, kernel.TAPS), np.int32)
        self.filters[0, :2] = 1 << 15
        self.filters[1:, 12] = 1 << 16
        self.bias = np.zeros((16 * 8 + 1, 2), np.int64)
        self.counters = np.full(sum(model.contexts) * model.slots, FIRST_COUNTER, np.uint32)
        self.weights = np.zeros((sum(model.mixers) * model.slots, model.weight_columns), np.int32)
        self.weights[:, : model.inputs] = model.first_weight
        tables = kernels.load("mixing.decisions")
        self.refined = np.zeros((sum(model.refiners) * model.slots, 33), np.uint16)
        self.refined[:] = tables.FIRST_REFINED
        self.seen = 0  # frames since the last keyframe

    def begin(self, keyframe: bool) -> None:
        """Begin a frame."""
        if keyframe:
            self.seen = 0
            self.symbols[1] = 0
        if self.seen <= 1:
            self.sums.forget()
        self.symbols[0] = 0
        self.misses[0] = 0

    def turn(self, top: int) -> None:
        """End a frame: it becomes the last one."""
        if self.mean.size:
            remember = kernels.load("mixing.mean").remember
            remember(self.planes[0], self.seen, top, self.mean)
            remember(self.misses[0], self.seen, MISSED_MOST, self.usual)
        self.seen += 1
        self.sums.turn()
        self.planes = [self.planes[2], *self.planes[:2]]
        self.symbols = self.symbols[::-1]
        self.misses = self.misses[::-1]


class Stream:
    """One band of rows of all frames: its own adaptive state and bytes.

    Parameters
    ----------
    number : int
        Number of the model, see `MODELS`.
    shape : (C, h, w) of the band
    top : largest level
    guided : bool
        Whether a network predicts.
    weights : Weights
    vectors : int8 (T, blocks down, blocks across, 2), optional
        How blocks moved since the frame before.
    brightness : list of int64 (T, (gain, offset)), optional
        Changes of every channel since the frame before, with 16 fraction bits.
    data : bytes, optional
        The bytes to decode; without them the stream encodes.
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
        self.number, self.shape, self.top, self.guided = number, tuple(shape), top, guided
        self.weights, self.decoding = weights, data is not None
        self._vectors, self._brightness, self._frame = vectors, brightness, 0
        self.coder = arithmetic.begin(data)
        self.data = np.frombuffer(bytes(data or b""), np.uint8).copy()

    @cached_property
    def finer(self) -> int:
        """Number of fraction bits of the running means."""
        return kernels.load("mixing.mean").finer(self.top)

    @cached_property
    def _kernel(self):
        return kernels.load("mixing.pixels")

    @cached_property
    def _code_plane(self):
        return kernels.load(MODELS[self.number][0]).code_plane

    @cached_property
    def _channels(self) -> list[_Channel]:
        model = MODELS[self.number][1]
        return [_Channel(self._kernel, model, self.shape[1:]) for _ in range(self.shape[0])]

    @cached_property
    def _scratch(self) -> tuple[np.ndarray, ...]:
        """Arrays for the kernel: zeros, predictions, errors of predictors, and empty weights."""
        padded, kernel = self._channels[0].errors.shape, self._kernel
        planes = np.zeros((2, *padded), np.int32)
        voter_errors = np.zeros((2, padded[1], kernel.VOTERS), np.int32)
        return *planes, voter_errors, np.zeros((0, kernel.TAPS), np.int32)

    @property
    def position(self) -> int:
        """Number of bytes read or written."""
        return int(self.coder[3])

    def code(self, levels, prediction, tolerances, keyframe: bool) -> np.ndarray:
        """Encode or decode one frame of the band; returns its reconstruction, int32 (C, h, w)."""
        kernel = self._kernel
        _, rows, columns = self.shape
        out = np.empty(self.shape, np.int32)
        inner = (
            slice(kernel.TOP, kernel.TOP + rows),
            slice(kernel.LEFT, kernel.LEFT + columns),
        )
        nothing, guess, voter_errors, no_weights = self._scratch
        learned, fine = self.weights.of_channels, MODELS[self.number][1].fine
        other = None
        for c, channel in enumerate(self._channels):
            channel.begin(keyframe)
            flags = kernel.HAS_PREVIOUS if channel.seen > 0 else 0
            flags |= kernel.HAS_BEFORE if channel.seen > 1 else 0
            flags |= kernel.HAS_MEAN if channel.seen > 1 and fine else 0
            flags |= kernel.HAS_OTHER if other is not None else 0
            if self.guided and not keyframe:
                flags |= kernel.HAS_GUESS
                guess[inner] = prediction[c]
                kernel.pad(guess, rows, columns)
            if not self.decoding:
                self._make_room(rows * columns)
            previous, before, symbols, misses = self._past(c, channel)
            self._code_plane(
                self.decoding,
                out[c] if self.decoding else levels[c],
                int(tolerances[c]),
                self.top,
                flags,
                self.weights.use == 2,
                channel.planes[0],
                previous,
                before,
                channel.mean,
                self.finer,
                guess,
                other.planes[0] if other is not None else nothing,
                other.errors if other is not None else nothing,
                channel.symbols[0],
                symbols,
                channel.errors,
                channel.misses[0],
                misses,
                channel.usual,
                channel.sums.now,
                channel.sums.past,
                channel.sums.weights,
                voter_errors,
                channel.filters,
                learned[c] if learned else no_weights,
                channel.tones,
                channel.bias,
                channel.counters,
                channel.weights,
                channel.refined,
                self.coder,
                self.data,
            )
            out[c] = channel.planes[0][inner]
            other = channel
        for channel in self._channels:
            channel.turn(self.top)
        self._frame += 1
        return out

    def changes(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Vectors of the blocks of the next frame, and (gain, offset) of every channel; each is
        None if nothing changes."""
        t, vectors, brightness = self._frame, self._vectors, self._brightness
        vectors = None if vectors is None or t >= len(vectors) else vectors[t]
        if brightness is not None:
            brightness = [of[t] for of in brightness] if t < len(brightness[0]) else None
        return vectors if vectors is not None and vectors.any() else None, brightness

    def coded(self, coder: np.ndarray, data: np.ndarray) -> None:
        """Take over the result of a frame that a device has coded.

        `coder` is the state of the arithmetic coder, with its position relative to the old one;
        `data` are the bytes that an encoder wrote.
        """
        position = self.position + int(coder[3])
        if not self.decoding:
            self.data = np.concatenate([self.data[: self.position], data])
        self.coder[:] = coder
        self.coder[3] = position
        self._frame += 1

    def _past(self, c: int, channel: _Channel) -> tuple[np.ndarray, ...]:
        """The planes of the last frames, adjusted to the brightness and motion of this frame."""
        vectors, brightness = self.changes()
        if brightness is not None and channel.seen > 0:
            gain, offset = brightness[c]
            for plane in channel.planes[1:]:
                kernels.load("mixing.motion").brighten(plane, gain, offset, self.top)
            kernels.load("mixing.motion").brighten(
                channel.mean, gain, offset << self.finer, self.top << self.finer
            )
        planes = (*channel.planes[1:], channel.symbols[1], channel.misses[1])
        if vectors is None or channel.seen == 0:
            return planes
        kernel, (_, rows, columns) = self._kernel, self.shape
        planes += (channel.usual, channel.mean)
        moved = tuple(np.zeros_like(plane) for plane in planes)
        for plane, out in zip(planes, moved, strict=True):
            if plane.size:
                kernels.load("mixing.motion").follow(
                    plane, kernel.TOP, kernel.LEFT, rows, columns, vectors, out
                )
        *planes, channel.usual, channel.mean = moved
        for plane in (*planes[:2], channel.mean):
            if plane.size:
                kernel.pad(plane, rows, columns)
        return planes

    def _make_room(self, pixels: int) -> None:
        need = self.position + WORST_BYTES * pixels + 64
        if need > self.data.size:
            self.data = np.concatenate([self.data, np.zeros(need, np.uint8)])

    def finish(self) -> bytes:
        """The bytes of the stream."""
        return self.data[: self.position].tobytes() + arithmetic.ending(self.coder)


class Bands:
    """The streams of one chunk, which are coded at the same time, frame by frame."""

    def __init__(self, streams: list[Stream]):
        self.streams = streams
        self._lanes, self._close = None, None

    def code(
        self, levels, predictions, tolerances, keyframe: bool, threads: int = 1, device: str = "cpu"
    ) -> list[np.ndarray]:
        """Encode or decode a frame; returns every stream's reconstruction, int32 (C, h, w).

        `levels` and `predictions` are lists, with one array for every stream; decoding ignores the
        levels. All frames must be coded on the same device.
        """
        if device == "cuda":
            return _together([(self, (levels, predictions, tolerances, keyframe))])[0]
        return parallel.each(
            lambda part: part[0].code(*part[1:], tolerances, keyframe),
            zip(self.streams, levels, predictions, strict=True),
            threads,
        )

    def works(self, levels, predictions, tolerances, keyframe) -> list:
        """The work of coding a frame, as the device takes it."""
        device = kernels.load("cuda.mixing.streams")
        if self._lanes is None:
            first = self.streams[0]
            self._lanes = device.streams().open(
                first.number,
                [stream.shape for stream in self.streams],
                first.weights.of_channels,
                np.stack([stream.coder for stream in self.streams]),
                top=first.top,
                finer=first.finer,
                alone=first.weights.use == 2,
                guided=first.guided,
            )
            self._close = device.streams().closing(self, self._lanes)
        works = []
        for stream, lane, part, prediction in zip(
            self.streams, self._lanes, levels, predictions, strict=True
        ):
            vectors, brightness = stream.changes()
            data = stream.data[stream.position :] if stream.decoding else stream.data[:0]
            # The most bytes that a frame can take, with the least probability of everything.
            data = data[: _MOST_BYTES * int(np.prod(stream.shape)) + 64]
            works.append(
                device.Work(
                    lane,
                    stream.decoding,
                    part,
                    prediction,
                    [int(t) for t in tolerances],
                    bool(keyframe),
                    None if brightness is None else np.array(brightness, np.int64),
                    vectors,
                    data,
                    room=WORST_BYTES,
                )
            )
        return works

    def finish(self) -> list[bytes]:
        """The bytes of every stream."""
        self.close()
        return [stream.finish() for stream in self.streams]

    def close(self) -> None:
        """Release the device's memory; no further frame can be coded."""
        if self._close is not None:
            self._close()


def _together(calls) -> list[list[np.ndarray]]:
    """Code a frame of several `Bands` on the device: [(bands, what `code` takes)]."""
    works = [bands.works(*arguments) for bands, arguments in calls]
    kernels.load("cuda.mixing.streams").streams().code([w for part in works for w in part])
    out = []
    for (bands, _), part in zip(calls, works, strict=True):
        for stream, work in zip(bands.streams, part, strict=True):
            stream.coded(work.coder, work.data)
        out.append([work.samples for work in part])
    return out


def follow(trials: list[Generator], threads: int = 1, device: str = "cpu") -> list:
    """Run generators that yield (bands, arguments of `Bands.code`) for every frame.

    Returns their results. They run in `threads`, or on the device, where the same frame of all of
    them is coded at once; they must have the same number of frames.
    """

    def alone(trial):
        while True:
            try:
                bands, arguments = next(trial)
            except StopIteration as stopped:
                return stopped.value
            bands.code(*arguments)

    if device != "cuda":
        return parallel.each(alone, trials, threads)
    while True:
        calls, results = [], []
        for trial in trials:
            try:
                calls.append(next(trial))
            except StopIteration as stopped:
                results.append(stopped.value)
        if not calls:
            return results
        _together(calls)
