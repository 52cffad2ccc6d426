"""Predictors: what a frame is expected to be, from the frames before it.

A predictor has two verbs. `predict()` returns the prediction of the next frame;
`observe(frame)` shows it the frame that the decoder will have. All arithmetic is integer,
so encoder and decoder agree on every machine. Predictions and frames lie on the predictor's
device: numpy arrays for "cpu", device arrays for "cuda".
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
"""Predictors on the wire. ``none`` serves chunks that have keyframes only."""


class Predictor(Protocol):
    """One chunk's predictor; up to `threads` may work on a frame."""

    threads: int

    def predict(self):
        """Return the prediction of the next frame: int32 levels (C, h, w), in 0..top."""

    def observe(self, frame) -> None:
        """Take the frame that followed: int32 levels (C, h, w). It is not changed, and stays as it
        is until the next one is observed."""


def create(
    number: int,
    shape: tuple[int, int, int],
    top: int = 0,
    network: Network | None = None,
    model: IntegerModel | None = None,
    device: str = "cpu",
) -> Predictor:
    """Make the predictor `number` for frames of `shape` (C, h, w) with levels 0..top.

    PredNet also needs its model, and what brings the chunk's levels to the model's scale.

    Raises
    ------
    FormatError
        For a number that this version does not know, or a model of other channels.
    TezipError
        When the device "cuda" predicts something else than the model's conformance frames say.
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
