"""How well samples can be predicted: what a linear prediction leaves of some of them."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["residuals", "skew"]

_COUNT = 1024  # samples: half of them fit the prediction, the other half are predicted
_TAPS = (
    *((0, 0, -1), (0, -1, 0), (0, -1, -1), (0, -1, 1), (0, 0, -2), (0, -2, 0)),
    *((-1, 0, 0), (-1, 0, 1), (-1, 0, -1), (-1, 1, 0), (-1, -1, 0)),
)  # offsets (frames, rows, columns) of the neighbours that predict a sample


@np.errstate(over="ignore", invalid="ignore")
def residuals(frames: np.ndarray) -> np.ndarray | None:
    """The residuals of a least-squares prediction at some samples of channel 0.

    Parameters
    ----------
    frames : (g, h, w, C) array of finite numbers

    Returns
    -------
    float64 array in the samples' unit; None if the frames are too small
    """
    planes = frames[..., 0]
    g, h, w = planes.shape
    taps = _TAPS if g > 1 else [tap for tap in _TAPS if tap[0] == 0]
    inner = (g - (g > 1), h - 3, w - 3)
    if min(inner) < 1:
        return None
    # A prime step, so that successive samples lie in different columns.
    places = np.arange(_COUNT) * 7919 % math.prod(inner)
    t, y, x = np.unravel_index(places, inner)
    t, y, x = t + (g > 1), y + 2, x + 2
    known = np.stack([planes[t + dt, y + dy, x + dx] for dt, dy, dx in taps], 1).astype(np.float64)
    wanted = planes[t, y, x].astype(np.float64)
    unit = float(max(np.abs(known).max(), np.abs(wanted).max())) or 1.0
    known = np.column_stack([known / unit, np.ones(wanted.size)])
    fitted = np.linalg.lstsq(known[::2], wanted[::2] / unit)[0]
    return wanted[1::2] - known[1::2] @ fitted * unit


@np.errstate(over="ignore", invalid="ignore")
def skew(frames: np.ndarray) -> float:
    """The skewness of those residuals, from -1 to 1; 0 if the frames are too small.

    It is Bowley's coefficient, with the first and last decile in place of the quartiles.
    """
    left = residuals(frames)
    if left is None:
        return 0.0
    low, middle, high = np.quantile(left, (0.1, 0.5, 0.9))
    return float((high + low - 2 * middle) / (high - low)) if high > low else 0.0
