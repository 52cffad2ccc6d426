"""Finding models, by a user's name for them or by the digest in a payload."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tezip_h5.errors import DamagedModelError, InputError, ModelError
from tezip_h5.model import embedding, original
from tezip_h5.model.export import export
from tezip_h5.model.weights import WEIGHTS_FILE
from tezip_h5.prediction.integer import BEGINNING, MAX_BYTES, IntegerModel
from tezip_h5.prediction.prednet import PredNet
from tezip_h5.prediction.reference import conformance

if TYPE_CHECKING:
    from collections.abc import Callable

    from tezip_h5.signatures import PathLike

__all__ = [
    "DEFAULT",
    "INTEGER_FILE",
    "calibrated",
    "default",
    "find",
    "is_model",
    "is_shipped",
    "load",
    "name_of",
    "register",
    "resolve",
]

DEFAULT = "default"
INTEGER_FILE = "prednet_integer.tzm"
SEARCH_PATH = "TEZIP_MODEL_PATH"
_SHIPPED = {1: "grey.tzm", 3: "rgb.tzm"}

_registered: dict[bytes, IntegerModel] = {}


def register(model: IntegerModel) -> IntegerModel:
    """Make a model known to this process, after running its conformance vector.

    Raises
    ------
    ModelError
        When this machine computes other predictions than the model's conformance vector.
    """
    if model.digest not in _registered:
        if not np.array_equal(conformance(PredNet, model), model.conformance):
            raise ModelError(
                f"the model {model.digest.hex()} predicts something else here than where it was "
                "made; the model is damaged, or this machine computes wrongly: please report this"
            )
        _registered[model.digest] = model
    return model


def load(path: PathLike, sample: Callable[[], np.ndarray] | None = None) -> IntegerModel:
    """Load and register a model.

    Parameters
    ----------
    path : path
        A .tzm file, a folder with one (as training makes it), or a folder with a network that
        the original TEZip trained.
    sample : callable, optional
        Gives frames (T, H, W, C) of integers, to calibrate an original's network on.

    Returns
    -------
    IntegerModel
        For `write(..., model=...)`; `Settings` takes its digest in hexadecimal.

    Raises
    ------
    ModelError
        When there is no model, it is damaged, or an original's network needs a `sample`.
    InputError
        When `path` is not a path.

    Examples
    --------
    >>> import tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "grey.tzm")
    >>> with open(path, "wb") as file:
    ...     size = file.write(default(channels=1).to_bytes())
    >>> load(path).digest == default(channels=1).digest
    True
    """
    path = Path(_name_or_path(path))
    if path.is_dir() and not (path / INTEGER_FILE).is_file() and original.is_original(path):
        if sample is None:
            raise ModelError(
                f"{path} holds a network of the original TEZip, which needs frames to be "
                f"calibrated on; run: tezip-h5 model import {path} FRAMES"
            )
        return calibrated(path, sample)
    file = path / INTEGER_FILE if path.is_dir() else path
    if not file.is_file() and (path / WEIGHTS_FILE).is_file():
        raise ModelError(
            f"MODEL {str(path)!r} holds a network whose training did not come to its end (no "
            f"{INTEGER_FILE}); call tezip-h5 train {path} with its data again to continue"
        )
    if not file.is_file():
        fault = f"holds no integer model ({INTEGER_FILE})" if path.exists() else "does not exist"
        raise ModelError(
            f"MODEL {str(path)!r} {fault}; give a folder that training made, a .tzm file, "
            "'default' or 'none'"
        )
    try:
        return register(IntegerModel.from_bytes(_read(file)))
    except ModelError as error:
        raise type(error)(f"{file}: {error}") from None


def calibrated(folder: Path, sample) -> IntegerModel:
    """Make and register the integer model of a network of the original; see `load`."""
    architecture, weights = original.load(folder)
    provenance = {"trained by": "TEZip, imported", "from": folder.name}
    sequences = [np.asarray(sample())]
    return register(export(architecture, weights, sequences, clipped=False, provenance=provenance))


def is_model(file: Path) -> bool:
    """Whether an existing file begins like a .tzm file."""
    with open(file, "rb") as stream:
        return stream.read(4) == BEGINNING


def _read(file: Path) -> bytes:
    """The bytes of a model's file; of another file only the first ones."""
    with open(file, "rb") as stream:
        start = stream.read(4)
        return start + stream.read(MAX_BYTES if start == BEGINNING else 0)


