"""Encoding a step (the frames of one chunk), tile by tile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tezip_h5 import holes
from tezip_h5.bounds import ErrorBound
from tezip_h5.chunk.attempts import network_may_pay
from tezip_h5.chunk.planning import plan_kinds
from tezip_h5.codec import Encoded, network_saving
from tezip_h5.hdf5.contents.layout import Layout
from tezip_h5.hdf5.writing.choices import Trial
from tezip_h5.settings import Settings

__all__ = ["Prepared", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """The options with which every step of a stack is encoded.

    Attributes
    ----------
    layout : Layout
    dtype : little-endian
    bound : ErrorBound
    settings : Settings
    mask : bool array, optional
        Pixels that come back exactly, see `encode_chunk`.
    """

    layout: Layout
    dtype: np.dtype
    bound: ErrorBound
    settings: Settings
    mask: np.ndarray | None = None


class Prepared:
    """A step, with everything that its tiles share.

    Parameters
    ----------
    frames : (g, *frame_shape) array
    recipe : Recipe
    exact : int
        Number of the first frames that are kept exactly.

    Attributes
    ----------
    frames : with masked pixels filled, see `holes.fill_still`
    """

    def __init__(self, frames: np.ndarray, recipe: Recipe, exact: int = 0):
        layout, settings, mask = recipe.layout, recipe.settings, recipe.mask
        self._original, self._layout, self._settings, self._mask = frames, layout, settings, mask
        self.frames = frames if mask is None else self._filled()
        self._bounds, self._kinds = {}, {}
        # The result of `promises`, kept if the step has only one tile.
        self._saving: float | None = None
        for panel in layout.panels:
            part, original = (a[(slice(None), *panel)] for a in (self.frames, frames))
            # The bound of the original frames: filler values in masked pixels come from all frames,
            # and could widen the range of one frame.
            original = original.reshape((*original.shape[:3], -1))
            limits = recipe.bound.of_frames(original, None if mask is None else mask[panel])
            if exact:
                limits = limits.exact_where(np.arange(len(part)) < exact)
            self._bounds[panel] = limits
            self._kinds[panel] = plan_kinds(part, limits, settings) if layout.tiled else None

    def _filled(self) -> np.ndarray:
        filled = np.empty_like(self._original)
        for panel in self._layout.panels:
            index = (slice(None), *panel)
            filled[index] = holes.fill_still(self._original[index], self._mask[panel])
        return filled

    def promises(self, model, threads: int = 1) -> bool:
        """Whether a network may pay, by a sample of the last panel."""
        saving = network_saving(*self._part(), self._settings, model, threads)
        if len(self._layout.tiles) == 1:
            self._saving = saving
        return network_may_pay(saving, self._settings.effort)

    def _part(self) -> tuple:
        """The frames and bounds of the last panel."""
        panel = self._layout.panels[-1]
        return self.frames[(slice(None), *panel)], self._bounds[panel]

    def encode(
        self, encode: Callable[..., Encoded], tile: tuple, trial: Trial, threads: int
    ) -> Encoded:
        """Encode a tile by `encode_chunk` or a function like it."""
        panel = tile[:-2]
        return encode(
            self._original[(slice(None), *tile)],
            self._bounds[panel],
            self._settings,
            shape=self._layout.payload_shape,
            kinds=self._kinds[panel],
            mask=None if self._mask is None else self._mask[tile],
            saving=self._saving,
            model=trial.model,
            spare=trial.spare,
            threads=threads,
        )
