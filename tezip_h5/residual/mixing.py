"""The context-mixing coder: adaptive prediction of every pixel, logistic mixing of contexts.

Unlike the stages it sees pixels, not residuals: every pixel is predicted by a blend of its
neighbours, the frames before, the network and adaptive filters; what is left is quantised in
closed loop and coded as binary decisions whose probabilities are mixed from many contexts.
Keyframes go the same way, without frames before them.
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
"""Largest level it takes."""
_BAND_PIXELS = {0: 1 << 16, 1: 1 << 17}  # of a band of one frame, about, by model
_LEAST_TAUGHT = 4096  # pixels of a frame; weights cost more than they gain in smaller ones
_TRIAL_FRAMES, _TRIAL_SHARE = 4, 64  # a trial takes so many frames, and such a part of all
_ALONE = 1.015  # what adapts beside transmitted weights has hardly begun to in a trial


def _bands(number: int, height: int, width: int) -> int:
    """Bands of a frame: at least two, for two threads, unless it is very low."""
    return max(1, min(height // 32, max(2, round(height * width / _BAND_PIXELS[number]))))


def _most_bands(height: int, width: int) -> int:
    """Bands that a frame may have: each has a state of its own, whatever its size."""
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
            What there is to learn from, of every channel.
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
        """The channels, their past frames changed, and weights for them."""
        if changes.flags:
            channels = [
                replace(known, brought=partial(changes.past, c=c))
                for c, known in enumerate(channels)
            ]
        return channels, [lessons.learn(known) for known in channels]

    def _jumps(self, channels: list[Known], changes: Changes) -> Changes | None:
        """Changes of brightness besides `changes`, if there are any."""
        found = [brightness.estimate(k.original, k.keyframes, k.tolerance) for k in channels]
        if all(jumps is None for jumps in found):
            return None
        still = brightness.unchanged(len(channels[0].original))
        found = [still if jumps is None else jumps for jumps in found]
        return replace(changes, brightness=found)

    def _motion(self, channels: list[Known], changes: Changes) -> Changes | None:
        """Motion besides `changes`, if there is any."""
        first = channels[0]
        last = partial(first.past, first.original, back=1)
        vectors = motion.estimate(
            first.original, last, first.keyframes, self._rows, 1 if first.fine else 2, self.threads
        )
        return None if vectors is None else replace(changes, vectors=vectors)

    def _best_trial(self, channels: list[Known], choices) -> int:
        """Which of two or more weights and changes will make the fewest bytes."""
        trials = [self._trial(channels, *choice) for choice in choices]
        return int(np.argmin(follow(trials, self.threads, self.device)))

    def _trial(self, channels: list[Known], weights: Weights, changes: Changes):
        """Bytes that a part of the frames takes, judged by the first ones, from a band's middle;
        a generator for `follow`."""
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
            # Where a network will predict, the last frame stands in for it.
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
        """Code a frame from itself; returns its reconstruction, int32 (C, h, w).

        Where `free`, bool of that shape, any sample will do.
        """
        return self._code(levels, levels, tolerances, free, keyframe=True)

    def residual(self, levels, prediction, tolerances, free=None) -> np.ndarray:
        """Code a frame from what is known; returns its reconstruction, int32 (C, h, w)."""
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
    """Model, flags, use of weights and bands, as a section of frames of this shape begins."""
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
    """Every band's stream: as a section ends, their sizes before them."""
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
        """What the bytes of the section `name` are; FormatError when they are none of ours."""
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
