"""Opening the stack that a path on the command line names."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from tezip_h5.frames import Stack, open_stack
from tezip_h5.hdf5.contents.layout import panels_joined
from tezip_h5.hdf5.files import opening
from tezip_h5.hdf5.reading.sources import stacks_of
from tezip_h5.stacks import dataset_paths, stackfiles

__all__ = ["check", "file_of", "load"]


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
    found = stacks_of(file)
    return found[0], [item.name for item in found] if len(found) > 1 else []
