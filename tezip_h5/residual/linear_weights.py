"""Weights of the linear coder, with which a plane is predicted. Its encoder learns them.

A plane is one channel of a frame. The weights come from least squares on a lattice of samples of
the original, with the noise that quantization will add to neighbours in the same plane. Several
candidates are compared by the estimated bits of their symbols.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tezip_h5 import kernels

__all__ = ["ONE", "Fitter", "Weights", "taps_of"]

ONE = 4096  # the weight 1.0
_LIMIT = 32767  # largest weight
_MOST_SAMPLES, _LEAST_SAMPLES, _SPACING = 4096, 1024, 64  # one of 64 samples, within these limits
_NOISE = 0.25  # share of the variance of quantization that is added, as samples are originals
_MEMORY = 0.67  # weight of earlier statistics when those of a new frame are added
# Weights are learned again after this many samples. The first value is for lossless coding, where
# weights need only follow the scene. With a tolerance they also follow the coder's own errors.
_RELEARNED = {True: 1 << 19, False: 1 << 16}
# If new weights save less than this share of the bits, the next ones are learned after twice as
# many samples, up to this many times as many.
_GAIN, _LONGEST = 0.01, 4

# Taps: neighbours of a sample that predict it, as (source, dy, dx). Source 0 is this plane, 1 the
# frame before it, 2 and 3 are the two channels of this frame that were coded before this one.
_ABOVE = [(0, -2, 0), (0, -2, -1), (0, -2, 1)]
_BEFORE = [(1, 0, 0), (1, 0, -1), (1, 0, 1), (1, -1, 0), (1, 1, 0)]
_BEFORE += [(1, -1, -1), (1, -1, 1), (1, 1, -1), (1, 1, 1)]
_CHANNEL = [(2, 0, 0), (2, 0, -1), (2, 0, 1), (2, -1, 0), (2, 1, 0)]
_SECOND = [(3, 0, 0), (3, 0, -1), (3, -1, 0)]
_FIRST = 6  # weights before those of the taps: W, WW, N, NW, NE, median
_MEDIAN, _DRIFT, _TAPS = 5, 6, 7  # features of the fit


def taps_of(predicted: bool, channel: int) -> list[tuple[int, int, int]]:
    """The taps of a plane, in the order of their weights."""
    taps = _ABOVE + _BEFORE * predicted
    return taps + _CHANNEL * (channel > 0) + _SECOND * (channel > 1)


@dataclass(frozen=True)
class Weights:
    """The weights that predict a plane.

    Attributes
    ----------
    values : weights of W, WW, N, NW, NE, the median, then of the taps; 4096 is one
    mean : a plane of this constant level is predicted exactly
    drift : whether the median is that of differences from the frame before
    side : the plane in which magnitudes of symbols around a sample choose its context
    flat : there is no prediction; cells are counted from the lowest level, and have no sign
    """

    values: tuple[int, ...]
    mean: int = 0
    drift: bool = False
    side: int = 0
    flat: bool = False

    @classmethod
    def median(cls, taps: int, drift: bool, side: int) -> Weights:
        """Weights that predict by the median alone."""
        return cls((0,) * 5 + (ONE,) + (0,) * taps, 0, drift, side)

    @classmethod
    def none(cls, taps: int, lowest: int, side: int) -> Weights:
        """The weights of a flat plane."""
        return cls((0,) * (_FIRST + taps), lowest, False, side, True)


@dataclass
class _Past:
    """Statistics of one kind of planes: of one channel, in keyframes or in predicted frames."""

    products: np.ndarray | None = None  # sums of products; older ones have smaller weights
    fits: int = 0
    passed: int = 0  # samples since the last fit
    pause: int = 1  # samples until the next fit, in units of `_RELEARNED`


class Fitter:
    """Chooses the weights of each plane, in order."""

    def __init__(self):
        self._kernels = kernels.load("linear.fit")
        self._pasts: dict[tuple[bool, int], _Past] = {}
        self._turn = 0

    def due(self, samples: int, plan) -> bool:
        """Whether to learn weights for the next plane, which has this number of samples."""
        past = self._past(plan)
        past.passed += samples
        exact = not plan[kernels.load("linear.plan").TOLERANCE]
        # The first weights of a chunk come from few samples, so they are learned again soon.
        return past.fits < 2 or past.passed >= past.pause * _RELEARNED[exact]

    def _past(self, plan) -> _Past:
        linear = kernels.load("linear.plan")
        key = bool(plan[linear.PREDICTED]), int(plan[linear.CHANNEL])
        return self._pasts.setdefault(key, _Past())

    def choose(self, levels, own, plan, last: Weights | None, side: int) -> tuple[Weights, float]:
        """Weights for a plane, and the mean size of its symbols.

        Parameters
        ----------
        levels : int32 (h, w), the levels of the plane
        own, plan : the planes and the plan, as the kernels take them
        last : the present weights for such planes, which need not be transmitted again
        side : the plane whose magnitudes choose contexts, if the frame before is not used
        """
        linear, past = kernels.load("linear.plan"), self._past(plan)
        predicted, channel = bool(plan[linear.PREDICTED]), int(plan[linear.CHANNEL])
        past.fits, past.passed = past.fits + 1, 0
        taps = np.array(taps_of(predicted, channel), np.int64)
        fallback = last or Weights.median(len(taps), predicted, side)
        samples, mean = self._sample(levels, own, taps, plan)
        if len(samples) < 4 * samples.shape[1]:
            return fallback, 0.0
        temporal = linear.SIDE_BEFORE if predicted and channel == 0 else side
        candidates = [] if last is None else [last]
        # One half of the samples fits, the other half judges, because new weights always look
        # better on the samples that they were fitted to. If samples are few, and in the first fit,
        # all of them fit, and half of them judge nevertheless.
        few = past.products is None or len(samples) < 2 * _LEAST_SAMPLES
        fitted = samples if few else np.ascontiguousarray(samples[1::2])
        candidates += self._solve(fitted, past, plan, taps, mean, (temporal, side))
        if predicted:
            candidates.append(Weights.median(len(taps), True, temporal))
        candidates.append(Weights.median(len(taps), False, temporal))
        bits, size = self._costs(samples[::2], mean, candidates, plan)
        bits *= levels.size / len(samples[::2])
        for i, candidate in enumerate(candidates):
            if candidate is not last:
                bits[i] += 32 + sum(8 if abs(w) < 64 else 16 for w in candidate.values)
        best = int(np.argmin(bits))
        if candidates[0] is last:
            saved = bits[0] - bits[best]
            past.pause = 1 if saved > _GAIN * bits[0] else min(2 * past.pause, _LONGEST)
        return candidates[best], float(size[best])

    def _sample(self, levels, own, taps, plan):
        height, width = levels.shape
        wanted = np.clip(levels.size // _SPACING, _LEAST_SAMPLES, _MOST_SAMPLES)
        down = across = max(1, int(np.sqrt(levels.size / wanted)))
        # Very low or very narrow planes must have enough samples, too.
        if height < 4 * down:
            down = max(1, height // 4)
            across = max(1, int(levels.size // (wanted * down)))
        elif width < 4 * across:
            across = max(1, width // 4)
            down = max(1, int(levels.size // (wanted * across)))
        self._turn += 1
        lattice = np.array([self._turn * 7 % down, self._turn * 3 % across, down, across])
        mean = int(levels[lattice[0] :: down, lattice[1] :: across].mean())
        rows = (height // down + 1) * (width // across + 1)
        samples = np.empty((min(rows, _MOST_SAMPLES * 2), _TAPS + len(taps) + 2), np.float32)
        count = self._kernels.sample(levels, own, taps, plan, lattice, mean, samples)
        return samples[:count], mean

    def _solve(self, samples, past, plan, taps, mean, sides):
        """Least squares: with the drift, with the median, and without the frame before."""
        linear = kernels.load("linear.plan")
        predicted, tolerance = bool(plan[linear.PREDICTED]), int(plan[linear.TOLERANCE])
        features = samples.shape[1] - 2
        products = np.zeros((features + 1, features + 1))
        floor = 2.0 + 2.0 * tolerance
        weight = self._kernels.covariance(samples, floor, products)
        if past.products is not None:
            products += _MEMORY * past.products
        past.products = products
        noisy = np.ones(features)
        noisy[_TAPS:] = [source == 0 for source, _, _ in taps]
        # Decoded neighbours in this plane will have errors, which the original samples lack.
        noise = _NOISE * tolerance * (tolerance + 1) / 3
        matrix = products[:features, :features] + np.diag(weight * (1e-3 + noise * noisy))
        matrix[np.diag_indices(features)] *= 1 + 1e-9
        before = np.zeros(features, bool)
        before[_TAPS:] = [source == 1 for source, _, _ in taps]
        before[_DRIFT] = True
        choices = [(~before, False, sides[1])]
        if predicted:
            for median, drift in ((_MEDIAN, True), (_DRIFT, False)):
                choices.append((np.arange(features) != median, drift, sides[0]))
        # For features that are left out, the equation is: weight = 0.
        kept = np.array([choice[0] for choice in choices])
        matrices = matrix * (kept[:, :, None] & kept[:, None, :])
        matrices += np.eye(features) * ~kept[:, None]
        right = products[:features, features] * kept
        try:
            solved = np.linalg.solve(matrices, right[:, :, None])
        except np.linalg.LinAlgError:
            return
        weights = np.clip(np.rint(solved[:, :, 0] * ONE), -_LIMIT, _LIMIT).astype(int).tolist()
        for values, (_, drift, side) in zip(weights, choices, strict=True):
            median = values[_DRIFT] if drift else values[_MEDIAN]
            yield Weights((*values[:5], median, *values[_TAPS:]), mean, drift, side)

    def _costs(self, samples, mean, candidates, plan):
        """Estimated bits of the samples' symbols with each candidate, and the mean symbol size."""
        features = samples.shape[1] - 2
        weights = np.zeros((features, 8), np.float32)
        offsets = np.zeros(8, np.float32)
        for i, candidate in enumerate(candidates):
            values = np.array(candidate.values, np.float64) / ONE
            weights[:5, i], weights[_TAPS:, i] = values[:5], values[_FIRST:]
            weights[_DRIFT if candidate.drift else _MEDIAN, i] = values[5]
            # The samples are differences from `mean`; a candidate has a mean of its own.
            offsets[i] = (candidate.mean - mean) * (1 - values.sum())
        found = np.empty((len(candidates), 2))
        self._kernels.costs(np.ascontiguousarray(samples), weights, offsets, plan, found)
        return found.T
