"""Find scales for samples that take few of the possible values.

Examples are floats that are multiples of one number, scaled integers, and histograms with gaps.
"""

from __future__ import annotations

import numpy as np

from tezip_h5.levels.scale import ordered, steps_between, unordered
from tezip_h5.levels.scales import Grid
from tezip_h5.levels.tables import LARGEST_TABLE, Listed

__all__ = ["gridded", "listed", "on_grid"]

_LOOKS = 1 << 12, 1 << 16  # numbers of samples that are examined before all of them are
_MOST_NEW = 0.98, 0.5  # largest share of distinct floats: in the first look, in later ones
_LONELY = 0.06  # least share of integer samples v for which v + 1 does not occur
_WORTH = 0.1, 0.75  # bits per sample that a table must save: with a bound, lossless
_WORTH_OF_INTEGERS = 0.06  # the same for lossless integers
_ENTRY_BITS = 16  # estimated cost of a table entry, in bits
_REPEATS = 8  # least number of float samples per table entry
_WIDER = 1.02  # cells on the samples' own grid must exceed twice the bound by this factor
_MOST_REACH = 32  # largest tolerance on that grid; with larger ones the grid hardly matters


def listed(frames: np.ndarray, allowed: float = 0, rounding: float = 0) -> Listed | None:
    """A table of the values that occur, or of one value for all those within a bound of it.

    A table suits 12-bit samples in the upper bits of 16-bit words, stretched histograms, label
    images, and floats that were integers before a scale and an offset were applied.

    Parameters
    ----------
    frames : (g, h, w, C) array, finite
    allowed : float
        The largest difference between a sample and its table entry; a whole number for integers.
    rounding : float
        The largest error of rounding a value to the dtype.

    Returns
    -------
    Listed or None
        None if a table saves too little compared with cells of equal width.
    """
    flat = frames.reshape(-1)
    for look in (*(n for n in _LOOKS if n < flat.size), flat.size):
        keys, counts = _distinct(ordered(flat[:: flat.size // look]))
        if not _gaps(keys, counts, frames.dtype, look):
            return None
    values = unordered(keys, frames.dtype)
    # The second reach is for the case that rounding table entries breaks the bound with the first.
    for reach in (allowed, allowed - 2 * rounding):
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
    """The distinct integers, ascending, and the number of times that each occurs."""
    low, high = int(keys.min()), int(keys.max())
    if high - low >= LARGEST_TABLE:
        return np.unique(keys, return_counts=True)
    counts = np.bincount(keys - keys.dtype.type(low))
    places = np.flatnonzero(counts)
    return places.astype(keys.dtype) + keys.dtype.type(low), counts[places]


def _gaps(keys, counts, dtype, looked_at: int) -> bool:
    """Whether enough of the values in between do not occur, judged by some of the samples.

    Parameters
    ----------
    keys, counts
        The result of `_distinct` for these samples.
    dtype : numpy dtype
    looked_at : int
        The number of these samples.
    """
    if keys.size < 2:
        return False
    if dtype.kind == "f":
        return keys.size <= _MOST_NEW[looked_at > _LOOKS[0]] * looked_at
    lonely = np.append(np.diff(keys.astype(np.int64)) > 1, False)  # the last key has no next key
    return counts[lonely].sum() >= _LONELY * counts.sum()


def _cells(values: np.ndarray, reach: float) -> np.ndarray:
    """Divide ascending values into the fewest cells, each within `reach` of one number.

    Returns the index of the first value of each cell.
    """
    if reach == 0:
        return np.arange(values.size)
    numbers = values.astype(np.float64)
    with np.errstate(over="ignore"):  # an infinite sum gives the right place, too
        following = np.searchsorted(numbers, numbers + 2 * reach, "right")
    starts = [0]
    while (start := int(following[starts[-1]])) < numbers.size:
        starts.append(start)
    return np.array(starts)


def _saved(keys, values, counts, starts, reach) -> float:
    """Bits per sample that these cells save, compared with equal cells of the largest width."""
    if reach == 0:  # lossless: compared with a level for each value of the dtype
        numbers, equal = keys.astype(np.float64), 1.0
    else:
        numbers, equal = values.astype(np.float64), 2 * reach + (values.dtype.kind != "f")
    widths = np.append(np.diff(numbers[starts]), equal)
    # No product of BLAS: after a long one, its threads keep a core busy for a tenth of a second.
    bits = np.log2(np.maximum(widths / equal, 1)) * np.add.reduceat(counts, starts)
    return float(bits.sum() / counts.sum())


def _standing(values, counts, starts, reach) -> np.ndarray:
    """A number for each cell that is within `reach` of all its values.

    It is the most frequent value of the cell, or the nearest number to that which is.
    """
    cells = np.repeat(np.arange(starts.size), np.diff(starts, append=values.size))
    best = np.lexsort((-counts, cells))[starts]
    numbers = values.astype(np.float64)
    stops = np.append(starts[1:], values.size) - 1
    return np.clip(numbers[best], numbers[stops] - reach, numbers[starts] + reach).astype(
        values.dtype
    )


@np.errstate(over="ignore", invalid="ignore")
def gridded(frames: np.ndarray, low, high) -> Grid | None:
    """A grid for floats that are all multiples of one number, such as calibrated counts.

    None if they are not, or if there are too many multiples.
    """
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
    between = sum(steps_between(sizes, multiples, frames.dtype)) / 2
    for step in (between, float(frames.dtype.type(between)), farthest / multiple):
        if not step >= float(np.finfo(np.float64).smallest_normal):  # division might overflow
            continue
        scale = Grid(frames.dtype, step=float(step))
        if np.array_equal(scale.decode(scale.codes(finite)).astype(np.float64), finite):
            ends = scale.codes(np.array([low, high], frames.dtype))
            return scale.fitted(ends.min(), ends.max())
    return None


def on_grid(grid: Grid, bound: float, rounding: float) -> Grid | None:
    """Use the grid that samples lie on for a bound.

    If samples are multiples of a step, cells that consist of whole steps may be wider than twice
    the bound. Half of the step is tried, too.

    Parameters
    ----------
    grid : Grid
        The samples are values of this grid.
    bound : float
    rounding : float
        The largest error of rounding a value to the dtype.

    Returns
    -------
    Grid or None
        None if the cells would hardly be wider than twice the bound.
    """
    if bound > (_MOST_REACH + 1) * grid.step:  # bound / step might even be infinite
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
