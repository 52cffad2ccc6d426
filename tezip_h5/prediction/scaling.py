"""Levels of a chunk -> the network's scale: an offset and a shift, chosen by the encoder."""

from __future__ import annotations

import numpy as np

__all__ = ["MAX_SHIFT", "MIN_SHIFT", "choose_scale"]

MIN_SHIFT, MAX_SHIFT = -8, 23
"""Shifts a payload may hold."""

_SAMPLES = 1 << 16


def choose_scale(frame: np.ndarray) -> tuple[int, int]:
    """Offset and shift that bring most of a frame's levels (C, h, w) into 0..255.

    The hundredth part of the levels that is most extreme may be clipped; predictions keep
    their full depth all the same.
    """
    flat = frame.reshape(-1)
    flat = flat[:: max(1, flat.size // _SAMPLES)]
    low, high = np.percentile(flat, [0.5, 99.5])
    span = max(float(high - low), 1.0)
    shift = int(np.clip(np.ceil(np.log2(span / 255)), MIN_SHIFT, MAX_SHIFT))
    return int(np.floor((low + high) / 2 - 127.5 * 2.0**shift)), shift
