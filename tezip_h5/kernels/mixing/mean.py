"""The running mean of a channel's frames (numba): what is still, with less noise than one frame.

Where nothing moves, the mean of the last frames holds less of their noise, and of the errors that
quantization left in them, than the last frame does.
"""

from __future__ import annotations

import numba
from numba import int32, int64

from tezip_h5.kernels.compiling import inlined, kernel

__all__ = ["finer", "remember"]

_MOST_BITS = 30  # of a level with its fraction
_FRACTION = 6
_FRAMES = 6
_PLANE = int32[:, ::1]


@inlined
def _finer(top):
    bits = _FRACTION
    while bits > 0 and top >> (_MOST_BITS - bits) > 0:
        bits -= 1
    return bits


@kernel(int64(int64))
def finer(top):
    """Fraction bits of means of levels up to `top`."""
    return _finer(top)


@kernel(numba.void(_PLANE, int64, int64, _PLANE))
def remember(plane, seen, top, mean):
    """Take one more frame into the mean, in place; `seen` frames are in it, 0 begins anew."""
    bits = _finer(top)
    share = 65536 // min(seen + 1, _FRAMES)
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            change = (int64(plane[y, x]) << bits) - int64(mean[y, x])
            mean[y, x] = int64(mean[y, x]) + ((change * share) >> 16)
