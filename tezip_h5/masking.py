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

__all__ = ["check_mask", "encode_around"]


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


def encode_around(encode, mask, original, frames, bound, *arguments, **options) -> Encoded:
    """``encode(frames, bound, ...)``, and `original` exactly where `mask` is True.

    Parameters
    ----------
    encode : as `encode_chunk`
    mask : bool (h, w), with at least one masked pixel
    original, frames : (g, h, w[, C]) arrays
        As they are, and filled by `holes.fill_still`.
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
