"""Read the levels section of a payload, which holds the numbers of a scale.

`Scale.pack` writes it.
"""

from __future__ import annotations

import numpy as np

from tezip_h5.errors import FormatError
from tezip_h5.levels.each_frame import EachFrame
from tezip_h5.levels.scale import Scale
from tezip_h5.levels.scales import Grid, Integers, LogBits, OrderedBits, Truncated
from tezip_h5.levels.tables import Companded, Listed

__all__ = ["parts", "unpack"]

# The class of each scale, by its number in the header.
_SCALES = {
    scale.kind: scale
    for scale in (
        *(Integers, OrderedBits, Grid, LogBits, Companded),
        *(Truncated, Listed, EachFrame),
    )
}


def _takes(scale: type[Scale], dtype: np.dtype) -> bool:
    """Whether samples of this dtype can have this scale."""
    if scale in (Listed, EachFrame):
        return True
    if scale is OrderedBits:
        return dtype in (np.float16, np.float32)
    if scale is Truncated and dtype == np.float16:
        return False
    return (dtype.kind == "f") == (scale in (Grid, LogBits, Truncated))


def unpack(kind: int, dtype: np.dtype, data: bytes, shape: tuple[int, int, int, int]) -> Scale:
    """Read a scale from a levels section.

    Parameters
    ----------
    kind : int
        The number of the scale, from the payload's header.
    dtype : numpy dtype of the samples
    data : bytes
        The section.
    shape : (g, h, w, C)
        Shape of the samples.

    Raises
    ------
    FormatError
        If the scale is unknown, does not suit the dtype, or has impossible numbers.
    """
    if kind not in _SCALES:
        raise FormatError(f"unknown scale {kind}; this version knows {sorted(_SCALES)}")
    if not _takes(_SCALES[kind], dtype):
        raise FormatError(f"scale {kind} makes no levels of {dtype} samples")
    scale = _SCALES[kind](dtype)
    if isinstance(scale, EachFrame):
        scale.shape = shape
    return scale.unpacked(data)


def parts(data: bytes) -> dict[str, int]:
    """The bytes of the section by what they are used for."""
    return {"scale of the samples": len(data)}
