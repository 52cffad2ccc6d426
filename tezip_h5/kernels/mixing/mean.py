"""The running mean of the frames of a channel (numba).

Where nothing moves, the mean of recent frames has less noise and smaller quantization errors than
the last frame.
"""

from __future__ import annotations

import numba
from numba import int32, int64

from tezip_h5.kernels.compiling import inlined, kernel

__all__ = ["finer", "remember"]

_MOST_BITS = 30  # largest number of bits of a mean, including its fraction
_FRACTION = 6  # largest number of fraction bits
_FRAMES = 6  # each frame counts for at least 1/6 of the mean
_PLANE = int32[:, ::1]


@inlined
def _finer(top):
    """The number of fraction bits, for kernels to inline."""
    bits = _FRACTION
    while bits > 0 and top >> (_MOST_BITS - bits) > 0:
        bits -= 1
    return bits


@kernel(int64(int64))
def finer(top):
    """The number of fraction bits of means of levels up to `top`."""
    return _finer(top)


@kernel(numba.void(_PLANE, int64, int64, _PLANE))
def remember(plane, seen, top, mean):
    """Add a frame to the mean, in place. `seen` frames are in it already; 0 starts a new mean."""
    bits = _finer(top)
    share = 65536 // min(seen + 1, _FRAMES)
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            change = (int64(plane[y, x]) << bits) - int64(mean[y, x])
            mean[y, x] = int64(mean[y, x]) + ((change * share) >> 16)
