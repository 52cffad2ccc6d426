"""Samples that take few values: multiples of one number, histograms with gaps, scaled integers."""

from __future__ import annotations

import numpy as np

from tezip_h5.levels.scale import ordered, unordered
from tezip_h5.levels.scales import Grid
from tezip_h5.levels.tables import LARGEST_TABLE, Listed

__all__ = ["gridded", "listed", "on_grid"]

_LOOKS = 1 << 12, 1 << 16  # samples that are looked at first
_MOST_NEW = 0.98, 0.5  # share of distinct floats in the first look, and in further ones
_LONELY = 0.06  # share of integers whose next one does not occur, at least
_WORTH = 0.1, 0.75  # bits per sample that a table must save: with a bound, and without
_WORTH_OF_INTEGERS = 0.06  # without a bound: of those every value between is a level else
_ENTRY_BITS = 16  # what an entry may cost
_REPEATS = 8  # times that a float must come, on average, where nothing is lost
_WIDER = 1.02  # cells of a grid's own multiples, against others
_MOST_REACH = 32  # tolerances on a grid; beyond, its own step hardly counts


def listed(frames: np.ndarray, allowed: float = 0, rounding: float = 0) -> Listed | None:
    """Levels that count only the values that occur, or one for all that lie within a bound.

    12 bits stored in the upper ones of 16, stretched histograms, labels, floats that were
    integers with a scale and an offset.

    Parameters
    ----------
    frames : (g, h, w, C) array, finite
    allowed : float
        How far what stands for a value may be from it; integral for integers.
    rounding : float
        What rounding to the dtype changes at most.

    Returns
    -------
    Listed, or None where it saves too little against equal cells
    """
    flat = frames.reshape(-1)
    for look in (*(n for n in _LOOKS if n < flat.size), flat.size):
        keys, counts = _distinct(ordered(flat[:: flat.size // look]))
        if not _gaps(keys, counts, frames.dtype, look):
            return None
    values = unordered(keys, frames.dtype)
    for reach in (allowed, allowed - 2 * rounding):  # the second if the first rounds beyond
        starts = _cells(values, reach)
        table = values if reach == 0 else _standing(values, counts, starts, reach)
        served = np.repeat(table, np.diff(starts, append=values.size)).astype(np.float64)
        if (np.abs(values.astype(np.float64) - served) <= allowed).all():
            break
    saved = _saved(keys, values, counts, starts, reach)
    few = flat.size // _REPEATS if frames.dtype.kind == "f" else flat.size
    exact_integers = reach == 0 and frames.dtype.kind != "f"
    worth = _WORTH_OF_INTEGERS if exact_integers else _WORTH[reach == 0]
    if (
        saved < worth
        or table.size > min(LARGEST_TABLE, few)
        or _ENTRY_BITS * table.size > saved * flat.size
    ):
        return None
    return Listed(frames.dtype, table=table, first=keys[starts]).fitted(0, table.size - 1)


def _distinct(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct integers, ascending, and how often each comes."""
    low, high = int(keys.min()), int(keys.max())
    if high - low >= LARGEST_TABLE:
        return np.unique(keys, return_counts=True)
    counts = np.bincount(keys - keys.dtype.type(low))
    places = np.flatnonzero(counts)
    return places.astype(keys.dtype) + keys.dtype.type(low), counts[places]


def _gaps(keys, counts, dtype, looked_at: int) -> bool:
    """Whether enough values that lie between these do not occur, as far as these tell."""
    if keys.size < 2:
        return False
    if dtype.kind == "f":
        return keys.size <= _MOST_NEW[looked_at > _LOOKS[0]] * looked_at
    lonely = np.append(np.diff(keys.astype(np.int64)) > 1, False)  # the last has no next one
    return counts[lonely].sum() >= _LONELY * counts.sum()


def _cells(values: np.ndarray, reach: float) -> np.ndarray:
    """Where each cell of values begins that one number can stand for, the fewest possible."""
    if reach == 0:
        return np.arange(values.size)
    numbers = values.astype(np.float64)
    with np.errstate(over="ignore"):  # infinity is far enough
        following = np.searchsorted(numbers, numbers + 2 * reach, "right")
    starts = [0]
    while (start := int(following[starts[-1]])) < numbers.size:
        starts.append(start)
    return np.array(starts)


def _saved(keys, values, counts, starts, reach) -> float:
    """Bits per sample that these cells save against equal ones of the widest kind allowed."""
    if reach == 0:  # floats: against all floats
        numbers, equal = keys.astype(np.float64), 1.0
    else:
        numbers, equal = values.astype(np.float64), 2 * reach + (values.dtype.kind != "f")
    widths = np.append(np.diff(numbers[starts]), equal)
    return float(
        np.log2(np.maximum(widths / equal, 1)) @ np.add.reduceat(counts, starts) / counts.sum()
    )


def _standing(values, counts, starts, reach) -> np.ndarray:
    """For each cell the value that comes most often, or what is nearest to it and serves all."""
    cells = np.repeat(np.arange(starts.size), np.diff(starts, append=values.size))
    best = np.lexsort((-counts, cells))[starts]
    numbers = values.astype(np.float64)
    stops = np.append(starts[1:], values.size) - 1
    return np.clip(numbers[best], numbers[stops] - reach, numbers[starts] + reach).astype(
        values.dtype
    )


@np.errstate(over="ignore", invalid="ignore")
def gridded(frames: np.ndarray, low, high) -> Grid | None:
    """Levels for floats that are multiples of one number, such as calibrated counts."""
    finite = frames.reshape(-1)[:: max(1, frames.size >> 12)]
    finite = np.unique(finite[np.isfinite(finite)]).astype(np.float64)
    if low is None or finite.size < 2:
        return None
    step = np.diff(finite).min()
    farthest = max(-finite[0], finite[-1])
    if not 1 <= farthest / step <= 2.0**24:
        return None
    multiple = np.rint(farthest / step)
    multiples = np.abs(np.rint(finite * (multiple / farthest)))
    sizes, multiples = np.abs(finite)[multiples > 0], multiples[multiples > 0]
    # Every sample was rounded: it says between which two numbers the step is.
    half = np.spacing(sizes.astype(frames.dtype)).astype(np.float64) / 2
    between = (((sizes - half) / multiples).max() + ((sizes + half) / multiples).min()) / 2
    for step in (between, float(frames.dtype.type(between)), farthest / multiple):
        if not step >= float(np.finfo(np.float64).smallest_normal):  # too small to divide by
            continue
        scale = Grid(frames.dtype, step=float(step))
        if np.array_equal(scale.decode(scale.codes(finite)).astype(np.float64), finite):
            ends = scale.codes(np.array([low, high], frames.dtype))
            return scale.fitted(ends.min(), ends.max())
    return None


def on_grid(grid: Grid, bound: float, rounding: float) -> Grid | None:
    """The multiples of a number as levels for a bound, or halves of them.

    Parameters
    ----------
    grid : Grid
        Whose values the samples are.
    bound : float
    rounding : float
        What rounding to the dtype changes at most.

    Returns
    -------
    Grid, or None where cells of twice the bound are about as wide
    """
    if bound > (_MOST_REACH + 1) * grid.step:  # or infinitely many
        return None
    most = max(abs(grid.offset), abs(grid.offset + grid.top))
    numerator, _ = grid.step.as_integer_ratio()
    odd = numerator // (numerator & -numerator)
    exact = most * odd < 2 ** np.finfo(grid.dtype).nmant
    slack = 0.0 if exact else 2 * rounding
    ways = []
    for parts in (1, 2):
        step = grid.step / parts
        tolerance = int(max(bound - slack, 0) / step)
        ways.append(((2 * tolerance + 1) * step, tolerance, parts))
    width, tolerance, parts = max(ways)
    if tolerance > _MOST_REACH or width < 2 * bound * _WIDER:
        return None
    found = Grid(grid.dtype, step=grid.step / parts, slack=slack)
    return found.fitted(parts * grid.offset, parts * (grid.offset + grid.top))
