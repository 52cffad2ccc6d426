"""The transmitted changes between the frames of a chunk: brightness and motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tezip_h5.residual import brightness, motion

__all__ = ["FLAGS", "Changes"]

_MOVING, _JUMPING = 2, 4
FLAGS = _MOVING | _JUMPING
"""Flags of a section: it has motion vectors, it has brightness changes."""


@dataclass(frozen=True)
class Changes:
    """The changes of one chunk.

    Attributes
    ----------
    rows : list of slice, the bands
    top : largest level
    vectors : list of int8 (T, blocks down, blocks across, (dy, dx)), optional
        How the blocks of every band moved.
    brightness : list of int64 (T, (gain, offset)), optional
        Changes of every channel, with 16 fraction bits.
    """

    rows: list[slice]
    top: int
    vectors: list[np.ndarray] | None = None
    brightness: list[np.ndarray] | None = None

    @property
    def flags(self) -> int:
        return _MOVING * (self.vectors is not None) | _JUMPING * (self.brightness is not None)

    def of_band(self, band: int) -> tuple[np.ndarray | None, list[np.ndarray] | None]:
        """Vectors and brightness of a band."""
        return None if self.vectors is None else self.vectors[band], self.brightness

    def past(self, frame: np.ndarray, c: int, t: int, back: int, finer: int = 0) -> np.ndarray:
        """Channel c of frame t - back, int32 (h, w) with `finer` fraction bits, adjusted to the
        brightness and motion of frame t."""
        if self.brightness is not None:
            for change in self.brightness[c][t - back + 1 : t + 1]:
                frame = brightness.followed(frame, change, self.top, finer)
        if self.vectors is not None:
            frame = motion.followed(frame, self.rows, self.vectors, t)
        return frame

    def pack(self) -> bytes:
        """The changes as bytes; empty if nothing changes."""
        data = b"" if self.vectors is None else motion.pack(self.vectors)
        return data if self.brightness is None else data + brightness.pack(self.brightness)

    @staticmethod
    def parts(data: bytes, flags: int) -> dict[str, int]:
        """Number of bytes of each part that `unpack` reads from `data`; raises as `unpack`."""
        found = {}
        if flags & _MOVING:
            _, found["motion of blocks"], _ = motion.BLOCK.open(data)
        if flags & _JUMPING:
            rest = data[sum(found.values()) :]
            _, found["changes of brightness"], _ = brightness.BLOCK.open(rest)
        return found

    @classmethod
    def unpack(cls, data: bytes, flags: int, rows: list[slice], shape, top: int):
        """The inverse of `pack`: changes, and how many bytes they took.

        Raises
        ------
        FormatError
            When they are damaged.
        """
        vectors = jumps = None
        start = size = 0
        if flags & _MOVING:
            vectors, start = motion.unpack(data, [(r.stop - r.start, shape[2]) for r in rows])
        if flags & _JUMPING:
            jumps, size = brightness.unpack(data[start:], shape[0])
        return cls(rows, top, vectors, jumps), start + size
