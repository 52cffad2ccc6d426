"""Weights that the encoder learns from the original frames and transmits.

Adaptive filters learn nothing where nearly all residuals are zero, and they learn slowly where
neighbours are nearly alike (smooth fields). Weights from least squares over the frames of the
chunk help in both cases. The decoder only multiplies and shifts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import repeat

import numpy as np

from tezip_h5 import kernels
from tezip_h5.errors import FormatError
from tezip_h5.inflate import Block, inflate

__all__ = ["BLOCK", "Known", "learn", "pack", "rehearse", "unpack"]

BLOCK = Block("transmitted weights", struct.Struct("<I"))
"""The block with the weights of all channels."""

# Values by `Known.fine`:
_SAMPLES = {True: 1 << 17, False: 1 << 16}  # pixels that are used, at most a quarter of all
_FRAMES = 8  # at most so many frames are used
_REHEARSED = {True: 8, False: 4}  # frames of a rehearsal
_LIMIT = 1 << 24  # largest weight, with 16 fraction bits
_COARSE = 16  # with a tolerance, weights are rounded to multiples of this


@dataclass(frozen=True)
class Known:
    """The frames of one channel, from which weights are learned.

    Attributes
    ----------
    original : int32 (T, h, w)
    decoded : int32 (T, h, w)
        The neighbours as the decoder will have them; the original before a rehearsal.
    other : int32 (T, h, w) or None
        The channel that is coded before this one.
    guided : bool
        Whether a network predicts. Weights leave out its predictions, which are not known yet.
    keyframes : list of bool
    tolerance : int
    top : int
        The largest level.
    fine : bool
        Whether the running mean is a neighbour, too, and more pixels are used.
    brought : callable or None
        `brought(frame, t=t, back=back, finer=finer)` returns frame t - back, with `finer` fraction
        bits, adjusted to the brightness and motion of frame t.
    """

    original: np.ndarray
    decoded: np.ndarray
    other: np.ndarray | None
    guided: bool
    keyframes: list[bool]
    tolerance: int
    top: int
    fine: bool = False
    brought: Callable | None = None

    def past(self, frames: np.ndarray, t: int, back: int) -> np.ndarray:
        """Frame t - back of `frames`, adjusted to frame t."""
        frame = frames[t - back]
        return frame if self.brought is None else self.brought(frame, t=t, back=back)

    def means(self, frames: np.ndarray) -> Iterator[np.ndarray | None]:
        """Yield the running mean before each of `frames`, adjusted to it; None for keyframes.

        A frame is read only when the mean of the next one is asked for.
        """
        if not self.fine:
            yield from repeat(None, len(frames))
            return
        kernel = kernels.load("mixing.mean")
        finer, seen, mean = kernel.finer(self.top), 0, None
        for t, keyframe in enumerate(self.keyframes[: len(frames)]):
            seen = 0 if keyframe else seen
            if seen and self.brought is not None:
                mean = self.brought(mean, t=t, back=1, finer=finer)
            yield mean if seen else None
            if not seen:
                mean = np.zeros_like(frames[t])
            kernel.remember(frames[t], seen, self.top, mean)
            seen += 1

    def begin(self, count: int) -> Known:
        """The same channel with only the first `count` frames."""
        return replace(
            self,
            original=self.original[:count],
            decoded=self.decoded[:count],
            other=None if self.other is None else self.other[:count],
        )


def learn(known: Known) -> np.ndarray:
    """Least-squares weights for one channel: int32 (KINDS + 1, TAPS), 16 fraction bits.

    Decoded neighbours will differ from the original by up to the tolerance b. The variance of that
    error, b (b + 1) / 3, is added to the diagonal.
    """
    kernel, sums = kernels.load("mixing.pixels"), kernels.load("mixing.sums")
    count, height, width = known.original.shape
    samples = min(_SAMPLES[known.fine], known.original.size // 4)
    rows = max(1, samples // (width * min(count, _FRAMES)))
    stride = max(1, height // rows)
    exact = known.decoded is known.original
    noise = known.tolerance * (known.tolerance + 1) / 3 if exact else 0.05 * known.tolerance
    noise /= 4.0 ** kernel.narrowed(known.top)
    size = kernel.TAPS
    grams = np.zeros((kernel.KINDS + 1, size, size))
    products = np.zeros((kernel.KINDS + 1, size))
    counts = np.zeros(kernel.KINDS + 1, np.int64)
    chosen = set(np.linspace(0, count - 1, _FRAMES).astype(int)) | {0}
    for t, mean in enumerate(known.means(known.decoded)):
        if t in chosen:
            sums.accumulate(
                known.original[t], min(2, height - 1), stride, *_neighbours(known, mean, t),
                grams, products, counts,
            )  # fmt: skip
    weights = np.zeros((kernel.KINDS + 1, size), np.int32)
    unit = _COARSE if known.tolerance else 1
    for kind in np.flatnonzero(counts):
        gram = np.tril(grams[kind]) + np.tril(grams[kind], -1).T
        ridge = noise * counts[kind] + 1e-6 * np.trace(gram) / size + 1e-3
        solved = np.linalg.solve(gram + ridge * np.eye(size), products[kind])
        weights[kind] = np.clip(np.rint(solved * (65536 / unit)) * unit, -_LIMIT, _LIMIT)
    return weights


def rehearse(channels: list[Known], weights: list[np.ndarray]) -> list[Known]:
    """Decode the channels' first frames roughly, with `weights` as the only prediction.

    Weights that are learned from the result know the errors that decoded neighbours will have.
    """
    channels = [known.begin(_REHEARSED[known.fine]) for known in channels]
    kernel, rehearsal = kernels.load("mixing.pixels"), kernels.load("mixing.rehearsal")
    finer = kernels.load("mixing.mean").finer(channels[0].top)
    count, height, width = channels[0].original.shape
    padded = (height + kernel.TOP + kernel.BOTTOM, width + kernel.LEFT + kernel.RIGHT)
    inner = slice(kernel.TOP, kernel.TOP + height), slice(kernel.LEFT, kernel.LEFT + width)
    nothing = np.zeros(padded, np.int32)
    decoded = [np.empty_like(known.original) for known in channels]
    means = [known.means(decoded[c]) for c, known in enumerate(channels)]
    seen = 0
    for t in range(count):
        seen = 0 if channels[0].keyframes[t] else seen
        flags = kernel.HAS_PREVIOUS if seen > 0 else 0
        flags |= kernel.HAS_BEFORE if seen > 1 else 0
        flags |= kernel.HAS_MEAN if seen > 1 and channels[0].fine else 0
        other = other_errors = nothing
        for c, known in enumerate(channels):
            past = [
                _padded(known.past(decoded[c], t, back)) if seen >= back else nothing
                for back in (1, 2)
            ]
            mean = next(means[c])
            mean = nothing if mean is None else _padded(mean)
            current, errors = np.zeros(padded, np.int32), np.zeros(padded, np.int32)
            rehearsal.rehearse(
                known.original[t], known.tolerance, known.top, flags | kernel.HAS_OTHER * (c > 0),
                current, *past, mean, finer, other, errors, other_errors, weights[c],
            )  # fmt: skip
            decoded[c][t] = current[inner]
            other, other_errors = current, errors
        seen += 1
    return [
        replace(known, decoded=decoded[c], other=decoded[c - 1] if c else None)
        for c, known in enumerate(channels)
    ]


def _neighbours(known: Known, mean: np.ndarray | None, t: int) -> tuple:
    """The arguments of `sums.accumulate` for frame t, between the rows and the sums."""
    kernel, finer = kernels.load("mixing.pixels"), kernels.load("mixing.mean").finer(known.top)
    frames, history = known.decoded, 0
    if not known.keyframes[t]:
        history = 1 if t < 2 or known.keyframes[t - 1] else 2
    flags = kernel.HAS_PREVIOUS if history > 0 else 0
    flags |= kernel.HAS_BEFORE if history > 1 else 0
    flags |= kernel.HAS_MEAN if history > 1 and known.fine else 0
    flags |= kernel.HAS_GUESS if history and known.guided else 0
    flags |= kernel.HAS_OTHER if known.other is not None else 0
    current = _padded(frames[t])
    past = [_padded(known.past(frames, t, back)) if history >= back else current for back in (1, 2)]
    still = _padded(mean) if flags & kernel.HAS_MEAN else current
    other = current if known.other is None else _padded(known.other[t])
    return kernel.narrowed(known.top), flags, current, *past, still, finer, other


def _padded(plane: np.ndarray) -> np.ndarray:
    """A plane with its edges repeated into the margins that kernels look at."""
    kernel = kernels.load("mixing.pixels")
    margins = ((kernel.TOP, kernel.BOTTOM), (kernel.LEFT, kernel.RIGHT))
    return np.pad(plane, margins, mode="edge")


def pack(weights: list[np.ndarray]) -> bytes:
    """All channels' weights as bytes: a length, then zstd of their bytes, lowest first."""
    stacked = np.stack(weights).astype("<i4")
    split = stacked.reshape(-1, 1).view(np.uint8).T
    return BLOCK.pack(np.ascontiguousarray(split).tobytes())


def unpack(data: bytes, channels: int) -> tuple[list[np.ndarray], int]:
    """The inverse of `pack`: weights, and how many bytes they took.

    Raises
    ------
    FormatError
        When they are damaged.
    """
    kernel = kernels.load("mixing.pixels")
    shape = (channels, kernel.KINDS + 1, kernel.TAPS)
    count = int(np.prod(shape))
    packed, size = BLOCK.open(data)
    try:
        raw = inflate(packed, 4 * count, "a block of weights")
        split = np.frombuffer(raw, np.uint8).reshape(4, count)
    except ValueError as error:
        raise FormatError(f"transmitted weights are damaged: {error}") from None
    weights = np.ascontiguousarray(split.T).view("<i4").astype(np.int32).reshape(shape)
    return [np.ascontiguousarray(w) for w in np.clip(weights, -_LIMIT, _LIMIT)], size
