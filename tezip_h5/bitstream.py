"""Chunk payload <-> header and sections: the only place that knows how they are laid out.

The layout is specified in FORMAT.md. Everything is little-endian. Reading validates every
field and checksum before anything is allocated from them.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

import numpy as np

from tezip_h5.errors import FormatError
from tezip_h5.levels import DTYPES, carrier

__all__ = [
    "FORMAT_VERSION",
    "MAGIC",
    "SECTIONS",
    "Header",
    "Section",
    "pack",
    "parts",
    "peek",
    "unpack",
]

MAGIC = b"TZH5"
FORMAT_VERSION = 0
FLAG_FEEDBACK_PREDICTION = 1
MAX_CHUNK_BYTES = 2**31 - 64

_HEADER = struct.Struct("<4s8B7II")
_SECTION = struct.Struct("<III")
_CRC = struct.Struct("<I")


class Section:
    """Numbers of the sections."""

    FRAMES = 1
    LEVELS = 2
    KEYFRAMES = 4
    RESIDUALS = 5
    MODEL = 6
    FALLBACK = 7
    TABLES = 9
    MANTISSA = 10
    EXCEPTIONS = 11
    CORRECTIONS = 12


SECTIONS = {
    number: name.lower() for name, number in vars(Section).items() if not name.startswith("_")
}
"""Names of the sections, as FORMAT.md has them."""


@dataclass(frozen=True)
class Header:
    """The header of a payload.

    Attributes
    ----------
    dtype : numpy dtype of the samples, little-endian
    shape : (G, H, W) or (G, H, W, C), the HDF5 chunk
    valid : (g, h, w), the part of the chunk that is stored; the rest is padding
    coder, predictor, scale : numbers of the coder, predictor and scale that made the chunk
    flags : bit 0 is set when predictions, not reconstructions, feed the predictor
    checksum : CRC-32 of the reconstructed valid samples, C order, little-endian
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    valid: tuple[int, int, int]
    coder: int
    predictor: int = 0
    scale: int = 0
    flags: int = 0
    checksum: int = 0

    @property
    def carrier(self) -> np.dtype:
        """The dtype of samples while they are coded: as `dtype`, but bytes for bool."""
        return carrier(self.dtype)

    @property
    def channels(self) -> int:
        """Channels per pixel, 1 without a channel axis."""
        return self.shape[3] if len(self.shape) == 4 else 1

    @property
    def samples(self) -> tuple[int, int, int, int]:
        """(g, h, w, C) of the samples that are stored."""
        return (*self.valid, self.channels)

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded chunk."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


@dataclass(frozen=True)
class Payload:
    """A parsed payload: its header and the bytes of its sections."""

    header: Header
    sections: dict[int, bytes] = field(default_factory=dict)

    def section(self, number: int) -> bytes:
        """Bytes of a section that must be there."""
        if number not in self.sections:
            raise FormatError(
                f"section {number} is missing; this payload has {sorted(self.sections)}"
            )
        return self.sections[number]


def pack(header: Header, sections: dict[int, bytes]) -> bytes:
    """Write a payload; the inverse of `unpack`."""
    channels = header.shape[3] if len(header.shape) == 4 else 0
    head = _HEADER.pack(
        MAGIC,
        FORMAT_VERSION,
        DTYPES.index(header.dtype.name),
        header.coder,
        header.predictor,
        header.scale,
        header.flags,
        len(sections),
        channels,
        *header.shape[:3],
        *header.valid,
        0,
        header.checksum,
    )
    table = b"".join(
        _SECTION.pack(number, len(data), zlib.crc32(data)) for number, data in sections.items()
    )
    head += table
    return b"".join([head, _CRC.pack(zlib.crc32(head)), *sections.values()])


def _read_head(payload) -> tuple[Header, list[tuple[int, int, int]], int]:
    """Parse and check header and section table; also return where the sections begin."""
    payload = memoryview(payload)
    if len(payload) < _HEADER.size:
        raise FormatError(
            f"a payload of {len(payload)} bytes is too short; expected at least {_HEADER.size}"
        )
    magic, version, dtype, coder, predictor, scale, flags, count, channels, *rest = (
        _HEADER.unpack_from(payload)
    )
    frames, rows, columns, *valid, reserved, checksum = rest
    if magic != MAGIC:
        raise FormatError(f"this is no tezip payload: it begins with {magic!r}, not {MAGIC!r}")
    if version != FORMAT_VERSION:
        raise FormatError(
            f"payload of format version {version}; this tezip_h5 reads {FORMAT_VERSION}, "
            "install the version that wrote it (or a newer one)"
        )
    end = _HEADER.size + count * _SECTION.size
    if len(payload) < end + _CRC.size:
        raise FormatError(
            f"the payload is truncated: {len(payload)} bytes, its section table ends at {end}"
        )
    if _CRC.unpack_from(payload, end)[0] != zlib.crc32(payload[:end]):
        raise FormatError("the payload's header is damaged: its checksum does not match")
    if dtype >= len(DTYPES) or channels > 4 or reserved or flags & ~FLAG_FEEDBACK_PREDICTION:
        raise FormatError(
            f"header field out of range: dtype {dtype}, channels {channels}, flags {flags}, "
            f"reserved {reserved}"
        )
    shape = (frames, rows, columns) + ((channels,) if channels else ())
    header = Header(
        np.dtype(DTYPES[dtype]).newbyteorder("<"),
        shape,
        tuple(valid),
        coder,
        predictor,
        scale,
        flags,
        checksum,
    )
    if any(not 1 <= v <= s for v, s in zip(valid, shape, strict=False)):
        raise FormatError(f"valid extent {tuple(valid)} does not lie in a chunk of shape {shape}")
    if header.nbytes > MAX_CHUNK_BYTES:
        raise FormatError(
            f"a chunk of {header.nbytes} bytes; at most {MAX_CHUNK_BYTES} are allowed"
        )
    table = [_SECTION.unpack_from(payload, _HEADER.size + i * _SECTION.size) for i in range(count)]
    numbers = [number for number, _, _ in table]
    if len(set(numbers)) != count or not SECTIONS.keys() >= set(numbers):
        raise FormatError(
            f"sections {numbers}; each must come once and be one of {sorted(SECTIONS)}: the "
            "payload is damaged, or of another version of tezip_h5, which alone can read it"
        )
    return header, table, end + _CRC.size


def peek(payload) -> tuple[Header, bytes]:
    """Return the checked header, and the bytes that identify this payload's content.

    The beginning of a payload (256 bytes) is enough. The identity is header and section
    table: they hold the checksum of every section and of the reconstructed samples.
    """
    header, _, start = _read_head(payload)
    return header, bytes(memoryview(payload)[:start])


def parts(payload) -> dict[str, int]:
    """Bytes of each part before the sections, by name.

    Raises
    ------
    FormatError
        When it is damaged.
    """
    _, table, start = _read_head(payload)
    size = len(table) * _SECTION.size
    return {"header": start - size, "section table": size}


def unpack(payload) -> Payload:
    """Parse a payload.

    Raises
    ------
    FormatError
        When anything is damaged, unknown or out of range.
    """
    header, table, start = _read_head(payload)
    payload = memoryview(payload)
    expected = start + sum(size for _, size, _ in table)
    if expected != len(payload):
        raise FormatError(f"the payload has {len(payload)} bytes; its sections need {expected}")
    sections = {}
    for number, size, checksum in table:
        data = payload[start : start + size]
        if zlib.crc32(data) != checksum:
            raise FormatError(f"section {number} is damaged: its checksum does not match")
        sections[number] = bytes(data)
        start += size
    return Payload(header, sections)
