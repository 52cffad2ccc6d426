"""zstd frames from a payload: never more bytes than the caller expects, whatever they claim.

Some lie in blocks, behind a head that says how many bytes they have.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import zstandard

from tezip_h5.errors import FormatError

__all__ = ["Block", "inflate"]


def inflate(data: bytes, most: int, what: str) -> bytes:
    """Decompress one zstd frame of at most `most` bytes; `what` it is goes into errors.

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
        return zstandard.ZstdDecompressor().decompress(
            data, max_output_size=most, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise FormatError(f"{what} cannot be decompressed: {error}") from None


@dataclass(frozen=True)
class Block:
    """A zstd frame behind a head of a few numbers, of which the first is the frame's size.

    Attributes
    ----------
    what : str
        What it is, for errors.
    head : struct.Struct
    """

    what: str
    head: struct.Struct

    def pack(self, data: bytes, *numbers: int) -> bytes:
        """The block: `data` compressed, `numbers` in its head."""
        packed = zstandard.compress(data, 19)
        return self.head.pack(len(packed), *numbers) + packed

    def open(self, data: bytes) -> tuple:
        """The frame of the block that `data` begins with, the block's size, its other numbers.

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
