"""Where keyframes go: fixed windows, windows driven by the error, or wherever it is cheaper.

A window is a keyframe and the frames predicted after it. Every chunk starts one. Warm-up
frames are keyframes before a chunk's first window; they fill a network's memory.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from tezip_h5 import kernels
from tezip_h5.cost import estimate

__all__ = ["Kind", "MseWindows", "fixed", "planned"]


class Kind(IntEnum):
    """How a frame is coded."""

    KEYFRAME = 0
    WARMUP = 1
    PREDICTED = 2


def fixed(frames: int, window: int | None, warmup: int = 0) -> list[Kind]:
    """Kinds of a chunk's frames with a keyframe every `window` frames (None: only one).

    >>> [kind.name[0] for kind in fixed(7, window=3, warmup=1)]
    ['W', 'K', 'P', 'P', 'K', 'P', 'P']
    """
    kinds = [Kind.WARMUP] * min(warmup, frames)
    for i in range(frames - len(kinds)):
        opens = i == 0 or (window is not None and i % window == 0)
        kinds.append(Kind.KEYFRAME if opens else Kind.PREDICTED)
    return kinds


def planned(levels: np.ndarray, tolerances: np.ndarray) -> list[Kind]:
    """Kinds that make every frame a keyframe where that is estimated to take fewer bits.

    Parameters
    ----------
    levels : int32 (g, P, rows, w)
        The frames' channels, or bands of some of their rows.
    tolerances : int64 (g, P)
    """
    kinds = [Kind.KEYFRAME]
    if min(levels.shape[2:]) < 2:
        return kinds + [Kind.PREDICTED] * (len(levels) - 1)
    for t in range(1, len(levels)):
        steps = 2 * tolerances[t][:, None, None] + 1
        frame = levels[t].astype(np.int64)
        temporal = _rounded(frame - levels[t - 1], steps)[:, 1:]
        predicted = min(
            estimate(temporal[:, :, 1:]), estimate(temporal[:, :, 1:] - temporal[:, :, :-1])
        )
        alone = estimate(_rounded(frame[:, 1:, 1:] - _median_prediction(frame), steps))
        kinds.append(Kind.KEYFRAME if alone < predicted else Kind.PREDICTED)
    return kinds


def _rounded(residual: np.ndarray, steps: np.ndarray) -> np.ndarray:
    return (residual + steps // 2) // steps


def _median_prediction(frame: np.ndarray) -> np.ndarray:
    """The median edge detector's prediction of frame[:, 1:, 1:] from its neighbours."""
    left, above, corner = frame[:, 1:, :-1], frame[:, :-1, 1:], frame[:, :-1, :-1]
    return np.clip(left + above - corner, np.minimum(left, above), np.maximum(left, above))


class MseWindows:
    """Error-driven windows (TEZip's DWP), decided frame by frame in the closed loop.

    A frame opens a new window when, with it, the mean squared error of the window's
    predictions so far exceeds the threshold.

    Parameters
    ----------
    threshold : float, on the 0..1 scale
    full_scale : float, the levels that make 1.0
    warmup : int
    """

    def __init__(self, threshold: float, full_scale: float, warmup: int = 0):
        self._limit = threshold * full_scale * full_scale
        self._warmup = warmup
        self._index = -1
        self._total = 0.0
        self._count = 0

    def next(self, levels: np.ndarray, prediction: np.ndarray) -> Kind:
        """Kind of the next frame, given its levels and prediction, int32 (C, h, w)."""
        self._index += 1
        if self._index < self._warmup:
            return Kind.WARMUP
        if self._index > self._warmup:
            error = kernels.load().squared_error(levels.reshape(-1), prediction.reshape(-1))
            if (self._total + error) / (self._count + levels.size) <= self._limit:
                self._total += error
                self._count += levels.size
                return Kind.PREDICTED
        self._total, self._count = 0.0, 0
        return Kind.KEYFRAME
