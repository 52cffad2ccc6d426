"""Metadata: values and attributes that a caller adds beside the frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

import h5py
import numpy as np

from tezip_h5.errors import InputError

__all__ = ["places", "write_metadata"]


def places(group: str, metadata: dict) -> list[str]:
    """Paths of the objects that `write_metadata` writes to, for the group of this name."""
    if not isinstance(metadata, Mapping):
        return []
    return [_split(f"/{group}", key)[0] for key in metadata]


def _split(group: str, key) -> tuple[str, str | None]:
    """The path that a key names, and the attribute's name, if any."""
    place, at, name = str(key).rpartition("@") if "@" in str(key) else (str(key), "", "")
    path = place if place.startswith("/") else f"{group}/{place}"
    return path, name if at else None


def write_metadata(group: h5py.Group, metadata: dict) -> None:
    """Write values and attributes into the file.

    Parameters
    ----------
    group : h5py.Group
        The group at which paths without a leading slash begin.
    metadata : dict
        Values by path, attributes by ``path@name``. Groups on the way are made.

    Raises
    ------
    InputError
        When `metadata` is no dict, or a value cannot be written at its path.
    """
    if not isinstance(metadata, Mapping):
        raise InputError(
            f"metadata={metadata!r} is no dict; give values by path and attributes by path@name, "
            "such as {'/entry/sample/name': 'x', 'data@units': 'counts'}"
        )
    for key, value in metadata.items():
        path, name = _split(group.name, key)
        try:
            _check_place(group.file, path, name)
            if name is not None:
                item = group.file.get(path)
                item = group.file.require_group(path) if item is None else item
                item.attrs[name] = value
            else:
                _write_value(group.file, path.rstrip("/"), value)
        except (TypeError, ValueError, KeyError, OSError, RuntimeError) as error:
            raise InputError(f"metadata {key!r}: {value!r} cannot be written: {error}") from None


def _check_place(file: h5py.File, path: str, attribute: str | None) -> None:
    """Raise an error with a clear text where HDF5's would not be clear."""
    if attribute == "":
        raise ValueError("there is no attribute's name behind the @")
    if "\0" in path + (attribute or ""):
        raise ValueError("HDF5 would end the name at its NUL")
    for parent in PurePosixPath(path).parents:
        if isinstance(file.get(str(parent)), h5py.Dataset):
            raise ValueError(f"{parent} is a dataset, and nothing can lie in one")


def _write_value(file: h5py.File, path: str, value) -> None:
    if isinstance(value, dict):
        raise TypeError("a dict has no place in HDF5, give one path for each of its values")
    if path not in file:
        file[path] = value
        return
    there = file[path]
    if not isinstance(there, h5py.Dataset) or there.shape != np.shape(value):
        raise ValueError(f"{path} is there already, and something else")
    there[...] = value
