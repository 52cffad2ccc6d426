"""Plans of the linear coder: the parameters of the kernels for one plane, on CPU and GPU alike."""

from __future__ import annotations

import numpy as np

from tezip_h5 import kernels
from tezip_h5.residual.linear_weights import ONE, Weights, taps_of

__all__ = ["Planner"]


class Planner:
    """Make the plans of a chunk's planes.

    Attributes
    ----------
    energy_scale : int
        Magnitudes of neighbouring symbols are shifted right by this for the choice of a context.
    low : int
        The lowest level.
    """

    def __init__(self, scale):
        self._linear = kernels.load("linear.plan")
        wraps = scale.top > 2**31 - 1
        self.low, self._high = (-(2**31), 2**31 - 1) if wraps else (0, scale.top)
        self.energy_scale = 0

    def begin(self, predicted: bool, channel: int, tolerance: int) -> np.ndarray:
        """Begin the plan of a plane; `apply` completes it with its weights."""
        linear = self._linear
        plan = np.zeros(linear.PLAN, np.int64)
        plan[linear.CHANNEL], plan[linear.TOLERANCE] = channel, tolerance
        plan[linear.LOW], plan[linear.HIGH] = self.low, self._high
        plan[linear.PREDICTED] = predicted
        return plan

    def apply(self, weights: Weights, plan: np.ndarray) -> np.ndarray:
        """Complete a plan; returns the plane's taps with their weights, int64 (taps, 4)."""
        linear = self._linear
        predicted, channel = bool(plan[linear.PREDICTED]), int(plan[linear.CHANNEL])
        rest = weights.values[6:]
        plan[linear.BIAS] = weights.mean * (ONE - sum(weights.values))
        plan[linear.SIDE], plan[linear.DRIFT] = weights.side, weights.drift
        plan[linear.FLAT] = weights.flat
        plan[linear.SCALE] = self.energy_scale
        most = max(-self.low, self._high)
        reach = most * sum(map(abs, rest))
        plan[linear.WIDE] = reach >= 2**31  # whether sums over taps overflow 32 bits
        # Whether whole predictions fit into 32 bits, including the median's difference from the
        # frame before.
        reach += abs(int(plan[linear.BIAS])) + most * sum(map(abs, weights.values[:6]))
        reach = max(reach + most * abs(weights.values[5]), 3 * ONE * most)
        plan[linear.SMALL] = reach < 2**31 - ONE
        # Whether the fraction of a prediction carries information.
        whole = all(weight % ONE == 0 for weight in weights.values)
        plan[linear.FINE] = not (whole or plan[linear.TOLERANCE])
        plan[linear.OWN :] = weights.values[:6]
        taps = [
            (*tap, weight) for tap, weight in zip(taps_of(predicted, channel), rest, strict=True)
        ]
        return np.array(taps, np.int64)
