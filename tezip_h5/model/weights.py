"""A trained network's files: its architecture and its floating-point weights.

Named as the original's: ``prednet_model.json`` and ``prednet_weights.hdf5``.
"""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np

from tezip_h5.errors import ModelError
from tezip_h5.placing import place
from tezip_h5.prediction.architecture import Architecture

__all__ = ["MODEL_FILE", "WEIGHTS_FILE", "check", "load", "save"]

MODEL_FILE, WEIGHTS_FILE = "prednet_model.json", "prednet_weights.hdf5"


def save(folder: Path, architecture: Architecture, weights: dict) -> None:
    """Write both files; each appears under its name only when it is complete."""
    fresh = folder / f".{WEIGHTS_FILE}.new"
    with h5py.File(fresh, "w") as file:
        for name, (kernel, bias) in weights.items():
            file[f"{name}/kernel"] = np.asarray(kernel, np.float32)
            file[f"{name}/bias"] = np.asarray(bias, np.float32)
    os.replace(fresh, folder / WEIGHTS_FILE)
    place(folder / MODEL_FILE, architecture.to_json().encode())


def load(folder: Path) -> tuple[Architecture, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Read what `save` wrote.

    Raises
    ------
    ModelError
        When a file is missing, damaged, or holds weights of another shape or that are not finite.
    """
    try:
        architecture = Architecture.from_json((folder / MODEL_FILE).read_text())
        with h5py.File(folder / WEIGHTS_FILE, "r") as file:
            weights = {
                name: (file[f"{name}/kernel"][()], file[f"{name}/bias"][()])
                for name in architecture.convolutions()
            }
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise ModelError(f"no trained network can be read from {folder}: {error}") from None
    check(architecture, weights, folder / WEIGHTS_FILE)
    return architecture, weights


def check(architecture: Architecture, weights: dict, where) -> None:
    """Raise ModelError unless there are finite weights of the right shape for every convolution.

    Parameters
    ----------
    architecture : Architecture
    weights : dict of (kernel, bias)
        By name of the convolution.
    where : str or path
        The file or folder that holds them, for errors.
    """
    for name, (inputs, outputs) in architecture.convolutions().items():
        if name not in weights:
            raise ModelError(f"{where}: weights of {name} are missing; found {sorted(weights)}")
        kernel, bias = weights[name]
        if kernel.shape != (3, 3, inputs, outputs) or bias.shape != (outputs,):
            raise ModelError(
                f"{where} holds weights of shape {kernel.shape} and {bias.shape} for {name}; its "
                f"architecture has (3, 3, {inputs}, {outputs}) and ({outputs},)"
            )
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise ModelError(
                f"{where} holds weights of {name} that are not finite (NaN or infinite): the "
                "training went astray, use an earlier state or train anew"
            )
