"""Which scale serves a chunk under its bound."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from tezip_h5 import glance
from tezip_h5.bounds import ChunkBound
from tezip_h5.levels.distinct import gridded, listed, on_grid
from tezip_h5.levels.each_frame import EachFrame
from tezip_h5.levels.scale import Scale
from tezip_h5.levels.scales import Affine, Grid, Integers, LogBits, OrderedBits, Truncated
from tezip_h5.levels.tables import LARGEST_TABLE, Companded, Listed

__all__ = ["centred", "choose", "tolerances"]

_EXACT_ONES = OrderedBits, Truncated, Listed, Affine, EachFrame  # whose levels keep any bound
_BITS_BELOW = 8  # of a truncated level, below the usual difference of neighbours
_FINER = 17  # levels in a cell around a prediction: the tolerance is 8 of them
_CALM = 0.2  # steps that a prediction may err by, root mean square
_WIDEST = 1 << 62  # magnitude below which differences of 64-bit integers are no larger
_EXACT = 1 << 52  # magnitude below which float64 tells integers apart, and their halves
_CENTRED_MOST = 2**20  # cells; more are noise, and levels would be wide
_LOOSEST = float(np.finfo(np.float64).max) / 8  # bound that steps are made for
_TRUNCATED_BITS = 16, 28  # of truncated levels, at least and at most


def choose(frames: np.ndarray, bound: ChunkBound) -> Scale | None:
    """Pick and fit the scale for a chunk; None when only the fallback can serve it.

    Parameters
    ----------
    frames : (g, h, w, C) array of a dtype in `DTYPES`, but bool, whose `carrier` it has
    bound : the bound of those frames

    Returns
    -------
    Of floats with a bound every cell of twice the bound is a level, unless predictions err by far
    less; see `centred`.
    """
    dtype = frames.dtype
    if dtype.kind in "iu":
        return _of_integers(frames, bound)
    low, high = _finite_range(frames)
    if bound.lossless:
        return _exact(frames, low, high)
    if low is None or bound.noise:  # that is of counts, which are integers
        return None
    if bound.absolute is None:
        scale = _log_bits(dtype, bound.pointwise)
        return _fitted(scale, low, high) if scale else None
    # Rounding to the stack's dtype adds half a unit in the last place of the largest value.
    magnitude = max(abs(low), abs(high))
    with np.errstate(over="ignore"):
        rounding = float(np.spacing(dtype.type(magnitude))) / 2
    least = min(float(bound.absolute[bound.absolute > 0].min()), _LOOSEST)
    usable = least - rounding
    if usable <= rounding:
        return _exact(frames, low, high)
    if (grid := gridded(frames, low, high)) and (scale := on_grid(grid, least, rounding)):
        return scale
    if _common_reach(bound) is not None and (scale := listed(frames, least, rounding)):
        return scale
    step = 2.0 * usable
    scale = Grid(dtype, step=step) if magnitude / step < 2.0**52 else None
    scale = scale and _fitted(scale, low, high)
    if scale is None:
        return _exact(frames, low, high)
    calm = _cells(scale) < _CENTRED_MOST and _calm(frames, step)
    return (calm and _finer(scale, low, high)) or scale


def centred(scale: Scale, frames: np.ndarray, bound: ChunkBound) -> Grid | None:
    """A scale with several levels in each cell of `scale`, so that cells lie around predictions.

    Smooth fields are smaller then, but what comes back lies on no grid and cannot be recompressed
    well; and values that repeat exactly no longer do.

    Parameters
    ----------
    scale : what `choose` has found for these
    frames : (g, h, w, C) array
    bound : the bound of those frames

    Returns
    -------
    Grid, or None where `scale` has several levels in a cell already, or no cells
    """
    if bound.lossless or not isinstance(scale, Grid) or scale.slack is not None:
        return None
    one_each = tolerances(scale, bound, *frames.shape[::3]).min() == 0
    if not one_each or _cells(scale) >= _CENTRED_MOST:
        return None
    return _finer(scale, *_finite_range(frames))


def _cells(grid: Grid) -> int:
    return max(abs(grid.offset), abs(grid.offset + grid.top))


def _finer(grid: Grid, low: float, high: float) -> Grid | None:
    return _fitted(Grid(grid.dtype, step=grid.step / _FINER), low, high)


def _of_integers(frames: np.ndarray, bound: ChunkBound) -> Scale | None:
    low, high = int(frames.min()), int(frames.max())
    largest = max(abs(low), abs(high))
    if largest >= _WIDEST:
        return None
    reach = 0.0
    if bound.absolute is not None:
        reach = _common_reach(bound)
    elif not bound.lossless and (scale := _companded(frames, bound)) is not None:
        return scale
    if reach is not None:
        reach = math.floor(min(reach, 2.0**32))  # all that levels can differ by
        if (scale := listed(frames, reach if largest < _EXACT else 0)) is not None:
            return scale
    return Integers(frames.dtype).fitted(low, high)


def _calm(frames: np.ndarray, step: float) -> bool:
    """Whether what a linear prediction leaves is far below a step, so that on a grid its rounding
    would be most of what there is to code."""
    left = glance.left(frames)
    return left is not None and bool(np.sqrt(np.mean((left / step) ** 2)) < _CALM)


def _exact(frames: np.ndarray, low, high) -> Scale | None:
    """Levels of floats of which nothing may be lost."""
    half = frames.dtype == np.float16  # whose every pattern is a narrow level
    for made in (gridded, _listed) if half else (gridded, _listed, _truncated):
        if (scale := made(frames, low, high)) is not None:
            return scale
    if half:
        codes = OrderedBits(frames.dtype).codes(frames)  # of all, for -0.0 is not the least value
        return OrderedBits(frames.dtype).fitted(codes.min(), codes.max())
    return OrderedBits(frames.dtype, 0, 2**32 - 1) if frames.dtype == np.float32 else None


def _listed(frames: np.ndarray, low, high) -> Listed | None:
    return None if low is None else listed(frames)


def _log_bits(dtype: np.dtype, pointwise: float) -> LogBits | None:
    if pointwise >= 1:
        return None
    reach = int(pointwise * 2.0 ** np.finfo(dtype).nmant)
    return LogBits(dtype, step=2 * reach + 1) if reach >= 1 else None


def _fitted(scale: Scale, low, high) -> Scale | None:
    ends = scale.codes(np.array([low, high], scale.dtype))
    return scale.fitted(ends.min(), ends.max())


def _common_reach(bound: ChunkBound) -> float | None:
    """How far every sample may move, if that is the same for all."""
    if bound.lossless:
        return 0.0
    least, most = bound.absolute.min(), bound.absolute.max()
    return float(least) if least == most else None


def _truncated(frames: np.ndarray, low, high) -> Truncated | None:
    """Levels well below the differences of neighbours; None for numbers that have none such."""
    magnitude = 0.0 if low is None else max(abs(low), abs(high))
    if magnitude == 0:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        changes = np.abs(np.diff(frames[:: max(1, len(frames) // 4)].astype(np.float64), axis=2))
        changes = changes[np.isfinite(changes) & (changes > 0)]
        if changes.size == 0:
            return None
        usual = np.median(changes)
    bits = np.frexp(magnitude)[1] - np.frexp(usual)[1] + _BITS_BELOW
    bits = int(np.clip(bits, *_TRUNCATED_BITS))
    step = float(np.ldexp(1.0, int(np.frexp(magnitude)[1]) - bits))
    if not step >= float(np.finfo(frames.dtype).smallest_normal):
        return None
    return _fitted(Truncated(frames.dtype, step=step), low, high)


def _finite_range(frames: np.ndarray):
    """Smallest and largest finite value, or (None, None)."""
    low, high = np.inf, -np.inf
    for frame in frames:
        finite = np.isfinite(frame)
        low = min(low, float(np.min(frame, where=finite, initial=np.inf)))
        high = max(high, float(np.max(frame, where=finite, initial=-np.inf)))
    return (low, high) if low <= high else (None, None)


def _companded(frames: np.ndarray, bound: ChunkBound) -> Companded | None:
    low, high = int(frames.min()), int(frames.max())
    largest = max(abs(low), abs(high))
    if largest >= 1 << 32:  # a step of the table could be larger than its word
        return None
    limit = min(int(np.iinfo(frames.dtype).max), (1 << 32) - 1)
    if bound.noise:
        table = _noise_representatives(bound.noise, largest, limit)
    else:
        table = _representatives(bound.pointwise, largest, limit)
    if table is None:
        return None
    return _fitted(Companded(frames.dtype, table=table), low, high)


@lru_cache(maxsize=64)
def _representatives(relative: float, largest: int, limit: int) -> np.ndarray | None:
    """The greedy table for magnitudes up to `largest`; None when it would be too long."""
    table, value = [0], 1
    while value <= largest:
        # Only -2**(n-1) lies beyond the largest positive value; it is its own entry.
        entry = min(value + int(relative * value), max(limit, value))
        table.append(entry)
        if len(table) > LARGEST_TABLE:
            return None
        if relative >= 1:  # the first entry serves every value
            break
        # The next value that this entry does not serve: the first x with x - entry > b * x.
        value = max(entry + 1, int(entry / (1 - relative)) - 1)
        while value - entry <= relative * value:
            value += 1
    return np.array(table, np.int64)


@lru_cache(maxsize=64)
def _noise_representatives(noise: float, largest: int, limit: int) -> np.ndarray | None:
    """The greedy table for |x - x'| <= noise * sqrt(x), as `_representatives`."""
    table, value = [0], 1
    while value <= largest:
        entry = min(value + _reach(noise, value), max(limit, value))
        table.append(entry)
        if len(table) > LARGEST_TABLE:
            return None
        # The first x with x - entry > noise * sqrt(x): near the root of that, then step by step.
        root = (noise + math.sqrt(noise * noise + 4 * entry)) / 2
        value = max(entry + 1, int(min(root * root, 2.0**62)) - 2)
        while value <= largest and value - entry <= _reach(noise, value):
            value += 1
    return np.array(table, np.int64)


def _reach(noise: float, value: int) -> int:
    """The largest integer error that `ChunkBound.check` lets pass at `value`."""
    return int(min(noise * math.sqrt(value), 2.0**62))


def tolerances(scale: Scale, bound: ChunkBound, frames: int, channels: int) -> np.ndarray:
    """Integer tolerance per frame and channel, int64 (frames, channels), in levels."""
    zeros = np.zeros((frames, channels), np.int64)
    if bound.absolute is None or isinstance(scale, _EXACT_ONES):
        return zeros
    if isinstance(scale, Grid):
        slack = scale.step / 2 if scale.slack is None else scale.slack
        with np.errstate(over="ignore"):  # of one frame's bound by the finest grid of all
            reach = np.floor((bound.absolute - slack) / scale.step)
    else:
        reach = np.floor(bound.absolute)
    return np.clip(reach, 0, min(scale.top, 2**30)).astype(np.int64)
