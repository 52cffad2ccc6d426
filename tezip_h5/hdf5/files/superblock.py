"""HDF5's superblock, with the marks of an open writer, which stay in a file if the writer dies.

See "HDF5 File Format Specification", section II.A. The checksum of versions 2 and 3 is Bob
Jenkins's lookup3. HDF5's own tool for clearing the marks is ``h5clear -s``, which not everybody
has.
"""

from __future__ import annotations

import os
import struct

from tezip_h5.errors import FormatError

__all__ = ["end", "extend_to_end", "is_marked", "lookup3", "take_off_marks", "version"]

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MARKS = 0x05  # two bits: open for writing, open for SWMR writing
# With 8-byte addresses:
_SIZE_OF_ADDRESSES = {0: 13, 1: 13, 2: 9, 3: 9}  # offset of that field, by superblock version
_END = {0: 40, 1: 44, 2: 28, 3: 28}  # offset of the file's length
_BYTES = 44  # length before the checksum, which versions 2 and 3 have


def _find(stream) -> int | None:
    """The offset of the superblock: 0, 512, 1024, 2048, ..."""
    start, size = 0, os.fstat(stream.fileno()).st_size
    while start < size:
        stream.seek(start)
        if stream.read(8) == _SIGNATURE:
            return start
        start = max(512, 2 * start)
    return None


def version(path) -> int:
    """The superblock's version; version 3 allows SWMR."""
    with open(path, "rb") as stream:
        start = _find(stream)
        if start is None:
            raise FormatError(f"{path} has no HDF5 superblock")
        stream.seek(start + 8)
        return stream.read(1)[0]


def end(path) -> int | None:
    """The end of HDF5's data in a file; None if that cannot be told.

    HDF5 will overwrite any bytes behind it.
    """
    with open(path, "rb") as stream:
        _, block = _with_end(stream)
    return None if block is None else struct.unpack_from("<Q", block, _END[block[8]])[0]


def extend_to_end(path) -> None:
    """Extend HDF5's recorded length to all bytes of a file.

    A writer updates that length last, so it is too short after a kill. HDF5's own tool for this is
    ``h5clear --increment``.
    """
    with open(path, "r+b") as stream:
        start, block = _with_end(stream)
        if block is None:
            return
        kind, size = block[8], os.fstat(stream.fileno()).st_size
        if struct.unpack_from("<Q", block, _END[kind])[0] < size:
            struct.pack_into("<Q", block, _END[kind], size)
            if kind >= 2:
                struct.pack_into("<I", block, _BYTES, lookup3(block[:_BYTES]))
            stream.seek(start)
            stream.write(block)


def _with_end(stream) -> tuple[int, bytearray | None]:
    """Offset and bytes of a superblock that has a valid end of the data."""
    start = _find(stream)
    stream.seek(start or 0)
    block = bytearray(stream.read(52))
    if start is None or len(block) < 52 or block[8] not in _END:
        return 0, None
    kind = block[8]
    if block[_SIZE_OF_ADDRESSES[kind]] != 8 or (kind >= 2 and not _intact(block)):
        return 0, None
    return start, block


def _intact(block: bytes) -> bool:
    """Whether the checksum of a superblock of version 2 or 3 is right."""
    return struct.unpack_from("<I", block, _BYTES)[0] == lookup3(block[:_BYTES])


def is_marked(path) -> bool:
    """Whether the file has a writer's mark: a writer has it open, or died."""
    with open(path, "rb") as stream:
        start = _find(stream)
        stream.seek(start or 0)
        block = stream.read(_BYTES)
    return start is not None and len(block) == _BYTES and _has_marks(block)


def _has_marks(block: bytes) -> bool:
    return block[8] == 3 and block[11] & _MARKS != 0


def take_off_marks(path) -> bool:
    """Clear the marks of a writer that died; returns whether there were any.

    Raises
    ------
    FormatError
        When the superblock is damaged.
    """
    with open(path, "r+b") as stream:
        start = _find(stream)
        stream.seek(start or 0)
        block = bytearray(stream.read(_BYTES + 4))
        if start is None or len(block) < _BYTES + 4 or not _has_marks(block):
            return False
        if block[9] != 8 or not _intact(block):
            raise FormatError(f"{path}: the superblock is damaged, its checksum does not fit")
        block[11] &= ~_MARKS & 0xFF
        struct.pack_into("<I", block, _BYTES, lookup3(block[:_BYTES]))
        stream.seek(start)
        stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
    return True


def lookup3(data: bytes, seed: int = 0) -> int:
    """Bob Jenkins's hashlittle (2006) of `data`, as HDF5 sums its metadata."""
    mask = 0xFFFFFFFF

    def turned(x: int, k: int) -> int:
        return (x << k | x >> (32 - k)) & mask

    a = b = c = (0xDEADBEEF + len(data) + seed) & mask
    data = bytes(data)
    if not data:
        return c
    while len(data) > 12:
        x, y, z = struct.unpack_from("<III", data)
        a, b, c = (a + x) & mask, (b + y) & mask, (c + z) & mask
        for k in (4, 6, 8, 16, 19, 4):
            a = ((a - c) & mask) ^ turned(c, k)
            c = (c + b) & mask
            a, b, c = b, c, a
        data = data[12:]
    x, y, z = struct.unpack("<III", data.ljust(12, b"\0"))
    a, b, c = (a + x) & mask, (b + y) & mask, (c + z) & mask
    for k in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - turned(b, k)) & mask
        a, b, c = b, c, a
    return b
