"""A scale for every frame: where each was scaled by itself before it was stored."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field, replace

import numpy as np

from tezip_h5.errors import FormatError
from tezip_h5.levels.distinct import listed
from tezip_h5.levels.lattice import affine
from tezip_h5.levels.scale import Scale
from tezip_h5.levels.scales import Affine, Grid
from tezip_h5.levels.tables import Listed

__all__ = ["EachFrame", "of_each_frame"]

_RECORD = struct.Struct("<BI")  # kind and bytes of a frame's scale
_MOST_TOP = 1 << 24
_KNOWN = 3  # lines of earlier frames that are tried, each of another step
_LOOK = 1 << 9  # samples that say how far the codes of two frames are apart
_COARSER = 2  # times the step of a grid of all frames that those of each must have


@dataclass
class EachFrame(Scale):
    """A scale of its own for each frame of a chunk; all make levels from 0 to the same `top`.

    Attributes
    ----------
    scales : list of Listed and Affine
        One per frame.
    shape : (g, h, w, C)
        Of the samples, for a decoder: it takes so many scales, and no longer tables than frames.
    """

    scales: list[Scale] = field(default_factory=list)
    shape: tuple[int, int, int, int] = (0, 0, 0, 0)
    kind = 8

    def of_frame(self, t):
        return self.scales[t]

    @property
    def corrected(self):
        return self.dtype.kind == "f"

    def _pack(self):
        packed = [(scale.kind, scale.pack()) for scale in self.scales]
        return b"".join(_RECORD.pack(kind, len(data)) + data for kind, data in packed)

    def _unpack(self, data):
        self.scales = []
        for _ in range(self.shape[0]):
            if len(data) < _RECORD.size:
                raise FormatError(
                    f"scales of {len(self.scales)} frames, expected {self.shape[0]} of them"
                )
            kind, size = _RECORD.unpack_from(data)
            scale, data = data[_RECORD.size : _RECORD.size + size], data[_RECORD.size + size :]
            if len(scale) < size:
                raise FormatError(f"a frame's scale of {size} bytes, {len(scale)} are left")
            self.scales.append(self._of_one(kind, scale))
        if data:
            raise FormatError(f"{len(data)} bytes behind the scale of the last frame")

    def _of_one(self, kind: int, data: bytes) -> Scale:
        """The scale of one frame; longer tables than frames are refused before they are read."""
        if kind == Affine.kind and self.dtype.kind == "f":
            scale = Affine(self.dtype).unpacked(data)
        elif kind == Listed.kind:
            scale = Listed(self.dtype, longest=math.prod(self.shape[1:])).unpacked(data)
        else:
            raise FormatError(f"scale {kind} makes no levels of one frame of {self.dtype}")
        if scale.top != self.top:
            raise FormatError(f"a frame's levels go up to {scale.top}, expected {self.top}")
        return scale


def of_each_frame(
    frames: np.ndarray, instead_of: Scale | None, holes: np.ndarray | None = None
) -> EachFrame | None:
    """A scale for every frame of samples of which nothing may be lost.

    Parameters
    ----------
    frames : (g, h, w, C) array of integers or floats
    instead_of : Scale or None
        What serves all of the frames.
    holes : bool array of that shape, optional
        Samples that need no level of their own.

    Returns
    -------
    EachFrame or None
        None where frames have no such scales, or it is clear that they are no better.
    """
    real = frames.dtype.kind == "f"
    if len(frames) < 2 or (instead_of is None and not real):
        return None
    good = [frame if holes is None else frame[~holes[t]] for t, frame in enumerate(frames)]
    scales = _affine(good, instead_of) if real else _listed(good)
    return scales and _aligned(frames, holes, scales)


def _listed(good: list[np.ndarray]) -> list[Listed] | None:
    """A table of values for each frame; None as soon as one has too many."""
    scales = []
    for samples in good:
        scale = listed(samples.reshape(1, 1, -1, 1)) if samples.size else None
        if scale is None:
            return None
        scales.append(scale)
    return scales


def _affine(good: list[np.ndarray], instead_of: Scale | None) -> list[Affine] | None:
    """A line for each frame; where one has none, that of another. None unless most have one."""
    coarse = _COARSER * instead_of.step if isinstance(instead_of, Grid) else 0.0
    looks = (affine(good[t]) for t in (0, len(good) // 2))
    known = next((line for line in looks if line is not None and line.top), None)
    if known is None or known.width < coarse:
        return None
    lines, found = [known], []
    for samples in good:
        line = affine(samples, lines)
        found.append(line)
        if line is not None and line.top:
            lines = [line, *(other for other in lines if other.width != line.width)][:_KNOWN]
    if 2 * found.count(None) > len(found):
        return None
    scales = [line or _stretched(known, samples) for line, samples in zip(found, good, strict=True)]
    return scales if min(scale.width for scale in scales) >= coarse else None


def _stretched(line: Affine, samples: np.ndarray) -> Affine:
    """The same line for all of these samples."""
    low, high = line.nearest(np.array([samples.min(), samples.max()]))
    return replace(line, offset=int(low), top=int(high - low))


def _aligned(frames: np.ndarray, holes, scales: list[Scale]) -> EachFrame | None:
    """Their levels are made such that most change little from frame to frame, from 0 up."""
    stride = -(-frames[0].size // _LOOK)
    before, shifts = None, []
    for t, scale in enumerate(scales):
        codes = np.asarray(scale.codes(frames[t].reshape(-1)[::stride]), np.int64)
        shift = -scale.offset
        if before is not None:
            changes = before - codes
            if holes is not None:
                changes = changes[~holes[t].reshape(-1)[::stride]]
            shift = int(np.median(changes)) if changes.size else shift
        before = codes + shift
        shifts.append(shift)
    pairs = list(zip(scales, shifts, strict=True))
    least = min(scale.offset + shift for scale, shift in pairs)
    top = max(scale.offset + scale.top + shift for scale, shift in pairs) - least
    if top > _MOST_TOP:
        return None
    for scale, shift in pairs:
        scale.offset, scale.top = least - shift, top
    return EachFrame(frames.dtype, 0, top, scales)
