"""Batches to train on: clips of stacks and of simulated scenes, cropped, flipped, scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tezip_h5.errors import InputError
from tezip_h5.model.scenes import KINDS, scene
from tezip_h5.prediction.scaling import choose_scale

__all__ = ["Batch", "Clips", "Scenes", "Stack", "clip_of"]

_QUIET = 0.1 / 255
"""Mean change between frames, on the network's scale, below which a clip weighs no more."""

_GRID = 4095
"""Floating-point stacks are brought to a grid of so many steps before anything else."""


@dataclass(frozen=True)
class Batch:
    """Clips to learn from.

    Attributes
    ----------
    frames : float32 (B, T, side, side, C), on the network's scale
    weights : float32 (B, 1, 1, 1, 1)
        One over the clip's mean change between frames: with it the loss is an error relative to
        the previous frame's, and loud stacks do not drown quiet ones.
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
        Channels that the network takes. Colour becomes grey by one of its channels; grey
        becomes colour by tinting.
    """

    def __init__(self, frames, channels: int):
        if frames.shape[0] < 2:
            raise InputError(
                f"a sequence of {frames.shape[0]} frame to train on; at least 2 are needed, one "
                "to predict the other"
            )
        self._frames, self._channels = frames, channels

    def clip(self, rng, length: int) -> np.ndarray:
        """Consecutive frames from a random start, int32 (t, H, W, channels), t <= length."""
        length = min(length, self._frames.shape[0])
        start = int(rng.integers(self._frames.shape[0] - length + 1))
        return clip_of(self._frames, start, start + length, self._channels, rng)


def clip_of(frames, start: int, stop: int, channels: int, rng=None) -> np.ndarray:
    """Frames start..stop as integer levels with the network's number of channels."""
    clip = np.asarray(frames[start:stop])
    if clip.dtype.kind == "f":
        finite = clip[np.isfinite(clip)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
        unit = _GRID / max(float(high) - float(low), 1e-300)
        clip = np.rint((np.nan_to_num(clip, nan=low, posinf=high, neginf=low) - low) * unit)
    elif clip.dtype.itemsize == 4:
        clip = clip.astype(np.int64) - int(clip.min())
        clip >>= max(int(clip.max()).bit_length() - 24, 0)
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
    """Simulated scenes as a source of clips, each simulated once, when first wanted.

    Parameters
    ----------
    channels, side, length : int
        Of the network, and of the scenes in pixels and frames.
    count : int
        Scenes of every kind.
    seed : int
    """

    def __init__(self, channels: int, side: int, length: int, count: int = 200, seed: int = 0):
        self._channels, self._side, self._length = channels, side, length
        self._count, self._seed, self._made = count, seed, {}

    def clip(self, rng, length: int) -> np.ndarray:
        """As `Stack.clip`."""
        kind = KINDS[int(rng.integers(len(KINDS)))]
        number = int(rng.integers(self._count))
        frames = self._scene(kind, number)[:length, ..., None]
        if self._channels == 1:
            return frames
        # Colour: this scene in one tint, another of the same kind in another, one texture each.
        second = self._scene(kind, (number + 1) % self._count)[:length, ..., None]
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
        How often each is drawn, relatively.
    batch, length, side : int
        Clips per batch, frames per clip, pixels to a side.
    multiple : int
        The network's; clips of smaller frames are cut down to it.
    seed : int
    """

    def __init__(
        self, sources: Sequence, shares, *, batch: int, length: int, side: int, seed: int = 0
    ):
        self._sources = list(sources)
        self._shares = np.asarray(shares, float) / np.sum(shares)
        self._batch, self._length, self._side = batch, length, side
        self._seed = seed

    def __call__(self, step: int) -> Batch:
        """Batch number `step`, always the same one."""
        rng = np.random.default_rng((self._seed, step))
        frames, weights = [], []
        for _ in range(self._batch):
            source = self._sources[rng.choice(len(self._sources), p=self._shares)]
            clip = self._prepared(source.clip(rng, self._length), rng)
            frames.append(clip)
            weights.append(1 / max(float(np.abs(np.diff(clip, axis=0)).mean()), _QUIET))
        return Batch(np.stack(frames), np.array(weights, np.float32).reshape(-1, 1, 1, 1, 1))

    def _prepared(self, clip: np.ndarray, rng) -> np.ndarray:
        whole = rng.random() < 0.5  # chunks are whole frames or tiles of them
        offset, shift = choose_scale(clip[0], 0) if whole else (0, 0)
        clip = self._cropped(clip, rng)
        if not whole:
            offset, shift = choose_scale(clip[0], 0)
        shift += int(rng.choice([0, 1], p=[0.85, 0.15]))
        if rng.random() < 0.5:
            clip = clip[:, ::-1]
        if rng.random() < 0.5:
            clip = clip[:, :, ::-1]
        if rng.random() < 0.5:
            clip = clip.transpose(0, 2, 1, 3)
        return ((clip - offset) * (2.0**-shift / 255)).astype(np.float32)

    def _cropped(self, clip: np.ndarray, rng) -> np.ndarray:
        """A random square of `side` pixels; short clips and small frames are mirrored."""
        t, h, w, _ = clip.shape
        side = self._side
        if t < self._length:  # forth and back again
            there = np.arange(self._length) % max(2 * t - 2, 1)
            clip = clip[np.where(there < t, there, 2 * t - 2 - there)]
        if h < side or w < side:
            edges = ((0, 0), (0, max(side - h, 0)), (0, max(side - w, 0)), (0, 0))
            clip = np.pad(clip, edges, mode="symmetric" if min(h, w) * 2 >= side else "wrap")
        y = int(rng.integers(clip.shape[1] - side + 1))
        x = int(rng.integers(clip.shape[2] - side + 1))
        return clip[:, y : y + side, x : x + side]
