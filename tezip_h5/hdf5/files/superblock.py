"""HDF5's superblock: the marks that a writer leaves in a file when it dies.

"HDF5 File Format Specification", section II.A; the checksum of versions 2 and 3 is Bob Jenkins's
lookup3. HDF5's own tool for this is ``h5clear -s``, which not everybody has.
"""

from __future__ import annotations

import os
import struct

from tezip_h5.errors import FormatError

__all__ = ["end", "extend_to_end", "is_marked", "lookup3", "take_off_marks", "version"]

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MARKS = 0x05  # open for writing, open for writing while others read
# With 8-byte addresses:
_SIZE_OF_ADDRESSES = {0: 13, 1: 13, 2: 9, 3: 9}  # where that is said, by version
_END = {0: 40, 1: 44, 2: 28, 3: 28}  # where the file's length is
_BYTES = 44  # before the checksum, which versions 2 and 3 have


def _find(stream) -> int | None:
    """Where the superblock begins: at 0, 512, 1024, 2048, ..."""
    start, size = 0, os.fstat(stream.fileno()).st_size
    while start < size:
        stream.seek(start)
        if stream.read(8) == _SIGNATURE:
            return start
        start = max(512, 2 * start)
    return None


def version(path) -> int:
    """The superblock's version; 3 allows reading while a file is written."""
    with open(path, "rb") as stream:
        start = _find(stream)
        if start is None:
            raise FormatError(f"{path} has no HDF5 superblock")
        stream.seek(start + 8)
        return stream.read(1)[0]


def end(path) -> int | None:
    """Where HDF5's data end; there may be bytes behind it, which it will write over. None where
    that cannot be told."""
    with open(path, "rb") as stream:
        _, block = _with_end(stream)
    return None if block is None else struct.unpack_from("<Q", block, _END[block[8]])[0]


def extend_to_end(path) -> None:
    """Let HDF5 see all bytes of a file: a killed writer notes last that it has become longer.

    HDF5's own tool for this is ``h5clear --increment``.
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
    """Place and bytes of a superblock that says where the data end, and can be believed."""
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
    """Whether the checksum of a superblock fits, version 2 or 3."""
    return struct.unpack_from("<I", block, _BYTES)[0] == lookup3(block[:_BYTES])


def is_marked(path) -> bool:
    """Whether a writer has the file open, or died so."""
    with open(path, "rb") as stream:
        start = _find(stream)
        stream.seek(start or 0)
        block = stream.read(_BYTES)
    return start is not None and len(block) == _BYTES and _has_marks(block)


def _has_marks(block: bytes) -> bool:
    return block[8] == 3 and block[11] & _MARKS != 0


def take_off_marks(path) -> bool:
    """Clear the marks of a writer that died; whether there were any.

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
