"""The composer: frames of one chunk <-> payload. Everything a payload needs meets here.

    encode:  frames -> levels -> windows -> predict -> residual coder -> bitstream -> payload
    decode:  frames <- levels <-            predict <- residual coder <- bitstream <- payload

A chunk decodes alone (besides a model named by digest), to the same samples everywhere:
both directions run the same integer arithmetic, and a checksum of the reconstructed samples
says so.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from tezip_h5 import bitstream, fallback, holes, levels, parallel, rescue, residual
from tezip_h5.bitstream import Header, Section
from tezip_h5.bounds import ChunkBound
from tezip_h5.chunk import ChunkEncoder, Encoded, FrameRecord, decode_frames, require_checksum
from tezip_h5.errors import FormatError, InputError
from tezip_h5.holes import Patched
from tezip_h5.planning import sample_rows
from tezip_h5.prediction.integer import IntegerModel
from tezip_h5.settings import Settings
from tezip_h5.windows import Kind

__all__ = [
    "NETWORK_WORTH",
    "Encoded",
    "FrameRecord",
    "decode_chunk",
    "encode_chunk",
    "network_may_pay",
    "network_saving",
]

NETWORK_WORTH = {"fast": 1.0, "balanced": 0.01, "best": 0.002}
"""Share of a chunk's bytes that a network must save to be used: it makes reading slower, about
as much again as everything else together. At level "fast" none is tried."""

_LINEAR_DOUBT = {"fast": 0.0, "balanced": 1.0, "best": 64.0}
"""The linear coder is tried, too, where the mixing coder needs at most so many bits per sample."""

_FALLBACK_DOUBT = {"fast": 1.02, "balanced": 1.12, "best": 1.12}
"""The fallback is run where a sample of it is smaller than the payload, times this."""

# Of the part that shows what a network saves: a sixteenth of the chunk within these limits. In
# small parts a network gains where the coder's own voters have not learned yet.
_SAMPLE_SIDES, _SAMPLE_FRAMES, _SAMPLE_SHARE = (64, 128), 8, 16
_HOPE = 0.75  # share of its worth that a network must save there to be tried


def encode_chunk(
    frames: np.ndarray,
    bound: ChunkBound,
    settings: Settings,
    shape: tuple[int, ...] | None = None,
    kinds: list[Kind] | None = None,
    model: IntegerModel | None = None,
    scale: levels.Scale | None = None,
    threads: int = 1,
    device: str = "cpu",
    saving: float | None = None,
    spare: bool = False,
) -> Encoded:
    """Encode the frames of one chunk.

    Parameters
    ----------
    frames : (g, h, w) or (g, h, w, C) array, C <= 4, of a dtype in `levels.DTYPES`
        The samples to store; any byte order, any strides.
    bound : ChunkBound
        Of these frames.
    settings : Settings
    shape : tuple, optional
        The HDF5 chunk's (G, H, W[, C]); the rest of it decodes to zeros. Default: as `frames`.
    kinds : list of Kind, optional
        Where keyframes are, instead of what `settings` would do.
    model : IntegerModel, optional
        A network to try; it is used where it saves more than `NETWORK_WORTH` in a sample of the
        frames, nearly as much there and more in all of them, or where `settings` pin it.
    scale : Scale, optional
        How samples become levels, instead of what `levels.choose` finds for the bound; samples
        that it cannot hold within the bound are stored beside.
    threads : int
        How many may work on this chunk; the payload does not depend on it.
    device : "auto" | "cpu" | "cuda"
        Where, see `devices.choose`; the payload does not depend on it. What the GPU fails at is
        done by the CPU, see `rescue`.
    saving : float, optional
        What `network_saving` has found for these frames, so as not to ask again.
    spare : bool
        Whether `Encoded.without` is wanted, also where a sample has decided for the network. It
        changes nothing else.

    Returns
    -------
    Encoded
        Its payload is never larger than Blosc's bitshuffle + zstd of the same samples plus
        64 bytes, unless a sample of a few frames and rows, by which it is judged whether to
        compare, shrinks so much less than the whole that it says otherwise (by 12%; at "fast"
        by 2%, and frames that come again later are not looked for).

    Raises
    ------
    BoundError
        If the decoder would break the bound; nothing is returned then.
    """
    work = partial(
        _encode, frames, bound, settings, shape, kinds, model, scale, threads, saving, spare
    )
    return rescue.run(work, device)


def _encode(
    frames, bound, settings, shape, kinds, model, scale, threads, saving, spare, device
) -> Encoded:
    shape = tuple(shape or frames.shape)
    native = frames.dtype.newbyteorder("=")
    planar = frames.astype(native, copy=False).reshape((*frames.shape[:3], -1))
    header = Header(native.newbyteorder("<"), shape, frames.shape[:3], coder=0)
    if header.nbytes > bitstream.MAX_CHUNK_BYTES:
        raise InputError(
            f"a chunk of {header.nbytes} bytes; at most {bitstream.MAX_CHUNK_BYTES} are allowed, "
            "choose smaller chunks"
        )
    if settings.coder != "fallback":
        samples = holes.patched(planar, scale.outside if scale else None)
        if scale is None or (samples.holes is not None and samples.holes.all()):
            scale = _scale_for(samples, bound, settings)
    if settings.coder == "fallback" or scale is None:
        return _encode_fallback(header, planar, settings.level)
    attempt = _Attempts(header, samples, bound, settings, scale, kinds, threads, device)
    tried, sure = attempt.judge(model, saving)
    with_model = attempt.smallest(model) if tried else None
    wanted = spare and settings.predictor is None
    without = attempt.smallest(None) if wanted or not sure else None
    best = with_model if sure else without
    if _fallback_may_win(planar, len(best.payload), settings.level):
        exact = _encode_fallback(header, planar, settings.level)
        best, without = _smaller(exact, best), _smaller(exact, without)
    if sure:
        return replace(best, without=without) if best is with_model else best
    if with_model is not None:
        share = 1 - NETWORK_WORTH[settings.level]
        if len(with_model.payload) < len(best.payload) * share:
            return replace(with_model, without=best)
    return best


def _smaller(exact: Encoded, other: Encoded | None) -> Encoded | None:
    return exact if other is not None and len(exact.payload) < len(other.payload) else other


def network_saving(
    frames: np.ndarray,
    bound: ChunkBound,
    settings: Settings,
    model: IntegerModel,
    threads: int = 1,
) -> float | None:
    """Share of the bytes of `encode_chunk` that this network saves in a sample of the frames.

    Negative where it costs some; None where the frames are too few to take a sample of.
    """
    native = frames.dtype.newbyteorder("=")
    planar = frames.astype(native, copy=False).reshape((*frames.shape[:3], -1))
    header = Header(native.newbyteorder("<"), frames.shape, frames.shape[:3], coder=0)
    if settings.coder == "fallback":
        return 0.0
    samples = holes.patched(planar)
    scale = _scale_for(samples, bound, settings)
    if scale is None:
        return 0.0
    attempt = _Attempts(header, samples, bound, settings, scale, None, threads, "cpu")
    return attempt.saving(model)


def network_may_pay(saving: float | None, level: str) -> bool:
    """Whether `encode_chunk` tries a network for which `network_saving` has said this."""
    return saving is None or saving > _HOPE * NETWORK_WORTH[level]


def _scale_for(samples: Patched, bound: ChunkBound, settings: Settings) -> levels.Scale | None:
    """How samples become levels; what the other levels write lies on a grid, to be recompressed."""
    return levels.choose(samples.frames, bound, centred=settings.level == "best")


@dataclass(frozen=True)
class _Attempts:
    """What is tried on one chunk."""

    header: Header
    samples: Patched
    bound: ChunkBound
    settings: Settings
    scale: object
    kinds: list[Kind] | None
    threads: int
    device: str

    def judge(self, model: IntegerModel | None, saving: float | None) -> tuple[bool, bool]:
        """Whether to try a network, and whether it is clear that it pays."""
        settings = self.settings
        if settings.predictor == "prednet" or model is None:
            return model is not None, model is not None
        if settings.predictor is not None:
            return False, False
        if saving is None:
            saving = self.saving(model)
        sure = saving is not None and saving > NETWORK_WORTH[settings.level]
        return network_may_pay(saving, settings.level), sure

    def saving(self, model: IntegerModel) -> float | None:
        """See `network_saving`."""
        count, (g, h, w) = _SAMPLE_FRAMES, self.samples.frames.shape[:3]
        least, most = _SAMPLE_SIDES
        if g * h * w <= 2 * count * least * least:
            return None
        side = min(max(math.isqrt(g * h * w // (_SAMPLE_SHARE * count)), least), most)
        top, left = max(0, h - side) // 2, max(0, w - side) // 2
        part = self.samples.part(np.s_[:count, top : top + side, left : left + side])
        shape = part.frames.shape
        header = Header(self.header.dtype, shape, shape[:3], coder=0)
        sample = replace(self, header=header, samples=part, threads=1)
        without, with_model = parallel.each(
            lambda tried: len(sample.smallest(tried).payload), (None, model), self.threads
        )
        return 1 - with_model / without

    def smallest(self, model: IntegerModel | None) -> Encoded:
        """The smallest payload over quantizers and coders, with a network or without."""
        settings, main = self.settings, _coder_for(self.settings, self.scale)
        runs = [
            self._run(main, quantizer, model)
            for quantizer in _quantizers(settings, self.bound, main)
        ]
        # It costs little time besides, and is smaller where nearly all residuals are zero.
        few = 8 * len(runs[0].payload) <= _LINEAR_DOUBT[settings.level] * self.samples.frames.size
        if main == "mixing" and settings.coder is None and model is None and few:
            runs.append(self._run("linear", "uniform", None))
        return min(runs, key=lambda run: len(run.payload))

    def _run(self, coder: str, quantizer: str, model: IntegerModel | None) -> Encoded:
        return ChunkEncoder(
            self.header,
            self.samples,
            self.bound,
            self.settings,
            self.scale,
            coder,
            quantizer,
            model,
            self.threads,
            self.device,
        ).encode(self.kinds)


def _coder_for(settings: Settings, scale) -> str:
    """The residual coder: the level's, unless pinned or levels are too wide for it."""
    if settings.main_coder == "mixing" and scale.top > residual.MIXING_MOST_TOP:
        return "linear"
    return settings.main_coder