def _digest_in(file: Path) -> bytes:
    """The digest in the header of a .tzm file; empty if it cannot be read."""
    try:
        with open(file, "rb") as stream:
            return stream.read(36)[4:]
    except OSError:  # a broken link, or a folder
        return b""


def default(channels: int) -> IntegerModel | None:
    """The model that ships for this number of channels, or None."""
    name = _SHIPPED.get(channels)
    if name is None:
        return None
    file = resources.files("tezip_h5.model").joinpath("shipped", name)
    if not file.is_file():
        return None
    data = file.read_bytes()
    known = _registered.get(data[4:36])
    return known or register(IntegerModel.from_bytes(data))


def is_shipped(model: IntegerModel) -> bool:
    """Whether the model ships with the package."""
    shipped = default(model.architecture.channels)
    return shipped is not None and shipped.digest == model.digest


def _name_or_path(model):
    if not isinstance(model, str | os.PathLike):
        raise InputError(
            f"model={model!r} is no model; give 'default', 'none', a path or a loaded model"
        )
    return model


def name_of(model, sample=None) -> str | None:
    """The name of a model for `Settings.model`.

    Parameters
    ----------
    model : None | "default" | "none" | IntegerModel | path | hexadecimal digest
        A path is loaded, and a loaded model is registered.
    sample : callable, optional
        See `load`.

    Raises
    ------
    ModelError
        When a path holds no model.
    InputError
        When `model` is none of these.
    """
    if model is None:
        return None
    if isinstance(model, IntegerModel):
        return register(model).digest.hex()
    if _name_or_path(model) == "none":
        return None
    if model == DEFAULT:
        return DEFAULT
    for digest in _registered:
        if digest.hex() == model:
            return model
    return load(model, sample).digest.hex()


def resolve(model: str | None, channels: int) -> IntegerModel | None:
    """The model that `Settings.model` names; None for none, or when none ships for `channels`.

    Raises
    ------
    ModelError
        When a digest is unknown in this process, or its model is for other channels.
    """
    if model is None:
        return None
    if model == DEFAULT:
        return default(channels)
    for digest, found in _registered.items():
        if digest.hex().startswith(model):
            if found.architecture.channels != channels:
                raise ModelError(
                    f"the model {model[:12]}… is for frames of {found.architecture.channels} "
                    f"channel(s), these have {channels}; train one on such, or give another"
                )
            return found
    raise ModelError(
        f"the model {model} is not known in this process; load it first "
        "(tezip_h5.load_model), or give its path"
    )


def find(digest: bytes) -> IntegerModel:
    """Find the model with this digest (SHA-256).

    It is looked for among models registered in this process, those that ship, HDF5 files that are
    open in this process, and the folders in the variable TEZIP_MODEL_PATH.

    Raises
    ------
    ModelError
        When it is not found; the message names the digest and the places that were searched.
    DamagedModelError
        When the only one found is damaged.
    """
    if digest in _registered:
        return _registered[digest]
    for channels in _SHIPPED:
        model = default(channels)
        if model is not None and model.digest == digest:
            return model
    searched, damage = embedding.open_files(), None
    for file in searched:
        try:
            model = embedding.read(file, digest)
        except DamagedModelError as error:  # another file may have an intact copy
            damage = error
            continue
        if model is not None:
            return register(model)
    folders = [f for f in os.environ.get(SEARCH_PATH, "").split(os.pathsep) if f]
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.tzm")):
            if _digest_in(path) == digest:
                return load(path)
    if damage is not None:
        raise damage
    raise ModelError(
        f"this chunk was predicted by the model {digest.hex()}, which was not found: it is none "
        f"of the {len(_registered)} loaded in this process, does not ship with this tezip_h5, is "
        f"in none of the {len(searched)} open HDF5 files (/tezip/models), and in none of the "
        f"folders of {SEARCH_PATH} ({', '.join(folders) or 'not set'}). Open the file that embeds "
        "it, or set that variable to a folder that has its .tzm file"
    )
