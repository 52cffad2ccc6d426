"""The entropy stage: frames of symbols <-> bytes, packed in byte planes and compressed (zstd).

Each frame's symbols are packed in the narrowest width that holds the whole stream, low
bytes first, plane by plane; all frames share one zstd frame (RFC 8878), flushed after each
so that the bytes of every frame are known. Symbols may lie on a CUDA device. They are packed and
unpacked there, and only packed bytes are copied between device and host.
"""

from __future__ import annotations

import numpy as np
import zstandard

from tezip_h5 import kernels
from tezip_h5.errors import FormatError
from tezip_h5.inflate import is_one_frame
from tezip_h5.kernels import arrays

__all__ = ["SEARCHES", "Packer", "Unpacker", "width_of"]


def _optimal(chain, depth, shortest, target):
    """Parameters of zstd: its optimal parser with a bounded search.

    On residuals the greedy and lazy parsers of zstd's presets take short matches that cost more
    than they save, and levels from 16 on are slow.
    """
    return zstandard.ZstdCompressionParameters(
        strategy=zstandard.STRATEGY_BTOPT,
        window_log=21,
        hash_log=17,
        chain_log=chain,
        search_log=depth,
        min_match=shortest,
        target_length=target,
    )


SEARCHES = {
    "quick": zstandard.ZstdCompressionParameters.from_level(1),  # little more than a Huffman code
    "short matches": _optimal(18, 3, 3, 32),
    "long matches": _optimal(20, 2, 5, 64),
    "thorough": zstandard.ZstdCompressionParameters.from_level(19, window_log=23),
}
"""Parameters of zstd's search for matches. `efforts` lists those that each level tries."""


def width_of(low: int, high: int, signed: bool) -> int:
    """Bytes (1, 2 or 4) that hold symbols in low..high."""
    if signed:
        return 1 if low >= -128 and high < 128 else 2 if low >= -32768 and high < 32768 else 4
    return 1 if high < 1 << 8 else 2 if high < 1 << 16 else 4


class Packer:
    """Compress frames of symbols, one after the other, with each of some `SEARCHES`."""

    def __init__(self, frame_size: int, width: int, signed: bool, searches: tuple[str, ...]):
        self._signed = signed
        self._width = width
        self._shape = (width, frame_size)
        self._planes = None
        self._outputs = [
            (zstandard.ZstdCompressor(compression_params=SEARCHES[name]).compressobj(), [], [])
            for name in searches
        ]

    def add(self, symbols) -> None:
        """Append one frame: int32, flat. All frames lie in the same place."""
        kernel = kernels.of(symbols)
        pack = kernel.pack_signed if self._signed else kernel.pack_unsigned
        if arrays.device_of(symbols) == "cpu":
            if self._planes is None:
                self._planes = np.empty(self._shape, np.uint8)
            pack(symbols, self._width, self._planes)
            self._compress(self._planes)
            return
        if self._planes is None:
            self._planes = kernels.load("cuda.memory").Fetching(self._shape, np.uint8)
        # While the device packs this frame, the one before is compressed.
        pack(symbols, self._width, self._planes.next())
        before = self._planes.fetch()
        if before is not None:
            self._compress(before)

    def _compress(self, planes: np.ndarray) -> None:
        for stream, pieces, sizes in self._outputs:
            piece = stream.compress(planes) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
            pieces.append(piece)
            sizes.append(len(piece))

    def finish(self) -> tuple[bytes, list[int]]:
        """Return the smallest stream, and the bytes each frame took in it."""
        if self._planes is not None and not isinstance(self._planes, np.ndarray):
            self._compress(self._planes.last())
            self._planes.close()
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
        self._data = data
        self._reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data)
        self._signed = signed
        self._width = width
        self._shape = (width, frame_size)
        self._planes = None

    def next(self, symbols) -> None:
        """Fill `symbols` (int32, flat) with the next frame. Raises FormatError if damaged."""
        kernel = kernels.of(symbols)
        unpack = kernel.unpack_signed if self._signed else kernel.unpack_unsigned
        if arrays.device_of(symbols) == "cpu":
            if self._planes is None:
                self._planes = np.empty(self._shape, np.uint8)
            self._read(self._planes)
            unpack(self._planes, self._width, symbols)
            return
        if self._planes is None:
            self._planes = kernels.load("cuda.memory").Sending(self._shape, np.uint8)
        # While the device unpacks the frame before, this one is decompressed.
        self._read(self._planes.next())
        unpack(self._planes.send(), self._width, symbols)

    def finish(self) -> None:
        """Raise FormatError if the stream has more than the frames so far."""
        try:
            more = self._reader.read(1)
        except zstandard.ZstdError as error:
            raise FormatError(f"a residual stream is damaged: {error}") from None
        if more:
            raise FormatError("a residual stream goes on behind the last frame")
        if not is_one_frame(self._data):
            raise FormatError("a residual stream is damaged: it is not one whole zstd frame")

    def _read(self, planes: np.ndarray) -> None:
        view = memoryview(planes).cast("B")
        done = 0
        try:
            while done < len(view):
                count = self._reader.readinto(view[done:])
                if not count:
                    raise FormatError(f"a residual stream ends {len(view) - done} bytes too early")
                done += count
        except zstandard.ZstdError as error:
            raise FormatError(f"a residual stream is damaged: {error}") from None
