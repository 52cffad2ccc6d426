"""The levels section of a payload: which scale, and its numbers. Its writer is `Scale.pack`."""

from __future__ import annotations

import struct

import numpy as np

from tezip_h5.errors import FormatError
from tezip_h5.levels.scale import Scale
from tezip_h5.levels.scales import Grid, Integers, LogBits, OrderedBits, Truncated
from tezip_h5.levels.tables import Companded, Listed

__all__ = ["parts", "unpack"]

_SCALES = {
    scale.kind: scale
    for scale in (Integers, OrderedBits, Grid, LogBits, Companded, Truncated, Listed)
}


def _takes(scale: type[Scale], dtype: np.dtype) -> bool:
    """Whether `choose` can pick this scale for samples of this dtype."""
    if scale is Listed:
        return True
    if scale is OrderedBits:
        return dtype in (np.float16, np.float32)
    if scale is Truncated and dtype == np.float16:
        return False
    return (dtype.kind == "f") == (scale in (Grid, LogBits, Truncated))


def unpack(kind: int, dtype: np.dtype, data: bytes) -> Scale:
    """Read a scale from the levels section; `kind` is the header's."""
    if kind not in _SCALES:
        raise FormatError(f"unknown scale {kind}; this version knows {sorted(_SCALES)}")
    if not _takes(_SCALES[kind], dtype):
        raise FormatError(f"scale {kind} makes no levels of {dtype} samples")
    if len(data) < 12:
        raise FormatError(f"the levels section has {len(data)} bytes, expected at least 12")
    scale = _SCALES[kind](dtype)
    scale.offset, scale.top = struct.unpack_from("<qI", data)
    if abs(scale.offset) >= 1 << 62:
        raise FormatError(f"the level offset {scale.offset} is out of range")
    scale._unpack(data[12:])
    return scale


def parts(data: bytes) -> dict[str, int]:
    """What the section's bytes are, by name."""
    return {"scale of the samples": len(data)}
