"""The ways to encode one chunk: `Attempts` tries coders, quantizers and a network, and keeps the
smallest payload.

A way that is slower to read must be smaller by a margin, which `efforts.Effort` calls its worth.
Most decisions are made on a *sample*: a part of the chunk that is encoded in both ways.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from tezip_h5 import bitstream, levels, parallel, predictability, residual
from tezip_h5.bitstream import Header, Section
from tezip_h5.bounds import ChunkBound
from tezip_h5.chunk.coding import ChunkEncoder, Encoded, FrameRecord, Task
from tezip_h5.efforts import Effort
from tezip_h5.prediction.integer import IntegerModel
from tezip_h5.settings import Settings

__all__ = ["Attempts", "network_may_pay"]

# A sample has the first 8 frames, and a side of 64 to 128 pixels: a sixteenth of the chunk where
# these limits allow it. A smaller one would flatter networks, because the mixing coder would not
# have learned enough yet.
_SAMPLE_SIDES, _SAMPLE_FRAMES, _SAMPLE_SHARE = (64, 128), 8, 16
_PATCHES = 2  # a sample of the whole picture is put together from 2 x 2 patches
_HOPE = 0.75  # a network is tried where a sample saves more than this share of its worth
_DOUBTFUL = 0.5, 1.5  # where mixing saves so many times its worth, a second sample is taken
_RARE = 1 / 64  # if fewer of the samples are holes, what is stored in them does not matter
_WHOLE_FRAMES = 3  # the number of frames in a sample of whole frames
_FREED = 0.01  # a coder may choose the values in holes if that saves this share of a sample's bytes
_SKEWED = 0.15  # planes without prediction are tried where |predictability.skew| exceeds this
_STILL = 1.0  # below this many bits per sample, frames hardly change and a sample is no guide


def network_may_pay(saving: float | None, effort: Effort) -> bool:
    """Whether a network is tried, given the share that it saves in a sample (`Attempts.saving`)."""
    return saving is None or saving > _HOPE * effort.network_worth


class Attempts(Task):
    """A chunk, and the ways to encode it that are compared."""

    @property
    def _open(self) -> bool:
        """Whether the settings leave the choice between the mixing and the linear coder open."""
        return self.settings.coder is None and self.settings.predictor != "prednet"

    def or_by(self, scale: levels.Scale, worth: float = 0.0) -> Attempts:
        """Choose between the present scale and another one.

        Both encode a sample, or the whole chunk if it is small, with the level's coder. Returns the
        attempts with the other scale if that saves more than this share of the bytes, else these
        attempts.
        """
        both = self, replace(self, scale=scale)
        samples = [tried._sample(_PATCHES) or replace(tried, threads=1) for tried in both]
        runs = parallel.each(
            lambda part: part._run(_coder_for(part.settings, part.scale)),
            samples,
            self.threads,
        )
        share = samples[0].samples.frames.size / self.samples.frames.size
        sizes = [_of_all(run.payload, share) for run in runs]
        return both[sizes[1] < (1 - worth) * sizes[0]]

    def freeing(self) -> Attempts:
        """Decide which coders may choose the values in holes; returns the attempts that say so.

        The samples in holes are stored apart, so a coder may put its own prediction there. That
        saves bytes where fields are smooth and gaps move. Each coder encodes a sample with and
        without that freedom.

        The linear coder's predictions may diverge inside a hole, more so in a wide one. Its
        sample is therefore the first frames, whole.
        """
        holes = self.samples.holes
        if holes is None or np.count_nonzero(holes) < _RARE * holes.size:
            return self
        coders = {_coder_for(self.settings, self.scale)} - {"stages"}
        if self._open:
            coders.add("linear")
        tried = [(coder, frees) for coder in sorted(coders) for frees in ((), (coder,))]
        parts = {}
        if "linear" in coders:
            parts["linear"] = self._part(np.s_[:_WHOLE_FRAMES])
        if "mixing" in coders:
            parts["mixing"] = self._sample(holey=True) or replace(self, threads=1)
        runs = parallel.each(
            lambda one: replace(parts[one[0]], frees=one[1])._run(one[0]), tried, self.threads
        )
        sizes = [_of_so_many(run.frames, len(self.samples.frames)) for run in runs]
        pairs = zip(sorted(coders), sizes[::2], sizes[1::2], strict=True)
        paying = (coder for coder, kept, free in pairs if free < (1 - _FREED) * kept)
        return replace(self, frees=tuple(paying))

    def judge(self, model: IntegerModel | None, saving: float | None) -> tuple[bool, bool]:
        """Whether to try a network, and whether it clearly pays, so that no other way is tried."""
        settings = self.settings
        if settings.predictor == "prednet" or model is None:
            return model is not None, model is not None
        if settings.predictor is not None:
            return False, False
        if saving is None:
            saving = self.saving(model)
        sure = saving is not None and saving > settings.effort.network_worth
        return network_may_pay(saving, settings.effort), sure

    def saving(self, model: IntegerModel) -> float | None:
        """The share of a sample's bytes that a network saves; None if the chunk is too small to
        take a sample. Bytes are those of `weighed`."""
        sample = self._sample()
        if sample is None:
            return None
        without, with_model = parallel.each(
            lambda tried: self.weighed(sample.smallest(tried)), (None, model), self.threads
        )
        return 1 - with_model / without

    def weighed(self, encoded: Encoded) -> float:
        """The bytes of a payload, by which payloads are compared.

        A payload of the linear coder counts for less, by the share that mixing must save.
        """
        worth = self.settings.effort.mixing_worth
        return len(encoded.payload) * (1 - worth * (encoded.coder == "linear"))

    def _sample(self, patches: int = 1, holey: bool = False) -> Attempts | None:
        """Cut a sample from the first frames; None if it would be a large part of the chunk.

        With one patch it is the middle of the picture. With more, it is the middles of
        `patches` x `patches` parts of the picture, put side by side. If `holey`, it is a part
        whose share of holes is that of the whole picture.
        """
        count, (g, h, w) = _SAMPLE_FRAMES, self.samples.frames.shape[:3]
        least, most = _SAMPLE_SIDES
        if g * h * w <= count * most * most:  # so a sample has none itself
            return None
        side = min(max(math.isqrt(g * h * w // (_SAMPLE_SHARE * count)), least), most)
        if holey:
            rows, columns = _typical(self.samples.holes[:count].mean(axis=(0, 3)), side)
        else:
            rows, columns = (_middles(length, side, patches) for length in (h, w))
        return self._part(np.s_[:count, rows[:, None], columns])

    def _part(self, index) -> Attempts:
        """The same attempts for a part of the samples; `index` selects frames, rows, columns."""
        part = self.samples.part(index)
        shape = part.frames.shape
        header = Header(self.header.dtype, shape, shape[:3], coder=0)
        kinds = self.kinds and self.kinds[: shape[0]]
        return replace(self, header=header, samples=part, kinds=kinds, threads=1)

    def smallest(self, model: IntegerModel | None) -> Encoded:
        """The smallest payload of all quantizers and coders, with `model` if one is given."""
        settings, main = self.settings, _coder_for(self.settings, self.scale)
        if main == "mixing" and self._open and model is None:
            return self._mixing_or_linear()
        runs = [
            self._run(main, quantizer, model)
            for quantizer in _quantizers(settings, self.bound, main)
        ]
        return min(runs, key=lambda run: len(run.payload))

    def flat(self) -> Encoded | None:
        """The linear coder's payload without predictions, which suits skewed noise.

        None if the noise is not skewed, if a sample does not become smaller, if another coder is
        pinned, or if levels are too wide.
        """
        settings = self.settings
        if settings.coder not in (None, "linear") or settings.predictor == "prednet":
            return None
        if (
            self.scale.top > residual.MIXING_MOST_TOP
            or abs(predictability.skew(self.samples.frames)) < _SKEWED
        ):
            return None
        sample = self._sample(_PATCHES)
        if sample is not None:
            predicted, flat = parallel.each(
                lambda options: len(sample._run("linear", **options).payload),
                ({}, {"flat": True}),
                self.threads,
            )
            if flat >= predicted:
                return None
        return self._run("linear", flat=True)

    def _mixing_or_linear(self) -> Encoded:
        """The payload of the mixing coder, or of the linear coder where mixing saves too little."""
        saved, worth = self._mixing_saves(), self.settings.effort.mixing_worth
        if saved is not None and saved < worth:
            return self._run("linear")
        mixing = self._run("mixing")
        if saved is not None and not self._still(mixing):
            return mixing
        return min(mixing, self._run("linear"), key=self.weighed)

    def _mixing_saves(self) -> float | None:
        """The share of bytes by which mixing beats the linear coder, estimated from a sample.

        If it is near the share that decides, another sample decides. None if samples are no guide,
        or if the level runs both coders.
        """
        worth = self.settings.effort.mixing_worth
        if not worth:
            return None
        saved = self._mixing_saves_in(self._sample(_PATCHES))
        low, high = (times * worth for times in _DOUBTFUL)
        if saved is not None and low <= saved <= high:
            saved = self._mixing_saves_in(self._sample(_PATCHES + 1))
        return saved

    def _mixing_saves_in(self, sample: Attempts | None) -> float | None:
        """The share that mixing saves, estimated from this sample; None if it is no guide."""
        if sample is None:
            return None
        mixing, linear = parallel.each(sample._run, ("mixing", "linear"), self.threads)
        if sample._still(mixing):
            return None
        share = sample.samples.frames.size / self.samples.frames.size
        return 1 - _of_all(mixing.payload, share) / _of_all(linear.payload, share)

    def _still(self, encoded: Encoded) -> bool:
        """Whether a payload is so small that nearly all levels must be as predicted.

        The few others are spread unevenly, so a sample is no guide to the whole chunk.
        """
        return 8 * len(encoded.payload) <= _STILL * self.samples.frames.size

    def _run(
        self,
        coder: str,
        quantizer: str = "uniform",
        model: IntegerModel | None = None,
        **options,
    ) -> Encoded:
        return ChunkEncoder(self, coder, quantizer, model, **options).encode()


def _middles(length: int, side: int, parts: int) -> np.ndarray:
    """Indices of about `side` samples in all: those in the middle of each of `parts` equal parts
    of a length."""
    side = min(side, length)
    each = -(-side // parts)
    starts = (2 * np.arange(parts) + 1) * length // (2 * parts) - each // 2
    return (np.clip(starts, 0, length - each)[:, None] + np.arange(each)).reshape(-1)


def _typical(share: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the part of `share` (h, w) whose mean is nearest to the whole mean."""
    height, width = (min(side, length) for length in share.shape)
    sums = np.pad(share.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    tops, lefts = (
        np.linspace(0, length - part, 2 * -(-length // part)).astype(int)
        for length, part in zip(share.shape, (height, width), strict=True)
    )
    ends = sums[tops + height][:, [lefts, lefts + width]] - sums[tops][:, [lefts, lefts + width]]
    means = (ends[:, 1] - ends[:, 0]) / (height * width)
    i, j = np.unravel_index(abs(means - share.mean()).argmin(), means.shape)
    return tops[i] + np.arange(height), lefts[j] + np.arange(width)


def _of_all(payload: bytes, share: float) -> float:
    """Estimate the bytes of a chunk from the payload of a part of it.

    The scale does not grow with the part. The linear coder's tables serve the whole chunk, too, but
    the mixing coder, which has none, learns more in a whole chunk. Measurements agreed best with
    counting half of the tables' bytes once, and half in proportion.
    """
    sections = bitstream.unpack(payload).sections
    once = len(sections[Section.LEVELS]) + len(sections.get(Section.TABLES, b"")) / 2
    return once + (len(payload) - once) / share


def _of_so_many(records: list[FrameRecord], count: int) -> float:
    """Estimate the bytes of `count` frames from those of the first few.

    The first frame counts once, because it holds what a chunk begins with.
    """
    first, *rest = (record.keyframe_bytes + record.residual_bytes for record in records)
    return first + sum(rest) * (count - 1) / max(len(rest), 1)


def _coder_for(settings: Settings, scale) -> str:
    """The residual coder: the level's, unless pinned or levels are too wide for it."""
    if settings.main_coder == "mixing" and scale.top > residual.MIXING_MOST_TOP:
        return "linear"
    return settings.main_coder


def _quantizers(settings: Settings, bound: ChunkBound, coder: str) -> tuple[str, ...]:
    if settings.quantizer is not None:
        return (settings.quantizer,)
    if bound.lossless or not settings.effort.searches_stages or coder != "stages":
        return ("uniform",)
    return ("uniform", "run-merging")
