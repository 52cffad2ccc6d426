"""The entropy stage: frames of symbols <-> bytes, packed in byte planes and compressed (zstd).

Each frame's symbols are packed in the narrowest width that holds the whole stream, low
bytes first, plane by plane; all frames share one zstd frame (RFC 8878), flushed after each
so that the bytes of every frame are known.
"""

from __future__ import annotations

import numpy as np
import zstandard

from tezip_h5 import kernels
from tezip_h5.errors import FormatError

__all__ = ["Packer", "Unpacker", "width_of"]


def _optimal(chain, depth, shortest, target):
    """zstd's optimal parser with a bounded search: at residuals, the presets' greedy and lazy
    parsers take short matches that cost more than they save, and level 16 up is slow."""
    return zstandard.ZstdCompressionParameters(
        strategy=zstandard.STRATEGY_BTOPT,
        window_log=21,
        hash_log=17,
        chain_log=chain,
        search_log=depth,
        min_match=shortest,
        target_length=target,
    )


# Noise has no matches worth finding: level 1, little more than a Huffman code, always runs too.
_EFFORTS = {
    "fast": (zstandard.ZstdCompressionParameters.from_level(1),),
    "balanced": (zstandard.ZstdCompressionParameters.from_level(1), _optimal(18, 3, 3, 32)),
    "best": (
        zstandard.ZstdCompressionParameters.from_level(1),
        _optimal(20, 2, 5, 64),
        zstandard.ZstdCompressionParameters.from_level(19, window_log=23),
    ),
}


def width_of(low: int, high: int, signed: bool) -> int:
    """Bytes (1, 2 or 4) that hold symbols in low..high."""
    if signed:
        return 1 if low >= -128 and high < 128 else 2 if low >= -32768 and high < 32768 else 4
    return 1 if high < 1 << 8 else 2 if high < 1 << 16 else 4


class Packer:
    """Compress frames of symbols, one after the other, at each effort of a level."""

    def __init__(self, frame_size: int, width: int, signed: bool, level: str):
        self._signed = signed
        self._width = width
        self._planes = np.empty((width, frame_size), np.uint8)
        self._outputs = [
            (zstandard.ZstdCompressor(compression_params=effort).compressobj(), [], [])
            for effort in _EFFORTS[level]
        ]

    def add(self, symbols: np.ndarray) -> None:
        """Append one frame: int32, flat."""
        kernel = kernels.load()
        pack = kernel.pack_signed if self._signed else kernel.pack_unsigned
        pack(symbols, self._width, self._planes)
        for stream, pieces, sizes in self._outputs:
            piece = stream.compress(self._planes) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
            pieces.append(piece)
            sizes.append(len(piece))

    def finish(self) -> tuple[bytes, list[int]]:
        """Return the smallest stream, and the bytes each frame took in it."""
        best = None
        for stream, pieces, sizes in self._outputs:
            pieces.append(stream.flush())
            sizes[-1] += len(pieces[-1])
            if best is None or sum(sizes) < sum(best[1]):
                best = pieces, sizes
        return b"".join(best[0]), best[1]


class Unpacker:
    """Inverse of `Packer`: `next` gives one frame of symbols after the other."""

    def __init__(self, data: bytes, frame_size: int, width: int, signed: bool):
        self._reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data)
        self._signed = signed
        self._width = width
        self._planes = np.empty((width, frame_size), np.uint8)

    def next(self, symbols: np.ndarray) -> None:
        """Fill `symbols` (int32, flat) with the next frame. Raises FormatError if damaged."""
        view = memoryview(self._planes).cast("B")
        done = 0
        try:
            while done < len(view):
                count = self._reader.readinto(view[done:])
                if not count:
                    raise FormatError(f"a residual stream ends {len(view) - done} bytes too early")
                done += count
        except zstandard.ZstdError as error:
            raise FormatError(f"a residual stream is damaged: {error}") from None
        kernel = kernels.load()
        unpack = kernel.unpack_signed if self._signed else kernel.unpack_unsigned
        unpack(self._planes, self._width, symbols)
