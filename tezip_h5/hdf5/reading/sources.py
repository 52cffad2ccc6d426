"""What a text that names a stack means: a folder, a file of a stack, a dataset of an HDF5 file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import h5py

from tezip_h5.errors import InputError
from tezip_h5.hdf5.contents import container
from tezip_h5.hdf5.files import opening
from tezip_h5.stacks import dataset_paths, stackfiles

__all__ = ["open_source", "stacks_of"]


@contextlib.contextmanager
def open_source(stack) -> Iterator:
    """Open what a text names, if a dataset: FILE.h5:/DATASET, or FILE.h5 for its only stack.

    Parameters
    ----------
    stack
        Whatever `frames.open_stack` takes, or such a text or path.

    Yields
    ------
    h5py.Dataset, open to be read until the end of the block; or `stack` as it is

    Raises
    ------
    InputError
        When there is no such dataset, the file holds none or several stacks and none was named, or
        it is a file of another kind.
    """
    if not isinstance(stack, str | os.PathLike) or not isinstance(os.fspath(stack), str):
        yield stack
        return
    if not os.fspath(stack):  # not the current folder, which an empty path is elsewhere
        raise InputError("the name of the images is empty; give a folder, FILE.h5:/DATASET or file")
    path, inside = dataset_paths.split(stack)
    if inside is not None:
        with opening.open_existing(path) as file:
            yield dataset_paths.dataset_of(file, inside)
    elif not Path(path).is_file() or stackfiles.is_stack_file(path):
        yield stack
    elif h5py.is_hdf5(path):
        with opening.open_existing(path) as file:
            yield _only_stack(file)
    else:
        raise InputError(
            f"{path} is a file of another kind; give a folder of images, an HDF5 file, "
            "FILE.h5:/DATASET, or a file that ends in .tif, .npy or .npz"
        )


def _only_stack(file: h5py.File) -> h5py.Dataset:
    """The one stack of an open file; InputError where it has none or several."""
    found = stacks_of(file)
    if len(found) > 1:
        names = ", ".join(item.name for item in found[:5]) + (", ..." if len(found) > 5 else "")
        raise InputError(
            f"{file.filename} holds {len(found)} stacks: {names}; name one, such as "
            f"{file.filename}:{found[0].name}"
        )
    return found[0]


def stacks_of(file: h5py.File) -> list[h5py.Dataset]:
    """Datasets that look like stacks, compressed or not; InputError where there is none."""
    found = []
    container.visit_all(file, lambda _, item: found.append(item) if _is_stack(item) else None)
    if not found:
        raise InputError(
            f"{file.filename} holds no stack, a dataset of numbers (T, H, W) or (T, H, W, C); name "
            f"another dataset, {file.filename}:/DATASET"
        )
    return found


def _is_stack(item) -> bool:
    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "biuf" or not item.size:
        return False
    table = item.name.rpartition("/")[2] in ("keyframes", "preview")
    if table and container.is_tezip(item.parent.get("data")):  # made of the stack beside it
        return False
    return item.ndim == 3 or (item.ndim == 4 and item.shape[3] <= 4)
