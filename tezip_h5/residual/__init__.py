"""Residual coders: frames, their tolerances and predictions <-> sections of a payload.

A residual coder is chosen per chunk by a number. Its encoder has `keyframe(levels,
tolerances)` and `residual(levels, prediction, tolerances)`, which return the reconstruction
the decoder will have, and `finish()`, which returns the sections and the bytes every frame
took. One that `learns` is shown all frames first, by `prepare(channels)`. Its decoder has
`keyframe(tolerances)` and `residual(prediction, tolerances)`, whose frames hold until one is
decoded that they do not predict: copy what is to stay; and `finish()`, which raises FormatError
where more was written than the frames took. Frames come in order. Both do their
work on a `device`, and their arrays lie at a `place`: "cpu" or "cuda". The decoder's static
`parts(name, data, shape)` says what the bytes of a section are. Nothing else is assumed.
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
"""Coders on the wire; the fallback has no frames and is the codec's own."""

_ENCODERS = {1: StageEncoder, 2: MixingEncoder, 3: LinearEncoder}
_DECODERS = {1: StageDecoder, 2: MixingDecoder, 3: LinearDecoder}


def encoder_for(number: int):
    """Class of the encoder `number`."""
    return _ENCODERS[number]


def decoder_for(number: int):
    """Class of the decoder `number`; FormatError when this version has none."""
    if number not in _DECODERS:
        raise FormatError(
            f"unknown residual coder {number}; this version knows {sorted(NUMBERS.values())}, "
            "a newer tezip_h5 may read this chunk"
        )
    return _DECODERS[number]
