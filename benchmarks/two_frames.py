"""A robust linear predictor from two frames, to compare networks with.

Every sample is predicted as a weighted sum of the 7x7 samples around it in the frame before and
in the one before that, plus a constant; of a chunk's first frame, which has one before it only,
from that. The weights have the least mean absolute error on the frames it is fitted to.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

__all__ = ["TwoFrames"]

_REACH = 3
_SAMPLES = 150_000
_ROUNDS = 8  # of weighted least squares (Schlossmacher 1973)


def _inputs(frames: list[np.ndarray]) -> np.ndarray:
    """What a frame is predicted from, float64 (H * W, 49 * len(frames) + 1): the last frame's
    neighbourhood, then the one's before, as differences from the last frame's sample."""
    here = frames[-1].reshape(-1, 1)
    columns = [np.ones_like(here)]
    for frame in reversed(frames):
        padded = np.pad(frame, _REACH, mode="edge")
        side = 2 * _REACH + 1
        columns.append(sliding_window_view(padded, (side, side)).reshape(-1, side**2) - here)
    return np.concatenate(columns, 1)


def _absolute(inputs: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Weights with about the least mean |inputs @ weights - wanted|."""
    importance = np.ones(len(wanted))
    floor = max(1e-3 * float(np.abs(wanted).mean()), 1e-9)
    for _ in range(_ROUNDS):
        rows = inputs * importance[:, None]
        normal = rows.T @ inputs
        normal[np.diag_indices_from(normal)] += 1e-6 * np.trace(normal) / len(normal)
        weights = np.linalg.solve(normal, rows.T @ wanted)
        errors = np.abs(inputs @ weights - wanted)
        importance = 1 / np.maximum(errors, max(floor, 1e-2 * float(np.median(errors))))
    return weights


class TwoFrames:
    """Fit on clips, then predict those of others.

    Parameters
    ----------
    clips : list of int32 arrays (T, C, H, W)
    """

    def __init__(self, clips: list[np.ndarray]):
        self._one, self._two = (self._fitted(clips, count) for count in (1, 2))

    def _fitted(self, clips, count: int) -> np.ndarray:
        rng = np.random.default_rng(0)
        moments = [(clip, t) for clip in clips for t in range(count, len(clip))]
        each = -(-_SAMPLES // (len(moments) * clips[0].shape[1]))
        inputs, wanted = [], []
        for clip, t in moments:
            for channel in clip[t - count : t + 1].astype(np.float64).swapaxes(0, 1):
                some = rng.choice(channel[0].size, min(each, channel[0].size), replace=False)
                inputs.append(_inputs(list(channel[:-1]))[some])
                wanted.append((channel[-1] - channel[-2]).reshape(-1)[some])
        return _absolute(np.concatenate(inputs), np.concatenate(wanted))

    def error(self, clip: np.ndarray) -> float:
        """Sum of absolute errors of the predictions of all frames but the first."""
        total = 0.0
        for channel in clip.astype(np.float64).swapaxes(0, 1):
            for t, (before, after) in enumerate(pairwise(channel), 1):
                weights, seen = (self._one, [before]) if t == 1 else (self._two, channel[t - 2 : t])
                guess = _inputs(list(seen)) @ weights
                total += np.abs(guess - (after - before).reshape(-1)).sum()
        return total
