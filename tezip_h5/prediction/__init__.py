"""Predictors: what a frame is expected to be, from the frames before it.

A predictor has two verbs. `predict()` returns the prediction of the next frame;
`observe(frame)` shows it the frame that the decoder will have. All arithmetic is integer,
so encoder and decoder agree on every machine.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from tezip_h5.errors import FormatError
from tezip_h5.prediction.previous import Previous

__all__ = ["NUMBERS", "Predictor", "create"]

NUMBERS = {"none": 0, "previous": 1, "prednet": 2}
"""Predictors on the wire. ``none`` serves chunks that have keyframes only."""


class Predictor(Protocol):
    """One chunk's predictor."""

    def predict(self) -> np.ndarray:
        """Return the prediction of the next frame: int32 levels (C, h, w), in 0..top."""

    def observe(self, frame: np.ndarray) -> None:
        """Take the frame that followed: int32 levels (C, h, w). It is not changed, not kept."""


def create(number: int, shape: tuple[int, int, int]) -> Predictor:
    """Make the predictor `number` for frames of `shape` (C, h, w)."""
    if number in (NUMBERS["none"], NUMBERS["previous"]):
        return Previous(shape)
    raise FormatError(f"unknown predictor {number}; this version knows {sorted(NUMBERS.values())}")
