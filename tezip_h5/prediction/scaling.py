"""The model section of a chunk: the model that predicted it, and the scaling of its levels."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from tezip_h5.errors import FormatError

__all__ = ["Network", "choose_scale", "parts"]

_MIN_SHIFT, _MAX_SHIFT = -8, 23
_SAMPLES = 1 << 16
_SECTION = struct.Struct("<32sib")


@dataclass(frozen=True)
class Network:
    """The model section of a payload.

    Attributes
    ----------
    digest : bytes
        SHA-256 of the model.
    offset, shift : int
        The model's input for a level is (level - offset) / 2**shift, where 255 means 1.0.
    """

    digest: bytes
    offset: int
    shift: int

    def pack(self) -> bytes:
        """The section's bytes; the inverse of `unpack`."""
        return _SECTION.pack(self.digest, self.offset, self.shift)

    @classmethod
    def unpack(cls, data: bytes) -> Network:
        """Read what `pack` wrote; FormatError for anything else."""
        if len(data) != _SECTION.size:
            raise FormatError(f"the model section has {len(data)} bytes; expected {_SECTION.size}")
        network = cls(*_SECTION.unpack(data))
        if not _MIN_SHIFT <= network.shift <= _MAX_SHIFT or abs(network.offset) > 2**30:
            raise FormatError(
                f"a model's offset {network.offset} and shift {network.shift} are out of range"
            )
        return network


def choose_scale(frame: np.ndarray, top: int, skip: bool = True) -> tuple[int, int]:
    """Offset and shift that bring most of a frame's levels (C, h, w), 0..top, into 0..255.

    The most extreme hundredth of the levels may be clipped. Predictions keep their full depth
    nevertheless. A network without `skip` predicts the frame itself and was trained on the whole
    range, so it gets the whole range.

    Examples
    --------
    >>> choose_scale(np.arange(1024).reshape(1, 32, 32), top=65535)
    (1, 2)
    """
    if not skip:
        return 0, int(np.clip(int(top).bit_length() - 8, _MIN_SHIFT, _MAX_SHIFT))
    flat = frame.reshape(-1)
    flat = flat[:: max(1, flat.size // _SAMPLES)]
    low, high = np.percentile(flat, [0.5, 99.5])
    span = max(float(high - low), 1.0)
    shift = int(np.clip(np.ceil(np.log2(span / 255)), _MIN_SHIFT, _MAX_SHIFT))
    offset = int(np.floor((low + high) / 2 - 127.5 * 2.0**shift))
    return min(max(offset, -(2**30)), 2**30), shift


def parts(data: bytes) -> dict[str, int]:
    """Number of bytes of each part of the section."""
    return {"digest of the network": len(data)}
