"""Choose the scale of a chunk, given its samples and its bound."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from tezip_h5 import predictability
from tezip_h5.bounds import ChunkBound
from tezip_h5.levels import each_frame
from tezip_h5.levels.distinct import gridded, listed, on_grid
from tezip_h5.levels.scale import Scale
from tezip_h5.levels.scales import Grid, Integers, LogBits, OrderedBits, Truncated
from tezip_h5.levels.tables import LARGEST_TABLE, Companded, Listed

__all__ = ["centred", "choose", "exact_instead", "tolerances"]

# The scales whose levels must be restored exactly: their tolerance is 0.
_EXACT_ONES = OrderedBits, Truncated, Listed
_BITS_BELOW = 8  # bits of a truncated level below the usual difference of neighbours
_FINER = 17  # levels in each cell of a centred scale, so its tolerance is 8 levels
_CALM = 0.2  # centred scales serve where the RMS error of predictions is below this many steps
_RATHER_CALM = 0.4  # above this they seldom save 5% of the bytes
_WIDEST = 1 << 62  # below this magnitude, differences of integers fit in 64 bits
_EXACT = 1 << 52  # below this magnitude, float64 holds integers and their halves exactly
_CENTRED_MOST = 2**20  # grids with more cells are left as they are: their lowest bits are noise
_LOOSEST = float(np.finfo(np.float64).max) / 8  # bounds above this count as this much
_TRUNCATED_BITS = 16, 28  # least and most bits of truncated levels


def choose(frames: np.ndarray, bound: ChunkBound) -> Scale | None:
    """Choose a scale for a chunk, and set its offset, top and step.

    Parameters
    ----------
    frames : (g, h, w, C) array of a dtype in `DTYPES`
        Samples of dtype bool must be given in their `carrier`.
    bound : ChunkBound
        The bound of these frames.

    Returns
    -------
    Scale or None
        None if only the fallback codec can encode the chunk. For floats with an absolute bound,
        the scale is usually a grid whose step is twice the bound. If predictions err by far less
        than a step, the grid is finer; see `centred`.
    """
    dtype = frames.dtype
    if dtype.kind in "iu":
        return _of_integers(frames, bound)
    low, high = _finite_range(frames)
    if bound.lossless:
        return _exact(frames, low, high)
    if low is None or bound.noise:  # a noise bound is defined for counts, which are integers
        return None
    if bound.absolute is None:
        scale = _log_bits(dtype, bound.pointwise)
        return (scale and _fitted(scale, low, high)) or _exact(frames, low, high)
    # Rounding to the stack's dtype adds at most half a unit in the last place of the largest value.
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
    calm = _cells(scale) < _CENTRED_MOST and _calm(frames, step, _CALM)
    return (calm and _finer(scale, low, high)) or scale


def exact_instead(frames: np.ndarray, bound: ChunkBound) -> Scale | None:
    """A lossless scale that may need fewer bytes than the one that `choose` finds for a bound.

    Samples that take few of the possible values may be further apart than the bound. Where it is
    the same for all samples, `choose` sees to that.

    Returns
    -------
    Scale or None
        None if the bound is the same for all, or if samples take most of the possible values.
    """
    if _common_reach(bound) is not None:
        return None
    if frames.dtype.kind != "f":
        return listed(frames)
    ends = _finite_range(frames)
    return gridded(frames, *ends) or _listed(frames, *ends)


def centred(scale: Scale, frames: np.ndarray, bound: ChunkBound, much: bool = False) -> Grid | None:
    """A grid with several levels in each cell of `scale`.

    A *cell* is the range of values that one level of `scale` stands for. With a finer grid the
    quantizer can centre its cells on the predictions. That makes payloads of smooth fields
    smaller. It has two drawbacks: the reconstruction does not lie on the coarse grid, so it is
    hard to compress again, and equal samples do not stay equal.

    Parameters
    ----------
    scale : Scale
        The result of `choose` for these frames.
    frames : (g, h, w, C) array
    bound : ChunkBound
        The bound of these frames.
    much : bool
        Whether it is wanted only where it usually saves some percent of the bytes.

    Returns
    -------
    Grid or None
        None if `scale` is no grid with one level per cell, or if it has too many cells.
    """
    if bound.lossless or not isinstance(scale, Grid) or scale.slack is not None:
        return None
    one_each = tolerances(scale, bound, *frames.shape[::3]).min() == 0
    if not one_each or _cells(scale) >= _CENTRED_MOST:
        return None
    if much and not _calm(frames, scale.step, _RATHER_CALM):
        return None
    return _finer(scale, *_finite_range(frames))


def _cells(grid: Grid) -> int:
    """The largest magnitude of a code of this grid."""
    return max(abs(grid.offset), abs(grid.offset + grid.top))


def _finer(grid: Grid, low: float, high: float) -> Grid | None:
    """A grid with `_FINER` levels in each step of `grid`; None if levels would be too wide."""
    return _fitted(Grid(grid.dtype, step=grid.step / _FINER), low, high)


def _of_integers(frames: np.ndarray, bound: ChunkBound) -> Scale | None:
    """The scale of a chunk of integers, as `choose` returns it."""
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
        reach = math.floor(min(reach, 2.0**32))  # levels never differ by more
        if (scale := listed(frames, reach if largest < _EXACT else 0)) is not None:
            return scale
    return Integers(frames.dtype).fitted(low, high)


def _calm(frames: np.ndarray, step: float, most: float) -> bool:
    """Whether the RMS residual of a linear prediction is below so many steps.

    If it is far below one, most of the information to code on a grid of that step would be the
    rounding to the grid.
    """
    left = predictability.residuals(frames)
    return left is not None and bool(np.sqrt(np.mean((left / step) ** 2)) < most)


def _exact(frames: np.ndarray, low, high) -> Scale | None:
    """A lossless scale for floats; None if only the fallback codec can serve them."""
    half = frames.dtype == np.float16  # any bit pattern fits in a narrow level, so no truncation
    for made in (gridded, _listed) if half else (gridded, _listed, _truncated):
        if (scale := made(frames, low, high)) is not None:
            return scale
    if half:
        # Codes of all samples: `low` and `high` do not tell -0.0 from 0.0, which has another code.
        codes = OrderedBits(frames.dtype).codes(frames)
        return OrderedBits(frames.dtype).fitted(codes.min(), codes.max())
    return OrderedBits(frames.dtype, 0, 2**32 - 1) if frames.dtype == np.float32 else None


def _listed(frames: np.ndarray, low, high) -> Listed | None:
    """A lossless table, as `listed`; None if no sample is finite."""
    return None if low is None else listed(frames)


def _log_bits(dtype: np.dtype, pointwise: float) -> LogBits | None:
    """The scale for a pointwise relative bound; None if the bound is too small or at least 1."""
    if pointwise >= 1:
        return None
    reach = int(pointwise * 2.0 ** np.finfo(dtype).nmant)
    return LogBits(dtype, step=2 * reach + 1) if reach >= 1 else None


def _fitted(scale: Scale, low, high) -> Scale | None:
    """`scale` with offset and top for values in low..high; None if levels would be too wide."""
    ends = scale.codes(np.array([low, high], scale.dtype))
    return scale.fitted(ends.min(), ends.max())


def _common_reach(bound: ChunkBound) -> float | None:
    """The largest error allowed for a sample, if it is the same for all samples; else None."""
    if bound.lossless:
        return 0.0
    if bound.absolute is None:
        return None
    least, most = bound.absolute.min(), bound.absolute.max()
    return float(least) if least == most else None


def _truncated(frames: np.ndarray, low, high) -> Truncated | None:
    """A truncated scale whose step is well below the usual difference of neighbouring samples.

    None if no neighbours differ, or if the step would be too small for the dtype.
    """
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
    """The smallest and the largest finite value; (None, None) if no sample is finite."""
    low, high = np.inf, -np.inf
    for frame in frames:
        finite = np.isfinite(frame)
        low = min(low, float(np.min(frame, where=finite, initial=np.inf)))
        high = max(high, float(np.max(frame, where=finite, initial=-np.inf)))
    return (low, high) if low <= high else (None, None)


def _companded(frames: np.ndarray, bound: ChunkBound) -> Companded | None:
    """The scale of integers with a pointwise or noise bound; None if a table would be too long."""
    low, high = int(frames.min()), int(frames.max())
    largest = max(abs(low), abs(high))
    if largest >= 1 << 32:  # a difference of two table entries might not fit in 32 bits
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
    """The greedy table of representatives, for |x - x'| <= relative * x (see `Companded`).

    It serves magnitudes up to `largest`. None if it would be too long. No entry is above `limit`,
    the largest positive value, unless a magnitude is.
    """
    table, value = [0], 1
    while value <= largest:
        # Only the most negative value, -2**(n-1), has a magnitude above the limit. It gets an
        # entry of its own.
        entry = min(value + int(relative * value), max(limit, value))
        table.append(entry)
        if len(table) > LARGEST_TABLE:
            return None
        if relative >= 1:  # one entry serves all values
            break
        # The next value that this entry does not serve is the first x with x - entry > b * x.
        value = max(entry + 1, int(entry / (1 - relative)) - 1)
        while value - entry <= relative * value:
            value += 1
    return np.array(table, np.int64)


@lru_cache(maxsize=64)
def _noise_representatives(noise: float, largest: int, limit: int) -> np.ndarray | None:
    """The greedy table of representatives for |x - x'| <= noise * sqrt(x).

    Parameters and result are otherwise those of `_representatives`.
    """
    table, value = [0], 1
    while value <= largest:
        entry = min(value + _reach(noise, value), max(limit, value))
        table.append(entry)
        if len(table) > LARGEST_TABLE:
            return None
        # The next value that this entry does not serve is the first x with
        # x - entry > noise * sqrt(x). The search starts just below the root of that equation.
        root = (noise + math.sqrt(noise * noise + 4 * entry)) / 2
        value = max(entry + 1, int(min(root * root, 2.0**62)) - 2)
        while value <= largest and value - entry <= _reach(noise, value):
            value += 1
    return np.array(table, np.int64)


def _reach(noise: float, value: int) -> int:
    """The largest integer error that `ChunkBound.check` accepts at `value`."""
    return int(min(noise * math.sqrt(value), 2.0**62))


def tolerances(scale: Scale, bound: ChunkBound, frames: int, channels: int) -> np.ndarray:
    """The tolerance of each frame and channel: int64 (frames, channels), in levels."""
    if isinstance(scale, each_frame.EachFrame):
        return each_frame.tolerances(scale, bound, frames, channels)
    zeros = np.zeros((frames, channels), np.int64)
    if bound.absolute is None or isinstance(scale, _EXACT_ONES):
        return zeros
    if isinstance(scale, Grid):
        slack = scale.step / 2 if scale.slack is None else scale.slack
        # One step serves all frames. It may be tiny beside the bound of one of them.
        with np.errstate(over="ignore"):
            reach = np.floor((bound.absolute - slack) / scale.step)
    else:
        reach = np.floor(bound.absolute)
    return np.clip(reach, 0, min(scale.top, 2**30)).astype(np.int64)
