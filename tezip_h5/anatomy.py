"""What is inside a payload: where its bytes went, and what its frames were predicted to be.

For looking only: nothing here decides how anything is coded. What the bytes of a section are, the
room that writes and reads it says; a section that this room does not understand is not divided.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from tezip_h5 import (
    bitstream,
    chunk,
    exceptions,
    fallback,
    frames_section,
    levels,
    prediction,
    residual,
    rests,
)
from tezip_h5.bitstream import Header, Section
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
    Section.RESTS: rests.parts,
}  # of all coders; the other sections are their own


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
    """What a section's bytes are, by name; one part where its coder does not understand them."""
    if number in _PARTS:
        return _PARTS[number](data)
    try:
        decoder = residual.decoder_for(header.coder)
        shape = (header.channels, *header.valid[1:])
        return decoder.parts(bitstream.SECTIONS[number], data, shape)
    except FormatError:
        return {"all of it": len(data)}


def kinds_of(parsed: bitstream.Payload) -> list[Kind]:
    """The kind of every frame of a payload; all are keyframes to the fallback."""
    g = parsed.header.valid[0]
    if Section.FRAMES not in parsed.sections:
        return [Kind.KEYFRAME] * g
    return frames_section.unpack(parsed.section(Section.FRAMES), g, parsed.header.channels)[0]


def predictions(payload, frames: np.ndarray) -> Iterator[np.ndarray | None]:
    """Yield what the predictor expected every frame to be; None for frames it was not asked.

    This is the predictor's own guess: the coders refine it, sample by sample, with what they
    know of the frame so far.

    Parameters
    ----------
    payload : bytes
    frames : (g, h, w[, C]) array
        What it decodes to, without padding.

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
    if PREDICTORS.get(parsed.header.predictor) == "prednet":
        yield from _of_network(parsed, frames[0].shape)
        return
    open_loop = parsed.header.flags & bitstream.FLAG_FEEDBACK_PREDICTION
    seen = np.zeros_like(frames[0])
    for frame, kind in zip(frames, kinds, strict=True):
        yield seen if kind == Kind.PREDICTED else None
        if kind != Kind.PREDICTED or not open_loop:
            seen = frame


def _of_network(parsed, shape) -> Iterator[np.ndarray | None]:
    """A network's predictions: it must be shown the levels that the decoder finds."""
    scale, frames = chunk.decoded_levels(parsed, predictions=True)
    for t, (_, guess) in enumerate(frames):
        values = None if guess is None else scale.of_frame(t).to_values(guess)
        yield None if guess is None else np.moveaxis(values, 0, 2).reshape(shape)
