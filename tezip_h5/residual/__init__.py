"""Residual coders: frames, their tolerances and predictions <-> sections of a payload.

A residual coder is chosen for each chunk by a number. All coders have this interface.

The encoder has `keyframe(levels, tolerances)` and `residual(levels, prediction, tolerances)`, which
return the reconstruction that the decoder will have. Its `finish()` returns the sections, and the
number of bytes of every frame. An encoder with `learns` is given all frames first, by
`prepare(channels)`.

The decoder has `keyframe(tolerances)` and `residual(prediction, tolerances)`. A frame that they
return may be overwritten later, except while it is given as the next prediction; copy it to keep
it. Its `finish()` raises FormatError if the payload has more bytes than the frames used. Its static
`parts(name, data, shape)` says what the bytes of a section are.

Frames come in order. Both work on a `device`, and their arrays lie at a `place`: "cpu" or "cuda".
"""

from __future__ import annotations

from tezip_h5.errors import FormatError
from tezip_h5.residual.lessons import Known
from tezip_h5.residual.linear import LinearDecoder, LinearEncoder
from tezip_h5.residual.mixing import MOST_TOP as MIXING_MOST_TOP
from tezip_h5.residual.mixing import MixingDecoder, MixingEncoder
from tezip_h5.residual.stages import StageDecoder, StageEncoder

__all__ = ["MIXING_MOST_TOP", "NUMBERS", "Known", "decoder_for", "encoder_for"]

NUMBERS = {"fallback": 0, "stages": 1, "mixing": 2, "linear": 3}
"""Numbers of the coders in a payload. The fallback codec has none of these classes; `codec` calls
it directly."""

_ENCODERS = {1: StageEncoder, 2: MixingEncoder, 3: LinearEncoder}
_DECODERS = {1: StageDecoder, 2: MixingDecoder, 3: LinearDecoder}


def encoder_for(number: int):
    """Class of the encoder `number`."""
    return _ENCODERS[number]


def decoder_for(number: int):
    """Class of the decoder `number`; FormatError if this version has none."""
    if number not in _DECODERS:
        raise FormatError(
            f"unknown residual coder {number}; this version knows {sorted(NUMBERS.values())}, "
            "a newer tezip_h5 may read this chunk"
        )
    return _DECODERS[number]
