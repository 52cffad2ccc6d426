"""Models inside HDF5 files: arrays and JSON at /tezip/models/<digest>, no pickle, no code."""

from __future__ import annotations

import contextlib
import re

import h5py
import numpy as np

from tezip_h5.errors import DamagedModelError, ModelError
from tezip_h5.prediction.integer import MAX_BYTES, IntegerModel

__all__ = ["MODELS", "embed", "embedded", "link", "open_files", "read", "relink", "size"]

MODELS = "/tezip/models"
_DESCRIPTION = "description"


def embed(file: h5py.File, model: IntegerModel) -> h5py.Group:
    """Put a model into a file, once; returns its group."""
    path = f"{MODELS}/{model.digest.hex()}"
    if path in file:
        return file[path]
    group = file.create_group(path)
    for name, array in model.arrays().items():
        compressed = {"compression": "gzip", "shuffle": True} if array.nbytes > 256 else {}
        group.create_dataset(name, data=array, **compressed)
    group.create_dataset(_DESCRIPTION, data=model.description)
    return group


def size(model: IntegerModel) -> int:
    """The bytes by which a file grows when the model is embedded."""
    with h5py.File("model", "w", driver="core", backing_store=False) as file:
        file.flush()
        before = file.id.get_filesize()
        embed(file, model)
        file.flush()
        return file.id.get_filesize() - before


def link(group: h5py.Group, digest: bytes) -> None:
    """Store a model's digest in a stack's group, and link to the model if the file has it."""
    if group.attrs.get("model") != digest.hex():
        group.attrs["model"] = digest.hex()
    path = f"{MODELS}/{digest.hex()}"
    if path in group.file and "model" not in group:
        group["model"] = group.file[path]


def relink(group: h5py.Group) -> None:
    """Replace a model that was copied with a stack by a link, if the file has it already."""
    if "model" not in group:
        return
    path = f"{MODELS}/{group.attrs['model']}"
    if path not in group.file:
        group.file.require_group(MODELS)
        group.file.move(f"{group.name}/model", path)
    else:
        del group["model"]
    group["model"] = group.file[path]


def embedded(file: h5py.File) -> list[bytes]:
    """Digests of the models in a file."""
    models = file.get(MODELS)
    names = models if isinstance(models, h5py.Group) else ()
    return [bytes.fromhex(name) for name in names if re.fullmatch("[0-9a-f]{64}", name)]


def read(file: h5py.File, digest: bytes) -> IntegerModel | None:
    """The embedded model with this digest, or None.

    Raises
    ------
    DamagedModelError
    """
    path = f"{MODELS}/{digest.hex()}"
    # Checked first, because inside a filter's callback HDF5 cannot say why opening failed.
    if path not in file:
        return None
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            if sum(known.nbytes for known in found.values()) + item.nbytes > MAX_BYTES:
                raise ValueError(f"{item.name} makes it larger than {MAX_BYTES} bytes")
            found[name] = item

    try:
        file[path].visititems(visit)
        description = found.pop(_DESCRIPTION)[()].decode()
        arrays = {name: np.asarray(item[()]) for name, item in found.items()}
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise _damaged(file, error) from None
    little = {name: np.asarray(a, a.dtype.newbyteorder("<")) for name, a in arrays.items()}
    try:
        model = IntegerModel.from_arrays(description, little)
    except ModelError as error:
        raise _damaged(file, error) from None
    if model.digest != digest:
        raise DamagedModelError(
            f"the model embedded in {file.filename} as {digest.hex()} is another one: its digest "
            f"is {model.digest.hex()}; the file is damaged"
        )
    return model


def _damaged(file: h5py.File, error: Exception) -> DamagedModelError:
    where = f"the model embedded in {file.filename}"
    return DamagedModelError(f"{where} is damaged: {error}; restore the file")


def open_files() -> list[h5py.File]:
    """HDF5 files that are open in this process."""
    files = []
    for identifier in h5py.h5f.get_obj_ids(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE):
        with contextlib.suppress(ValueError, RuntimeError, OSError):
            files.append(h5py.File(identifier))
    return files
