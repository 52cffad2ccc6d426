"""Decompressing zstd frames of a payload, to at most as many bytes as the caller expects.

Damaged or malicious frames may claim any size. Some frames are in a `Block`: a head with the
frame's size, and then the frame.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import zstandard

from tezip_h5.errors import FormatError

__all__ = ["Block", "inflate", "is_one_frame"]


def is_one_frame(data: bytes) -> bool:
    """Whether `data` is one zstd frame from its first byte to its last (RFC 8878, 3.1.1).

    Its blocks are counted, not decoded. zstandard stops at the last byte that it was asked for, so
    it would not notice a truncated frame, bytes behind the frame, or empty blocks.
    """
    if data[:4] != zstandard.FRAME_HEADER:
        return False
    try:
        at = zstandard.frame_header_size(data)
        end = len(data) - 4 * zstandard.get_frame_parameters(data).has_checksum
    except zstandard.ZstdError:
        return False
    last = False
    while not last and at + 3 <= end:
        block = int.from_bytes(data[at : at + 3], "little")
        last = bool(block & 1)
        at += 3 + (1 if block >> 1 & 3 == 1 else block >> 3)  # type 1: one byte, repeated
    return last and at == end


def inflate(data: bytes, most: int, what: str) -> bytes:
    """Decompress one zstd frame of at most `most` bytes; errors call it `what`.

    zstandard's own limit is not enough: a frame that states a size gets that size allocated.

    Raises
    ------
    FormatError
        When the frame is damaged, or larger, or not all of `data`.
    """
    try:
        size = zstandard.frame_content_size(data)  # -1: not stated
        if size > most:
            raise FormatError(f"{what} of {size} bytes; at most {most} are possible")
        if not is_one_frame(data):
            raise FormatError(f"{what} cannot be decompressed: not one whole zstd frame")
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=most)
    except zstandard.ZstdError as error:
        raise FormatError(f"{what} cannot be decompressed: {error}") from None


@dataclass(frozen=True)
class Block:
    """A zstd frame after a head of a few numbers; the first of them is the frame's size.

    Attributes
    ----------
    what : str
        A name of the block, for errors.
    head : struct.Struct
    """

    what: str
    head: struct.Struct

    def pack(self, data: bytes, *numbers: int) -> bytes:
        """Make a block of `data`, with `numbers` in its head after the size."""
        packed = zstandard.compress(data, 19)
        return self.head.pack(len(packed), *numbers) + packed

    def open(self, data: bytes) -> tuple:
        """Read the block at the start of `data`: its frame, its size, and its other numbers.

        Raises
        ------
        FormatError
            When its head is cut short.
        """
        try:
            size, *numbers = self.head.unpack_from(data)
        except struct.error as error:
            raise FormatError(f"{self.what} are damaged: {error}") from None
        end = self.head.size + size
        return data[self.head.size : end], end, *numbers
