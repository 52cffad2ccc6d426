"""Motion: how blocks of a band moved since the frame before, transmitted as vectors."""

from __future__ import annotations

import struct

import numpy as np
import zstandard

from tezip_h5 import kernels
from tezip_h5.errors import FormatError

__all__ = ["estimate", "followed", "pack", "shape_of", "unpack"]

_MOST_BLOCKS = 1 << 26


def shape_of(frames: int, rows: int, columns: int) -> tuple[int, int, int, int]:
    """Shape of a band's vectors: frames, blocks down, blocks across, (dy, dx)."""
    block = kernels.load("motion").BLOCK
    return frames, -(-rows // block), -(-columns // block), 2


def estimate(frames: np.ndarray, keyframes: list[bool]) -> np.ndarray:
    """Vectors of every frame (zero for keyframes): int8, as `shape_of`.

    Parameters
    ----------
    frames : int32 (T, h, w), the levels of a band's first channel
    """
    kernel = kernels.load("motion")
    vectors = np.zeros(shape_of(*frames.shape), np.int8)
    small = kernel.shrink(frames[0])
    for t in range(1, len(frames)):
        small_last, small = small, kernel.shrink(frames[t])
        if not keyframes[t]:
            kernel.search(frames[t], frames[t - 1], small, small_last, vectors[t - 1], vectors[t])
    return vectors


def followed(frame: np.ndarray, rows: list[slice], bands: list[np.ndarray], t: int) -> np.ndarray:
    """Frame t - 1 (int32 (h, w)) with its blocks where frame t has them."""
    kernel = kernels.load("motion")
    out = np.empty_like(frame)
    for part, vectors in zip(rows, bands, strict=True):
        size = part.stop - part.start, frame.shape[1]
        kernel.follow(frame[part], 0, 0, *size, vectors[t], out[part])
    return out


def pack(bands: list[np.ndarray]) -> bytes:
    """All bands' vectors as bytes: a length, then zstd of their differences from block to block,
    all dy before all dx."""
    flat = np.concatenate([np.moveaxis(vectors, -1, 0).reshape(2, -1) for vectors in bands], 1)
    packed = zstandard.compress(np.diff(flat, prepend=np.int8(0)).tobytes(), 19)
    return struct.pack("<IH", len(packed), len(bands[0])) + packed


def unpack(data: bytes, sizes: list[tuple[int, int]]) -> tuple[list[np.ndarray], int]:
    """The inverse of `pack`: every band's vectors, and how many bytes they took.

    Raises
    ------
    FormatError
        When they are damaged.
    """
    try:
        size, frames = struct.unpack_from("<IH", data)
        shapes = [shape_of(frames, *band) for band in sizes]
        counts = [int(np.prod(shape)) // 2 for shape in shapes]
        if sum(counts) > _MOST_BLOCKS:
            raise ValueError(f"{sum(counts)} blocks")
        raw = zstandard.ZstdDecompressor().decompress(
            data[6 : 6 + size], max_output_size=2 * sum(counts)
        )
        steps = np.frombuffer(raw, np.int8).reshape(2, sum(counts))
    except (struct.error, zstandard.ZstdError, ValueError) as error:
        raise FormatError(f"motion vectors are damaged: {error}") from None
    flat = np.cumsum(steps, axis=1, dtype=np.int64).astype(np.int8)
    bands, start = [], 0
    for shape, count in zip(shapes, counts, strict=True):
        part = flat[:, start : start + count].reshape(2, *shape[:3])
        bands.append(np.ascontiguousarray(np.moveaxis(part, 0, -1)))
        start += count
    return bands, 6 + size
