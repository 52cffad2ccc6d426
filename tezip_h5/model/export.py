"""Trained weights -> the integer model. Scales are calibrated, and the result is judged.

All scales are folded into the weights. Each output channel gets the largest power of two that
keeps its accumulators below 2**24 for all activations. (Colbert et al., ICCV 2023, constrain the
training for that purpose. Here it is possible after training.)
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from tezip_h5.errors import ModelError
from tezip_h5.model.floating import FloatPredNet
from tezip_h5.model.weights import check
from tezip_h5.prediction.architecture import CHANGE_GAIN, Architecture
from tezip_h5.prediction.integer import (
    ACCUMULATOR,
    ACTIVATION,
    CELL,
    GATE,
    PREACTIVATION,
    Convolution,
    IntegerModel,
)
from tezip_h5.prediction.prednet import PredNet
from tezip_h5.prediction.reference import Reference, conformance
from tezip_h5.prediction.scaling import choose_scale

__all__ = ["ALLOWED_LOSS", "export", "floating", "judge"]

ALLOWED_LOSS = 0.02
"""An export fails if the integer model's mean absolute error exceeds the float model's by more than
this share."""

_FINEST = 20  # most fraction bits of a weight


def export(
    architecture: Architecture,
    weights: dict[str, tuple[np.ndarray, np.ndarray]],
    sequences: Iterable[np.ndarray],
    *,
    clipped: bool = True,
    provenance: dict | None = None,
    allowed_loss: float = ALLOWED_LOSS,
) -> IntegerModel:
    """Make the integer model.

    Parameters
    ----------
    architecture : Architecture
    weights : dict
        Kernel (3, 3, in, out) and bias (out,) of every convolution.
    sequences : iterable of integer arrays (T, H, W, C)
        Frames to calibrate the activations on and to judge the result by.
    clipped : bool
        Whether the network was trained with activations clipped at 1 (`network.PredNet` with
        `quantised=True`); otherwise their largest values are taken from `sequences`.
    provenance : dict, optional
        Kept in the model.
    allowed_loss : float
        Largest accepted increase of the mean absolute error, as a share.

    Raises
    ------
    ModelError
        When weights are not finite, do not fit the architecture, or the integer model predicts
        worse than the float one by more than `allowed_loss`.
    """
    check(architecture, weights, "the network")
    sequences = [np.asarray(s) for s in sequences]
    largest = dict.fromkeys(range(1, architecture.layers), 1.0)
    if not clipped:
        largest = _calibrate(architecture, weights, sequences)
    convolutions = {
        name: _convolution(kernel, bias, *_scales(architecture, name, largest))
        for name, (kernel, bias) in ((n, weights[n]) for n in architecture.convolutions())
    }
    draft = IntegerModel(architecture, convolutions, _tables(), np.zeros((0,), np.int32))
    model = IntegerModel(
        architecture,
        convolutions,
        draft.tables,
        conformance(Reference, draft),
        provenance or {},
    )
    exact, floating, previous = judge(model, weights, sequences)
    if exact > floating * (1 + allowed_loss):
        raise ModelError(
            f"the integer model predicts with a mean error of {exact:.4g}, the float model with "
            f"{floating:.4g} (previous frame: {previous:.4g}); more than {allowed_loss:.0%} is "
            "lost. Train longer, with activations rounded as in training by default"
        )
    return model


def floating(model: IntegerModel) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The floating-point weights of a model that was exported with `clipped`, for more training.

    This is the inverse of `export`, except for rounding.
    """
    arch, weights = model.architecture, {}
    for name, conv in model.convolutions.items():
        unit, out, extra = _scales(arch, name, dict.fromkeys(range(1, arch.layers), 1.0))
        out = out * 2.0 ** conv.shift.astype(np.float64)
        bias = (conv.bias - extra * 2.0**conv.shift) / out
        kernel = conv.kernel * unit[:, None] / out
        weights[name] = kernel.astype(np.float32), bias.astype(np.float32)
    return weights


def _tables() -> dict[str, np.ndarray]:
    inputs = np.arange(-PREACTIVATION, PREACTIVATION + 1) / 256
    cells = np.arange(-CELL, CELL + 1) / 256
    return {
        "tanh_input": np.rint(GATE * np.tanh(inputs)).astype(np.int16),
        "tanh_cell": np.rint(ACTIVATION * np.tanh(cells)).astype(np.int16),
    }


