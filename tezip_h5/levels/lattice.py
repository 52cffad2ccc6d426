"""Floats that are integers times a number plus a number: what these two numbers are.

Formats that scale every frame to the range of an integer store such frames (GRIB's packing, a
rescale slope and intercept of each slice, PAR/REC), software that stretches every image to 0..1
makes them, and means of so many integers are such numbers, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from tezip_h5.levels.scale import ordered
from tezip_h5.levels.scales import Affine

__all__ = ["NEAREST", "affine"]

NEAREST = 127  # floats, counted from the one that a code stands for, to a sample of that code

_LOOK, _TRIED = 1 << 13, 1 << 9  # samples that are looked at for a step, and for a line
_ROUNDINGS = 2  # of a float, that a sample may be off: means were summed in floats
_CLEAR = 1.5  # times what two samples may be off, that differences of a step are at least
_STRAYS, _FEW = 8, 256  # smallest differences that may be none, but one of so many at most
_SURE = 0.25  # of a step, that a multiple may be off while it is counted
_ODD = 0.5  # share of differences that may be no multiples
_DEVIATIONS = 4  # of a fitted step, within which it is sure to be
_MOST_CODES, _FARTHEST = 1 << 24, 1 << 53  # codes from the first to the last, and from 0
_EXACT, _NEAR = 0.5, 0.99  # share of samples that are as their code says, or near it
_SURELY = 0.95  # the former of a known line that need not be compared with others
_FITTED = 2**-44  # of a step, that a fit in float64 may be off
_DIGITS = 6  # of numbers that somebody chose


@np.errstate(over="ignore", divide="ignore", invalid="ignore")
def affine(values: np.ndarray, known: Sequence[Affine] = ()) -> Affine | None:
    """The step and the intercept of values that are nearly all multiples of one plus the other.

    Parameters
    ----------
    values : array of a float dtype, finite
    known : what has been found for values like these, to be tried first

    Returns
    -------
    Affine
        Its codes are those of the values. It brings most of them back as they are, and nearly all
        others to one of the `NEAREST` floats on both sides, as far as a sample tells. None where
        there are no such numbers.
    """
    flat = values.reshape(-1)
    if flat.size == 0:
        return Affine(values.dtype)
    low, high = flat.min(), flat.max()
    found = None
    if low == high:
        found = Affine(values.dtype, intercept=float(low))
    elif known:
        found = _like(known, np.append(_looked_at(flat, _TRIED), low))
    if found is None:
        found = _found(np.unique(np.append(_looked_at(flat, _LOOK), low)))
    if found is None:
        return None
    codes = found.nearest(_looked_at(flat, _TRIED))
    if (common := int(np.gcd.reduce((codes - codes[0]).astype(np.int64)))) > 1:
        found.intercept += float(codes[0]) * found.width
        found.step *= common
    first, last = found.nearest(np.array([low, high]))
    if not (abs(first) < _FARTHEST and last - first < _MOST_CODES):
        return None
    found.offset, found.top = int(first), int(last - first)
    return found


def _looked_at(values: np.ndarray, count: int) -> np.ndarray:
    return values[:: -(-values.size // count)]


def _like(known: Sequence[Affine], values: np.ndarray) -> Affine | None:
    """What is known already, or has about such a step, if it serves these values, too."""
    numbers = values.astype(np.float64)
    best, exact = _best(known, values)
    if exact < _SURELY:
        for line in known:
            codes = np.rint((numbers - numbers.min()) / line.width)
            lines = _starting(line, codes, numbers)
            best, exact = max((best, exact), _best(lines, values), key=lambda one: one[1])
    if best is not None and exact < _SURELY:
        lines = _lines(best.nearest(values), numbers, values.dtype)
        best, exact = max((best, exact), _best(lines, values), key=lambda one: one[1])
    return best and replace(best)


def _found(distinct: np.ndarray) -> Affine | None:
    """A line for ascending values of which nothing is known."""
    numbers = distinct.astype(np.float64)
    step = _step(numbers, _errors(distinct)) if distinct.size > 1 else None
    if step is None:
        return None
    codes = np.rint((numbers - numbers[0]) / step)
    return _best(_lines(codes, numbers, distinct.dtype), distinct)[0]


def _best(lines: Iterable[Affine], values: np.ndarray) -> tuple[Affine | None, float]:
    """The line that brings most values back as they are, and their share; no line where it is
    small, or where too many come back as others far away."""
    best, most = None, _EXACT
    for line in lines:
        exact = np.count_nonzero(line.decode(line.nearest(values)) == values) / values.size
        if exact > most:
            best, most = line, exact
        if exact == 1:
            break
    if best is None:
        return None, 0.0
    back = best.decode(best.nearest(values))
    off = np.abs(ordered(back).astype(np.int64) - ordered(values))
    return (best, most) if np.count_nonzero(off <= NEAREST) >= _NEAR * off.size else (None, 0.0)


def _errors(values: np.ndarray) -> np.ndarray:
    """What floats may be off by rounding: sums of them are as exact as usual values are."""
    usual = np.median(np.abs(values)).astype(values.dtype)
    return _ROUNDINGS * np.spacing(np.maximum(np.abs(values), usual)).astype(np.float64)


def _step(numbers: np.ndarray, errors: np.ndarray) -> float | None:
    """The number that differences of ascending ones are multiples of.

    About the smallest difference is taken for a step. The larger the differences that are counted
    in steps, the better a step is known, and the better it is known, the larger they may be.
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
                return None  # as nearly always
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
    """Lines through numbers, as functions of their codes: the best by least squares, and before it
    those nearby whose step and intercept are numbers that people and programs choose."""
    centred = codes - codes.mean()
    fitted = float(np.sum(centred * numbers) / np.sum(centred * centred))
    if not fitted > 0:
        return
    inverse = 1 / fitted
    steps = [(2.0 ** np.rint(np.log2(fitted)), 1.0), (_rounded(fitted), 1.0)]
    steps += [(1.0, np.rint(inverse)), (1.0, _rounded(inverse))] if fitted < 1 else []
    steps += [(np.float32(fitted), 1.0), (fitted, 1.0)]
    rounding = float(np.spacing(np.abs(numbers).max().astype(dtype)))
    may = max(4 * rounding / max(codes[-1], 1), _FITTED * fitted)
    for step, divisor in dict.fromkeys((float(step), float(divisor)) for step, divisor in steps):
        if abs(step / divisor - fitted) <= may:
            yield from _starting(Affine(dtype, step=step, divisor=divisor), codes, numbers)


def _through_zero(step: float, numbers: np.ndarray, dtype: np.dtype) -> Affine | None:
    """The line of about this step and no intercept that all numbers can have been rounded from."""
    counts = np.rint(np.abs(numbers) / step)
    sizes, counts = np.abs(numbers)[counts > 0], counts[counts > 0]
    if sizes.size == 0:
        return None
    half = np.spacing(sizes.astype(dtype)).astype(np.float64) / 2
    least, most = ((sizes - half) / counts).max(), ((sizes + half) / counts).min()
    return Affine(dtype, step=float((least + most) / 2)) if least <= most else None


def _starting(line: Affine, codes: np.ndarray, numbers: np.ndarray):
    """This line with other intercepts, and one near it without."""
    if (through_zero := _through_zero(line.width, numbers, line.dtype)) is not None:
        yield through_zero
    start = float(np.median(numbers - line.width * codes))
    for intercept in dict.fromkeys((0.0, float(numbers.min()), _rounded(start), start)):
        yield replace(line, intercept=intercept)


def _rounded(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")
