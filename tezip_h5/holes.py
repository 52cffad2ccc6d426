"""Holes: samples that are not measurements.

Holes are NaN, infinities, sentinel values and masked pixels. A sentinel value is one that a
detector or a model writes where it has no value, far from all others: 2**32 - 1 in the gaps of a
pixel detector, -9999, 1e20.

Holes are *exceptions* of the codec: they are stored exactly, apart from the levels. In the frames
that the levels are made from, they are replaced by filler values that cost few bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Patched", "fill", "fill_still", "find", "patched"]

_ROUNDS = 3  # searches for sentinel values: each may find others, such as -9999 and then 1e20
_FEW = 4  # at most so many distinct sentinel values: those of gaps and of bad pixels, say
_MANY = 6  # at least so many distinct other values, or the stack is a mask or a label image
_APART = 4  # the range of the others is at most 1/4 of the range with the sentinel values
_LOOK = 4096  # number of samples that are examined first
_NARROW = 8  # gaps up to this many pixels wide are filled from both sides


@dataclass(frozen=True)
class Patched:
    """The frames of one chunk, with filler values in their holes.

    Attributes
    ----------
    frames : (g, h, w, C) array with filler values, from which levels are made
    original : the same samples, unchanged
    holes : bool array of that shape, or None where there are none
    """

    frames: np.ndarray
    original: np.ndarray
    holes: np.ndarray | None

    def part(self, index) -> Patched:
        """The part of the samples that `index` selects, C-contiguous."""
        frames, original = (np.ascontiguousarray(a[index]) for a in (self.frames, self.original))
        holes = None if self.holes is None else np.ascontiguousarray(self.holes[index])
        return Patched(frames, original, holes)


def patched(frames: np.ndarray, mask: np.ndarray | None = None, outside=None) -> Patched:
    """Find the holes of (g, h, w, C) frames, and fill them.

    Parameters
    ----------
    frames : array
    mask : bool (h, w) array, optional
        Pixels that are holes in every frame.
    outside : callable, optional
        A function that returns, as a bool array, which samples of an array are holes in any case.
    """
    masked = mask is not None and mask.any()
    filled = fill_still(frames, mask) if masked else frames
    holes = find(filled)
    if holes is not None:
        filled = fill(filled, holes)
    if masked:
        still = np.broadcast_to(mask[..., None], frames.shape)
        holes = still if holes is None else holes | still
    if outside is not None and (more := outside(filled)).any():
        holes = more if holes is None else holes | more
        filled = fill(frames, holes)
    return Patched(filled, frames, holes)


def find(frames: np.ndarray) -> np.ndarray | None:
    """Find the holes: NaN, infinities and sentinel values.

    Parameters
    ----------
    frames : (g, h, w, C) array

    Returns
    -------
    bool array of that shape, True in holes; None if there are no holes
    """
    holes = None
    if frames.dtype.kind == "f":
        finite = np.isfinite(frames)
        if not finite.all():
            holes = ~finite
    elif frames.dtype.itemsize == 1:  # sentinel values do not widen the range of bytes much
        return None
    for _ in range(_ROUNDS):
        far = _far(frames, holes)
        if far is None:
            break
        holes = far if holes is None else holes | far
    return holes


def _far(frames: np.ndarray, holes: np.ndarray | None) -> np.ndarray | None:
    """Find samples that have one of a few values far from all others; None if there are none."""
    good = True if holes is None else ~holes
    dtype = frames.dtype
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    # numbers of Python: one of numpy would make others compared with it its own kind, and overflow
    least, most = (dtype.type(limit).item() for limit in (limits.min, limits.max))
    low = frames.min(where=good, initial=most).item()
    high = frames.max(where=good, initial=least).item()
    if not low < high:
        return None
    reach = high / _APART - low / _APART
    sample = frames.reshape(-1)[:: max(1, frames.size // _LOOK)]
    between = sample[(sample > low) & (sample < high)]
    middle = np.sort(between)[between.size // 2].item() if between.size else low
    ends = (middle - reach, middle + reach)
    first, last = (dtype.type(min(max(end, least), most)) for end in ends)
    inside = sample[(sample >= first) & (sample <= last)]
    if inside.size and inside.max() / _APART - inside.min() / _APART > reach / _APART:
        return None  # the usual case
    far = (frames < first) | (frames > last)
    if holes is not None:
        far &= good
    values = frames[far]
    if values.size == 0 or any(np.unique(v).size > _FEW for v in (values[:_LOOK], values)):
        return None
    others = frames[~far if holes is None else ~far & good]
    if np.unique(others[:: max(1, others.size // _LOOK)]).size < _MANY:
        return None
    return far if others.max() / _APART - others.min() / _APART <= reach / _APART else None


def fill(frames: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Fill holes with values that cost few bytes.

    Parameters
    ----------
    frames : (g, h, w, C) array
    holes : bool array of that shape

    Returns
    -------
    A copy of the frames. Pixels that are holes in all frames are filled by `fill_still`. Other
    holes get the value of the sample before them in the same frame and channel.
    """
    any_good = frames.reshape(-1)[np.argmin(holes.reshape(-1))]
    still = holes.all(axis=(0, 3))
    filled = fill_still(frames, still, ~holes)
    holes = holes & ~still[..., None]
    for t in np.flatnonzero(holes.any(axis=(1, 2, 3))):
        for c in range(frames.shape[3]):
            missing = holes[t, :, :, c].reshape(-1)
            if missing.all():
                filled[t, :, :, c] = any_good
                continue
            source = np.maximum.accumulate(np.where(missing, -1, np.arange(missing.size)))
            source[source < 0] = np.argmin(missing)  # the first sample that is no hole
            plane = filled[t, :, :, c].reshape(-1)[source]
            filled[t, :, :, c] = plane.reshape(frames.shape[1:3])
    return filled


