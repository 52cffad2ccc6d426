"""The layout of a stack: the size of its chunks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tezip_h5.bitstream import MAX_CHUNK_BYTES
from tezip_h5.errors import InputError
from tezip_h5.frames import is_count

__all__ = ["Layout", "panels_joined"]

# Chunks of at most 16 MiB: readers copy a chunk for every frame they take from it, and above
# some 16 MiB each copy goes to fresh pages of the system, which was measured to be ten times
# slower (benchmarks/limits.py, frame by frame).
_BYTES_PER_CHUNK, _BYTES_PER_TILE = 16 << 20, 1 << 20
_SHORT = 8  # a stack of at most so many chunks is cut evenly, to keep all threads busy to the end
FRAMES_PER_CHUNK, _MOST_FRAMES = 16, 64
_BYTES_PER_STEP = 128 << 20  # at most, of one step: all tiles of the same frames
_LONGEST_SIDE, _LARGEST_FRAME = 2**31 - 1, 1 << 40  # limits beyond any detector: pixels, bytes
_MOST_TILES = 1 << 22  # at most so many chunks hold one frame


@dataclass(frozen=True)
class Layout:
    """The size of the chunks that frames are cut into.

    Attributes
    ----------
    frame_shape : (H, W) or (H, W, C), after the panel axes
    chunk : (G, h, w) or (G, h, w, C), the HDF5 chunk; 1 along the panel axes
    panel_axes : int
        Axes between time and rows, such as the modules of a detector: each panel is encoded for
        itself.
    """

    frame_shape: tuple[int, ...]
    chunk: tuple[int, ...]
    panel_axes: int = 0

    @classmethod
    def choose(
        cls,
        frame_shape,
        itemsize,
        *,
        chunk_frames=None,
        tile=None,
        warmup=0,
        count=None,
        most_bytes=0,
        even=0,
        panel_axes=0,
    ):
        """Choose a layout.

        A chunk has 16 frames, or up to 64 within `most_bytes`. Tiles have at most 1 MiB and are
        as square as possible. A stack of `count` frames is cut into chunks of about the same size;
        a short one into a multiple of `even` chunks. With 0 that is not done.

        Raises
        ------
        InputError
            When `chunk_frames`, `tile` or `warmup` do not fit the frames, or the frames are too
            large.
        """
        _check_size(frame_shape, itemsize)
        panels, (height, width, *channel) = frame_shape[:panel_axes], frame_shape[panel_axes:]
        channels = math.prod(channel)
        chosen = chunk_frames is not None
        frame_bytes = height * width * channels * itemsize
        step_bytes = math.prod(panels) * frame_bytes
        if chunk_frames is None:
            fitting = most_bytes // min(frame_bytes, _BYTES_PER_TILE)
            chunk_frames = max(FRAMES_PER_CHUNK, min(_MOST_FRAMES, fitting))
            while chunk_frames > 4 and chunk_frames * step_bytes > _BYTES_PER_STEP:
                chunk_frames //= 2
        elif not is_count(chunk_frames):
            raise InputError(
                f"chunk_frames={chunk_frames!r} is no number of frames; give an int >= 1"
            )
        if tile is None:
            tile = _near_square(height, width, channels * itemsize)
        rows, columns = _checked_tile(tile)
        tile = (min(rows, height), min(columns, width))
        if count is not None:
            if warmup > count:
                raise InputError(
                    f"warmup={warmup} frames, but the stack has only {count}; give fewer"
                )
            chunk_frames = min(chunk_frames, count)
            if even and not chosen:  # chunks of about the same size keep all threads busy
                if tile != (height, width) or math.prod(panels) > 1:
                    even = 1  # each step has several chunks already
                longest = _BYTES_PER_CHUNK // frame_bytes
                chunk_frames = _even_frames(count, chunk_frames, even, longest)
        if warmup >= chunk_frames and not (count is not None and warmup <= count <= chunk_frames):
            raise InputError(
                f"warmup={warmup} leaves no frame to predict in chunks of {chunk_frames} frames; "
                "give fewer, or a larger chunk_frames"
            )
        chunk = (int(chunk_frames), *(1,) * panel_axes, *tile, *channel)
        layout = cls(tuple(frame_shape), chunk, panel_axes)
        layout._check_chunks(itemsize)
        return layout

    def _check_chunks(self, itemsize: int) -> None:
        size = math.prod(self.chunk) * itemsize
        if size > MAX_CHUNK_BYTES:
            raise InputError(
                f"chunks of {self.chunk} samples have {size} bytes, at most {MAX_CHUNK_BYTES} are "
                "allowed; give a smaller chunk_frames or tile"
            )
        if self.tile_count > _MOST_TILES:
            raise InputError(
                f"frames of {self.frame_shape} cut into {self.tile_count} chunks of "
                f"{self.payload_shape[1:3]}, at most {_MOST_TILES} are allowed; give a larger tile"
            )

    @property
    def payload_shape(self) -> tuple[int, ...]:
        """(G, h, w[, C]): the shape of a chunk in its payload, without the panel axes."""
        return (self.chunk[0], *self.chunk[1 + self.panel_axes :])

    @property
    def channels(self) -> int:
        """Channels per pixel, 1 if frames have no channel axis."""
        return self.payload_shape[3] if len(self.payload_shape) == 4 else 1

    @property
    def panels(self) -> list[tuple[int, ...]]:
        """Index of every panel; one empty index where there are no panel axes."""
        return list(np.ndindex(*self.frame_shape[: self.panel_axes]))

    @property
    def tiles(self) -> list[tuple]:
        """Index of each tile of a frame, in the order of their chunks: its panel, rows, columns."""
        (height, width), (h, w) = (
            self.frame_shape[self.panel_axes :][:2],
            self.payload_shape[1:3],
        )
        return [
            (*panel, slice(y, min(y + h, height)), slice(x, min(x + w, width)))
            for panel in self.panels
            for y in range(0, height, h)
            for x in range(0, width, w)
        ]

    def offset(self, start: int, tile: tuple) -> tuple[int, ...]:
        """The offset in the dataset of the chunk of `tile` that begins with frame `start`."""
        corner = tuple(part.start if isinstance(part, slice) else part for part in tile)
        return (start, *corner, *(0,) * (len(self.frame_shape) - len(corner)))

    @property
    def tile_count(self) -> int:
        """The number of `tiles`, computed without making them."""
        parts = zip(self.frame_shape, self.chunk[1:], strict=True)
        return math.prod(-(-whole // part) for whole, part in parts)

    @property
    def tiled(self) -> bool:
        """Whether a frame is more than one tile."""
        return self.tile_count > 1


def _check_size(frame_shape: tuple[int, ...], itemsize: int) -> None:
    size = math.prod(frame_shape) * itemsize
    if max(frame_shape) > _LONGEST_SIDE or size > _LARGEST_FRAME:
        raise InputError(
            f"frames of {tuple(frame_shape)} samples have {size} bytes; at most {_LARGEST_FRAME} "
            f"are allowed, and {_LONGEST_SIDE} along an axis: write their parts as stacks of their "
            "own"
        )


def _checked_tile(tile) -> tuple[int, int]:
    parts = tuple(tile) if isinstance(tile, Iterable) else ()
    if len(parts) != 2 or not all(is_count(n) for n in parts):
        raise InputError(f"tile={tile!r} is no (rows, columns); give two ints >= 1")
    return int(parts[0]), int(parts[1])


def _even_frames(count: int, frames: int, even: int, longest: int) -> int:
    """The number of frames per chunk with which `count` frames make chunks of about one size.

    It is near `frames`. A short stack gets a multiple of `even` chunks. That number is rounded
    down if the chunks then have not many more than `frames`, and not more than `longest`, frames.
    (With few frames per chunk, some numbers of chunks are impossible.)
    """
    chunks = -(-count // frames)
    left = chunks % even
    if left and 1 < chunks <= _SHORT:
        allowed = min(frames + frames // 2, longest)
        for wanted in (chunks - left, chunks - left + even):
            each = -(-count // wanted) if wanted else count
            if wanted and each <= max(allowed, frames) and -(-count // each) == wanted:
                return each
    return -(-count // chunks)


def panels_joined(frames: np.ndarray, panel_axes: int) -> np.ndarray:
    """Frames (g, *panels, H, W[, C]) as pictures, with the panels one below the other."""
    if not panel_axes:
        return frames
    return frames.reshape(len(frames), -1, *frames.shape[2 + panel_axes :])


def _near_square(height: int, width: int, pixel_bytes: int) -> tuple[int, int]:
    """A tile of at most 1 MiB: the fewest tiles, and among those the most square ones."""
    best = None
    highest = _BYTES_PER_TILE // pixel_bytes  # of a tile of one column
    for rows in range(-(-height // highest), height + 1):
        h = -(-height // rows)
        widest = _BYTES_PER_TILE // (h * pixel_bytes)
        columns = -(-width // widest)
        w = -(-width // columns)
        key = (rows * columns, abs(h - w))
        if best is None or key < best[0]:
            best = key, (h, w)
        if rows > best[0][0]:
            break
    return best[1]
