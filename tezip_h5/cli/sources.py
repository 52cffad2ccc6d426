"""Opening the stack that a path on the command line names."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from tezip_h5 import dataset_paths, stackfiles
from tezip_h5.errors import InputError
from tezip_h5.frames import Stack, open_stack
from tezip_h5.hdf5.contents import container
from tezip_h5.hdf5.contents.layout import panels_joined
from tezip_h5.hdf5.files import opening

__all__ = ["check", "file_of", "load", "open_source"]


def file_of(path: str) -> str:
    """The file or folder that `path` is in, without a dataset's or an array's name."""
    if stackfiles.is_stack_file(path):
        return str(stackfiles.split(path)[0])
    return dataset_paths.split(path)[0]


def check(path: str) -> None:
    """Raise InputError unless `path` means a stack; its samples are not read yet."""
    with _opened(path):
        pass


def load(path: str) -> tuple[str, np.ndarray]:
    """Name and samples, (T, H, W) or (T, H, W, C > 1), of the stack that `path` means.

    Panels are put one below the other, because most other codecs have none.
    """
    with _opened(path) as (name, stack, others):
        if others:
            taken, *others = others
            print(f"{file_of(path)}: taking {taken}, not {', '.join(others)}", file=sys.stderr)
        samples = panels_joined(np.concatenate(list(stack.blocks(64))), stack.panel_axes)
    return name, samples[..., 0] if samples.ndim == 4 and samples.shape[3] == 1 else samples


@contextlib.contextmanager
def open_source(images: str):
    """The stack a command line names: a folder, a dataset of an HDF5 file, a file of a stack."""
    if not images:  # elsewhere an empty path means the current folder
        raise InputError("the name of the images is empty; give a folder, FILE.h5:/DATASET or file")
    path, inside = dataset_paths.split(images)
    if inside is not None:
        with opening.open_existing(path) as file:
            yield dataset_paths.dataset_of(file, inside)
        return
    if not Path(images).is_file() or stackfiles.is_stack_file(images):
        yield images
    elif h5py.is_hdf5(images):
        with opening.open_existing(images) as file:
            yield _only_stack(file)
    else:
        raise InputError(
            f"{images} is a file of another kind; give a folder of images, an HDF5 file, "
            "FILE.h5:/DATASET, or a file that ends in .tif, .npy or .npz"
        )


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[str, Stack, list[str]]]:
    """A name for the stack, the stack, and the names of all stacks if none was named."""
    if Path(path).is_dir():
        yield Path(path).resolve().name, open_stack(path), []
        return
    if stackfiles.is_stack_file(path):
        # Arrays of one file must have names that differ: the summary tells stacks apart by them.
        yield Path(path).stem if Path(path).is_file() else Path(path).name, open_stack(path), []
        return
    file, inside = dataset_paths.split(path)
    with opening.open_existing(file) as opened:
        dataset, known = _dataset(opened, inside)
        yield Path(file).stem, open_stack(dataset), known


def _dataset(file: h5py.File, inside: str | None) -> tuple[h5py.Dataset, list[str]]:
    """The dataset named, or the first stack, with the names of all if there are several."""
    if inside:
        return dataset_paths.dataset_of(file, inside), []
    found = _stacks(file)
    return found[0], [item.name for item in found] if len(found) > 1 else []


def _only_stack(file: h5py.File) -> h5py.Dataset:
    """The one stack of an open file; InputError where it has none or several."""
    found = _stacks(file)
    if len(found) > 1:
        names = ", ".join(item.name for item in found[:5]) + (", ..." if len(found) > 5 else "")
        raise InputError(
            f"{file.filename} holds {len(found)} stacks: {names}; name one, such as "
            f"{file.filename}:{found[0].name}"
        )
    return found[0]


def _stacks(file: h5py.File) -> list[h5py.Dataset]:
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
    if table and container.is_tezip(item.parent.get("data")):  # of the stack beside it
        return False
    return item.ndim == 3 or (item.ndim == 4 and item.shape[3] <= 4)