def fill_still(frames: np.ndarray, mask: np.ndarray, good: np.ndarray | None = None) -> np.ndarray:
    """Fill masked pixels with values that cost few bytes, the same in all frames.

    Parameters
    ----------
    frames : (g, H, W[, C]) array of any supported dtype
    mask : bool (H, W)
    good : bool array of the frames' shape, optional
        The samples that are measurements; default: all finite samples that are not masked.

    Returns
    -------
    A copy of the frames. A run of masked pixels in a row gets one value, near the mean over time
    of the good pixels at its two ends. A gap that is narrow in the other direction is filled from
    the pixels on both sides instead. Only values that good pixels have are used.
    """
    filled = frames.copy()
    if mask.all():
        filled[:] = 0
        return filled
    if not mask.any():
        return filled
    if good is None:
        good = np.isfinite(frames) & ~mask.reshape(mask.shape + (1,) * (frames.ndim - 3))
    means = _means(frames, good).reshape((*mask.shape, -1))
    values = _between(means, mask)
    first = good.reshape(len(good), -1).any(axis=1).argmax()  # a frame that has good samples
    there = frames[first][good[first]]
    filled[:, mask] = _nearest(values, there).reshape((-1, *frames.shape[3:]))
    return filled


@np.errstate(over="ignore", invalid="ignore")
def _means(frames: np.ndarray, good: np.ndarray) -> np.ndarray:
    """The mean over time of each pixel's good samples; the mean of all if a pixel has none."""
    count = good.sum(axis=0)
    total = frames.sum(axis=0, dtype=np.float64, where=good)
    return np.where(count > 0, total / np.maximum(count, 1), total.sum() / max(count.sum(), 1))


def _between(means: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Filler values for masked pixels, (n, C).

    Each run of masked pixels in a row gets the mean of its two ends. Where the run in the row or
    the run in the column is short, the ends of the shorter one are taken.
    """
    across, width = _runs(means, mask)
    down, height = (a.swapaxes(0, 1) for a in _runs(means.swapaxes(0, 1), mask.T))
    middle = np.median(means[~mask], axis=0)
    values = np.where((width > mask.size)[..., None], middle, across)
    narrow = np.minimum(width, height) <= _NARROW
    for where, better in ((height < width, down), (height == width, across / 2 + down / 2)):
        values = np.where((narrow & where)[..., None], better, values)
    return values[mask]


def _runs(means: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each masked pixel, the mean of the good pixels at both ends of its run in the row.

    If the run touches the border, it has one end. Also returns the length of the run, which is
    larger than the mask's size if the run has no end.
    """
    width = mask.shape[1]
    place = np.arange(width)
    before = np.maximum.accumulate(np.where(mask, -1, place), axis=1)
    after = np.minimum.accumulate(np.where(mask, width, place)[:, ::-1], axis=1)[:, ::-1]
    length = np.where(after - before > width, mask.size + 1, after - before - 1)
    before, after = np.where(before < 0, after, before), np.where(after == width, before, after)
    ends = (np.minimum(end, width - 1)[..., None] for end in (before, after))
    return sum(np.take_along_axis(means, end, axis=1) / 2 for end in ends), length


def _nearest(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Replace each value by the nearest value that occurs in `there`, so no new values arise."""
    there = np.unique(there)
    if there.size == 0:
        return np.zeros(values.shape, there.dtype)
    right = np.clip(np.searchsorted(there, values), 1, max(there.size - 1, 1))
    right = np.minimum(right, there.size - 1)
    left = np.maximum(right - 1, 0)
    nearer = values - there[left] < there[right] - values
    return np.where(nearer, there[left], there[right])
