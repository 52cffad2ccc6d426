"""The integer PredNet in plain NumPy. It is the definition, which all faster versions must equal.

All arithmetic is int64, and nothing overflows. `rescale(v, n)` is v / 2**n, rounded half up, for
positive n, and v * 2**-n otherwise. The network's input for a level x is
(x - offset) / 2**shift, where 255 means 1.0.
"""

from __future__ import annotations

import numpy as np

from tezip_h5.prediction.architecture import to_patches, to_pixels
from tezip_h5.prediction.integer import (
    ACTIVATION,
    CELL,
    GATE,
    PREACTIVATION,
    Convolution,
    IntegerModel,
    conformance_frames,
)

__all__ = ["CHANGE_BITS", "Reference", "conformance", "rescale"]

CHANGE_BITS = 3
"""Errors and changes of the frame are enlarged by 2**3 (`architecture.CHANGE_GAIN`)."""


def rescale(values: np.ndarray, bits) -> np.ndarray:
    """Divide by 2**bits, rounding half up; multiply where `bits` is negative. int64."""
    values, bits = np.broadcast_arrays(np.asarray(values, np.int64), np.asarray(bits, np.int64))
    down, up = np.maximum(bits, 0), np.maximum(-bits, 0)
    return ((values << up) + ((np.int64(1) << down) >> 1)) >> down


def convolve(x: np.ndarray, conv: Convolution) -> np.ndarray:
    """Accumulators (out, H, W) of a 3x3 convolution of x (in, H, W), zeros around it."""
    padded = np.pad(x.astype(np.int64), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    out = np.einsum("cyxji,jico->oyx", windows, conv.kernel.astype(np.int64))
    return out + conv.bias.astype(np.int64)[:, None, None]


class Reference:
    """One chunk's predictor; see `prediction.Predictor`.

    Parameters
    ----------
    model : IntegerModel
    shape : (C, h, w) of the frames
    top : largest level
    offset, shift : int
        They scale levels for the network, see above.
    """

    def __init__(self, model: IntegerModel, shape, top: int, offset: int, shift: int):
        self._model, self._arch = model, model.architecture
        self._shape, self._top = shape, top
        self._offset, self._shift = offset, shift
        multiple, patch = self._arch.multiple, self._arch.patch
        self._padding = ((0, 0), (0, -shape[1] % multiple), (0, -shape[2] % multiple))
        h, w = (-(-n // multiple) * multiple // patch for n in shape[1:])
        self._r = [np.zeros((n, h >> l, w >> l), np.int64) for l, n in enumerate(self._arch.states)]
        self._c = [np.zeros_like(r) for r in self._r]
        self._ahat = [
            np.zeros((self._arch.target(l), h >> l, w >> l), np.int64)
            for l in range(self._arch.layers)
        ]
        self._last = None
        self._prediction = np.zeros(shape, np.int32)

    def predict(self) -> np.ndarray:
        """Prediction of the next frame, int32 (C, h, w); zeros before the first frame."""
        return self._prediction

    def observe(self, frame: np.ndarray) -> None:
        """Take the frame that followed, int32 (C, h, w)."""
        arch = self._arch
        x = self._to_patches(frame)
        errors, seen = self._errors(x)
        above = None
        for layer in reversed(range(arch.layers)):
            parts = [self._r[layer], *(seen if layer == 0 else ()), errors[layer]]
            if above is not None:
                parts.append(above.repeat(2, 1).repeat(2, 2))
            above = self._update(layer, np.concatenate(parts))
        for layer in range(1, arch.layers):
            self._ahat[layer] = self._activation(f"ahat{layer}", self._r[layer])
        conv = self._model.convolutions["ahat0"]
        output = convolve(np.concatenate([self._r[0], *seen]), conv)
        bits = conv.shift.astype(np.int64)[:, None, None]
        change = rescale(output, bits - self._shift)
        pixels = to_pixels((x if arch.skip else self._offset) + change, arch.patch)
        _, h, w = self._shape
        self._prediction = np.clip(pixels[:, :h, :w], 0, self._top).astype(np.int32)
        self._ahat[0] = np.clip(rescale(output, bits), 0, ACTIVATION)  # used without skip
        self._last = x

    def _to_patches(self, frame):
        """Pad a frame by repeating its last row and column, and cut it into patches."""
        padded = np.pad(frame.astype(np.int64), self._padding, mode="edge")
        return to_patches(padded, self._arch.patch)

    def _errors(self, x):
        """Errors of every layer, and the other inputs of the first layer."""
        shown = np.clip(rescale(x - self._offset, self._shift), 0, ACTIVATION)
        if self._arch.skip:
            bits = self._shift - CHANGE_BITS
            last = x if self._last is None else self._last
            predicted = x if self._last is None else self._to_patches(self._prediction)
            change = np.clip(rescale(x - last, bits), -ACTIVATION, ACTIVATION)
            error = rescale(x - predicted, bits)
            seen = [shown, change]
        else:
            error = shown - self._ahat[0]
            seen = []
        errors = []
        for layer in range(self._arch.layers):
            if layer:
                a = self._activation(f"a{layer}", errors[-1])
                a = a.reshape(len(a), a.shape[1] // 2, 2, -1, 2).max((2, 4))
                error = a - self._ahat[layer]
            pair = np.concatenate([error, -error])
            errors.append(np.clip(pair, 0, ACTIVATION))
        return errors, seen

    def _activation(self, name, x):
        """ReLU of a convolution, with the upper limit of all activations."""
        return np.clip(self._rescaled(name, x), 0, ACTIVATION)

    def _rescaled(self, name, x):
        conv = self._model.convolutions[name]
        return rescale(convolve(x, conv), conv.shift[:, None, None])

    def _update(self, layer, x):
        """One step of a layer's convolutional LSTM; returns the new R."""
        tables = self._model.tables
        i, f, g, o = np.split(self._rescaled(f"gates{layer}", x), 4)
        i, f, o = (np.clip(gate, 0, GATE) for gate in (i, f, o))
        g = np.clip(g, -PREACTIVATION, PREACTIVATION) + PREACTIVATION
        cell = rescale(f * self._c[layer] + i * tables["tanh_input"][g].astype(np.int64), 8)
        self._c[layer] = np.clip(cell, -CELL, CELL)
        squashed = tables["tanh_cell"][self._c[layer] + CELL].astype(np.int64)
        self._r[layer] = rescale(o * squashed, 8)
        return self._r[layer]


def conformance(make, model: IntegerModel) -> np.ndarray:
    """Predictions after each of the conformance frames, int32 (T, C, h, w).

    Parameters
    ----------
    make : callable
        `Reference`, or another implementation with the same parameters.
    """
    frames = conformance_frames(model.architecture)
    predictor = make(model, frames.shape[1:], 255, 0, 0)
    out = []
    for frame in frames:
        predictor.observe(frame)
        out.append(predictor.predict().copy())
    return np.stack(out)
