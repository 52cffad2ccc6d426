"""Masked pixels of a chunk: they come back exactly, and disturb nothing else.

Before encoding they are filled with values that cost next to nothing, the same in every frame.
Afterwards what was in them is laid beside the payload, as the exceptions that every decoder puts
in place last; masks and sentinels that stay the same from frame to frame need a few bytes.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np

from tezip_h5 import bitstream
from tezip_h5.bitstream import Section
from tezip_h5.bounds import ChunkBound
from tezip_h5.codec import Encoded, decode_chunk, encode_chunk
from tezip_h5.errors import InputError
from tezip_h5.exceptions import ExceptionReader, ExceptionWriter
from tezip_h5.settings import Settings

__all__ = ["check_mask", "encode_around", "fill"]


def check_mask(mask, shape: tuple[int, ...]) -> np.ndarray:
    """The mask as bool of `shape`, (H, W) after panel axes; anything but 0 is masked.

    Raises
    ------
    InputError
        When it has another shape, or holds no numbers.
    """
    mask = np.asarray(mask)
    if mask.shape != tuple(shape) or mask.dtype.kind not in "biu":
        raise InputError(
            f"a mask of {mask.dtype} {mask.shape}; expected bool or integers of shape "
            f"{tuple(shape)}, not 0 where a pixel is masked"
        )
    return mask != 0


def fill(frames: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Frames whose masked pixels hold what costs little.

    Parameters
    ----------
    frames : (g, H, W[, C]) array of any supported dtype
    mask : bool (H, W)

    Returns
    -------
    A copy: beside a good pixel, the mean of the good ones around and over time; further inside a
    masked region, one value for all.
    """
    filled = frames.copy()
    if mask.all():
        filled[:] = 0
        return filled
    if not mask.any():
        return filled
    with np.errstate(invalid="ignore", over="ignore"):
        means = np.where(np.isfinite(frames), frames, 0).mean(axis=0, dtype=np.float64)
    means = means.reshape((*mask.shape, -1))
    good = ~mask[..., None]
    sums, counts = _around(np.where(good, means, 0)), _around(good.astype(np.float64))
    far = np.median(means[~mask], axis=0)
    values = np.where(counts > 0, sums / np.maximum(counts, 1), far)[mask]
    kind = frames.dtype
    if kind.kind in "iu":
        values = np.rint(values)
    filled[:, mask] = values.astype(kind).reshape((-1, *frames.shape[3:]))
    return filled


def _around(planes: np.ndarray) -> np.ndarray:
    """Sums over 3 x 3 neighbourhoods of (H, W, C)."""
    padded = np.pad(planes, ((1, 1), (1, 1), (0, 0)))
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]


def encode_around(encode, mask, original, frames, bound, *arguments, **options) -> Encoded:
    """``encode(frames, bound, ...)``, and `original` exactly where `mask` is True.

    Parameters
    ----------
    encode : as `encode_chunk`
    mask : bool (h, w), with at least one masked pixel
    original, frames : (g, h, w[, C]) arrays
        As they are, and `fill`ed.
    bound : ChunkBound
    """
    return _with_exact(encode(frames, bound, *arguments, **options), mask, original, frames, bound)


def _with_exact(encoded: Encoded, mask, original, frames, bound: ChunkBound) -> Encoded:
    header = bitstream.peek(encoded.payload)[0]
    without = encoded.without
    if without is not None:
        without = _with_exact(without, mask, original, frames, bound)
    if encoded.coder == "fallback":  # keeps everything exactly
        exact = encode_chunk(original, ChunkBound(), Settings(coder="fallback"), header.shape)
        return replace(exact, without=without)
    parsed = bitstream.unpack(encoded.payload)
    g, h, w = header.valid
    shape = (g, h, w, header.channels)
    if bound.lossless:
        values = np.array(frames, header.dtype).reshape(shape)
    else:
        values = decode_chunk(encoded.payload)[:g, :h, :w].reshape(shape)
    values[:, mask] = original.reshape(shape)[:, mask]
    section = parsed.sections.get(Section.EXCEPTIONS)
    others = ExceptionReader(section, header.valid, header.channels, header.dtype)
    exceptions, always = ExceptionWriter(), np.broadcast_to(mask[..., None], shape[1:])
    checksum = 0
    for t, frame in enumerate(values):
        frame = np.ascontiguousarray(frame)
        exceptions.add(always | others.mask(t), frame)
        checksum = zlib.crc32(frame, checksum)
    sections = parsed.sections | {Section.EXCEPTIONS: exceptions.pack()}
    payload = bitstream.pack(replace(header, checksum=checksum), dict(sorted(sections.items())))
    return replace(encoded, payload=payload, without=without)
