"""TEZip's residual coder: quantization, DBSE, PEE, zstd, put together.

Roy et al., *Compression of Time Evolutionary Image Data through Predictive Deep Neural
Networks*, CCGrid 2021. Keyframes are one stream and predicted frames another. DBSE and PEE are
switched on or off for each stream.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import zstandard

from tezip_h5.cost import estimate
from tezip_h5.errors import FormatError
from tezip_h5.inflate import inflate
from tezip_h5.kernels import arrays
from tezip_h5.residual import entropy, quantize, ranks, spatial

__all__ = ["KEYFRAMES", "RESIDUALS", "StageDecoder", "StageEncoder"]

KEYFRAMES, RESIDUALS = "keyframes", "residuals"

_PREFIX = struct.Struct("<BBBBI")  # options, symbol width, packed width, quantizer, table bytes
_SPATIAL, _RANKS = 1, 2
_SAMPLE_ROWS = 64  # rows of the sample that decides on DBSE
_SIGNED = {1: np.int8, 2: np.int16, 4: np.int32}


@dataclass(frozen=True)
class _Stream:
    """The contents of a stream's prefix."""

    spatial: bool
    table: np.ndarray | None  # PEE's symbols by rank
    symbol_width: int  # modulus of the symbols, in bytes
    packed_width: int  # bytes of a packed symbol
    quantizer: int = 0

    def pack(self) -> bytes:
        table = b""
        if self.table is not None:
            table = zstandard.compress(self.table.astype(f"<i{self.symbol_width}").tobytes(), 9)
        options = _SPATIAL * self.spatial | _RANKS * (self.table is not None)
        return (
            _PREFIX.pack(options, self.symbol_width, self.packed_width, self.quantizer, len(table))
            + table
        )

    @staticmethod
    def _prefix(data: bytes) -> tuple[int, ...]:
        """The numbers of the prefix, of which the last is the size of the table behind it."""
        if len(data) < _PREFIX.size:
            raise FormatError(f"a stream of {len(data)} bytes; its prefix needs {_PREFIX.size}")
        options, symbol_width, packed_width, quantizer, table_bytes = _PREFIX.unpack_from(data)
        if (
            options & ~(_SPATIAL | _RANKS)
            or symbol_width not in _SIGNED
            or packed_width not in _SIGNED
            or quantizer not in quantize.NUMBERS.values()
            or _PREFIX.size + table_bytes > len(data)
            or bool(table_bytes) != bool(options & _RANKS)
        ):
            raise FormatError(
                f"stream prefix out of range: options {options}, widths {symbol_width} and "
                f"{packed_width}, quantizer {quantizer}, table of {table_bytes} bytes"
            )
        return options, symbol_width, packed_width, quantizer, table_bytes

    @classmethod
    def unpack(cls, data: bytes) -> tuple[_Stream, bytes]:
        options, symbol_width, packed_width, quantizer, table_bytes = cls._prefix(data)
        body = _PREFIX.size + table_bytes
        table = _unpack_table(data[_PREFIX.size : body], symbol_width) if table_bytes else None
        stream = cls(bool(options & _SPATIAL), table, symbol_width, packed_width, quantizer)
        return stream, data[body:]

    @classmethod
    def parts(cls, data: bytes) -> dict[str, int]:
        """Number of bytes of each part of a stream; its table and symbols are not read."""
        *_, table = cls._prefix(data)
        symbols = len(data) - _PREFIX.size - table
        return {"prefix": _PREFIX.size, "table of ranks": table, "symbols, zstd": symbols}


def _unpack_table(data: bytes, width: int) -> np.ndarray:
    raw = inflate(data, 1 << 26, "a table of symbols")
    if len(raw) % width or not raw:
        raise FormatError(f"a table of symbols has {len(raw)} bytes, no multiple of {width}")
    return np.frombuffer(raw, f"<i{width}")


