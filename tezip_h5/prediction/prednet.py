"""The integer PredNet on the CPU: a fast version of `reference.Reference`."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tezip_h5 import kernels, parallel
from tezip_h5.prediction.integer import Convolution, IntegerModel

__all__ = ["PredNet"]

_SHARED = 1 << 12  # in layers with at least this many pixels, threads share the rows


class _Weights:
    """A convolution's weights in the kernel's layout: four output channels at a time."""

    def __init__(self, conv: Convolution):
        _, _, inputs, outputs = conv.kernel.shape
        blocks = -(-outputs // 4)
        kernel = np.zeros((3, 3, inputs, 4 * blocks), np.float32)
        kernel[..., :outputs] = conv.kernel
        packed = kernel.reshape(9, inputs, blocks, 4).transpose(2, 1, 3, 0)
        self.packed = np.ascontiguousarray(packed)
        self.bias = np.zeros(4 * blocks, np.float32)
        self.bias[:outputs] = conv.bias
        self.shift = np.array(conv.shift, np.uint8)


class PredNet:
    """One chunk's predictor; see `prediction.Predictor`.

    Parameters
    ----------
    model : IntegerModel
    shape : (C, h, w) of the frames; C as the model's
    top : largest level
    offset, shift : int
        The network's input for a level is (level - offset) / 2**shift, where 255 means 1.0.

    Attributes
    ----------
    threads : int
        Number of threads for one frame; the result does not depend on it.
    """

    threads = 1

    def __init__(self, model: IntegerModel, shape, top: int, offset: int, shift: int):
        self._kernels = kernels.load("network")
        self._model, arch = model, model.architecture
        self._arch, self._top, self._offset, self._shift = arch, top, offset, shift
        self._weights = _weights_of(model)
        self._tables = [
            np.array(model.tables[name], np.int16) for name in ("tanh_input", "tanh_cell")
        ]
        rows, columns = (-(-n // arch.multiple) * arch.multiple // arch.patch for n in shape[1:])
        self._x, self._cells, self._ahat, self._accumulators = [], [], [], []
        for layer in range(arch.layers):
            size = (rows >> layer, columns >> layer)
            framed = (size[0] + 2, size[1] + 2)
            self._x.append(np.zeros((arch.inputs(layer), *framed), np.float32))
            self._cells.append(np.zeros((arch.states[layer], *size), np.int32))
            self._ahat.append(np.zeros((arch.target(layer), *size), np.int32))
            widest = max(4 * arch.states[layer], arch.target(layer) + 3)
            if layer + 1 < arch.layers:
                widest = max(widest, arch.target(layer + 1) + 3)
            self._accumulators.append(np.empty((widest, *size), np.float32))
        self._last = np.zeros(shape, np.int32)
        self._prediction = np.zeros(shape, np.int32)
        self._started = False

    def predict(self) -> np.ndarray:
        """Prediction of the next frame, int32 (C, h, w); zeros before the first frame."""
        return self._prediction

    def observe(self, frame: np.ndarray) -> None:
        """Take the frame that followed, int32 (C, h, w)."""
        arch, kernel = self._arch, self._kernels
        self._show(np.ascontiguousarray(frame, np.int32))
        for layer in range(1, arch.layers):
            accumulators = self._convolve(f"a{layer}", self._errors(layer - 1), layer - 1)
            shift = self._weights[f"a{layer}"].shift
            kernel.pool_errors(accumulators, shift, self._ahat[layer], self._errors(layer))
        for layer in reversed(range(arch.layers)):
            name = f"gates{layer}"
            accumulators = self._convolve(name, self._x[layer], layer)
            below = self._x[layer - 1][-arch.states[layer] :] if layer else self._x[0][:0]
            kernel.update(
                accumulators,
                self._weights[name].shift,
                *self._tables,
                self._cells[layer],
                self._x[layer][: arch.states[layer]],
                below,
            )
        for layer in range(1, arch.layers):
            name = f"ahat{layer}"
            accumulators = self._convolve(name, self._x[layer][: arch.states[layer]], layer)
            kernel.rectify(accumulators, self._weights[name].shift, self._ahat[layer])
        self._predict()

    def _show(self, frame: np.ndarray) -> None:
        arch, first = self._arch, self._x[0][self._arch.states[0] :]
        if not arch.skip:
            self._kernels.show_errors(
                frame, self._ahat[0], arch.patch, self._offset, self._shift, first
            )
            return
        last, predicted = (self._last, self._prediction) if self._started else (frame, frame)
        self._started = True
        self._kernels.show_changes(
            frame, last, predicted, arch.patch, self._offset, self._shift, first
        )
        np.copyto(self._last, frame)

    def _predict(self) -> None:
        arch = self._arch
        seen = 2 * arch.target(0) if arch.skip else 0
        accumulators = self._convolve("ahat0", self._x[0][: arch.states[0] + seen], 0)
        shift = self._weights["ahat0"].shift
        if not arch.skip:
            self._kernels.rectify(accumulators, shift, self._ahat[0])
        self._kernels.output(
            accumulators,
            shift,
            self._last,
            self._top,
            arch.patch,
            self._offset,
            self._shift,
            arch.skip,
            self._prediction,
        )

    def _errors(self, layer: int) -> np.ndarray:
        """The channels of a layer's tensor that hold E."""
        arch = self._arch
        start = arch.states[layer] + (2 * arch.target(0) if arch.skip and layer == 0 else 0)
        return self._x[layer][start : start + 2 * arch.target(layer)]

    def _convolve(self, name: str, x: np.ndarray, layer: int) -> np.ndarray:
        weights = self._weights[name]
        out = self._accumulators[layer][: weights.bias.size]
        rows, parts = out.shape[1], self.threads if out[0].size >= _SHARED else 1
        cuts = [rows * part // parts for part in range(parts + 1)]
        parallel.each(
            lambda ends: self._kernels.convolve(x, weights.packed, weights.bias, *ends, out),
            pairwise(cuts),
            parts,
        )
        return out


_weights_cache: dict[bytes, dict[str, _Weights]] = {}


def _weights_of(model: IntegerModel) -> dict[str, _Weights]:
    """The model's packed weights, made once for the few models in use."""
    found = _weights_cache.get(model.digest)
    if found is None:
        found = {name: _Weights(conv) for name, conv in model.convolutions.items()}
        if len(_weights_cache) >= 8:
            _weights_cache.clear()
        _weights_cache[model.digest] = found
    return found
