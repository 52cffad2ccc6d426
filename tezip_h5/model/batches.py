"""Batches for training: clips of stacks and of simulated scenes, cropped, flipped, scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tezip_h5.errors import InputError
from tezip_h5.model.scenes import KINDS, scene
from tezip_h5.prediction.scaling import choose_scale

__all__ = ["SYMMETRIES", "Batch", "Clips", "Scenes", "Stack", "clip_of"]

_SAME, _ACROSS = (False, False, False), (False, True, False)
_DOWN, _ROUND = (True, False, False), (True, True, False)
_QUARTERS = (True, False, True), (False, True, True)
SYMMETRIES = {
    "none": (_SAME,),
    "mirror": (_SAME, _ACROSS),
    "flips": (_SAME, _ACROSS, _DOWN, _ROUND),
    "turns": (_SAME, _ROUND, *_QUARTERS),
    "all": (_SAME, _ACROSS, _DOWN, _ROUND, *_QUARTERS, (False, False, True), (True, True, True)),
}
"""Transforms of clips, by the names of symmetries. Each transform is (flip upside down, flip left
to right, exchange rows and columns). `turns` does not change the sense of rotation."""

_QUIET = 0.1 / 255
"""Clips with a smaller mean change between frames, on the network's scale, get no more weight."""

_GRID = 4095
"""Floating-point stacks are quantized to this many steps first."""


@dataclass(frozen=True)
class Batch:
    """A batch of clips.

    Attributes
    ----------
    frames : float32 (B, T, side, side, C), on the network's scale
    weights : float32 (B, T - 1, 1, 1, 1)
        The weight of every prediction: one over the clip's mean change between frames. It makes
        the loss an error relative to that of the previous frame, so stacks with large changes do
        not dominate. It is 0 for frames that only fill the network's memory, and behind the end of
        a short clip.
    """

    frames: np.ndarray
    weights: np.ndarray


class Stack:
    """A stack as a source of clips.

    Parameters
    ----------
    frames : array-like (T, H, W, C)
        Sliced along time only; any dtype of `levels.DTYPES`.
    channels : int
        Channels that the network takes. For a grey network, one channel of a colour stack is
        taken; for a colour network, grey stacks are tinted.
    context : int
        Number of first frames that are shown to the network, but whose predictions do not count.
    """

    def __init__(self, frames, channels: int, context: int = 0):
        if frames.shape[0] < 2:
            raise InputError(
                f"a sequence of {frames.shape[0]} frame to train on; at least 2 are needed, one "
                "to predict the other"
            )
        self._frames, self._channels, self._context = frames, channels, context

    def clip(self, rng, length: int) -> tuple[np.ndarray, int]:
        """Consecutive frames from a random start, int32 (t, H, W, channels), t <= length, and
        how many of them are context."""
        length = min(length, self._frames.shape[0])
        start = int(rng.integers(self._frames.shape[0] - length + 1))
        clip = clip_of(self._frames, start, start + length, self._channels, rng)
        return clip, max(self._context - start, 0)


