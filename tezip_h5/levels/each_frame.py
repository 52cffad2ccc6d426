"""One scale per frame, for frames that were each scaled by themselves before they were stored."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field

import numpy as np

from tezip_h5.bounds import ChunkBound
from tezip_h5.errors import FormatError
from tezip_h5.levels.distinct import listed
from tezip_h5.levels.lattice import affine, ranged
from tezip_h5.levels.scale import Scale
from tezip_h5.levels.scales import Affine, Grid
from tezip_h5.levels.tables import Listed

__all__ = ["EachFrame", "of_each_frame"]

_RECORD = struct.Struct("<BI")  # kind of a frame's scale, and its size in bytes
_MOST_TOP = 1 << 24  # largest level
_KNOWN = 3  # lines of earlier frames, each with another step, that a frame tries first
_LOOK = 1 << 9  # samples of a frame by which its levels are aligned with the frame before
_COARSER = 2  # ratio of the frames' steps to that of a common grid, from which they are used
_FEWER = 0.97  # with a bound, estimated bits of a difference on lines over those on a common grid
_LOOSEST = 1e300  # bounds above this count as this much


@dataclass
class EachFrame(Scale):
    """One scale for each frame of a chunk. All of them make levels from 0 to the same `top`.

    Attributes
    ----------
    scales : list of Listed and Affine
        One per frame.
    shape : (g, h, w, C)
        Shape of the samples. Only a decoder needs it: it refuses another number of scales, and
        tables with more entries than a frame has samples.
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
        self.scales, at = [], 0
        for _ in range(self.shape[0]):
            if len(data) - at < _RECORD.size:
                raise FormatError(
                    f"scales of {len(self.scales)} frames, expected {self.shape[0]} of them"
                )
            kind, size = _RECORD.unpack_from(data, at)
            at += _RECORD.size
            if len(data) - at < size:
                raise FormatError(f"a frame's scale of {size} bytes, {len(data) - at} are left")
            self.scales.append(self._of_one(kind, data[at : at + size]))
            at += size
        if len(data) > at:
            raise FormatError(f"{len(data) - at} bytes behind the scale of the last frame")

    def _of_one(self, kind: int, data: bytes) -> Scale:
        """Read the scale of one frame. A table that is too long is refused before it is read."""
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
    frames: np.ndarray,
    bound: ChunkBound,
    instead_of: Scale | None,
    holes: np.ndarray | None = None,
) -> EachFrame | None:
    """Find one scale for each frame: a line for floats, a table of values for integers.

    Parameters
    ----------
    frames : (g, h, w, C) array of integers or floats
    bound : ChunkBound
        The bound of these frames. A table keeps it by merging values. Lines keep it by the
        tolerance of the levels, see `tolerances`.
    instead_of : Scale or None
        The scale that serves all frames, if there is one.
    holes : bool array of that shape, optional
        Samples that are stored beside the levels.

    Returns
    -------
    EachFrame or None
        None if a frame has no such scale, or if `instead_of` is clearly as good.
    """
    real = frames.dtype.kind == "f"
    if not real and (len(frames) < 2 or instead_of is None):
        return None  # one table for all is the same, or there is none
    good = [frame if holes is None else frame[~holes[t]] for t, frame in enumerate(frames)]
    scales = _affine(good, bound, instead_of) if real else _listed(good, bound)
    return scales and _aligned(frames, holes, scales)


def tolerances(scale: EachFrame, bound: ChunkBound, frames: int, channels: int) -> np.ndarray:
    """The tolerance of each frame and channel, as `levels.tolerances` returns it."""
    found = np.zeros((frames, channels), np.int64)
    if bound.absolute is None:
        return found
    for t, line in enumerate(scale.scales[:frames]):
        if isinstance(line, Affine) and line.top:
            with np.errstate(over="ignore"):
                reach = (np.minimum(bound.absolute[t], _LOOSEST) - line.slack) / line.spacing
            found[t] = np.clip(reach, 0, min(line.top, 2**30))
    return found


def _listed(good: list[np.ndarray], bound: ChunkBound) -> list[Listed] | None:
    """A table of values for each frame; None if a frame has too many values."""
    scales = []
    for t, samples in enumerate(good):
        reach = 0 if bound.absolute is None else min(bound.absolute[t].min(), 2.0**32)
        whole = samples.reshape(1, 1, -1, 1)
        scale = listed(whole, math.floor(reach)) if samples.size else None
        if scale is None:
            return None
        scales.append(scale)
    return scales


def _affine(
    good: list[np.ndarray], bound: ChunkBound, instead_of: Scale | None
) -> list[Affine] | None:
    """A line for each frame; None unless most have one. The others take a neighbour's line.

    With a bound all must have one: levels on a line on which the samples do not lie keep no bound.
    """
    exact = isinstance(instead_of, Grid) and (bound.lossless or instead_of.slack is not None)
    coarse = _COARSER * instead_of.step if exact else 0.0
    looks = ((t, affine(good[t])) for t in (0, len(good) // 2))
    at, known = next(((t, line) for t, line in looks if line is not None and line.top), (0, None))
    if known is None or known.spacing < coarse:
        return None
    if not bound.lossless and not _nearer(known, good, at, bound):
        return None
    lines, found = [known], []
    without = len(good) // 2 if bound.lossless else 0
    for samples in good:
        line = affine(samples, lines)
        found.append(line)
        if line is not None and line.top:
            lines = [line, *(other for other in lines if other.spacing != line.spacing)][:_KNOWN]
        elif line is None and found.count(None) > without:
            return None
    scales = [
        line or ranged(known, samples.min(), samples.max())
        for line, samples in zip(found, good, strict=True)
    ]
    if any(scale is None for scale in scales) or min(scale.spacing for scale in scales) < coarse:
        return None
    return scales


@np.errstate(over="ignore", invalid="ignore")
def _nearer(known: Affine, good: list[np.ndarray], at: int, bound: ChunkBound) -> bool:
    """Whether frame `at` is nearer to the next one on lines, in cells that keep the bound.

    The alternative is a grid for all frames with cells of twice the bound. This compares the bits
    of a few differences, because it is much faster than to search the lines of all frames.
    """
    other = min(at + 1, len(good) - 1)
    line = affine(good[other], [known])
    if line is None:
        return False
    here, there = good[at].reshape(-1), good[other].reshape(-1)
    if other == at or here.size != there.size:
        return True  # only a sample can tell
    stride = -(-here.size // _LOOK)
    here, there = here[::stride], there[::stride]
    if bound.absolute is not None:
        allowed = float(bound.absolute[at].min())
    else:
        allowed = (bound.pointwise or bound.noise) * float(np.median(np.abs(here)))
    reach = math.floor(min(allowed / known.spacing, _MOST_TOP))
    plain = (there.astype(np.float64) - here) / (2 * allowed or known.spacing)
    own = (line.nearest(there) - known.nearest(here)) / (2 * reach + 1)
    own -= np.median(own)  # as `_aligned` does
    bits_own, bits_plain = (np.log2(1 + np.abs(apart)).sum() for apart in (own, plain))
    return bool(bits_own < _FEWER * bits_plain)


def _aligned(frames: np.ndarray, holes, scales: list[Scale]) -> EachFrame | None:
    """Set the offsets of scales so that most levels change little from frame to frame."""
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
