"""Reading models that the original TEZip trained (Keras 2.2), without Keras.

Lotter's ``prednet.py``, which the original uses, keeps its convolutions in a dictionary and
stores their weights sorted by name: a, ahat, c, f, i, o, each for every layer from the lowest.
"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

from tezip_h5.errors import ModelError
from tezip_h5.model.weights import MODEL_FILE, WEIGHTS_FILE, check
from tezip_h5.prediction.architecture import Architecture

__all__ = ["is_original", "load"]

_EXPECTED = {
    "error_activation": "relu",
    "A_activation": "relu",
    "LSTM_activation": "tanh",
    "LSTM_inner_activation": "hard_sigmoid",
    "pixel_max": 1.0,
}


def is_original(folder: Path) -> bool:
    """Whether a folder holds a network that the original trained."""
    if not ((folder / MODEL_FILE).is_file() and (folder / WEIGHTS_FILE).is_file()):
        return False
    return "tezip_h5" not in (folder / MODEL_FILE).read_text(errors="replace")


def load(folder: Path) -> tuple[Architecture, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Architecture and weights of a model folder of the original.

    Raises
    ------
    ModelError
        When the files are damaged, do not fit each other, or describe a network whose layers
        are not PredNet's usual ones.
    """
    architecture = _architecture(folder / MODEL_FILE)
    pairs = _pairs(folder / WEIGHTS_FILE)
    layers = architecture.layers
    if len(pairs) != 6 * layers - 1:
        raise ModelError(
            f"{folder / WEIGHTS_FILE} holds {len(pairs)} convolutions; a PredNet of {layers} "
            f"layers has {6 * layers - 1}"
        )
    a, ahat = pairs[: layers - 1], pairs[layers - 1 : 2 * layers - 1]
    c, f, i, o = (pairs[n * layers - 1 : (n + 1) * layers - 1] for n in range(2, 6))
    weights = {}
    for layer in range(layers):
        if layer:
            weights[f"a{layer}"] = a[layer - 1]
        weights[f"ahat{layer}"] = ahat[layer]
        gates = (i[layer], f[layer], c[layer], o[layer])
        weights[f"gates{layer}"] = tuple(
            np.concatenate(part, -1) for part in zip(*gates, strict=True)
        )
    check(architecture, weights, folder / WEIGHTS_FILE)
    return architecture, weights


def _architecture(path: Path) -> Architecture:
    try:
        document = json.loads(path.read_text())
        config = document["config"]
        layers = config["layers"] if isinstance(config, dict) else config
        found = [layer["config"] for layer in layers if layer["class_name"] == "PredNet"]
        if len(found) != 1:
            raise ValueError(f"it has {len(found)} PredNet layers")
        config = found[0]
        for name, value in _EXPECTED.items():
            if config.get(name, value) != value:
                raise ValueError(f"{name} is {config[name]!r}, only {value!r} is known here")
        sizes = [config[n] for n in ("A_filt_sizes", "Ahat_filt_sizes", "R_filt_sizes")]
        if any(side != 3 for part in sizes for side in part):
            raise ValueError(f"its kernels have sides {sizes}, only 3 is known here")
        stack = tuple(int(n) for n in config["stack_sizes"])
        states = tuple(int(n) for n in config["R_stack_sizes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} describes no PredNet of the original: {error}") from None
    return Architecture(stack[0], stack[1:], states, patch=1, skip=False)


def _pairs(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """(kernel, bias) of every convolution, in the order of storage."""
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            arrays = []
            for layer in root.attrs["layer_names"]:
                group = root[_text(layer)]
                names = [_text(name) for name in group.attrs["weight_names"]]
                arrays += [np.asarray(group[name][()], np.float32) for name in names]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ModelError(f"{path} holds no weights of the original: {error}") from None
    # After the network the original has a layer that averages errors; it is no convolution.
    kernels = [n for n, array in enumerate(arrays) if array.ndim == 4]
    if any(n + 1 >= len(arrays) or arrays[n + 1].ndim != 1 for n in kernels):
        raise ModelError(f"{path}: a kernel without its bias; the file is damaged")
    return [(arrays[n], arrays[n + 1]) for n in kernels]


def _text(name) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
