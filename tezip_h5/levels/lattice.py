"""Find the line that the floats of one frame lie on: an integer times a step, plus an intercept.

Many frames hold such floats. GRIB packs every field with a scale of its own, DICOM and PAR/REC
have a rescale slope and intercept for each slice, software stretches every image to 0..1, and the
mean of n integers is a multiple of 1/n. A float32 on a line needs as many bits as its integer; as
any float it needs most of the 24 bits of its mantissa.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from tezip_h5.levels.scale import ordered, steps_between
from tezip_h5.levels.scales import Affine

__all__ = ["NEAREST", "affine", "ranged"]

NEAREST = 127
"""Largest correction of a sample, in units in the last place."""

_LOOK = 1 << 13  # samples that the search for an unknown step uses
_TRIED = 1 << 9  # samples that one line is compared with another by
_ROUNDINGS = 2  # rounding errors that one sample may carry, in units in the last place
_CLEAR = 1.5  # a difference below this many rounding errors may be zero steps
_STRAYS = 8  # rank of the difference that is taken for one step; smaller ones may be outliers
_FEW = 256  # differences per outlier, at least
_SURE = 0.25  # error of a multiple, in steps, below which its count is certain
_ODD = 0.5  # share of differences that are no multiples, above which there is no step
_DEVIATIONS = 4  # standard deviations of a fitted step that its true value lies within
_MOST_CODES = 1 << 24  # codes from the smallest to the largest
_FARTHEST = 1 << 53  # magnitude of a code, so that float64 holds it exactly
_EXACT = 0.5  # share of samples that a line must bring back exactly
_NEAR = 0.99  # share of samples that it must bring back within `NEAREST`
_SURELY = 0.95  # share of exact samples above which a known line is taken without comparison
_SMALLEST, _LARGEST = 1e-100, 1e100  # of values, so that no square or product overflows
_FITTED = 2**-44  # relative error of a least-squares fit in float64
_DIGITS = 6  # significant digits of a decimal that a person may have chosen


@np.errstate(over="ignore", divide="ignore", invalid="ignore")
def affine(values: np.ndarray, known: Sequence[Affine] = ()) -> Affine | None:
    """Find the line that values lie on.

    Parameters
    ----------
    values : array of a float dtype, finite
    known : sequence of Affine
        Lines of similar values. They are tried first, which is much faster than a search.

    Returns
    -------
    Affine or None
        Its offset and top are the range of the codes of `values`. Judged by a sample, it brings
        at least half of the values back exactly, and nearly all of the others within `NEAREST`
        units in the last place. None if there is no such line.
    """
    flat = values.reshape(-1)
    if flat.size == 0:
        return Affine(values.dtype)
    low, high = flat.min(), flat.max()
    if low == high:
        return Affine(values.dtype, intercept=float(low))
    largest = max(abs(float(low)), abs(float(high)))
    if not (float(high) - float(low) > _SMALLEST and largest < _LARGEST):
        return None
    found = _like(known, np.append(_looked_at(flat, _TRIED), low)) if known else None
    if found is None:
        found = _found(np.unique(np.append(_looked_at(flat, _LOOK), low)))
    if found is None:
        return None
    codes = found.nearest(_looked_at(flat, _TRIED))
    if (common := int(np.gcd.reduce((codes - codes[0]).astype(np.int64)))) > 1:
        found.intercept += float(codes[0]) * found.spacing
        found.step *= common
    return ranged(found, low, high)


def ranged(line: Affine, low: float, high: float) -> Affine | None:
    """The line with the codes from `low` to `high`; None if they are too many or too large."""
    first, last = line.nearest(np.array([low, high]))
    if not (abs(first) < _FARTHEST and last - first < _MOST_CODES):
        return None
    return replace(line, offset=int(first), top=int(last - first))


def _looked_at(values: np.ndarray, count: int) -> np.ndarray:
    """At most so many values, evenly spaced."""
    return values[:: -(-values.size // count)]


def _like(known: Sequence[Affine], values: np.ndarray) -> Affine | None:
    """A known line, or one with about the step of a known line, if it fits these values."""
    numbers = values.astype(np.float64)
    best, exact = _best(known, values)
    if exact < _SURELY:
        for line in known:
            codes = np.rint((numbers - numbers.min()) / line.spacing)
            lines = _starting(line, codes, numbers)
            best, exact = max((best, exact), _best(lines, values), key=lambda one: one[1])
    if best is not None and exact < _SURELY:
        lines = _lines(best.nearest(values), numbers, values.dtype)
        best, exact = max((best, exact), _best(lines, values), key=lambda one: one[1])
    return best and replace(best)


def _found(distinct: np.ndarray) -> Affine | None:
    """Search a line for ascending values."""
    numbers = distinct.astype(np.float64)
    step = _step(numbers, _errors(distinct)) if distinct.size > 1 else None
    if step is None:
        return None
    codes = np.rint((numbers - numbers[0]) / step)
    return _best(_lines(codes, numbers, distinct.dtype), distinct)[0]


def _best(lines: Iterable[Affine], values: np.ndarray) -> tuple[Affine | None, float]:
    """The line that brings most values back exactly, and their share.

    (None, 0) if no line brings enough of them back, exactly or nearly.
    """
    best, most = None, _EXACT
    for line in lines:
        codes = line.nearest(values)
        if not np.ptp(codes) < _MOST_CODES:
            continue
        exact = np.count_nonzero(line.decode(codes) == values) / values.size
        if exact > most:
            best, most = line, exact
        if exact == 1:
            break
    if best is None or most == 1:
        return best, most if best else 0.0
    back = best.decode(best.nearest(values))
    off = np.abs(ordered(back).astype(np.int64) - ordered(values))
    return (best, most) if np.count_nonzero(off <= NEAREST) >= _NEAR * off.size else (None, 0.0)


def _errors(values: np.ndarray) -> np.ndarray:
    """Bounds of the rounding errors of values.

    A small value that was computed from larger ones has their errors, so none is taken to be
    more exact than the median.
    """
    usual = np.median(np.abs(values)).astype(values.dtype)
    return _ROUNDINGS * np.spacing(np.maximum(np.abs(values), usual)).astype(np.float64)


def _step(numbers: np.ndarray, errors: np.ndarray) -> float | None:
    """Find the number that all differences of ascending numbers are multiples of.

    One of the smallest differences is the first estimate. It tells how many steps somewhat larger
    differences are; a least-squares fit to these gives a better estimate, which tells the counts
    of larger differences, and so on up to the whole range.
    """
    apart = np.diff(numbers)
    apart = apart[apart >= _CLEAR * (errors[1:] + errors[:-1])]
    if 2 * apart.size < numbers.size:
        return None
    rank = min(_STRAYS, apart.size // _FEW)
    step = float(np.partition(apart, rank)[rank])
    doubt = 4 * float(np.median(errors)) / step
    for lag in (1, 1, *_lags(numbers.size)):
        reach = min(_SURE / doubt, _MOST_CODES) * step
        apart = numbers[lag:] - numbers[:-lag]
        near = (apart <= reach) & (apart > step / 2)
        apart, off = apart[near], (errors[lag:] + errors[:-lag])[near]
        counts = np.rint(apart / step)
        if apart.size:
            if (np.abs(apart - counts * step) > off + doubt * apart).mean() > _ODD:
                return None  # the usual end, for floats that lie on no line
            weights = counts / off**2
            squares = float(np.sum(weights * counts))
            step = float(np.sum(weights * apart)) / squares
            doubt = min(doubt, _DEVIATIONS / (step * np.sqrt(squares)) + 1e-15)
    span = float(numbers[-1] - numbers[0])
    return step if span <= min(_SURE / doubt, _MOST_CODES) * step else None


def _lags(size: int) -> list[int]:
    """Powers of two below `size`, and the one less than it."""
    return [1 << n for n in range((size - 1).bit_length() - 1)] + [size - 1]


def _lines(codes: np.ndarray, numbers: np.ndarray, dtype: np.dtype):
    """Yield lines through numbers of known codes.

    The last has the least-squares step. Those before have steps close to it that people and
    programs choose: powers of two, decimals, the inverse of an integer, float32 numbers.
    """
    centred = codes - codes.mean()
    fitted = float(np.sum(centred * numbers) / np.sum(centred * centred))
    if not fitted > 0:
        return
    inverse = 1 / fitted
    steps = [(2.0 ** np.rint(np.log2(fitted)), 1.0), (_rounded(fitted), 1.0)]
    steps += [(1.0, np.rint(inverse)), (1.0, _rounded(inverse))] if fitted < 1 else []
    steps += [(np.float32(fitted), 1.0), (fitted, 1.0)]
    rounding = float(np.spacing(np.abs(numbers).max().astype(dtype)))
    may = max(4 * rounding / max(float(np.ptp(codes)), 1.0), _FITTED * fitted)
    for step, divisor in dict.fromkeys((float(step), float(divisor)) for step, divisor in steps):
        if abs(step / divisor - fitted) <= may:
            yield from _starting(Affine(dtype, step=step, divisor=divisor), codes, numbers)


def _through_zero(step: float, numbers: np.ndarray, dtype: np.dtype) -> Affine | None:
    """The line of intercept 0 and about this step that all numbers are rounded from, if any.

    Every number was rounded, so it bounds the step from both sides. The middle of what is left
    serves.
    """
    counts = np.rint(np.abs(numbers) / step)
    sizes, counts = np.abs(numbers)[counts > 0], counts[counts > 0]
    if sizes.size == 0:
        return None
    least, most = steps_between(sizes, counts, dtype)
    return Affine(dtype, step=float((least + most) / 2)) if least <= most else None


def _starting(line: Affine, codes: np.ndarray, numbers: np.ndarray):
    """Yield this line with several intercepts, and one of about its step through zero."""
    if (through_zero := _through_zero(line.spacing, numbers, line.dtype)) is not None:
        yield through_zero
    start = float(np.median(numbers - line.spacing * codes))
    for intercept in dict.fromkeys((0.0, float(numbers.min()), _rounded(start), start)):
        yield replace(line, intercept=intercept)


def _rounded(number: float) -> float:
    """The nearest decimal of few digits."""
    return float(f"{number:.{_DIGITS}g}")