def clip_of(frames, start: int, stop: int, channels: int, rng=None) -> np.ndarray:
    """Frames start..stop as integer levels with the network's number of channels."""
    clip = np.asarray(frames[start:stop])
    if clip.dtype.kind == "f":
        clip = clip.astype(np.float64) / 2  # halved, so that no difference overflows
        finite = clip[np.isfinite(clip)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
        clip = np.nan_to_num(clip, nan=low, posinf=high, neginf=low) - low
        clip = np.rint(clip / (high - low) * _GRID) if high > low else np.zeros(clip.shape)
    elif clip.dtype.itemsize >= 4:
        clip = (clip - clip.min()).view(f"u{clip.dtype.itemsize}")
        clip >>= clip.dtype.type(max(int(clip.max()).bit_length() - 24, 0))
    clip = clip.astype(np.int32)
    if clip.shape[3] == channels:
        return clip
    if channels == 1:
        pick = 0 if rng is None else int(rng.integers(clip.shape[3]))
        return clip[..., pick : pick + 1]
    grey = clip[..., :1]
    tints = np.ones(channels) if rng is None else rng.uniform(0.4, 1.0, channels)
    return np.rint(grey * tints).astype(np.int32)


class Scenes:
    """Simulated scenes as a source of clips; each is simulated once, when it is first needed.

    Parameters
    ----------
    channels, side, length : int
        Channels of the network; side in pixels and length in frames of the scenes.
    count : int
        Number of scenes of every kind.
    seed : int
    """

    def __init__(self, channels: int, side: int, length: int, count: int = 200, seed: int = 0):
        self._channels, self._side, self._length = channels, side, length
        self._count, self._seed, self._made = count, seed, {}

    def clip(self, rng, length: int) -> tuple[np.ndarray, int]:
        """As `Stack.clip`."""
        kind = KINDS[int(rng.integers(len(KINDS)))]
        number = int(rng.integers(self._count))
        frames = self._scene(kind, number)[:length, ..., None]
        return (frames if self._channels == 1 else self._tinted(frames, kind, number, rng)), 0

    def _tinted(self, frames, kind, number, rng) -> np.ndarray:
        # A colour clip is the sum of two scenes of the same kind in different tints.
        second = self._scene(kind, (number + 1) % self._count)[: len(frames), ..., None]
        second = second * (frames.mean() / max(second.mean(), 1e-9)) * rng.uniform(0, 0.7)
        first_tint, second_tint = rng.uniform(0.3, 1.0, (2, self._channels))
        mixed = frames * first_tint + second * second_tint
        return np.rint(mixed + rng.normal(0, 0.5, mixed.shape)).clip(0).astype(np.int32)

    def _scene(self, kind: str, number: int) -> np.ndarray:
        key = (kind, number)
        if key not in self._made:
            made = scene(kind, self._length, self._side, self._seed * 100_003 + number)
            self._made[key] = made.astype(np.uint16)
        return self._made[key].astype(np.int32)


class Clips:
    """Random batches from sources, each source with its share.

    Parameters
    ----------
    sources : sequence of `Stack` or `Scenes`
    shares : sequence of float
        Relative frequency with which each is drawn.
    batch, length, side : int
        Clips per batch, frames per clip, pixels to a side.
    seed : int
    symmetry : str
        The set of `SYMMETRIES` from which the transform of each clip is drawn.
    """

    def __init__(
        self,
        sources: Sequence,
        shares,
        *,
        batch: int,
        length: int,
        side: int,
        seed: int = 0,
        symmetry: str = "all",
    ):
        self._sources = list(sources)
        self._shares = np.asarray(shares, float) / np.sum(shares)
        self._batch, self._length, self._side = batch, length, side
        self._seed = seed
        self._symmetries = SYMMETRIES[symmetry]

    def __call__(self, step: int) -> Batch:
        """Batch number `step`; the same number always gives the same batch."""
        rng = np.random.default_rng((self._seed, step))
        frames, weights = [], []
        for _ in range(self._batch):
            source = self._sources[rng.choice(len(self._sources), p=self._shares)]
            clip, context = source.clip(rng, self._length)
            first, stop = max(context, 1), len(clip)
            clip = self._prepared(clip, rng)
            frames.append(clip)
            change = float(np.abs(np.diff(clip[first - 1 : stop], axis=0)).mean())
            of_clip = np.zeros(self._length - 1, np.float32)
            share = (self._length - 1) / (stop - first)  # so that all clips have equal weight
            of_clip[first - 1 : stop - 1] = share / max(change, _QUIET)
            weights.append(of_clip)
        return Batch(np.stack(frames), np.stack(weights)[..., None, None, None])

    def _prepared(self, clip: np.ndarray, rng) -> np.ndarray:
        whole = rng.random() < 0.5  # as in chunks, which are whole frames or tiles
        offset, shift = choose_scale(clip[0], 0) if whole else (0, 0)
        clip = self._cropped(clip, rng)
        if not whole:
            offset, shift = choose_scale(clip[0], 0)
        shift += int(rng.choice([0, 1], p=[0.85, 0.15]))
        down, across, swapped = self._symmetries[int(rng.integers(len(self._symmetries)))]
        if down:
            clip = clip[:, ::-1]
        if across:
            clip = clip[:, :, ::-1]
        if swapped:
            clip = clip.transpose(0, 2, 1, 3)
        return ((clip - offset) * (2.0**-shift / 255)).astype(np.float32)

    def _cropped(self, clip: np.ndarray, rng) -> np.ndarray:
        """A random square of `side` pixels. Small frames are padded by mirroring, and the last
        frame of a short clip is repeated."""
        t, h, w, _ = clip.shape
        side = self._side
        if t < self._length:
            clip = clip[np.minimum(np.arange(self._length), t - 1)]
        if h < side or w < side:
            edges = ((0, 0), (0, max(side - h, 0)), (0, max(side - w, 0)), (0, 0))
            clip = np.pad(clip, edges, mode="symmetric" if min(h, w) * 2 >= side else "wrap")
        y = int(rng.integers(clip.shape[1] - side + 1))
        x = int(rng.integers(clip.shape[2] - side + 1))
        return clip[:, y : y + side, x : x + side]
