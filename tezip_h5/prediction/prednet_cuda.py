"""The integer PredNet on a CUDA device: `prednet.PredNet` for the frames of many chunks."""

from __future__ import annotations

import threading

import numpy as np

from tezip_h5 import kernels
from tezip_h5.prediction.integer import IntegerModel
from tezip_h5.prediction.reference import conformance

__all__ = ["CudaPredNet", "PredNetBatch", "conforms"]


class PredNetBatch:
    """Predictors of several chunks, which process the same frame of all chunks together.

    Parameters
    ----------
    model : IntegerModel
    shape : (C, h, w) of the frames; C as the model's
    scales : sequence of (top, offset, shift), one for every chunk
        As for `PredNet`.
    """

    def __init__(self, model: IntegerModel, shape, scales):
        self._kernels = kernels.load("cuda.network")
        self._memory = kernels.load("cuda.memory")
        self._arch = arch = model.architecture
        self._weights, self._tables = _on_device(model)
        batch = len(scales)
        self._scales = self._put(np.array(scales, np.int64).reshape(batch, 3))
        rows, columns = (-(-n // arch.multiple) * arch.multiple // arch.patch for n in shape[1:])
        self._x, self._cells, self._ahat = [], [], []
        for layer in range(arch.layers):
            size = (rows >> layer, columns >> layer)
            framed = (batch, arch.inputs(layer), size[0] + 2, size[1] + 2)
            # R is read from the first array and written to the second.
            self._x.append([self._put(np.zeros(framed, np.int16)) for _ in range(2)])
            self._cells.append(self._put(np.zeros((batch, arch.states[layer], *size), np.int32)))
            self._ahat.append(self._put(np.zeros((batch, arch.target(layer), *size), np.int32)))
        self._last, self._prediction = (
            self._put(np.zeros((batch, *shape), np.int32)) for _ in range(2)
        )
        self._started = False

    def _put(self, array):
        return self._memory.to_device(array)

    def predict(self):
        """Predictions of the next frames, device array int32 (batch, C, h, w); zeros before the
        first. The next `observe` changes it."""
        return self._prediction

    def observe(self, frames) -> None:
        """Take the frames that followed, device array int32 (batch, C, h, w)."""
        arch, kernel, weights = self._arch, self._kernels, self._weights
        self._show(frames)
        for layer in range(1, arch.layers):
            kernel.pool_errors(
                self._x[layer - 1][0],
                self._first_error(layer - 1),
                weights[f"a{layer}"],
                self._ahat[layer],
                self._first_error(layer),
                self._x[layer][0],
            )
        for layer in reversed(range(arch.layers)):
            below, target = None, 0
            if layer:
                below = self._x[layer - 1][0]
                target = arch.inputs(layer - 1) - arch.states[layer]
            kernel.update(
                self._x[layer][0],
                weights[f"gates{layer}"],
                self._tables,
                self._cells[layer],
                self._x[layer][1],
                below,
                target,
            )
        for layer in range(1, arch.layers):
            kernel.rectify(self._x[layer][1], 0, weights[f"ahat{layer}"], self._ahat[layer])
        kernel.output(
            self._x[0][1],
            weights["ahat0"],
            self._last,
            self._scales,
            arch.patch,
            arch.skip,
            self._ahat[0],
            self._prediction,
        )
        for pair in self._x:
            pair.reverse()

    def _show(self, frames) -> None:
        arch, first = self._arch, self._arch.states[0]
        x, following = self._x[0]
        if not arch.skip:
            self._kernels.show_errors(frames, self._ahat[0], arch.patch, self._scales, first, x)
            return
        last, guess = (self._last, self._prediction) if self._started else (frames, frames)
        self._started = True
        self._kernels.show_changes(
            frames, last, guess, arch.patch, self._scales, first, x, following
        )
        kernels.load("cuda").convert(frames.reshape(-1), self._last.reshape(-1))

    def _first_error(self, layer: int) -> int:
        """First of the channels of a layer's tensor that hold E."""
        arch = self._arch
        return arch.states[layer] + (2 * arch.target(0) if arch.skip and layer == 0 else 0)


class CudaPredNet:
    """One chunk's predictor on the device; see `prediction.Predictor`, and `PredNet` for the
    parameters."""

    threads = 1

    def __init__(self, model: IntegerModel, shape, top: int, offset: int, shift: int):
        self._batch = PredNetBatch(model, shape, [(top, offset, shift)])
        self._shape = tuple(int(n) for n in shape)

    def predict(self):
        """Prediction of the next frame, device array int32 (C, h, w)."""
        return self._batch.predict().reshape(*self._shape)

    def observe(self, frame) -> None:
        """Take the frame that followed, device array int32 (C, h, w)."""
        self._batch.observe(frame.reshape(1, *self._shape))


class _FromHost(CudaPredNet):
    """The same for frames on the host."""

    def predict(self) -> np.ndarray:
        return kernels.load("cuda.memory").to_host(super().predict())

    def observe(self, frame: np.ndarray) -> None:
        super().observe(kernels.load("cuda.memory").to_device(frame))


_lock = threading.Lock()
_models: dict[bytes, tuple] = {}
_conforming: dict[bytes, bool] = {}


def _on_device(model: IntegerModel) -> tuple[dict, tuple]:
    """The model's weights and tables on the device, sent once for the few models in use."""
    with _lock:
        if model.digest not in _models:
            network, memory = kernels.load("cuda.network"), kernels.load("cuda.memory")
            weights = {
                name: network.Weights.of(
                    conv.kernel, conv.bias, conv.shift, gates=name.startswith("gates")
                )
                for name, conv in model.convolutions.items()
            }
            tables = tuple(
                memory.to_device(np.array(model.tables[name], np.int16))
                for name in ("tanh_input", "tanh_cell")
            )
            kernels.load("cuda.launch").finish()  # other threads use other streams
            if len(_models) >= 8:
                _models.clear()
            _models[model.digest] = weights, tables
        return _models[model.digest]


def conforms(model: IntegerModel) -> bool:
    """Whether this device reproduces the model's conformance vector.

    It is tested once for each model.
    """
    if model.digest not in _conforming:
        found = conformance(_FromHost, model)
        _conforming[model.digest] = bool(np.array_equal(found, model.conformance))
    return _conforming[model.digest]
