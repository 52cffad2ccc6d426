"""One stream of the context-mixing coder: a band of rows of all frames, and what it remembers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tezip_h5 import kernels

__all__ = ["MODELS", "Stream", "Weights"]

SOFTS=3
_WORST_BYTES = 16  # of one pixel, more than any decision path needs


@dataclass(frozen=True)
class Sizes:
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
            0 if self.coarse else SOFTS,
        ]
        rows = np.zeros(33, np.int64)
        for start, sizes in ((0, self.contexts), (24, self.mixers), (27, self.refiners)):
            rows[start : start + len(sizes)] = np.cumsum((0, *sizes[:-1]))
        return np.array([*head, *rows], np.int64)

    @property
    def state_bytes(self) -> int:
        """Bytes of one channel's counters, weights and refining tables."""
        inputs = len(self.contexts) + 1
        weights = 4 * inputs * sum(self.mixers)
        return self.slots * (4 * sum(self.contexts) + weights + 2 * 33 * sum(self.refiners))


MODELS = {
    0: Sizes(
        contexts=(80, 81, 81, 81, 81, 90, 64),
        mixers=(20, 9),
        refiners=(10,),
        slots=12,
        memory=1023,
        rate=7,
        coarse=True,
    ),
    1: Sizes(
        contexts=(80, 225, 225, 225, 225, 225, 256, 150, 324, 320, 405, 225, 256, 225, 256, 225),
        mixers=(20, 15, 16),
        refiners=(20, 25),
        slots=22,
        memory=1023,
        rate=7,
        coarse=False,
    ),
}


@dataclass(frozen=True)
class Weights:
    """Transmitted weights: 0 unused, 1 as one more voter, 2 alone; and every channel's."""

    use: int = 0
    of_channels: list[np.ndarray] | None = None


class _Channel:
    """What one channel of one stream remembers."""

    def __init__(self, kernel, model: Sizes, size: tuple[int, int]):
        self._kernel = kernel
        padded = (size[0] + kernel.TOP + kernel.BOTTOM, size[1] + kernel.LEFT + kernel.RIGHT)
        self.planes = np.zeros((3, *padded), np.int32)  # this frame's, the last, before that
        self.symbols = np.zeros((2, *padded), np.int32)
        self.errors = np.zeros(padded, np.int32)
        self.misses = np.zeros((2, *padded), np.int32)
        nearby = kernels.load("nearby")
        cells = (-(-size[0] // nearby.ROWS) + 4, -(-size[1] // nearby.COLUMNS) + 4)
        self.sums = np.zeros((2, *cells, nearby.ENTRIES), np.int64)
        self.fitted = np.zeros((cells[1], nearby.MOST), np.int64)
        self.tops = np.zeros((2, *cells, nearby.ENTRIES), np.int64)
        self.stacked = np.zeros((cells[1], nearby.MOST), np.int64)
        self.fitted[:, 0] = 1 << 15
        self.fitted[:, 1] = 1 << 15
        self.filters = np.zeros((3, kernel.TAPS), np.int64)
        self.filters[0, :2] = 1 << 15
        self.filters[1:, 12] = 1 << 16
        self.bias = np.zeros((16 * 8, 2), np.int64)
        self.counters = np.full(sum(model.contexts) * model.slots, 1 << 31, np.uint32)
        inputs = len(model.contexts) + (0 if model.coarse else SOFTS)
        self.weights = np.zeros((sum(model.mixers) * model.slots, inputs + 1), np.int32)
        self.weights[:, :inputs] = 78643 // inputs  # 1.2 in all
        tables = kernels.load("mixing")
        steps = np.clip(np.arange(33) * 128 - 2048, -2047, 2047) + tables.LIMIT
        self.refined = np.zeros((max(sum(model.refiners), 1) * model.slots, 33), np.uint16)
        self.refined[:] = tables.SQUASH[steps]
        self.seen = 0  # frames since the last keyframe

    def turn(self) -> None:
        """The frame is done: this one becomes the last."""
        if self.seen == 1:
            self.sums[:] = 0
            self.tops[:] = 0
            self.stacked[:] = 0
        else:
            self.sums[1] >>= 1
            self.sums[1] += self.sums[0]
            self.sums[0] = 0
            self.tops[1] >>= 1
            self.tops[1] += self.tops[0]
            self.tops[0] = 0
        self.planes = self.planes[[2, 0, 1]]
        self.symbols = self.symbols[[1, 0]]
        self.misses = self.misses[[1, 0]]


class Stream:
    """One band of rows of all frames: its own adaptive state and bytes.

    Parameters
    ----------
    model : Sizes
    shape : (C, h, w) of the band
    top : largest level
    data : bytes, optional
        To decode.
    """

    def __init__(
        self,
        model: Sizes,
        shape,
        top: int,
        guided: bool,
        weights: Weights,
        vectors: np.ndarray | None = None,
        data: bytes | None = None,
    ):
        self._kernel = kernels.load("blending")
        self._shape, self._top, self._guided = shape, top, guided
        self._decoding = data is not None
        self._plan = model.plan()
        self._plan[self._kernel.TAUGHT] = weights.use
        self._weights = weights.of_channels
        self._vectors, self._frame = vectors, 0
        self._channels = [_Channel(self._kernel, model, shape[1:]) for _ in range(shape[0])]
        padded = self._channels[0].errors.shape
        self._nothing = np.zeros(padded, np.int32)
        self._moved = np.zeros((4, *padded), np.int32)
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
            channel.misses[0][:] = 0
            if keyframe:
                channel.symbols[1][:] = 0
            if not self._decoding:
                self._make_room(rows * columns)
            past = channel.planes[1], channel.planes[2], channel.symbols[1], channel.misses[1]
            if self._moves and flags & kernel.HAS_PREVIOUS:
                past = self._follow(past)
            kernel.code_plane(
                self._decoding,
                out[c] if self._decoding else levels[c],
                int(tolerances[c]),
                self._top,
                flags,
                channel.planes[0],
                past[0],
                past[1],
                self._guess,
                other.planes[0] if other is not None else self._nothing,
                other.errors if other is not None else self._nothing,
                channel.symbols[0],
                past[2],
                channel.errors,
                channel.misses[0],
                past[3],
                *channel.sums,
                channel.fitted,
                *channel.tops,
                channel.stacked,
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
        self._frame += 1
        return out

    @property
    def _moves(self) -> bool:
        vectors = self._vectors
        return vectors is not None and self._frame < len(vectors) and vectors[self._frame].any()

    def _follow(self, planes: tuple) -> tuple:
        """Planes of the last frames, with every block where this frame has it."""
        kernel, (_, rows, columns) = self._kernel, self._shape
        for plane, moved in zip(planes, self._moved, strict=True):
            kernels.load("motion").follow(
                plane, kernel.TOP, kernel.LEFT, rows, columns, self._vectors[self._frame], moved
            )
            kernel.pad(moved, rows, columns)
        return tuple(self._moved)

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
