"""A payload taken apart, for reports: the use of its bytes, and the predictions of its frames.

Nothing here decides how anything is coded. Each section is divided by the module that writes and
reads it. A section that this module does not know is one part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from tezip_h5 import bitstream, levels, prediction, residual
from tezip_h5.bitstream import Header, Section
from tezip_h5.chunk import coding, exceptions, fallback, frames_section, mantissa
from tezip_h5.errors import FormatError
from tezip_h5.prediction import scaling
from tezip_h5.windows import Kind

__all__ = ["CODERS", "PREDICTORS", "Part", "divide", "kinds_of", "predictions"]

CODERS = {number: name for name, number in residual.NUMBERS.items()}
PREDICTORS = {number: name for name, number in prediction.NUMBERS.items()}

_PARTS = {
    Section.FRAMES: frames_section.parts,
    Section.LEVELS: levels.parts,
    Section.EXCEPTIONS: exceptions.parts,
    Section.CORRECTIONS: partial(exceptions.parts, stored="differences"),
    Section.MODEL: scaling.parts,
    Section.FALLBACK: fallback.parts,
    Section.MANTISSA: mantissa.parts,
}  # sections that all coders share; each coder divides its other sections itself


@dataclass(frozen=True)
class Part:
    """Some bytes of a payload: the section they lie in ("header" before all), and what they are."""

    section: str
    name: str
    nbytes: int


def divide(payload) -> list[Part]:
    """Say what every byte of a payload is for; the sizes add up to its length.

    Raises
    ------
    FormatError
        When the payload is damaged.

    Examples
    --------
    >>> import numpy as np, tezip_h5
    >>> frames = np.zeros((4, 16, 16), "u1")
    >>> bound = tezip_h5.ErrorBound().of_frames(frames[..., None])
    >>> made = tezip_h5.encode_chunk(frames, bound, tezip_h5.Settings())
    >>> sum(part.nbytes for part in divide(made.payload)) == len(made.payload)
    True
    """
    parsed = bitstream.unpack(payload)
    found = {"header": bitstream.parts(payload)}
    for number, data in parsed.sections.items():
        found[bitstream.SECTIONS[number]] = _parts(number, data, parsed.header)
    return [
        Part(section, name, size)
        for section, sizes in found.items()
        for name, size in sizes.items()
        if size
    ]


def _parts(number: int, data: bytes, header: Header) -> dict[str, int]:
    """Bytes of each part of a section, by name; one part if its coder cannot divide it."""
    if number in _PARTS:
        return _PARTS[number](data)
    try:
        decoder = residual.decoder_for(header.coder)
        shape = (header.channels, *header.valid[1:])
        return decoder.parts(bitstream.SECTIONS[number], data, shape)
    except FormatError:
        return {"all of it": len(data)}


def kinds_of(parsed: bitstream.Payload) -> list[Kind]:
    """The kind of every frame of a payload; the fallback codec has only keyframes."""
    g = parsed.header.valid[0]
    if Section.FRAMES not in parsed.sections:
        return [Kind.KEYFRAME] * g
    return frames_section.unpack(parsed.section(Section.FRAMES), g, parsed.header.channels)[0]


def predictions(payload, frames: np.ndarray) -> Iterator[np.ndarray | None]:
    """Yield the prediction of every frame; None for frames that were not predicted.

    This is the predictor's own prediction. The coders refine it for every sample, from the
    samples of the frame that they have coded already.

    Parameters
    ----------
    payload : bytes
    frames : (g, h, w[, C]) array
        The decoded samples of the payload, without padding.

    Yields
    ------
    array of one frame's shape and dtype, or None

    Raises
    ------
    FormatError
        When the payload is damaged.
    ModelError
        When it needs a model that is not found.
    """
    parsed = bitstream.unpack(payload)
    kinds = kinds_of(parsed)
    network = PREDICTORS.get(parsed.header.predictor) == "prednet"
    if network or parsed.header.scale == levels.EachFrame.kind:
        yield from _of_levels(parsed, frames[0].shape)
        return
    open_loop = parsed.header.flags & bitstream.FLAG_FEEDBACK_PREDICTION
    seen = np.zeros_like(frames[0])
    for frame, kind in zip(frames, kinds, strict=True):
        yield seen if kind == Kind.PREDICTED else None
        if kind != Kind.PREDICTED or not open_loop:
            seen = frame


def _of_levels(parsed, shape) -> Iterator[np.ndarray | None]:
    """The predictions of levels, as the decoder finds them, by the scale of the coming frame."""
    scale, frames = coding.decoded_levels(parsed, predictions=True)
    for t, (_, guess) in enumerate(frames):
        values = None if guess is None else scale.of_frame(t).to_values(guess)
        yield None if guess is None else np.moveaxis(values, 0, 2).reshape(shape)
