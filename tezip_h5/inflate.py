"""zstd frames from a payload: never more bytes than the caller expects, whatever they claim."""

from __future__ import annotations

import zstandard

from tezip_h5.errors import FormatError

__all__ = ["inflate"]


def inflate(data: bytes, most: int, what: str) -> bytes:
    """Decompress one zstd frame of at most `most` bytes; `what` it is goes into errors.

    zstandard's own limit is not enough: a frame that states a size gets that size allocated.

    Raises
    ------
    FormatError
        When the frame is damaged, or larger.
    """
    try:
        size = zstandard.frame_content_size(data)  # -1: not stated
        if size > most:
            raise FormatError(f"{what} of {size} bytes; at most {most} are possible")
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=most)
    except zstandard.ZstdError as error:
        raise FormatError(f"{what} cannot be decompressed: {error}") from None
