"""What is tried on one chunk: coders, quantizers, with a network or without; the smallest stays,
where what is slower to read must be smaller by its worth.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from tezip_h5 import bitstream, glance, levels, parallel, residual
from tezip_h5.bitstream import Header, Section
from tezip_h5.bounds import ChunkBound
from tezip_h5.chunk import ChunkEncoder, Encoded, FrameRecord, Task
from tezip_h5.efforts import Effort
from tezip_h5.prediction.integer import IntegerModel
from tezip_h5.settings import Settings

__all__ = ["Attempts", "coder_by", "compares", "network_may_pay"]

# Of the part that shows what a slower way saves: a sixteenth of the chunk within these limits. In
# small parts a network gains where the coder's own voters have not learned yet.
_SAMPLE_SIDES, _SAMPLE_FRAMES, _SAMPLE_SHARE = (64, 128), 8, 16
_PATCHES = 2  # rows and columns of what must stand for all of the picture
_HOPE = 0.75  # share of its worth that a network must save there to be tried
_CLEAR = 0.5, 1.5  # times its worth, below and above which a sample decides upon the mixing coder
_RARE = 1 / 64  # share of holes below which nothing hangs on what they hold
_WHOLE_FRAMES = 3  # of a sample that must be as wide as what it stands for
_FREED = 0.01  # share of the bytes that holes which may become anything must save in a sample
_SKEWED = 0.15  # of `glance.skew`, above which planes may be better off without predictions
_STILL = 1.0  # bits per sample: parts of such frames say little of the whole


def network_may_pay(saving: float | None, effort: Effort) -> bool:
    """Whether a network is tried for which `Attempts.saving` has said this."""
    return saving is None or saving > _HOPE * effort.network_worth


def compares(settings: Settings) -> bool:
    """Whether chunks may be encoded by the mixing coder and by the linear one, to compare."""
    pinned = settings.coder is not None or settings.predictor == "prednet"
    return not pinned and settings.effort.mixing_worth > 0


def coder_by(saved: float, effort: Effort) -> str | None:
    """The coder to take where the mixing coder saves this beside the linear one in a sample, see
    `Attempts.mixing_saves`; None where it takes both to say."""
    low, high = (share * effort.mixing_worth for share in _CLEAR)
    if low <= saved <= high:
        return None
    return "linear" if saved < low else "mixing"


class Attempts(Task):
    """What may be tried on one chunk."""

    def or_by(self, scale: levels.Scale, worth: float = 0.0) -> Attempts:
        """These, or the same by another scale if it makes a sample smaller by such a share; all of
        the chunk where that is not large."""
        both = self, replace(self, scale=scale)
        samples = [tried._sample(_PATCHES) or replace(tried, threads=1) for tried in both]
        runs = parallel.each(
            lambda part: part._run(_coder_for(part.settings, part.scale)), samples, self.threads
        )
        share = samples[0].samples.frames.size / self.samples.frames.size
        sizes = [_of_all(run.payload, share) for run in runs]
        return both[sizes[1] < (1 - worth) * sizes[0]]

    def freeing(self) -> Attempts:
        """These, with the coders for which it makes a sample smaller to make what they like of
        holes; where fields are smooth and gaps move, it does.

        What the linear coder predicts may run off, the farther the wider a hole is: its sample is
        the first frames, whole.
        """
        holes = self.samples.holes
        if holes is None or np.count_nonzero(holes) < _RARE * holes.size:
            return self
        coders = {_coder_for(self.settings, self.scale)} - {"stages"}
        if compares(self.settings):
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
        """Whether to try a network, and whether it is clear that it pays."""
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
        """Share of the bytes that a network saves in a sample, `weighed`; None where a sample says
        nothing."""
        sample = self._sample()
        if sample is None:
            return None
        without, with_model = parallel.each(
            lambda tried: self.weighed(sample.smallest(tried)), (None, model), self.threads
        )
        return 1 - with_model / without

    def weighed(self, encoded: Encoded) -> float:
        """Bytes of a payload; of one of the linear coder fewer, by what mixing must save."""
        worth = self.settings.effort.mixing_worth
        return len(encoded.payload) * (1 - worth * (encoded.coder == "linear"))

    def _sample(self, patches: int = 1, holey: bool = False) -> Attempts | None:
        """A part of the first frames; None where it would be much of the chunk.

        It is the middle, or, side by side, the middles of `patches` rows and columns of parts;
        or, if `holey`, where holes are as many as they are in all.
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
        """These for some of the first frames alone, or for a part of each."""
        part = self.samples.part(index)
        shape = part.frames.shape
        header = Header(self.header.dtype, shape, shape[:3], coder=0)
        kinds = self.kinds and self.kinds[: shape[0]]
        return replace(
            self, header=header, samples=part, kinds=kinds, threads=1, saved=None, preferred=None
        )

    def smallest(self, model: IntegerModel | None) -> Encoded:
        """The smallest payload over quantizers and coders, with a network or without."""
        settings, main = self.settings, _coder_for(self.settings, self.scale)
        if main == "mixing" and settings.coder is None and model is None:
            return self._mixing_or_linear()
        runs = [
            self._run(main, quantizer, model)
            for quantizer in _quantizers(settings, self.bound, main)
        ]
        return min(runs, key=lambda run: len(run.payload))

    def flat(self) -> Encoded | None:
        """The linear coder's payload without predictions, for skewed noise; None where it is not, a
        sample is not smaller by it, another coder is pinned, or levels are too wide."""
        settings = self.settings
        if settings.coder not in (None, "linear") or settings.predictor == "prednet":
            return None
        if (
            self.scale.top > residual.MIXING_MOST_TOP
            or abs(glance.skew(self.samples.frames)) < _SKEWED
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
        """The mixing coder's payload, or the linear coder's where that is hardly larger."""
        coder, saved = None, self.saved
        if saved is None:
            saved = self.mixing_saves()
        if saved is not None:
            coder = coder_by(saved, self.settings.effort) or self.preferred
        if coder == "linear":
            return self._run("linear")
        mixing = self._run("mixing")
        if coder == "mixing" and not self._still(mixing):
            return mixing
        return min(mixing, self._run("linear"), key=self.weighed)

    def mixing_saves(self) -> float | None:
        """Share of the bytes that the mixing coder saves beside the linear one, by a sample; None
        where that says little, or nothing hangs on it.

        The linear coder's tables serve all of the chunk; the mixing coder would go on learning.
        Half of the tables' bytes in proportion and half as they are is where measurements lay.
        """
        if not compares(self.settings) or _coder_for(self.settings, self.scale) != "mixing":
            return None
        sample = self._sample(_PATCHES)
        if sample is None:
            return None
        mixing, linear = parallel.each(sample._run, ("mixing", "linear"), self.threads)
        if sample._still(mixing):
            return None
        tables = len(bitstream.unpack(linear.payload).sections[Section.TABLES])
        share = sample.samples.frames.size / self.samples.frames.size
        return 1 - len(mixing.payload) / (len(linear.payload) - tables * (1 - share) / 2)

    def _still(self, encoded: Encoded) -> bool:
        """Whether nearly all levels are as predicted: few events, unevenly spread."""
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
    """Indices of `side` samples in all, in the middle of each of `parts` of a length."""
    side = min(side, length)
    each = -(-side // parts)
    starts = (2 * np.arange(parts) + 1) * length // (2 * parts) - each // 2
    return (np.clip(starts, 0, length - each)[:, None] + np.arange(each)).reshape(-1)


def _typical(share: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a part of (h, w), whose mean is nearest to that of all."""
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
    """Bytes of a chunk, by the payload of a part of it: its scale comes once."""
    once = len(bitstream.unpack(payload).sections[Section.LEVELS])
    return once + (len(payload) - once) / share


def _of_so_many(records: list[FrameRecord], count: int) -> float:
    """Bytes of `count` frames, by the first ones: what they begin with comes once."""
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
