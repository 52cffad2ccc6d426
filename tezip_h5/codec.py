"""The composer: frames of one chunk <-> payload. Everything a payload needs meets here.

    encode:  frames -> levels -> windows -> predict -> residual coder -> bitstream -> payload
    decode:  frames <- levels <-            predict <- residual coder <- bitstream <- payload

A chunk decodes alone (it may need a model, named by its digest), to the same samples on every
machine. Both directions run the same integer arithmetic, and a checksum of the reconstructed
samples proves it.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from tezip_h5 import bitstream, failover, holes, levels, residual
from tezip_h5.bitstream import Header, Section
from tezip_h5.bounds import ChunkBound
from tezip_h5.chunk import fallback
from tezip_h5.chunk.attempts import Attempts
from tezip_h5.chunk.coding import Encoded, FrameRecord, decode_frames
from tezip_h5.chunk.planning import sample_rows
from tezip_h5.chunk.samples import require_checksum
from tezip_h5.efforts import Effort
from tezip_h5.errors import FormatError, InputError
from tezip_h5.prediction.integer import IntegerModel
from tezip_h5.settings import Settings
from tezip_h5.windows import Kind

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "Encoded",
    "FrameRecord",
    "decode_chunk",
    "encode_chunk",
    "network_saving",
]

_OWN_WORTH = 0.02  # share of a sample's bytes that scales of the frames' own must save


def encode_chunk(
    frames: np.ndarray,
    bound: ChunkBound,
    settings: Settings,
    *,
    shape: tuple[int, ...] | None = None,
    kinds: list[Kind] | None = None,
    mask: np.ndarray | None = None,
    scale: levels.Scale | None = None,
    model: IntegerModel | None = None,
    saving: float | None = None,
    spare: bool = False,
    threads: int = 1,
    device: str = "cpu",
) -> Encoded:
    """Encode the frames of one chunk.

    Parameters
    ----------
    frames : (g, h, w) or (g, h, w, C) array, C <= 4, of a dtype in `levels.DTYPES`
        The samples to store; any byte order, any strides.
    bound : ChunkBound
        The bound of these frames.
    settings : Settings
    shape : tuple, optional
        The HDF5 chunk's (G, H, W[, C]); the rest of it decodes to zeros. Default: as `frames`.
    kinds : list of Kind, optional
        The kind of each frame (keyframe or predicted); default: `settings` decide.
    mask : bool (h, w) array, optional
        Masked pixels. They come back exactly, whatever the bound, and take few bytes.
    scale : Scale, optional
        The scale that turns samples into levels; default: the one that `levels.choose` finds for
        the bound. Samples that it cannot hold within the bound are stored apart.
    model : IntegerModel, optional
        A network to try. It is used if `settings` pin it, or if it saves more than
        `Effort.network_worth` in a sample of the frames. If it saves nearly that much in the
        sample, all frames are encoded both ways, and the network is used if it saves more than
        that in all of them.
    saving : float, optional
        The result of `network_saving` for these frames, if it is known already.
    spare : bool
        Whether to encode the chunk without the network, too (`Encoded.without`), even if a sample
        has decided for the network. This changes nothing else.
    threads : int
        Number of threads for this chunk; the payload does not depend on it.
    device : "auto" | "cpu" | "cuda"
        The device to run on, see `devices.choose`; the payload does not depend on it. Work that
        fails on the GPU is done by the CPU, see `failover`. The code for GPUs has run in numba's
        simulator only.

    Returns
    -------
    Encoded
        Its payload is never larger than Blosc's bitshuffle + zstd of the same samples plus 64
        bytes, with one exception. A sample of a few frames and rows decides whether Blosc is
        tried, and Blosc may compress the whole better than the sample by more than 12%. (At
        "fast" by more than 2%, and repeated frames are not looked for.)

    Raises
    ------
    BoundError
        If the decoder would break the bound; nothing is returned then.
    InputError
        For frames of another number of axes, or more bytes than a chunk may have.
    """
    header, planar = _opened(frames, shape)
    attempts = _attempts(header, planar, bound, settings, kinds, mask, scale, threads)
    if attempts is None:
        return _encode_fallback(header, planar, settings.effort)
    return failover.run(partial(_smallest, attempts, planar, model, saving, spare), device)


def network_saving(
    frames: np.ndarray,
    bound: ChunkBound,
    settings: Settings,
    model: IntegerModel,
    threads: int = 1,
) -> float | None:
    """The share of bytes that a network saves in a sample of the frames.

    Payloads of the linear coder count for less, by `Effort.mixing_worth`. The share is negative
    if the network costs bytes, and None if the frames are too small to take a sample.
    """
    attempts = _attempts(*_opened(frames, None), bound, settings, threads=threads)
    return 0.0 if attempts is None else attempts.saving(model)


def _opened(frames: np.ndarray, shape: tuple[int, ...] | None) -> tuple[Header, np.ndarray]:
    """The header of a chunk, and its samples in native byte order, (g, h, w, C); bytes of bool."""
    if frames.ndim not in (3, 4):
        raise InputError(
            f"frames of shape {frames.shape}; expected (g, h, w) or (g, h, w, C): of one frame, "
            "give frame[None]"
        )
    native = frames.dtype.newbyteorder("=")
    planar = frames.astype(native, copy=False).view(levels.carrier(native))
    planar = planar.reshape((*frames.shape[:3], -1))
    shape = tuple(shape or frames.shape)
    header = Header(native.newbyteorder("<"), shape, frames.shape[:3], coder=0)
    if header.nbytes > bitstream.MAX_CHUNK_BYTES:
        raise InputError(
            f"a chunk of {header.nbytes} bytes; at most {bitstream.MAX_CHUNK_BYTES} are allowed, "
            "choose smaller chunks"
        )
    return header, planar


def _attempts(
    header, planar, bound, settings, kinds=None, mask=None, scale=None, threads=1
) -> Attempts | None:
    """The attempts for a chunk; None if only the fallback codec can store it."""
    if settings.coder == "fallback":
        return None
    samples = holes.patched(planar, mask, scale.outside if scale else None)
    if scale is not None and not (samples.holes is not None and samples.holes.all()):
        return Attempts(header, samples, bound, settings, scale, kinds, threads).freeing()
    scale = levels.choose(samples.frames, bound)
    own = levels.of_each_frame(samples.frames, bound, scale, samples.holes)
    exact = bound.lossless and not isinstance(scale, levels.Integers | levels.Listed)
    if own is not None and (scale is None or exact):
        scale, own = own, None  # of floats, of which it takes most bits that nothing predicts
    if scale is None:
        return None
    attempts = Attempts(header, samples, bound, settings, scale, kinds, threads)
    for other in (own, levels.exact_instead(samples.frames, bound)):
        if other is not None:
            attempts = attempts.or_by(other, _OWN_WORTH)
    attempts = attempts.freeing()
    worth = settings.effort.centring_worth
    finer = levels.centred(scale, samples.frames, bound, much=worth > 0)
    return attempts.or_by(finer, worth) if finer else attempts


def _smallest(attempts: Attempts, planar, model, saving, spare, device) -> Encoded:
    """The smallest payload of all attempts and of the fallback codec."""
    attempts = replace(attempts, device=device)
    settings, effort = attempts.settings, attempts.settings.effort
    tried, sure = attempts.judge(model, saving)
    with_model = attempts.smallest(model) if tried else None
    wanted = spare and settings.predictor is None
    without = attempts.smallest(None) if wanted or not sure else None
    best = with_model if sure else without
    if flat := attempts.flat():
        best, without = (old and min(old, flat, key=attempts.weighed) for old in (best, without))
    if _fallback_may_win(planar, len(best.payload), effort):
        exact = _encode_fallback(attempts.header, planar, effort)
        best, without = _smaller(exact, best), _smaller(exact, without)
    if sure:
        return replace(best, without=without) if best is with_model else best
    if with_model is not None:
        share = 1 - effort.network_worth
        if len(with_model.payload) < attempts.weighed(best) * share:
            return replace(with_model, without=best)
    return best


def _smaller(exact: Encoded, other: Encoded | None) -> Encoded | None:
    return exact if other is not None and len(exact.payload) < len(other.payload) else other


def _fallback_may_win(frames: np.ndarray, size: int, effort: Effort) -> bool:
    """Whether to run the fallback codec, judged by a sample, or by repeated frames.

    Repeated frames do not show in a sample, and other coders look back only a frame or two.
    """
    if frames.nbytes < 1 << 16 or size < 1 << 12 or (effort.seeks_repeats and _come_again(frames)):
        return True
    rows = sample_rows(frames.shape[1], effort.sampled_bands)
    sample = np.ascontiguousarray(frames[:: max(1, len(frames) // 2), rows])
    likely = size * effort.fallback_doubt
    return len(fallback.encode(sample, effort.blosc)) * frames.nbytes < likely * sample.nbytes


def _come_again(frames: np.ndarray) -> bool:
    """Whether a frame repeats an earlier one that is not the frame just before it."""
    sums = [zlib.crc32(np.ascontiguousarray(frame)) for frame in frames]
    return any(sums[t] != sums[t - 1] and sums[t] in sums[: t - 1] for t in range(2, len(sums)))


def _encode_fallback(header: Header, frames: np.ndarray, effort: Effort) -> Encoded:
    samples = np.ascontiguousarray(frames, header.carrier)
    data = fallback.encode(samples, effort.blosc)
    header = replace(header, checksum=zlib.crc32(samples))
    share, rest = divmod(len(data), len(frames))
    records = [FrameRecord(Kind.KEYFRAME, share + (t < rest)) for t in range(len(frames))]
    return Encoded(bitstream.pack(header, {Section.FALLBACK: data}), "fallback", records)


def decode_chunk(
    payload: Buffer, *, max_bytes: int | None = None, threads: int = 1, device: str = "cpu"
) -> np.ndarray:
    """Decode one chunk; the inverse of `encode_chunk` within its bound.

    Parameters
    ----------
    payload : bytes-like
    max_bytes : int, optional
        Refuse a chunk that decodes to more than this, before allocating it.
    threads : int
        Number of threads for this chunk. In callbacks of HDF5 it must be 1, or they may deadlock.
    device : "auto" | "cpu" | "cuda"
        The device to run on, see `devices.choose`; the samples do not depend on it. Work that
        fails on the GPU is done by the CPU, see `failover`.

    Returns
    -------
    array of the header's shape and dtype (little-endian), C-contiguous, in the host's memory

    Raises
    ------
    FormatError
        When the payload is damaged, or decodes to something else than was encoded.
    InputError
        When `payload` is not bytes-like.
    ModelError
        When it needs a model that is not found.

    Examples
    --------
    >>> from tezip_h5 import ErrorBound
    >>> frames = np.arange(4 * 8 * 8, dtype="u2").reshape(4, 8, 8)
    >>> made = encode_chunk(frames, ErrorBound(absolute=1).of_frames(frames), Settings())
    >>> int(np.abs(decode_chunk(made.payload).astype(int) - frames).max()) <= 1
    True
    """
    try:
        memoryview(payload)
    except TypeError:
        name = type(payload).__name__
        raise InputError(f"{name} is no payload; give the bytes of encode_chunk") from None
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
            parsed.section(Section.FALLBACK), header.carrier, (g, h, w, *header.shape[3:])
        )
        require_checksum(zlib.crc32(frames), header)
        if whole:
            return frames.view(header.dtype)
        out = np.zeros(header.shape, header.carrier)
        out[:g, :h, :w] = frames
        return out.view(header.dtype)
    out = (np.empty if whole else np.zeros)(header.shape, header.carrier)
    target = out[:g, :h, :w].reshape(g, h, w, -1) if whole else out
    failover.run(partial(decode_frames, parsed, target, threads), device)
    return out.view(header.dtype)
