"""Error-bounded quantization, in closed loop: levels and prediction <-> symbols.

Two quantizers. *uniform* replaces a residual by the index of its cell of width
2 * tolerance + 1. *run-merging* is TEZip's (Roy et al., CCGrid 2021, error-bounded
quantization): consecutive residuals whose allowed intervals intersect become one value,
the middle of the intersection; made here to keep its bound, in integers.

All arrays of a call are either in the host's memory or on a CUDA device.
"""

from __future__ import annotations

from tezip_h5 import kernels
from tezip_h5.kernels import arrays

__all__ = ["NUMBERS", "dequantize", "dequantize_keyframe", "quantize", "quantize_keyframe"]

NUMBERS = {"uniform": 0, "run-merging": 1}


def quantize(name, levels, prediction, tolerance, top, width, out=None):
    """Quantize the residual of one channel of a frame.

    Parameters
    ----------
    name : "uniform" | "run-merging"
    levels, prediction : int32 (h, w)
    tolerance : int, largest |level - reconstruction| allowed; 0 keeps every level
    top, width : the largest level, and the bytes of a symbol
    out : (symbols, reconstruction), optional
        Contiguous arrays to fill and return.

    Returns
    -------
    symbols : int32 (h, w), each in the range of a signed integer of `width` bytes
    reconstruction : int32 (h, w), with |levels - reconstruction| <= tolerance everywhere
    """
    kernel = kernels.of(levels)
    encode = kernel.merge_encode if name == "run-merging" and tolerance else kernel.uniform_encode
    symbols, reconstruction = out or _made_for(levels)
    encode(
        levels.reshape(-1),
        prediction.reshape(-1),
        tolerance,
        top,
        (1 << 8 * width) - 1,
        symbols.reshape(-1),
        reconstruction.reshape(-1),
    )
    return symbols, reconstruction


def dequantize(name, symbols, prediction, tolerance, top, width, reconstruction):
    """Inverse of `quantize`: fill `reconstruction` (int32 (h, w)) from `symbols`."""
    # The symbols of run-merging are residuals, not indices of cells, as with a tolerance of 0.
    if name == "run-merging":
        tolerance = 0
    kernels.of(symbols).uniform_decode(
        symbols.reshape(-1),
        prediction.reshape(-1),
        tolerance,
        top,
        (1 << 8 * width) - 1,
        reconstruction.reshape(-1),
    )


def quantize_keyframe(levels, tolerance, top, width, out=None):
    """Quantize one channel of a keyframe, predicted from its own reconstructed pixels.

    The prediction is the median edge detector of LOCO-I (Weinberger, Seroussi, Sapiro,
    IEEE Trans. Image Processing 9(8), 2000, section II.A). Parameters and result as `quantize`'s.
    """
    symbols, reconstruction = out or _made_for(levels)
    kernels.of(levels).median_encode(
        levels, tolerance, top, (1 << 8 * width) - 1, symbols, reconstruction
    )
    return symbols, reconstruction


def dequantize_keyframe(symbols, tolerance, top, width, reconstruction):
    """Inverse of `quantize_keyframe`: fill `reconstruction` (int32 (h, w))."""
    kernel = kernels.of(symbols)
    kernel.median_decode(symbols, tolerance, top, (1 << 8 * width) - 1, reconstruction)


def _made_for(levels):
    return tuple(arrays.empty(arrays.device_of(levels), tuple(levels.shape)) for _ in range(2))
