"""The frames section of a payload: the kind of every frame, and its tolerances."""

from __future__ import annotations

import numpy as np

from tezip_h5.errors import FormatError
from tezip_h5.windows import Kind

__all__ = ["pack", "parts", "unpack"]


def pack(kinds: list[Kind], tolerances: np.ndarray) -> bytes:
    """The frames section: a kind per frame, then one tolerance for all or one for each."""
    uniform = bool((tolerances == tolerances.flat[0]).all())
    table = tolerances[:1, :1] if uniform else tolerances
    return bytes(kinds) + bytes([not uniform]) + table.astype("<u4").tobytes()


def unpack(
    data: bytes, frames: int, channels: int, top: int | None = None
) -> tuple[list[Kind], np.ndarray]:
    """The inverse of `pack`: kinds, and tolerances int64 (frames, channels).

    `top` is the largest level; without it, tolerances may exceed that.

    Raises
    ------
    FormatError
        When the section's size or a value is impossible.
    """
    kinds, rest = data[:frames], data[frames:]
    count = frames * channels if rest[:1] == b"\x01" else 1
    if len(kinds) != frames or rest[:1] not in (b"\0", b"\x01") or len(rest) != 1 + 4 * count:
        raise FormatError(f"the frames section has {len(data)} bytes, not those of {frames} frames")
    if max(kinds) > max(Kind):
        raise FormatError(f"unknown kind of frame {max(kinds)}; at most {int(max(Kind))}")
    table = np.frombuffer(rest[1:], "<u4").astype(np.int64)
    if table.max() > 2**30:
        raise FormatError(f"a tolerance of {table.max()} levels; at most 2**30")
    if top is not None:
        most = top if top < 1 << 31 else 0  # larger ones wrap
        if table.max() > most:
            raise FormatError(f"a tolerance of {table.max()} of levels up to {top}; at most {most}")
    shape = (frames, channels)
    table = table.reshape(shape) if count > 1 else np.broadcast_to(table, shape)
    return [Kind(kind) for kind in kinds], table


def parts(data: bytes) -> dict[str, int]:
    """Number of bytes of each part of the section."""
    return {"kinds and tolerances": len(data)}
