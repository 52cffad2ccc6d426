"""A robust linear predictor from two frames, with which networks are compared.

The prediction of a sample is a weighted sum of the 7x7 samples around it in the last frame and in
the frame before that, plus a constant. The second frame of a chunk has only one frame before it,
and is predicted from that. The weights minimise the mean absolute error of the frames that they
are fitted to.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

__all__ = ["TwoFrames"]

_SIDE = 7  # rows and columns of the samples that predict a sample, in each frame
_SAMPLES = 60_000  # samples that weights are fitted to
_ROUNDS = 8  # rounds of weighted least squares (Schlossmacher 1973)


def _around(frames) -> list[np.ndarray]:
    """The inputs of the prediction of a frame, as a list of images (H, W).

    They are ones, then the 7x7 samples around each sample in the last frame, then those in the
    frame before that. Samples are differences from the sample in the last frame.
    """
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
    """The weights for which the mean of |inputs @ weights - wanted| is about smallest."""
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
    """A predictor that is fitted to some clips, and then predicts others.

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
        """The sum of absolute errors of the predictions of all frames but the first."""
        total = 0.0
        for channel in clip.astype(np.float64).swapaxes(0, 1):
            for t, (before, after) in enumerate(pairwise(channel), 1):
                weights, seen = (self._one, [before]) if t == 1 else (self._two, channel[t - 2 : t])
                left = after - before
                for weight, image in zip(weights, _around(np.asarray(seen)), strict=True):
                    left -= weight * image
                total += np.abs(left).sum()
        return total
