"""What is inside a payload: where its bytes went, and what its frames were predicted to be.

For looking only: nothing here decides how anything is coded, and the sizes come from the
layouts that FORMAT.md states, so that a part that is not understood is just not divided.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tezip_h5 import bitstream, frames_section, levels, prediction, residual
from tezip_h5.bitstream import Header, Section
from tezip_h5.model import store
from tezip_h5.prediction.scaling import Network
from tezip_h5.windows import Kind

__all__ = ["CODERS", "PREDICTORS", "SECTIONS", "Part", "divide", "kinds_of", "predictions"]

CODERS = {number: name for name, number in residual.NUMBERS.items()}
PREDICTORS = {number: name for name, number in prediction.NUMBERS.items()}
SECTIONS = {
    Section.FRAMES: "frames",
    Section.LEVELS: "levels",
    Section.EXCEPTIONS: "exceptions",
    Section.KEYFRAMES: "keyframes",
    Section.RESIDUALS: "residuals",
    Section.MODEL: "model",
    Section.FALLBACK: "fallback",
    Section.TABLES: "tables",
    Section.RESTS: "rests",
}
"""Names of the sections, as FORMAT.md has them."""

_WHOLE = {
    Section.FRAMES: "kinds and tolerances",
    Section.LEVELS: "scale of the samples",
    Section.EXCEPTIONS: "samples stored exactly",
    Section.MODEL: "digest of the network",
    Section.FALLBACK: "shuffle + zstd",
    Section.TABLES: "contexts and frequencies",
    Section.RESTS: "mantissa bits below the noise",
}
_LANES = 16  # streams of the linear coder
_TABLE_ENTRY = 12  # bytes of the section table, for each
_MOVING, _JUMPING = 2, 4  # flags of a mixed section


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
    header, identity = bitstream.peek(payload)
    table = _TABLE_ENTRY * len(parsed.sections)
    parts = [
        Part("header", "header", len(identity) - table),
        Part("header", "section table", table),
    ]
    for number, data in parsed.sections.items():
        section = SECTIONS.get(number, f"section {number}")
        parts += [
            Part(section, name, size) for name, size in _streams(number, data, header) if size
        ]
    return parts


def _streams(number: int, data: bytes, header: Header) -> list[tuple[str, int]]:
    """Name and size of what a section consists of; of one thing, where that is not known."""
    rules = {
        (1, Section.KEYFRAMES): _of_stages,
        (1, Section.RESIDUALS): _of_stages,
        (2, Section.RESIDUALS): _of_mixing,
        (3, Section.RESIDUALS): _of_linear,
    }
    rule = rules.get((header.coder, number))
    whole = _WHOLE.get(number, "all of it")
    if rule is None:
        return [(whole, len(data))]
    try:
        sizes = rule(data, header)
    except (struct.error, IndexError):
        return [(whole, len(data))]
    rest = len(data) - sum(size for _, size in sizes)
    return sizes if rest == 0 and all(size >= 0 for _, size in sizes) else [(whole, len(data))]


def _of_stages(data, header) -> list[tuple[str, int]]:
    """Section 7 of FORMAT.md: a prefix, PEE's table, zstd of the symbols."""
    (table,) = struct.unpack_from("<I", data, 4)
    return [("prefix", 8), ("table of ranks", table), ("symbols, zstd", len(data) - 8 - table)]


def _of_mixing(data, header) -> list[tuple[str, int]]:
    """Section 9: what is transmitted beside the streams, then a stream for every band."""
    _, flags, use, _, bands = struct.unpack_from("<BBBBH", data)
    sizes, at = [("prefix", 6 + 4 * bands)], 6
    for present, name, more in (
        (flags & _MOVING, "motion of blocks", 2),
        (flags & _JUMPING, "changes of brightness", 2),
        (use, "transmitted weights", 0),
    ):
        if present:
            size = 4 + more + struct.unpack_from("<I", data, at)[0]
            sizes.append((name, size))
            at += size
    streams = struct.unpack_from(f"<{bands}I", data, at)
    return sizes + [(f"stream of band {band}", size) for band, size in enumerate(streams)]


def _of_linear(data, header) -> list[tuple[str, int]]:
    """Section 8: the streams of rows, words of rANS and low bits; what predicts every plane."""
    at, counts = 0, []
    for _ in range(2 * min(header.valid[1], _LANES)):
        count, at = _varint(data, at)
        counts.append(count)
    words = 2 * sum(counts[::2])
    bits = sum(-(-count // 8) for count in counts[1::2])
    return [
        ("sizes of streams", at),
        ("symbols, rANS", words),
        ("low bits of symbols", bits),
        ("weights", len(data) - at - words - bits),
    ]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A LEB128 number, and where the next thing begins."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at


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
        yield from _of_network(parsed, kinds, frames[0].shape)
        return
    open_loop = parsed.header.flags & bitstream.FLAG_FEEDBACK_PREDICTION
    seen = np.zeros_like(frames[0])
    for frame, kind in zip(frames, kinds, strict=True):
        yield seen if kind == Kind.PREDICTED else None
        if kind != Kind.PREDICTED or not open_loop:
            seen = frame


def _of_network(parsed, kinds, shape) -> Iterator[np.ndarray | None]:
    """A network's predictions: it must be shown the levels that the decoder finds."""
    header = parsed.header
    g, h, w = header.valid
    scale = levels.unpack(
        header.scale, header.carrier.newbyteorder("="), parsed.section(Section.LEVELS)
    )
    network = Network.unpack(parsed.section(Section.MODEL))
    size = (header.channels, h, w)
    predictor = prediction.create(
        header.predictor, size, scale.top, network, store.find(network.digest)
    )
    _, tolerances = frames_section.unpack(parsed.section(Section.FRAMES), g, header.channels)
    sections = {SECTIONS[n]: data for n, data in parsed.sections.items() if n in SECTIONS}
    decoder = residual.decoder_for(header.coder)(sections, size, scale)
    closed = not header.flags & bitstream.FLAG_FEEDBACK_PREDICTION
    for t, kind in enumerate(kinds):
        guess = predictor.predict()
        if kind == Kind.PREDICTED:
            decoded = decoder.residual(guess, tolerances[t])
            yield np.moveaxis(scale.to_values(guess), 0, 2).reshape(shape)
        else:
            decoded = decoder.keyframe(tolerances[t])
            yield None
        predictor.observe(decoded if closed or kind != Kind.PREDICTED else guess)
