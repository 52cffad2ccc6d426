"""Motion compensation: how blocks of a band moved since the frame before, sent as vectors."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

import numpy as np

from tezip_h5 import kernels, parallel
from tezip_h5.errors import FormatError
from tezip_h5.inflate import Block, inflate

__all__ = ["BLOCK", "estimate", "followed", "pack", "shape_of", "unpack"]

BLOCK = Block("motion vectors", struct.Struct("<IH"))
"""The block with the vectors of all bands; its second number is the number of frames."""

_MOST_BLOCKS = 1 << 22  # chunks with more blocks, in all frames, get no motion
_MOST_FRAMES = (1 << 16) - 1  # the number of frames is stored in 16 bits
_WORTH = 0.03  # motion must reduce the differences by this share in a trial to be searched for


def shape_of(frames: int, rows: int, columns: int) -> tuple[int, int, int, int]:
    """Shape of a band's vectors: frames, blocks down, blocks across, (dy, dx)."""
    block = kernels.load("mixing.motion").BLOCK
    return frames, -(-rows // block), -(-columns // block), 2


def estimate(
    frames: np.ndarray,
    last: Callable,
    keyframes: list[bool],
    rows: list[slice],
    skip: int = 1,
    threads: int = 1,
) -> list[np.ndarray] | None:
    """Every band's vectors (zero in keyframes): int8, as `shape_of`. None if little moves.

    Parameters
    ----------
    frames : int32 (T, h, w), the levels of the first channel
    last : `last(t)` is frame t - 1, adjusted to the brightness of frame t
    rows : the bands
    skip : int
        Step between the rows that are compared: 1 for all, 2 for every second one, and so on.
    """
    search = kernels.load("mixing.motion").search
    moving = [t for t, keyframe in enumerate(keyframes) if t > 0 and not keyframe]
    count, height, width = frames.shape
    blocks = sum(math.prod(shape_of(count, part.stop - part.start, width)) for part in rows) // 2
    if not moving or blocks > _MOST_BLOCKS or count > _MOST_FRAMES:
        return None
    excess = max(0, int(frames.max()).bit_length() - 15)

    def differences(t: int, part: slice, past: np.ndarray, skip: int, out: np.ndarray) -> float:
        pair = ((frame[part] >> excess).astype(np.int16) for frame in (frames[t], last(t)))
        return search(*pair, past, skip, out)

    # A few rows of blocks in the middle of the chunk decide whether the search is worth it.
    t = moving[len(moving) // 2]
    middle = slice(max(0, height // 2 - 32), height // 2 + 32)
    trial = np.zeros(shape_of(1, middle.stop - middle.start, width)[1:], np.int8)
    if differences(t, middle, np.zeros_like(trial), 2, trial) < _WORTH:
        return None

    def band(part: slice) -> np.ndarray:
        vectors = np.zeros(shape_of(count, part.stop - part.start, width), np.int8)
        for t in moving:
            differences(t, part, vectors[t - 1], skip, vectors[t])
        return vectors

    return parallel.each(band, rows, threads)


def followed(frame: np.ndarray, rows: list[slice], bands: list[np.ndarray], t: int) -> np.ndarray:
    """Frame t - 1 (int32 (h, w)), with its blocks moved to their places in frame t."""
    kernel = kernels.load("mixing.motion")
    out = np.empty_like(frame)
    for part, vectors in zip(rows, bands, strict=True):
        size = part.stop - part.start, frame.shape[1]
        kernel.follow(frame[part], 0, 0, *size, vectors[t], out[part])
    return out


def pack(bands: list[np.ndarray]) -> bytes:
    """All bands' vectors as bytes: a length, then their differences from block to block in zstd,
    all dy before all dx."""
    flat = np.concatenate([np.moveaxis(vectors, -1, 0).reshape(2, -1) for vectors in bands], 1)
    return BLOCK.pack(np.diff(flat, prepend=np.int8(0)).tobytes(), len(bands[0]))


def unpack(data: bytes, sizes: list[tuple[int, int]]) -> tuple[list[np.ndarray], int]:
    """The inverse of `pack`: every band's vectors, and how many bytes they took.

    Raises
    ------
    FormatError
        When they are damaged.
    """
    packed, size, frames = BLOCK.open(data)
    try:
        shapes = [shape_of(frames, *band) for band in sizes]
        counts = [math.prod(shape) // 2 for shape in shapes]
        if sum(counts) > _MOST_BLOCKS:
            raise ValueError(f"{sum(counts)} blocks")
        raw = inflate(packed, 2 * sum(counts), "motion vectors")
        steps = np.frombuffer(raw, np.int8).reshape(2, sum(counts))
    except ValueError as error:
        raise FormatError(f"motion vectors are damaged: {error}") from None
    flat = np.cumsum(steps, axis=1, dtype=np.int64).astype(np.int8)
    bands, start = [], 0
    for shape, count in zip(shapes, counts, strict=True):
        part = flat[:, start : start + count].reshape(2, *shape[:3])
        bands.append(np.ascontiguousarray(np.moveaxis(part, 0, -1)))
        start += count
    return bands, size