def _quantizers(settings: Settings, bound: ChunkBound, coder: str) -> tuple[str, ...]:
    if settings.quantizer is not None:
        return (settings.quantizer,)
    if bound.lossless or settings.level == "fast" or coder != "stages":
        return ("uniform",)
    return ("uniform", "run-merging")


def _fallback_may_win(frames: np.ndarray, size: int, level: str) -> bool:
    """Whether it is worth running the fallback, judged by a sample, which does not see frames that
    come again later: other coders look no further back than a frame or two."""
    if frames.nbytes < 1 << 16 or size < 1 << 12 or (level != "fast" and _come_again(frames)):
        return True
    sample = np.ascontiguousarray(
        frames[:: max(1, len(frames) // 2), sample_rows(frames.shape[1], level)]
    )
    doubt = _FALLBACK_DOUBT[level]
    return len(fallback.encode(sample, level)) * frames.nbytes < doubt * size * sample.nbytes


def _come_again(frames: np.ndarray) -> bool:
    """Whether some frame is the same as one before the last."""
    sums = [zlib.crc32(np.ascontiguousarray(frame)) for frame in frames]
    return any(sums[t] != sums[t - 1] and sums[t] in sums[: t - 1] for t in range(2, len(sums)))


def _encode_fallback(header: Header, frames: np.ndarray, level: str) -> Encoded:
    samples = np.ascontiguousarray(frames, header.dtype)
    data = fallback.encode(samples, level)
    header = replace(header, checksum=zlib.crc32(samples))
    share, rest = divmod(len(data), len(frames))
    records = [FrameRecord(Kind.KEYFRAME, share + (t < rest)) for t in range(len(frames))]
    return Encoded(bitstream.pack(header, {Section.FALLBACK: data}), "fallback", records)


def decode_chunk(
    payload, *, max_bytes: int | None = None, threads: int = 1, device: str = "cpu"
) -> np.ndarray:
    """Decode one chunk; the inverse of `encode_chunk` within its bound.

    Parameters
    ----------
    payload : bytes-like
    max_bytes : int, optional
        Refuse a chunk that decodes to more than this, before allocating it.
    threads : int
        How many may work on this chunk (not in callbacks of HDF5: more than one may wait for ever).
    device : "auto" | "cpu" | "cuda"
        Where, see `devices.choose`; the samples do not depend on it. What the GPU fails at is done
        by the CPU, see `rescue`.

    Returns
    -------
    array of the header's shape and dtype (little-endian), C-contiguous, in the host's memory

    Raises
    ------
    FormatError
        When the payload is damaged, or decodes to something else than was encoded.
    ModelError
        When it needs a model that is not found.
    """
    parsed = bitstream.unpack(payload)
    header = parsed.header
    if max_bytes is not None and header.nbytes > max_bytes:
        raise FormatError(
            f"this chunk decodes to {header.nbytes} bytes, at most {max_bytes} are allowed here"
        )
    g, h, w = header.valid
    whole = header.valid == header.shape[:3]
    if header.coder == residual.NUMBERS["fallback"]:
        frames = fallback.decode(
            parsed.section(Section.FALLBACK), header.dtype, (g, h, w, *header.shape[3:])
        )
        require_checksum(zlib.crc32(frames), header)
        if whole:
            return frames
        out = np.zeros(header.shape, header.dtype)
        out[:g, :h, :w] = frames
        return out
    out = (np.empty if whole else np.zeros)(header.shape, header.dtype)
    target = out[:g, :h, :w].reshape(g, h, w, -1) if whole else out
    rescue.run(partial(decode_frames, parsed, target, threads), device)
    return out
