"""PredNet in floating point, for training: Keras 3, any backend (only `keras.ops` is used).

This is the computation that `prediction.reference` does in integers. With `quantised=True` it
rounds where the integer network does, and lets gradients pass (straight-through estimator, Bengio
et al. 2013), so that training takes the loss of precision into account.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from tezip_h5.prediction.architecture import CELL_LIMIT, CHANGE_GAIN, KERNEL, Architecture

__all__ = ["STEPS", "PredNet"]

STEPS = 255
"""Activations of the integer network are multiples of 1 / STEPS."""


class PredNet(keras.Model):
    """Predict every frame of a sequence from the frames before it.

    Parameters
    ----------
    architecture : Architecture
    quantised : bool
        Round activations as the integer network does.

    Call it on float32 frames (B, T, H, W, C) on the network's scale (about 0 to 1), H and W
    multiples of `architecture.multiple`; it returns the predictions of frames 1 to T-1.
    """

    def __init__(self, architecture: Architecture, quantised: bool = True, seed: int = 0):
        super().__init__()
        self.architecture = architecture
        self.quantised = quantised
        self.convolution_weights = {}
        seeds = np.random.default_rng(seed)
        for name, (inputs, outputs) in architecture.convolutions().items():
            zeros = architecture.skip and name == "ahat0"  # start from the previous frame
            initializer = (
                "zeros"
                if zeros
                else keras.initializers.GlorotUniform(seed=int(seeds.integers(2**31)))
            )
            kernel = self.add_weight(
                shape=(KERNEL, KERNEL, inputs, outputs),
                initializer=initializer,
                name=f"{name}_kernel",
            )
            bias = self.add_weight(shape=(outputs,), initializer="zeros", name=f"{name}_bias")
            self.convolution_weights[name] = (kernel, bias)

    def get_weights_by_name(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Kernel (3, 3, in, out) and bias (out,) of every convolution."""
        return {
            name: tuple(ops.convert_to_numpy(weight) for weight in pair)
            for name, pair in self.convolution_weights.items()
        }

    def set_weights_by_name(self, weights: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
        """The inverse of `get_weights_by_name`."""
        for name, pair in self.convolution_weights.items():
            for variable, value in zip(pair, weights[name], strict=True):
                variable.assign(value)

    def _round(self, x):
        if not self.quantised:
            return x
        return x + ops.stop_gradient(ops.round(x * STEPS) / STEPS - x)

    def _rectify(self, x):
        """ReLU, with an upper limit where the integer network has one."""
        return self._round(ops.clip(x, 0.0, 1.0)) if self.quantised else ops.relu(x)

    def _conv(self, name: str, parts):
        kernel, bias = self.convolution_weights[name]
        x = parts[0] if len(parts) == 1 else ops.concatenate(parts, -1)
        return ops.conv(x, kernel, padding="same") + bias

    def _to_patches(self, x):
        p, c = self.architecture.patch, self.architecture.channels
        if p == 1:
            return x
        b, h, w = ops.shape(x)[0], x.shape[1] // p, x.shape[2] // p
        x = ops.reshape(x, (b, h, p, w, p, c))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (b, h, w, p * p * c))

    def _to_pixels(self, x):
        p, c = self.architecture.patch, self.architecture.channels
        if p == 1:
            return x
        b, h, w = ops.shape(x)[0], x.shape[1], x.shape[2]
        x = ops.transpose(ops.reshape(x, (b, h, w, p, p, c)), (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (b, h * p, w * p, c))

    def start(self, frame) -> dict:
        """The state before the first frame: all zeros."""
        arch = self.architecture
        x = self._to_patches(frame)
        state = {"frame": x, "prediction": x if arch.skip else ops.zeros_like(x)}
        for layer in range(arch.layers):
            shape = (ops.shape(x)[0], x.shape[1] >> layer, x.shape[2] >> layer)
            state[f"r{layer}"] = ops.zeros((*shape, arch.states[layer]))
            state[f"c{layer}"] = ops.zeros((*shape, arch.states[layer]))
            if layer:
                state[f"ahat{layer}"] = ops.zeros((*shape, arch.target(layer)))
        return state

    def _errors(self, state: dict, x) -> tuple[list, list]:
        """Bottom-up pass: the errors E of every layer, and the other inputs of the first layer."""
        arch = self.architecture
        seen = []
        gain = 1
        if arch.skip:
            gain = CHANGE_GAIN
            change = ops.clip((x - state["frame"]) * gain, -1.0, 1.0)
            seen = [self._round(ops.clip(x, 0.0, 1.0)), self._round(change)]
        error = (x - state["prediction"]) * gain
        if not arch.skip:
            error = ops.clip(x, 0.0, 1.0) - state["prediction"]
        errors = []
        for layer in range(arch.layers):
            if layer:
                target = self._rectify(self._conv(f"a{layer}", [errors[-1]]))
                error = ops.max_pool(target, 2, 2, "valid") - state[f"ahat{layer}"]
            pair = ops.concatenate([error, -error], -1)
            pair = ops.clip(pair, 0.0, 1.0) if layer == 0 else ops.relu(pair)
            errors.append(self._round(pair))
        return errors, seen

    def step(self, state: dict, frame) -> dict:
        """Take one frame; `state["prediction"]` is then the prediction of the next."""
        arch = self.architecture
        x = self._to_patches(frame)
        errors, seen = self._errors(state, x)
        new = {"frame": x}
        above = None
        for layer in reversed(range(arch.layers)):
            parts = [state[f"r{layer}"], *(seen if layer == 0 else ()), errors[layer]]
            if above is not None:
                parts.append(ops.repeat(ops.repeat(above, 2, 1), 2, 2))
            gates = self._conv(f"gates{layer}", parts)
            i, f, g, o = ops.split(gates, 4, -1)
            i, f, o = (self._round(ops.clip(0.2 * x_ + 0.5, 0.0, 1.0)) for x_ in (i, f, o))
            cell = f * state[f"c{layer}"] + i * self._round(ops.tanh(g))
            cell = ops.clip(cell, -CELL_LIMIT, CELL_LIMIT)
            above = self._round(o * ops.tanh(cell))
            new[f"c{layer}"], new[f"r{layer}"] = cell, above
        for layer in range(1, arch.layers):
            new[f"ahat{layer}"] = self._rectify(self._conv(f"ahat{layer}", [new[f"r{layer}"]]))
        output = self._conv("ahat0", [new["r0"], *seen])
        if arch.skip:
            new["prediction"] = x + output / CHANGE_GAIN
        else:
            new["prediction"] = ops.clip(output, 0.0, 1.0)
        return new

    def call(self, frames):
        """Predictions of frames 1 to T-1, each from the frames before it."""
        state = self.start(frames[:, 0])
        predictions = []
        for t in range(frames.shape[1] - 1):
            state = self.step(state, frames[:, t])
            predictions.append(self._to_pixels(state["prediction"]))
        return ops.stack(predictions, 1)
