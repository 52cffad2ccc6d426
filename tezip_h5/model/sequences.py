"""Sequences for training, from HDF5 files, training data or folders of images.

Each is read a few frames at a time, so a data set may be larger than memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np

from tezip_h5.errors import InputError
from tezip_h5.frames import check_dtype, check_frames
from tezip_h5.model import hickle
from tezip_h5.stacks import dataset_paths
from tezip_h5.stacks.images import ImageFolder, natural_key

__all__ = ["Sequence", "image_folders", "open_sequences"]

_LITTER = {"thumbs.db", "desktop.ini"}
_SMALLEST = 8  # narrower datasets are not taken for images; they are often tables or spectra
_KINDS = "HDF5 files, datasets in them (FILE.h5:/DATASET), training data, folders of images"


@dataclass(frozen=True, eq=False)
class Sequence:
    """Consecutive frames, which are read when they are sliced.

    Attributes
    ----------
    name : str
        Its file or folder.
    shape : (T, H, W, C)
    dtype : numpy dtype, in native byte order
    validation : bool
        Whether the data set reserves it for validation.
    """

    name: str
    shape: tuple[int, int, int, int]
    dtype: np.dtype
    _read: Callable[[int, int], np.ndarray] = field(repr=False)
    validation: bool = False

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, part: slice) -> np.ndarray:
        """Frames `part`: (t, H, W, C) of `dtype`."""
        if not isinstance(part, slice):
            raise TypeError(f"a sequence is sliced along time only, not by {part!r}")
        start, stop, step = part.indices(self.shape[0])
        if step != 1:
            raise TypeError(f"a sequence is read frame after frame, not in steps of {step}")
        try:
            frames = np.asarray(self._read(start, max(start, stop)))
        except OSError as error:
            raise InputError(f"{self.name} cannot be read: {error}; restore the file") from error
        return frames.astype(self.dtype, copy=False).reshape(-1, *self.shape[1:])


def open_sequences(paths) -> list[Sequence]:
    """Find the sequences at some paths.

    Parameters
    ----------
    paths : str or path, or several
        A ``.h5``, ``.hdf5`` or ``.nxs`` file, of which every dataset that looks like a stack of
        images is taken; ``FILE.h5:/DATASET``; a folder of training data (``X_train.hkl`` and
        ``sources_train.hkl``, and ``X_val.hkl`` if it is there); one X ``.hkl`` file; a folder of
        images, one sequence; a folder of such folders.

    Returns
    -------
    list of Sequence, of at least 2 frames each

    Raises
    ------
    InputError
        When a path is none of these, or holds no sequence.
    """
    paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not paths:
        raise InputError(f"no data to learn from; give one or more of: {_KINDS}")
    return [sequence for path in paths for sequence in _open(os.fspath(path))]


def _open(path: str) -> list[Sequence]:
    whole = Path(path)
    if whole.is_dir():
        return _open_folder(whole)
    if not whole.exists():
        file, inside = dataset_paths.split(path)
        if inside is not None and Path(file).is_file():
            return [_named_dataset(Path(file), inside)]
        raise InputError(f"{file} does not exist; give {_KINDS}")
    if whole.suffix.lower() in dataset_paths.SUFFIXES:
        return _open_hdf5(whole)
    if whole.suffix.lower() == ".hkl":
        return _open_hickle(whole)
    raise InputError(f"{path} is no data to learn from; give {_KINDS}")


def _open_hdf5(path: Path) -> list[Sequence]:
    """Every stack of a file."""
    file, found = _file(path), []

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and _is_stack(item) and not _is_table(file, name):
            found.append(_of_dataset(f"{path}:/{name}", item))

    try:
        file.visititems(visit)
    except (OSError, RuntimeError, KeyError) as error:
        raise InputError(f"{path} is damaged: {error}; restore it") from error
    if not found:
        raise InputError(
            f"{path} holds no stack of images: no numeric dataset (T, H, W) or (T, H, W, C) with "
            f"T >= 2, H and W >= {_SMALLEST}, C <= 4. One that is reached by a link to another "
            f"file is taken when it is named: {path}:/DATASET"
        )
    return found


def _file(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} is no HDF5 file, or is damaged ({error}); restore it") from error


def _is_stack(data: h5py.Dataset) -> bool:
    """Whether a dataset looks like a stack of images."""
    shape = data.shape or ()
    if len(shape) not in (3, 4) or min(shape[1:3]) < _SMALLEST or shape[0] < 2:
        return False
    return _stored(data.dtype) and (len(shape) == 3 or 1 <= shape[3] <= 4)


def _stored(dtype: np.dtype) -> bool:
    try:
        return bool(check_dtype(dtype))
    except InputError:
        return False


def _is_table(file: h5py.File, name: str) -> bool:
    """Whether a dataset is one of the tables beside a compressed stack, not a stack itself."""
    group, _, last = name.rpartition("/")
    if name.startswith("tezip/"):
        return True
    data = file[f"{group}/data"] if group and f"{group}/data" in file else None
    return last in ("keyframes", "preview") and data is not None and "tezip" in data.attrs


def _named_dataset(path: Path, name: str) -> Sequence:
    file = _file(path)
    try:
        data = dataset_paths.dataset_of(file, name)
    except InputError:
        raise
    except (ValueError, OSError, RuntimeError) as error:
        raise InputError(f"{path} is damaged: {error}; restore it") from error
    return _of_dataset(f"{path}:/{name}", data)


def _of_dataset(name: str, data: h5py.Dataset) -> Sequence:
    if data.shape is None:
        raise InputError(f"{name} is an empty dataset; give a stack (T, H, W) or (T, H, W, C)")
    try:
        shape, dtype = check_frames(data.shape), check_dtype(data.dtype).newbyteorder("=")
    except InputError as error:
        raise InputError(f"{name}: {error}") from None

    def read(start, stop, _keep_open=data.file):
        return data[start:stop]

    return _checked(Sequence(name, (*shape, 1)[:4], dtype, read))


def _checked(sequence: Sequence) -> Sequence:
    if sequence.shape[0] < 2:
        raise InputError(
            f"{sequence.name} is a sequence of {sequence.shape[0]} frame; at least 2 are needed, "
            "one to predict the other: leave it out"
        )
    return sequence


def _open_hickle(path: Path) -> list[Sequence]:
    """The sequences of an X file, from the sources file beside it; without that, one sequence."""
    file = hickle.opened(path)
    array = hickle.open_array(file)
    whole = _of_dataset(str(path), array)
    sources = path.with_name(path.name.replace("X_", "sources_", 1))
    if not path.name.startswith("X_") or not sources.exists():
        return [whole]
    names = hickle.read_names(sources)
    if len(names) != len(whole):
        raise InputError(
            f"{sources} names the sequences of {len(names)} frames, but {path} holds {len(whole)}; "
            "make both anew with `tezip-h5 train-data`"
        )
    starts = [i for i in range(len(names)) if i == 0 or names[i] != names[i - 1]]
    parts = pairwise([*starts, len(names)])
    validation = path.name == "X_val.hkl"
    return [_part(whole, f"{path}:{names[a]}", a, b, validation) for a, b in parts]


def _part(whole: Sequence, name: str, start: int, stop: int, validation: bool) -> Sequence:
    """Frames start..stop of an X file."""

    def read(a, b):
        return whole[start + a : start + b]

    shape = (stop - start, *whole.shape[1:])
    return _checked(Sequence(name, shape, whole.dtype, read, validation))


def _open_folder(folder: Path) -> list[Sequence]:
    if (folder / "X_train.hkl").exists():
        paths = [folder / "X_train.hkl", folder / "X_val.hkl"]
        for path in paths:
            sources = path.with_name(path.name.replace("X_", "sources_"))
            if path.exists() and not sources.exists():
                raise InputError(
                    f"{path} is there but not {sources.name}, which says where a sequence ends; "
                    "make both with `tezip-h5 train-data`, or name the X file alone: one sequence"
                )
        return [s for path in paths if path.exists() for s in _open_hickle(path)]
    entries = _entries(folder)
    if entries and all(entry.suffix.lower() == ".hkl" for entry in entries):
        raise InputError(f"{folder} holds no X_train.hkl; make it with `tezip-h5 train-data`")
    if any(entry.is_dir() for entry in entries):
        return [_of_images(part) for part in image_folders(folder)]
    return [_of_images(folder)]


def _entries(folder: Path) -> list[Path]:
    """The sorted contents of a folder, without hidden files and files of operating systems."""
    found = [p for p in folder.iterdir() if p.name[0] != "." and p.name.lower() not in _LITTER]
    return sorted(found, key=lambda path: natural_key(path.name))


def image_folders(folder) -> list[Path]:
    """The sub-folders of a folder of sequences, in natural order of their names.

    Raises
    ------
    InputError
        When the folder is missing, or holds files beside them.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give a folder with a sub-folder per sequence")
    entries = _entries(folder)
    for entry in entries:
        if not entry.is_dir():
            raise InputError(
                f"{folder} holds {entry.name} beside folders, or instead of them; give a folder "
                "with nothing but a sub-folder of images per sequence"
            )
    return entries


def _of_images(folder: Path) -> Sequence:
    images = ImageFolder(folder, expand=True)
    try:
        dtype = check_dtype(images.dtype).newbyteorder("=")
        check_frames(images.shape)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None

    def read(start, stop):
        frames = np.empty((stop - start, *images.shape[1:]), dtype)
        for i in range(start, stop):
            frames[i - start] = images[i]
        return frames

    return _checked(Sequence(str(folder), (*images.shape, 1)[:4], dtype, read))