def _scales(arch: Architecture, name: str, largest: dict[int, float]):
    """The integers that stand for 1.0 in every input channel and in every output channel, and the
    constants that are added to the output channels."""
    inputs, outputs = arch.convolutions()[name]
    kind, layer = name.rstrip("0123456789"), int(name.lstrip("aghtes"))
    unit = np.full(inputs, float(ACTIVATION))
    errors = 2 * arch.target(layer - 1 if kind == "a" else layer)
    if kind == "a" and layer > 1:
        unit[:] = ACTIVATION / largest[layer - 1]
    if kind == "gates":
        if layer:
            start = arch.states[layer]
            unit[start : start + errors] = ACTIVATION / largest[layer]
        count = arch.states[layer]
        out = np.repeat([0.2 * GATE, 0.2 * GATE, 256.0, 0.2 * GATE], count)
        return unit, out, np.repeat([GATE / 2, GATE / 2, 0.0, GATE / 2], count)
    if name == "ahat0":
        scale = ACTIVATION / CHANGE_GAIN if arch.skip else float(ACTIVATION)
    else:
        scale = ACTIVATION / largest[layer]
    return unit, np.full(outputs, scale), np.zeros(outputs)


def _convolution(kernel, bias, unit, out, extra) -> Convolution:
    exact = kernel.astype(np.float64) / unit[:, None] * out
    offset = bias.astype(np.float64) * out + extra
    outputs = len(offset)
    shift = np.zeros(outputs, np.uint8)
    weights = np.zeros(kernel.shape, np.int64)
    biases = np.zeros(outputs, np.int64)
    for o in range(outputs):
        for bits in range(_FINEST, -1, -1):
            w = np.rint(exact[..., o] * 2.0**bits)
            b = np.rint(offset[o] * 2.0**bits)
            if np.abs(w).sum() * ACTIVATION + abs(b) + (1 << bits >> 1) < ACCUMULATOR:
                break
        else:
            raise ModelError(
                f"the weights of an output channel sum up to {np.abs(exact[..., o]).sum():.3g} "
                f"units, {ACCUMULATOR // ACTIVATION} fit into exact accumulators; train with "
                "smaller weights (weight decay)"
            )
        weights[..., o], biases[o], shift[o] = w, b, bits
    narrow = np.int16 if np.abs(weights).max() < 1 << 15 else np.int32
    return Convolution(weights.astype(narrow), biases.astype(np.int32), shift)


def _padded(sequence: np.ndarray, multiple: int) -> np.ndarray:
    """(T, H, W, C) -> (T, C, H', W') int32, edges repeated up to the multiple."""
    planes = np.moveaxis(sequence, 3, 1).astype(np.int32)
    h, w = planes.shape[2:]
    return np.pad(planes, ((0, 0), (0, 0), (0, -h % multiple), (0, -w % multiple)), mode="edge")


def _top(frames: np.ndarray) -> int:
    """The largest level of the frames' bit depth: 8 bits, or more if the frames need more."""
    return max(255, (1 << int(frames.max()).bit_length()) - 1)


def _calibrate(architecture, weights, sequences) -> dict[int, float]:
    largest = dict.fromkeys(range(1, architecture.layers), 1e-6)
    for sequence in sequences:
        frames = _padded(sequence, architecture.multiple)
        offset, shift = choose_scale(frames[0], _top(frames), architecture.skip)
        net = FloatPredNet(architecture, weights, frames.shape[1:])
        for frame in frames:
            net.step((frame - offset) * (2.0**-shift / ACTIVATION))
        largest = {layer: max(value, net.largest[layer]) for layer, value in largest.items()}
    return largest


def judge(model: IntegerModel, weights, sequences) -> tuple[float, float, float]:
    """Mean absolute errors of the predictions of the integer model, the float model, and the
    previous frame.

    They are on the network's scale (255 is 1.0), so that stacks of any depth have equal weight.
    """
    totals = np.zeros(4)
    arch = model.architecture
    for sequence in sequences:
        frames = _padded(sequence, arch.multiple)
        offset, shift = choose_scale(frames[0], _top(frames), arch.skip)
        unit = 2.0**-shift
        net = FloatPredNet(arch, weights, frames.shape[1:])
        exact = PredNet(model, frames.shape[1:], _top(frames), offset, shift)
        for before, after in pairwise(frames):
            guess = net.step((before - offset) * (unit / ACTIVATION)) * ACTIVATION
            exact.observe(before)
            totals += (
                np.abs(exact.predict() - after).sum() * unit,
                np.abs(guess - (after - offset) * unit).sum(),
                np.abs(before - after).sum() * unit,
                after.size,
            )
    return tuple(totals[:3] / totals[3])
