"""Encoding one chunk again: payload -> a smaller payload of the same samples, or the same payload.

A lossy chunk is never quantised again, so no error is added. Its decoded samples are stored
exactly, as levels of the chunk's own grid if it has one. If that is not smaller, the chunk keeps
its bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from tezip_h5 import bitstream, levels, prediction, residual
from tezip_h5.bitstream import Section
from tezip_h5.bounds import ChunkBound
from tezip_h5.chunk import frames_section
from tezip_h5.codec import Encoded, FrameRecord, decode_chunk, encode_chunk
from tezip_h5.model import store
from tezip_h5.prediction.integer import IntegerModel
from tezip_h5.prediction.scaling import Network
from tezip_h5.settings import Settings
from tezip_h5.windows import Kind

__all__ = ["Kept", "recode", "stored_records"]

_GRIDS = (levels.Grid, levels.LogBits, levels.Companded, levels.Listed)
# A lossless encoding at the fastest level that is this many times as large as the lossy payload
# rules out the slower levels, because these are seldom a third smaller.
_HOPELESS = 1.5
_CODER_NAMES = {number: name for name, number in residual.NUMBERS.items()}
_PREDICTOR_NAMES = {number: name for name, number in prediction.NUMBERS.items()}


@dataclass(frozen=True)
class Kept(Encoded):
    """A chunk that could not be made smaller, with its old payload."""


def recode(
    payload: bytes,
    frames: np.ndarray,
    settings: Settings,
    *,
    kinds: list[Kind] | None = None,
    mask: np.ndarray | None = None,
    model: IntegerModel | None = None,
    spare: bool = False,
    threads: int = 1,
    device: str = "cpu",
) -> Encoded:
    """Encode a chunk again such that it decodes to the same samples, bit for bit.

    The result is the smallest of

    - the payload as it is (then the result is `Kept`);
    - its samples, lossless, as levels of the payload's own grid if it has one;
    - with the stages: its samples within the payload's tolerances, where quantising them once
      more changes none.

    Parameters
    ----------
    payload : bytes
    frames : (g, h, w[, C]) array
        The decoded samples of `payload`, without padding.
    settings : Settings
        The settings of the new encoding.
    kinds, mask, model, spare, threads, device
        See `encode_chunk`.

    Returns
    -------
    Encoded
        Its records do not contain the errors that `payload` was made with.
    """
    parsed = bitstream.unpack(payload)
    shape, scale = parsed.header.shape, _scale_of(parsed)
    grid = scale if isinstance(scale, _GRIDS) else None
    encode = partial(
        encode_chunk,
        frames,
        ChunkBound(),
        settings,
        shape=shape,
        kinds=kinds,
        mask=mask,
        scale=grid,
        threads=threads,
        device=device,
    )
    found, without = None, _requantized(parsed, frames, mask, scale, settings)
    if not _hopeless(parsed, frames, mask, grid):
        found = encode(model=model, spare=spare)
        without = _smaller(found.without, without)
    for attempt in sorted(filter(None, (found, without)), key=lambda e: len(e.payload)):
        if len(attempt.payload) < len(payload) and _decodes_to(attempt, frames):
            best = attempt
            break
    else:
        best = Kept(payload, _CODER_NAMES[parsed.header.coder], stored_records(parsed))
        best = replace(best, model=_model_of(parsed))
    if best.model is None or not spare:
        return best
    # A payload without the network, for the case that the model is not worth its own bytes.
    if without is None or not _decodes_to(without, frames):
        without = encode()
    return replace(best, without=without)


def _smaller(one: Encoded | None, other: Encoded | None) -> Encoded | None:
    known = [encoded for encoded in (one, other) if encoded is not None]
    return min(known, key=lambda encoded: len(encoded.payload), default=None)


def _hopeless(parsed: bitstream.Payload, frames, mask, grid: levels.Scale | None) -> bool:
    """Whether a quick attempt shows that no lossless encoding will be as small as this payload."""
    if parsed.header.coder == residual.NUMBERS["fallback"]:
        return False
    _, tolerances = _frames_section(parsed)
    if not tolerances.any():
        return False
    quick = encode_chunk(
        frames,
        ChunkBound(),
        Settings(level="fast"),
        shape=parsed.header.shape,
        mask=mask,
        scale=grid,
    )
    return len(quick.payload) > _HOPELESS * sum(map(len, parsed.sections.values()))


def _frames_section(parsed: bitstream.Payload):
    header = parsed.header
    return frames_section.unpack(parsed.section(Section.FRAMES), header.valid[0], header.channels)


def _decodes_to(encoded: Encoded, frames: np.ndarray) -> bool:
    """Whether a payload decodes to these samples, bit for bit."""
    back = decode_chunk(encoded.payload)[tuple(slice(n) for n in frames.shape)]
    return back.tobytes() == frames.astype(back.dtype, copy=False).tobytes()


def _scale_of(parsed: bitstream.Payload) -> levels.Scale | None:
    header = parsed.header
    if header.coder == residual.NUMBERS["fallback"]:
        return None
    return levels.unpack(
        header.scale,
        header.carrier.newbyteorder("="),
        parsed.section(Section.LEVELS),
        header.samples,
    )


def _model_of(parsed: bitstream.Payload) -> IntegerModel | None:
    if parsed.header.predictor != prediction.NUMBERS["prednet"]:
        return None
    return store.find(Network.unpack(parsed.section(Section.MODEL)).digest)


def _requantized(parsed, frames, mask, scale, settings) -> Encoded | None:
    """Encode a chunk of the stages again with the same tolerances, which can give the same samples.

    The stages predict from reconstructions only. Each sample of a uniformly quantised chunk is
    therefore its own reconstruction, and only the entropy coding changes. The other coders learn
    from the frames, so they predict differently from decoded frames, and this does not work.
    """
    header = parsed.header
    if _CODER_NAMES[header.coder] != "stages" or header.predictor > 1:
        return None
    kinds, tolerances = _frames_section(parsed)
    if not tolerances.any() or isinstance(scale, levels.EachFrame):
        return None
    open_loop = header.flags & bitstream.FLAG_FEEDBACK_PREDICTION
    settings = Settings(
        level=settings.level,
        coder="stages",
        predictor=_PREDICTOR_NAMES[header.predictor],
        quantizer="uniform",
        feedback="prediction" if open_loop else "reconstruction",
    )
    bound = ChunkBound(absolute=tolerances.astype(np.float64))
    if isinstance(scale, levels.Grid):  # its cells take half a step of the bound
        bound = ChunkBound(absolute=(bound.absolute + 0.5) * scale.step * (1 + 1e-9))
    attempt = encode_chunk(
        frames, bound, settings, shape=header.shape, kinds=kinds, mask=mask, scale=scale
    )
    same = bitstream.peek(attempt.payload)[0].checksum == header.checksum
    return attempt if same else None


def stored_records(parsed: bitstream.Payload) -> list[FrameRecord]:
    """A record for each frame of a payload, as far as the payload tells.

    Sections do not tell where a frame ends, so their bytes are divided evenly among the frames of
    a kind.
    """
    count = parsed.header.valid[0]
    if parsed.header.coder == residual.NUMBERS["fallback"]:
        kinds = [Kind.KEYFRAME] * count
        sizes = {Kind.KEYFRAME: len(parsed.section(Section.FALLBACK))}
    else:
        kinds, _ = _frames_section(parsed)
        coded = (Section.KEYFRAMES, Section.RESIDUALS, Section.TABLES)
        total = sum(len(parsed.sections.get(section, b"")) for section in coded)
        first = len(parsed.sections.get(Section.KEYFRAMES, b""))
        if not first or Kind.PREDICTED not in kinds:  # one section for all
            first = total * sum(kind != Kind.PREDICTED for kind in kinds) // count
        sizes = {Kind.KEYFRAME: first, Kind.PREDICTED: total - first}
    records, seen = [], {True: 0, False: 0}
    for kind in kinds:
        predicted = kind == Kind.PREDICTED
        members = sum((other == Kind.PREDICTED) == predicted for other in kinds)
        share, rest = divmod(sizes[Kind.PREDICTED if predicted else Kind.KEYFRAME], members)
        share += seen[predicted] < rest
        seen[predicted] += 1
        records.append(FrameRecord(kind, *((0, share) if predicted else (share, 0))))
    return records
