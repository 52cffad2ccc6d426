"""Predictors: they predict a frame from the frames before it.

A predictor has two methods. `predict()` returns the prediction of the next frame. `observe(frame)`
gives it the frame as the decoder will have it. All arithmetic is integer, so encoder and decoder
agree on every machine. Predictions and frames are on the predictor's device: NumPy arrays for
"cpu", device arrays for "cuda".
"""

from __future__ import annotations

from typing import Protocol

from tezip_h5.errors import FormatError, TezipError
from tezip_h5.prediction.integer import IntegerModel
from tezip_h5.prediction.prednet import PredNet
from tezip_h5.prediction.prednet_cuda import CudaPredNet, conforms
from tezip_h5.prediction.previous import Previous
from tezip_h5.prediction.scaling import Network

__all__ = ["NUMBERS", "Network", "Predictor", "create"]

NUMBERS = {"none": 0, "previous": 1, "prednet": 2}
"""Numbers of the predictors in a payload. ``none`` is for chunks that have keyframes only."""


class Predictor(Protocol):
    """The predictor of one chunk; it uses up to `threads` threads for a frame."""

    threads: int

    def predict(self):
        """Return the prediction of the next frame: int32 levels (C, h, w), in 0..top."""

    def observe(self, frame) -> None:
        """Take the actual next frame: int32 levels (C, h, w). The predictor does not change it. The
        caller must not change it before the next call."""


def create(
    number: int,
    shape: tuple[int, int, int],
    top: int = 0,
    network: Network | None = None,
    model: IntegerModel | None = None,
    device: str = "cpu",
) -> Predictor:
    """Make the predictor `number` for frames of `shape` (C, h, w) with levels 0..top.

    PredNet also needs its model, and `network`, which scales the chunk's levels to the model.

    Raises
    ------
    FormatError
        For a number that this version does not know, or a model of other channels.
    TezipError
        When the device "cuda" does not reproduce the model's conformance vector.
    """
    if number in (NUMBERS["none"], NUMBERS["previous"]):
        return Previous(shape, device)
    if number == NUMBERS["prednet"]:
        if model.architecture.channels != shape[0]:
            raise FormatError(
                f"a chunk of {shape[0]} channels was predicted by a model of "
                f"{model.architecture.channels}"
            )
        if device == "cpu":
            return PredNet(model, shape, top, network.offset, network.shift)
        if not conforms(model):
            raise TezipError(
                f"with the model {model.digest.hex()}, this GPU computes other predictions than "
                "the CPU: use the CPU, and please report this"
            )
        return CudaPredNet(model, shape, top, network.offset, network.shift)
    raise FormatError(f"unknown predictor {number}; this version knows {sorted(NUMBERS.values())}")
