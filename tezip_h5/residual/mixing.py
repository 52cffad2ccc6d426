"""The context-mixing coder: adaptive prediction of every pixel, logistic mixing of contexts.

Unlike the stages it codes pixels, not residuals. Every pixel is predicted by a blend of its
neighbours, the frames before, the network and adaptive filters. The residual is quantised in a
closed loop and coded as binary decisions, whose probabilities are mixed from many contexts.
Keyframes are coded in the same way, without frames before them.
"""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise

import numpy as np

from tezip_h5 import kernels
from tezip_h5.errors import FormatError
from tezip_h5.kernels.sizes import AHEAD, BEYOND
from tezip_h5.residual import brightness, lessons, motion
from tezip_h5.residual.changes import FLAGS, Changes
from tezip_h5.residual.lessons import Known
from tezip_h5.residual.streams import MODELS, Bands, Stream, Weights, follow

__all__ = ["MOST_TOP", "RESIDUALS", "MixingDecoder", "MixingEncoder"]

RESIDUALS = "residuals"

_PREFIX = struct.Struct("<BBBBH")  # model, flags, use of weights, 0, bands
_SIZE = struct.Struct("<I")
_GUIDED = 1  # beside the flags of changes
MOST_TOP = 2**30
"""Largest level that this coder takes."""
_BAND_PIXELS = {0: 1 << 16, 1: 1 << 17}  # about the number of pixels of a band, by model
_LEAST_TAUGHT = 4096  # in frames with fewer pixels, transmitted weights cost more than they save
_TRIAL_FRAMES, _TRIAL_SHARE = 4, 64  # a trial encodes part of 4 frames: 1/64 of the chunk's samples
# In a trial adaptive predictors have learned little yet, so transmitted weights alone look better
# than they are. Their bytes are multiplied by this.
_ALONE = 1.015


