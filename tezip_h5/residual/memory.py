"""The running mean of a channel's frames: what is still is known better than from one frame.

Where nothing moves, the mean of the last frames holds less of their noise, and of the errors that
quantization left in them, than the last frame does.
"""

from __future__ import annotations

import numpy as np

from tezip_h5 import kernels

__all__ = ["finer", "remember"]

_MOST_BITS = 30  # of a level with its fraction
_FRACTION = 6
_FRAMES = 6


def finer(top: int) -> int:
    """Fraction bits of means of levels up to `top`."""
    return min(_FRACTION, _MOST_BITS - top.bit_length())


def remember(mean: np.ndarray, plane: np.ndarray, seen: int, top: int) -> None:
    """Take one more frame into the mean, in place.

    Parameters
    ----------
    mean : int32, C-contiguous, with `finer(top)` fraction bits
    plane : int32, same shape
        The frame, levels of 0..top.
    seen : int
        Frames in the mean; 0 begins anew.
    """
    share = 65536 // min(seen + 1, _FRAMES)
    kernels.load("motion").remember(plane, finer(top), share, mean)
