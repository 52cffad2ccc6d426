"""Placing keyframes before anything is encoded: by the windows of the settings, or by cost."""

from __future__ import annotations

import numpy as np

from tezip_h5 import holes, levels, windows
from tezip_h5.bounds import ChunkBound
from tezip_h5.settings import Settings
from tezip_h5.windows import Kind

__all__ = ["plan_kinds", "sample_rows"]

_ROWS = 8  # rows of one band


def sample_rows(height: int, bands: int) -> np.ndarray:
    """Indices of the rows of `bands` bands, spread over the height; all rows of a low frame."""
    if height < 2 * bands * _ROWS:
        return np.arange(height)
    starts = np.linspace(0, height - _ROWS, bands).astype(int)
    return (starts[:, None] + np.arange(_ROWS)).reshape(-1)


def plan_kinds(frames: np.ndarray, bound: ChunkBound, settings: Settings) -> list[Kind]:
    """The kind of each frame, as `settings` ask for it (not for error-driven windows).

    `frames` is as for `encode_chunk`, but may be whole frames whose tiles are encoded
    separately: all tiles of a frame then get the same kind.
    """
    if settings.predictor == "none":
        return [Kind.KEYFRAME] * len(frames)
    if not settings.automatic_windows:
        return windows.fixed(len(frames), settings.window, settings.warmup)
    if settings.main_coder != "stages":
        # Their predicted frames are coded from themselves where that is cheaper.
        return windows.fixed(len(frames), None)
    frames = frames.reshape((*frames.shape[:3], -1))
    bands = settings.effort.sampled_bands
    rows = sample_rows(frames.shape[1], bands)
    if len(rows) == frames.shape[1]:
        bands = 1
    sample = frames[:, rows]
    sample = holes.patched(sample.astype(sample.dtype.newbyteorder("="), copy=False)).frames
    scale = levels.choose(sample, bound)
    if scale is None:
        return windows.fixed(len(frames), None)
    g, _, w, channels = sample.shape
    tolerances = levels.tolerances(scale, bound, g, channels)
    sampled = scale.to_levels(sample)
    banded = sampled.reshape(g, bands, -1, w, channels).transpose(0, 4, 1, 2, 3)
    return windows.planned(
        np.ascontiguousarray(banded).reshape(g, channels * bands, -1, w),
        np.repeat(tolerances, bands, axis=1),
        scale.top,
        scale.width,
    )