class StageEncoder:
    """Encode the frames of one chunk.

    Parameters
    ----------
    shape : (C, h, w) of a frame's levels
    scale : what made the levels (its `top` and `width` are used)
    settings : the encoder's options
    quantizer : "uniform" | "run-merging", for predicted frames

    Attributes
    ----------
    device : "cpu" | "cuda"
        The device of the stages. Arrays are copied to it if needed, and results lie on it. The
        bytes do not depend on it.
    place : str
        The place of arrays that need not be copied; the same as `device`.
    """

    device = "cpu"
    learns = False

    def __init__(self, shape, scale, settings, quantizer="uniform", guided=False):
        self._shape = shape
        self._top, self._width = scale.top, scale.width
        self._settings, self._effort = settings, settings.effort
        self._quantizer = quantizer
        self._keyframes: list[np.ndarray] = []
        self._residuals: list[np.ndarray] = []
        self._order: list[list[np.ndarray]] = []

    @property
    def place(self) -> str:
        return self.device

    def keyframe(self, levels, tolerances: np.ndarray, free=None):
        """Code a keyframe; returns its reconstruction, int32 (C, h, w).

        `free`, bool of that shape, marks holes; the stages ignore it and code their levels.
        """
        levels = arrays.at(levels, self.device)
        out = symbols, reconstruction = self._frame(), self._frame()
        for c, tolerance in enumerate(tolerances):
            plane = tuple(array[c] for array in out)
            quantize.quantize_keyframe(levels[c], int(tolerance), self._top, self._width, plane)
        self._store(self._keyframes, symbols)
        return reconstruction

    def residual(self, levels, prediction, tolerances: np.ndarray, free=None):
        """Code a frame given its prediction; returns its reconstruction, int32 (C, h, w)."""
        levels, prediction = (arrays.at(array, self.device) for array in (levels, prediction))
        out = symbols, reconstruction = self._frame(), self._frame()
        for c, tolerance in enumerate(tolerances):
            pair, plane = (levels[c], prediction[c]), tuple(array[c] for array in out)
            sizes = int(tolerance), self._top, self._width
            quantize.quantize(self._quantizer, *pair, *sizes, plane)
        self._store(self._residuals, symbols)
        return reconstruction

    def _frame(self):
        return arrays.empty(self.device, self._shape)

    def _store(self, frames: list, symbols) -> None:
        frames.append(arrays.convert(symbols.reshape(-1), _SIGNED[self._width]))
        self._order.append(frames)

    def finish(self) -> tuple[dict[str, bytes], list[int]]:
        """Return the sections, and the bytes each frame took, in order."""
        sections, sizes = {}, {}
        for name, frames in ((KEYFRAMES, self._keyframes), (RESIDUALS, self._residuals)):
            if frames:
                sections[name], sizes[id(frames)] = self._smallest(frames)
        return sections, [sizes[id(frames)].pop(0) for frames in self._order]

    def _smallest(self, frames: list) -> tuple[bytes, list[int]]:
        """Code one stream in every way that is allowed and promising; returns the smallest."""
        best = None
        for use_spatial in self._spatial_choices(frames):
            for use_ranks in self._ranks_choices():
                coded = self._code(frames, use_spatial, use_ranks, forced=self._settings.ranks)
                if coded and (best is None or len(coded[0]) < len(best[0])):
                    best = coded
        return best

    def _spatial_choices(self, frames) -> tuple[bool, ...]:
        if self._settings.spatial is not None:
            return (self._settings.spatial,)
        if frames is self._keyframes:
            return (False,)  # keyframes are differences of neighbours already
        middle = max(self._shape[1] // 2 - _SAMPLE_ROWS // 2, 0)
        frame = arrays.at(frames[len(frames) // 2], "cpu").reshape(self._shape)
        sample = frame[:, middle : middle + _SAMPLE_ROWS].astype(np.int32)
        plain = estimate(sample)
        encoded = estimate(spatial.encode(sample.reshape(-1), self._width).reshape(sample.shape))
        if not self._effort.searches_stages or abs(plain - encoded) > 0.05 * plain:
            return (bool(encoded < plain),)
        return (False, True)

    def _ranks_choices(self) -> tuple[bool, ...]:
        if self._settings.ranks is not None:
            return (self._settings.ranks,)
        return (False, True) if self._effort.searches_stages else (False,)

    def _code(self, frames, use_spatial, use_ranks, forced):
        def symbols_of(frame):
            symbols = arrays.convert(frame, np.int32)
            return spatial.encode(symbols, self._width) if use_spatial else symbols

        low = high = 0
        counter = ranks.Counter(self._width)
        for frame in frames:
            symbols = symbols_of(frame)
            least, largest = arrays.extremes(symbols)
            low, high = min(low, least), max(high, largest)
            if use_ranks and (forced or self._width < 4):
                counter.add(symbols)
        table = ranking = None
        packed = entropy.width_of(low, high, signed=True)
        if use_ranks:
            ranks_packed = None
            if forced or self._width < 4:
                table = counter.table()
                ranking = ranks.Ranking(table)
                ranks_packed = entropy.width_of(0, table.size - 1, signed=False)
            # Unless pinned, ranks are tried only if they need fewer bytes per symbol.
            if not forced and (ranks_packed is None or ranks_packed >= packed):
                return None
            packed = ranks_packed
        signed = not use_ranks
        packer = entropy.Packer(frames[0].size, packed, signed, self._effort.zstd)
        for frame in frames:
            symbols = symbols_of(frame)
            packer.add(ranking.encode(symbols) if use_ranks else symbols)
        body, sizes = packer.finish()
        quantizer = 0 if frames is self._keyframes else quantize.NUMBERS[self._quantizer]
        prefix = _Stream(use_spatial, table, self._width, packed, quantizer).pack()
        sizes[0] += len(prefix)
        return prefix + body, sizes


class StageDecoder:
    """Decode the frames of one chunk, in order; the inverse of `StageEncoder`.

    Parameters
    ----------
    sections : the payload's sections
    shape, scale : as for the encoder

    Attributes
    ----------
    device : "cpu" | "cuda"
        As in the encoder; predictions are copied to it, and frames lie on it.
    place : str
        As in the encoder.
    """

    device = "cpu"

    def __init__(self, sections: dict[str, bytes], shape, scale):
        self._shape = shape
        self._top, self._width = scale.top, scale.width
        self._streams = {
            name: self._open(name, sections[name])
            for name in (KEYFRAMES, RESIDUALS)
            if name in sections
        }
        self._symbols = None

    @staticmethod
    def parts(name: str, data: bytes, shape) -> dict[str, int]:
        """Number of bytes of each part of the section `name`; FormatError if it is not valid."""
        if name not in (KEYFRAMES, RESIDUALS):
            raise FormatError(f"the stages have no section of {name}")
        return _Stream.parts(data)

    def _open(self, name: str, section: bytes):
        stream, body = _Stream.unpack(section)
        if stream.quantizer and name == KEYFRAMES:
            raise FormatError(f"keyframes quantized by {stream.quantizer}; expected 0")
        if stream.symbol_width != self._width:
            raise FormatError(
                f"symbols of {stream.symbol_width} bytes in a chunk with {self._width}-byte levels"
            )
        size = int(np.prod(self._shape))
        unpacker = entropy.Unpacker(body, size, stream.packed_width, stream.table is None)
        return stream, unpacker, None if stream.table is None else ranks.Ranking(stream.table)

    def finish(self) -> None:
        """FormatError unless all streams ended with the last frame."""
        for _, unpacker, _ in self._streams.values():
            unpacker.finish()

    def _next(self, name: str) -> _Stream:
        if name not in self._streams:
            raise FormatError(f"the section of {name} is missing, but a frame needs it")
        stream, unpacker, ranking = self._streams[name]
        if self._symbols is None:
            self._symbols = arrays.empty(self.device, int(np.prod(self._shape)))
        unpacker.next(self._symbols)
        if ranking is not None:
            ranking.decode(self._symbols, self._symbols)
        if stream.spatial:
            spatial.decode(self._symbols, self._width, self._symbols)
        return stream

    @property
    def place(self) -> str:
        return self.device

    def keyframe(self, tolerances: np.ndarray):
        """Reconstruct a keyframe: int32 (C, h, w)."""
        self._next(KEYFRAMES)
        frame = arrays.empty(self.device, self._shape)
        planes = self._symbols.reshape(*self._shape)
        for c, tolerance in enumerate(tolerances):
            sizes = int(tolerance), self._top, self._width
            quantize.dequantize_keyframe(planes[c], *sizes, frame[c])
        return frame

    def residual(self, prediction, tolerances: np.ndarray):
        """Reconstruct a predicted frame from its prediction: int32 (C, h, w)."""
        prediction = arrays.at(prediction, self.device)
        stream = self._next(RESIDUALS)
        frame = arrays.empty(self.device, self._shape)
        name = "run-merging" if stream.quantizer else "uniform"
        planes = self._symbols.reshape(*self._shape)
        for c, tolerance in enumerate(tolerances):
            sizes = int(tolerance), self._top, self._width
            quantize.dequantize(name, planes[c], prediction[c], *sizes, frame[c])
        return frame