def _bands(number: int, height: int, width: int) -> int:
    """Bands of a frame: at least two, for two threads, unless it is very low."""
    return max(1, min(height // 32, max(2, round(height * width / _BAND_PIXELS[number]))))


def _most_bands(height: int, width: int) -> int:
    """Largest number of bands of a frame; each band has an adaptive state of fixed size."""
    return max(1, min(height // 32, max(2, -(-height * width // min(_BAND_PIXELS.values())))))


def _edges(height: int, bands: int) -> list[slice]:
    """Rows of every band, as even as can be."""
    cuts = [height * i // bands for i in range(bands + 1)]
    return [slice(a, b) for a, b in pairwise(cuts)]


class MixingEncoder:
    """Encode the frames of one chunk; see `residual` for the protocol.

    Parameters
    ----------
    shape : (C, h, w) of a frame's levels
    scale : what made the levels (its `top` is used, at most 2**30)
    settings : the encoder's options
    quantizer : "uniform", the only one here
    guided : bool
        Whether predictions are a network's, and not just the last frame again.
    """

    learns = True
    place = "cpu"
    threads = 1
    device = "cpu"

    def __init__(self, shape, scale, settings, quantizer="uniform", guided: bool = False):
        self._number = settings.effort.mixing_model
        self._guided, self._shape, self._top = guided, shape, scale.top
        self._rows = _edges(shape[1], _bands(self._number, *shape[1:]))
        self._sizes = []
        self._open(Weights(), Changes(self._rows, self._top))

    def _open(self, weights: Weights, changes: Changes) -> None:
        self._weights, self._changes = weights, changes
        self._bands = Bands(
            [
                self._stream(
                    (self._shape[0], rows.stop - rows.start, self._shape[2]),
                    weights,
                    changes.of_band(band),
                )
                for band, rows in enumerate(self._rows)
            ]
        )

    def _stream(self, shape, weights: Weights, changes) -> Stream:
        return Stream(self._number, shape, self._top, self._guided, weights, *changes)

    def prepare(self, channels: list[Known]) -> None:
        """Learn weights from all frames, and choose by trials what to transmit.

        Parameters
        ----------
        channels : list of Known
            The frames of every channel to learn from.
        """
        if channels[0].original[0].size < _LEAST_TAUGHT:
            return
        fine = MODELS[self._number][1].fine
        channels = [replace(known, fine=fine) for known in channels]
        changes = self._changes
        channels, learned = self._learn(channels, changes)
        for find in (self._jumps, self._motion):
            if (found := find(channels, changes)) is not None:
                other = self._learn(channels, found)
                ways = [(Weights(1, learned), changes), (Weights(1, other[1]), found)]
                if self._best_trial(channels, ways) == 1:
                    (channels, learned), changes = other, found
        if any(known.tolerance for known in channels):
            channels = lessons.rehearse(channels, learned)
            learned = [lessons.learn(known) for known in channels]
        ways = [(Weights(use, learned), changes) for use in (1, 2)]
        self._open(*ways[self._best_trial(channels, ways)])

    def _learn(self, channels: list[Known], changes: Changes):
        """Learn weights for channels whose past frames are adjusted by `changes`; returns both."""
        if changes.flags:
            channels = [
                replace(known, brought=partial(changes.past, c=c))
                for c, known in enumerate(channels)
            ]
        return channels, [lessons.learn(known) for known in channels]

    def _jumps(self, channels: list[Known], changes: Changes) -> Changes | None:
        """`changes` with changes of brightness; None if there are none."""
        found = [brightness.estimate(k.original, k.keyframes, k.tolerance) for k in channels]
        if all(jumps is None for jumps in found):
            return None
        still = brightness.unchanged(len(channels[0].original))
        found = [still if jumps is None else jumps for jumps in found]
        return replace(changes, brightness=found)

    def _motion(self, channels: list[Known], changes: Changes) -> Changes | None:
        """`changes` with motion; None if there is none."""
        first = channels[0]
        last = partial(first.past, first.original, back=1)
        vectors = motion.estimate(
            first.original, last, first.keyframes, self._rows, 1 if first.fine else 2, self.threads
        )
        return None if vectors is None else replace(changes, vectors=vectors)

    def _best_trial(self, channels: list[Known], choices) -> int:
        """The number of the choice (weights and changes) with the fewest bytes in a trial."""
        trials = [self._trial(channels, *choice) for choice in choices]
        return int(np.argmin(follow(trials, self.threads, self.device)))

    def _trial(self, channels: list[Known], weights: Weights, changes: Changes):
        """A generator for `follow`, which encodes a part of the first frames, in a band's middle.

        Its result is the estimated number of bytes of that part in all frames.
        """
        block = kernels.load("mixing.motion").BLOCK
        band = len(self._rows) // 2
        part = self._rows[band]
        height, width = part.stop - part.start, self._shape[2]
        pixels = channels[0].original.size // (_TRIAL_SHARE * _TRIAL_FRAMES)
        blocks = max(pixels // (block * block), 4)
        high = min(8, -(-height // block), max(2, math.isqrt(blocks)))
        wide = min(max(blocks // high, 2), 16)
        down = max(0, (height // block - high) // 2)
        across = max(0, (width // block - wide) // 2)
        top = part.start + down * block
        rows = slice(top, min(part.stop, top + high * block))
        columns = slice(across * block, (across + wide) * block)
        vectors, jumps = changes.of_band(band)
        if vectors is not None:
            vectors = vectors[:, down : down + high, across : across + wide].copy()
        part = np.stack([known.original[:_TRIAL_FRAMES, rows, columns] for known in channels], 1)
        stream = self._stream(part.shape[1:], weights, (vectors, jumps))
        tolerances = [known.tolerance for known in channels]
        keyframes = np.array(channels[0].keyframes)
        bands, ends = Bands([stream]), [0]
        for t, frame in enumerate(part):
            # The last frame takes the place of a network's prediction, which is not known yet.
            yield bands, ([frame], [part[max(t - 1, 0)]], tolerances, keyframes[t])
            ends.append(stream.position)
        bands.close()
        sizes, tried = np.diff(ends), keyframes[: len(part)]
        if vectors is not None:
            sizes[~tried] += len(motion.pack([vectors[: len(part)]])) // max(1, (~tried).sum())
        kinds = [kind for kind in (False, True) if (tried == kind).any()]
        size = sum(sizes[tried == kind].mean() * (keyframes == kind).sum() for kind in kinds)
        return size * _ALONE if weights.use == 2 else size

    def keyframe(self, levels: np.ndarray, tolerances: np.ndarray, free=None) -> np.ndarray:
        """Code a keyframe; returns its reconstruction, int32 (C, h, w).

        `free`, bool of that shape, marks holes, whose samples the coder may choose.
        """
        return self._code(levels, levels, tolerances, free, keyframe=True)

    def residual(self, levels, prediction, tolerances, free=None) -> np.ndarray:
        """Code a predicted frame; returns its reconstruction, int32 (C, h, w)."""
        return self._code(levels, prediction, tolerances, free, keyframe=False)

    def _code(self, levels, prediction, tolerances, free, keyframe):
        if free is not None:
            levels = np.where(free, np.int32(-1), levels)
        before = sum(stream.position for stream in self._bands.streams)
        parts = self._bands.code(
            [levels[:, rows] for rows in self._rows],
            [prediction[:, rows] for rows in self._rows],
            tolerances,
            keyframe,
            self.threads,
            self.device,
        )
        self._sizes.append(sum(stream.position for stream in self._bands.streams) - before)
        return np.concatenate(parts, 1) if len(parts) > 1 else parts[0]

    def finish(self) -> tuple[dict[str, bytes], list[int]]:
        """Return the sections, and the bytes each frame took, in order."""
        streams = self._bands.finish()
        head = _PREFIX.pack(
            self._number,
            _GUIDED * self._guided | self._changes.flags,
            self._weights.use,
            0,
            len(streams),
        )
        head += self._changes.pack()
        if self._weights.use:
            head += lessons.pack(self._weights.of_channels)
        head += b"".join(_SIZE.pack(len(stream)) for stream in streams)
        section = head + b"".join(streams)
        sizes = list(self._sizes)
        sizes[-1] += len(section) - sum(sizes)
        return {RESIDUALS: section}, sizes


def _prefix(section: bytes, shape) -> tuple[int, int, int, int]:
    """Read the prefix of a section: model, flags, use of weights and number of bands."""
    if len(section) < _PREFIX.size:
        raise FormatError(f"a section of {len(section)} bytes; its prefix needs {_PREFIX.size}")
    number, flags, use, zero, bands = _PREFIX.unpack_from(section)
    if (
        number not in MODELS
        or flags & ~(_GUIDED | FLAGS)
        or use > 2
        or zero
        or not 1 <= bands <= _most_bands(*shape[1:])
    ):
        raise FormatError(
            f"prefix of a mixed section out of range: model {number}, flags {flags}, weights "
            f"{use}, {bands} bands of {shape[1]} x {shape[2]} samples"
        )
    return number, flags, use, bands


def _streams(data: bytes, bands: int) -> list[bytes]:
    """The streams of all bands, from the end of a section, where their sizes come first."""
    start = bands * _SIZE.size
    if len(data) < start:
        raise FormatError(f"a mixed section ends {start - len(data)} bytes before its streams")
    sizes = [size for (size,) in _SIZE.iter_unpack(data[:start])]
    if start + sum(sizes) != len(data):
        raise FormatError(f"streams of {sizes} bytes in {len(data) - start}")
    ends = [start + end for end in accumulate(sizes)]
    return [data[end - size : end] for end, size in zip(ends, sizes, strict=True)]


class MixingDecoder:
    """Decode the frames of one chunk, in order; the inverse of `MixingEncoder`.

    Parameters
    ----------
    sections : the payload's sections
    shape, scale : as for the encoder
    """

    place = "cpu"
    threads = 1
    device = "cpu"

    def __init__(self, sections: dict[str, bytes], shape, scale):
        section = sections.get(RESIDUALS, b"")
        number, flags, use, bands = _prefix(section, shape)
        if scale.top > MOST_TOP:
            raise FormatError(
                f"levels up to {scale.top} are out of range; the coder takes {MOST_TOP}"
            )
        start = _PREFIX.size
        self._rows = _edges(shape[1], bands)
        changes, size = Changes.unpack(section[start:], flags, self._rows, shape, scale.top)
        start += size
        weights = Weights()
        if use:
            learned, size = lessons.unpack(section[start:], shape[0])
            weights = Weights(use, learned)
            start += size
        streams = []
        for b, (rows, data) in enumerate(
            zip(self._rows, _streams(section[start:], bands), strict=True)
        ):
            streams.append(
                Stream(
                    number,
                    (shape[0], rows.stop - rows.start, shape[2]),
                    scale.top,
                    bool(flags & _GUIDED),
                    weights,
                    *changes.of_band(b),
                    data=data,
                )
            )
        self._bands = Bands(streams)
        self._shape = shape

    @staticmethod
    def parts(name: str, data: bytes, shape) -> dict[str, int]:
        """Number of bytes of each part of the section `name`; FormatError if it is not valid."""
        if name != RESIDUALS:
            raise FormatError(f"the mixing coder has no section of {name}")
        _, flags, use, bands = _prefix(data, shape)
        found = Changes.parts(data[_PREFIX.size :], flags)
        start = _PREFIX.size + sum(found.values())
        if use:
            _, size = lessons.BLOCK.open(data[start:])
            found["transmitted weights"] = size
            start += size
        streams = _streams(data[start:], bands)
        sizes = {f"stream of band {band}": len(stream) for band, stream in enumerate(streams)}
        return {"prefix": _PREFIX.size + bands * _SIZE.size, **found, **sizes}

    def finish(self) -> None:
        """FormatError unless all streams ended with the last frame."""
        if any(stream.position < stream.data.size + AHEAD for stream in self._bands.streams):
            raise FormatError("a stream goes on behind the last frame; the payload is damaged")

    def keyframe(self, tolerances: np.ndarray) -> np.ndarray:
        """Reconstruct a keyframe: int32 (C, h, w)."""
        return self._code(np.zeros(self._shape, np.int32), tolerances, keyframe=True)

    def residual(self, prediction: np.ndarray, tolerances: np.ndarray) -> np.ndarray:
        """Reconstruct a predicted frame: int32 (C, h, w)."""
        return self._code(prediction, tolerances, keyframe=False)

    def _code(self, prediction, tolerances, keyframe):
        parts = self._bands.code(
            [None] * len(self._rows),
            [prediction[:, rows] for rows in self._rows],
            tolerances,
            keyframe,
            self.threads,
            self.device,
        )
        if any(stream.position > stream.data.size + BEYOND for stream in self._bands.streams):
            raise FormatError("a stream ends before its frames do; the payload is damaged")
        return np.concatenate(parts, 1) if len(parts) > 1 else parts[0]
