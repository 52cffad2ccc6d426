"""Brightness changes: gain and offset of a frame relative to the frame before it.

Exposure, shutter and beam current change all samples of a frame alike. If they jump, the encoder
transmits gain and offset, and both sides adjust the earlier frames to the brightness of this
frame.
"""

from __future__ import annotations

import struct

import numpy as np

from tezip_h5 import kernels
from tezip_h5.errors import FormatError
from tezip_h5.inflate import Block, inflate

__all__ = ["BLOCK", "estimate", "followed", "pack", "unchanged", "unpack"]

BLOCK = Block("changes of brightness", struct.Struct("<IH"))
"""The block with the changes of all channels; its second number is the number of frames."""

_UNIT = 1 << 16  # gains and offsets have 16 fraction bits: a gain of 1, an offset of one level
_MOST_GAIN, _MOST_OFFSET = 1 << 24, 1 << 48
_MOST_FRAMES = 1 << 10
_SIDE = 16  # pixels to a side of the blocks whose means are compared between two frames
_KEPT = 0.7  # a line is fitted to this share of the blocks; objects in the others may have moved
_WORTH = 0.6  # a jump is coded if it reduces the difference of means to less than this share
_HOPE = 0.9  # if a line through all blocks leaves more than this share, there is no jump
_LEAST = 0.25  # smaller differences of means, in levels, are no jumps


def estimate(frames: np.ndarray, keyframes: list[bool], tolerance: int) -> np.ndarray | None:
    """Gains and offsets: int64 (T, 2), 16 fraction bits; None if no frame's brightness jumps.

    Parameters
    ----------
    frames : int32 (T, h, w), the levels of a channel
    keyframes : which frames are keyframes; they get no gain and offset
    tolerance : of the levels; jumps below half of it are ignored
    """
    count, height, width = frames.shape
    if min(height, width) < 4 * _SIDE or count > _MOST_FRAMES:
        return None
    means = frames[:, : height // _SIDE * _SIDE, : width // _SIDE * _SIDE]
    means = means.reshape(count, height // _SIDE, _SIDE, -1, _SIDE).mean((2, 4))
    means = means.reshape(count, -1)
    changes = unchanged(count)
    jumps = False
    for t in range(1, count):
        if keyframes[t]:
            continue
        before = np.abs(means[t] - means[t - 1]).mean()
        if before < _LEAST + tolerance / 2:
            continue
        # Most frames do not jump. One line through all blocks is a quick test, before the fit that
        # leaves out blocks where something moved.
        gain, offset = _line(means[t - 1], means[t], rounds=1)
        if np.abs(means[t] - gain * means[t - 1] - offset).mean() > _HOPE * before:
            continue
        gain, offset = _line(means[t - 1], means[t])
        after = np.abs(means[t] - gain * means[t - 1] - offset).mean()
        change = np.rint(np.array([gain, offset]) * _UNIT)
        if after < _WORTH * before and 0 < change[0] < _MOST_GAIN and abs(offset) < 2**31:
            changes[t] = change
            jumps = True
    return changes if jumps else None


def unchanged(count: int) -> np.ndarray:
    """The gains and offsets of frames whose brightness does not change."""
    return np.tile(np.array([_UNIT, 0], np.int64), (count, 1))


def _line(x: np.ndarray, y: np.ndarray, rounds: int = 4) -> tuple[float, float]:
    """Slope and intercept of y over x, by least squares of the blocks that fit best.

    The first round uses all blocks.
    """
    slope, intercept = 1.0, float(np.median(y - x))
    chosen, worst = np.ones(x.size, bool), int(_KEPT * (x.size - 1))
    for last in reversed(range(rounds)):
        spread = x[chosen] - x[chosen].mean()
        if spread @ spread > 1e-6 * x.size:
            slope = spread @ y[chosen] / (spread @ spread)
        intercept = y[chosen].mean() - slope * x[chosen].mean()
        if not last:
            break
        miss = np.abs(y - slope * x - intercept)
        chosen = miss <= np.partition(miss, worst)[worst]
    return float(slope), float(intercept)


def followed(plane: np.ndarray, change: np.ndarray, top: int, finer: int = 0) -> np.ndarray:
    """An earlier frame, int32 with `finer` fraction bits, adjusted to the brightness of this one;
    `change` is a gain and an offset."""
    brought = plane.copy()
    kernels.load("mixing.motion").brighten(brought, change[0], change[1] << finer, top << finer)
    return brought


def pack(channels: list[np.ndarray]) -> bytes:
    """All channels' changes as bytes: a length, frames, then zstd of pairs."""
    return BLOCK.pack(np.stack(channels).astype("<i8").tobytes(), len(channels[0]))


def unpack(data: bytes, channels: int) -> tuple[list[np.ndarray], int]:
    """The inverse of `pack`: every channel's changes, and how many bytes they took.

    Raises
    ------
    FormatError
        When they are damaged.
    """
    packed, size, frames = BLOCK.open(data)
    try:
        if frames > _MOST_FRAMES:
            raise ValueError(f"{frames} frames")
        raw = inflate(packed, 16 * channels * frames, "changes of brightness")
        changes = np.frombuffer(raw, "<i8").astype(np.int64).reshape(channels, frames, 2)
        gains, offsets = np.abs(changes[..., 0]), np.abs(changes[..., 1])
        if not ((gains >= 0) & (gains <= _MOST_GAIN)).all():
            raise ValueError("a gain out of range")
        if not ((offsets >= 0) & (offsets <= _MOST_OFFSET)).all():
            raise ValueError("an offset out of range")
    except ValueError as error:
        raise FormatError(f"changes of brightness are damaged: {error}") from None
    return list(changes), size
