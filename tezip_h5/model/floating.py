"""PredNet in floating point, in plain NumPy, for calibrating and judging an export.

It is the same computation as `network.PredNet(quantised=False)`, without a deep-learning package.
Decoding never uses it.
"""

from __future__ import annotations

import numpy as np

from tezip_h5.prediction.architecture import (
    CELL_LIMIT,
    CHANGE_GAIN,
    Architecture,
    to_patches,
    to_pixels,
)

__all__ = ["FloatPredNet"]


def convolve(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """3x3 convolution with zeros around: x (in, H, W), kernel (3, 3, in, out) -> (out, H, W)."""
    c, h, w = x.shape
    padded = np.zeros((c, h + 2, w + 2), x.dtype)
    padded[:, 1:-1, 1:-1] = x
    shifted = np.stack([padded[:, j : j + h, i : i + w] for j in range(3) for i in range(3)])
    columns = shifted.reshape(9 * c, h * w)
    out = kernel.reshape(9 * c, -1).T @ columns
    return out.reshape(-1, h, w) + bias[:, None, None]


class FloatPredNet:
    """Run a trained PredNet frame by frame.

    Parameters
    ----------
    architecture : Architecture
    weights : dict
        Kernel (3, 3, in, out) and bias (out,) of every convolution, float32.
    shape : (C, H, W) of the frames, H and W multiples of `architecture.multiple`

    Attributes
    ----------
    largest : dict
        The largest activation so far of every A above the first layer, by layer.
    """

    def __init__(self, architecture: Architecture, weights, shape: tuple[int, int, int]):
        self._arch, self._weights = architecture, weights
        patch = architecture.patch
        h, w = shape[1] // patch, shape[2] // patch
        self._r = [
            np.zeros((n, h >> l, w >> l), np.float32) for l, n in enumerate(architecture.states)
        ]
        self._c = [np.zeros_like(r) for r in self._r]
        self._ahat = [
            np.zeros((architecture.target(l), h >> l, w >> l), np.float32)
            for l in range(architecture.layers)
        ]
        self._last = None
        self.largest = dict.fromkeys(range(1, architecture.layers), 0.0)

    def step(self, frame: np.ndarray) -> np.ndarray:
        """Take a frame (C, H, W) on the network's scale; return the prediction of the next."""
        arch = self._arch
        x = to_patches(frame.astype(np.float32), arch.patch)
        errors, seen = self._errors(x)
        above = None
        for layer in reversed(range(arch.layers)):
            parts = [self._r[layer], *(seen if layer == 0 else ()), errors[layer]]
            if above is not None:
                parts.append(above.repeat(2, 1).repeat(2, 2))
            gates = self._convolve(f"gates{layer}", parts)
            i, f, g, o = np.split(gates, 4)
            i, f, o = (np.clip(0.2 * gate + 0.5, 0, 1) for gate in (i, f, o))
            cell = f * self._c[layer] + i * np.tanh(g)
            self._c[layer] = np.clip(cell, -CELL_LIMIT, CELL_LIMIT)
            above = self._r[layer] = o * np.tanh(self._c[layer])
        for layer in range(1, arch.layers):
            self._ahat[layer] = np.maximum(self._convolve(f"ahat{layer}", [self._r[layer]]), 0)
            self._note(layer, self._ahat[layer])
        output = self._convolve("ahat0", [self._r[0], *seen])
        self._ahat[0] = x + output / CHANGE_GAIN if arch.skip else np.clip(output, 0, 1)
        return to_pixels(self._ahat[0], arch.patch)

    def _convolve(self, name, parts):
        return convolve(np.concatenate(parts), *self._weights[name])

    def _note(self, layer, activation):
        self.largest[layer] = max(self.largest[layer], float(activation.max()))

    def _errors(self, x):
        arch, seen = self._arch, []
        if arch.skip:
            before = x if self._last is None else self._last
            predicted = x if self._last is None else self._ahat[0]
            self._last = x
            error = (x - predicted) * CHANGE_GAIN
            seen = [np.clip(x, 0, 1), np.clip((x - before) * CHANGE_GAIN, -1, 1)]
        else:
            error = np.clip(x, 0, 1) - self._ahat[0]
        errors = []
        for layer in range(arch.layers):
            if layer:
                target = np.maximum(self._convolve(f"a{layer}", [errors[-1]]), 0)
                target = target.reshape(len(target), x.shape[1] >> layer, 2, -1, 2).max((2, 4))
                self._note(layer, target)
                error = target - self._ahat[layer]
            pair = np.concatenate([error, -error])
            errors.append(np.clip(pair, 0, 1) if layer == 0 else np.maximum(pair, 0))
        return errors, seen
