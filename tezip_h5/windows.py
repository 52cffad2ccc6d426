"""Placing keyframes: in fixed windows, in windows driven by the error, or where they cost less.

A window is a keyframe and the frames predicted after it. Every chunk starts a window. Warm-up
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


def planned(levels: np.ndarray, tolerances: np.ndarray, top: int, width: int) -> list[Kind]:
    """The kinds of frames; a frame becomes a keyframe if that is estimated to take fewer bits.

    Parameters
    ----------
    levels : int32 (g, P, rows, w)
        The frames' channels, or bands of some of their rows.
    tolerances : int64 (g, P)
    top, width : the largest level, and the bytes of a symbol
    """
    kernel = kernels.load()
    mask = (1 << 8 * width) - 1
    kinds = [Kind.KEYFRAME]
    symbols, reconstruction = np.empty_like(levels[0]), np.empty_like(levels[0])
    for t in range(1, len(levels)):
        for p, tolerance in enumerate(tolerances[t]):
            plane = levels[t, p], levels[t - 1, p], symbols[p], reconstruction[p]
            frame, last, out, rest = (array.reshape(-1) for array in plane)
            kernel.uniform_encode(frame, last, tolerance, top, mask, out, rest)
        predicted = min(estimate(symbols), estimate(np.diff(symbols, prepend=0)))
        for p, tolerance in enumerate(tolerances[t]):
            kernel.median_encode(levels[t, p], tolerance, top, mask, symbols[p], reconstruction[p])
        kinds.append(Kind.KEYFRAME if estimate(symbols) < predicted else Kind.PREDICTED)
    return kinds


class MseWindows:
    """Error-driven windows (TEZip's DWP), decided frame by frame in the closed loop.

    A frame opens a new window when, with it, the mean squared error of the window's
    predictions so far exceeds the threshold.

    Parameters
    ----------
    threshold : float, on the 0..1 scale
    full_scale : float, the number of levels that corresponds to 1.0
    warmup : int
    """

    def __init__(self, threshold: float, full_scale: float, warmup: int = 0):
        self._limit = threshold * full_scale * full_scale
        self._warmup = warmup
        self._index = -1
        self._total = 0.0
        self._count = 0

    def next(self, levels, prediction) -> Kind:
        """Kind of the next frame, given its levels and prediction, int32 (C, h, w), which are both
        on the CPU or both on the GPU."""
        self._index += 1
        if self._index < self._warmup:
            return Kind.WARMUP
        if self._index > self._warmup:
            kernel = kernels.of(levels)
            error = kernel.squared_error(levels.reshape(-1), prediction.reshape(-1))
            if (self._total + error) / (self._count + levels.size) <= self._limit:
                self._total += error
                self._count += levels.size
                return Kind.PREDICTED
        self._total, self._count = 0.0, 0
        return Kind.KEYFRAME
