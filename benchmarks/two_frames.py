"""A robust linear predictor from two frames, to compare networks with.

Every sample is predicted as a weighted sum of the 7x7 samples around it in the frame before and
in the one before that, plus a constant; of a chunk's first frame, which has one before it only,
from that. The weights have the least mean absolute error on the frames it is fitted to.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

__all__ = ["TwoFrames"]

_SIDE = 7
_SAMPLES = 60_000
_ROUNDS = 8  # of weighted least squares (Schlossmacher 1973)


def _around(frames) -> list[np.ndarray]:
    """What a frame is predicted from, images (H, W): ones, then as differences from the last
    frame's sample, the 7x7 samples around it in the last frame, and in the one before that."""
    here = frames[-1]
    height, width = here.shape
    images = [np.ones_like(here)]
    for frame in reversed(frames):
        padded = np.pad(frame, _SIDE // 2, mode="edge")
        images += [
            padded[y : y + height, x : x + width] - here for y in range(_SIDE) for x in range(_SIDE)
        ]
    return images


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
                images = _around(channel[:-1])
                inputs.append(np.stack([image.reshape(-1)[some] for image in images], 1))
                wanted.append((channel[-1] - channel[-2]).reshape(-1)[some])
        return _absolute(np.concatenate(inputs), np.concatenate(wanted))

    def error(self, clip: np.ndarray) -> float:
        """Sum of absolute errors of the predictions of all frames but the first."""
        total = 0.0
        for channel in clip.astype(np.float64).swapaxes(0, 1):
            for t, (before, after) in enumerate(pairwise(channel), 1):
                weights, seen = (self._one, [before]) if t == 1 else (self._two, channel[t - 2 : t])
                left = after - before
                for weight, image in zip(weights, _around(np.asarray(seen)), strict=True):
                    left -= weight * image
                total += np.abs(left).sum()
        return total
