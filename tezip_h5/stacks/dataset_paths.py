"""Paths such as FILE.h5:/DATASET, which name a file and a dataset in it."""

from __future__ import annotations

import os

import h5py

from tezip_h5.errors import InputError

__all__ = ["SUFFIXES", "dataset_of", "split"]

SUFFIXES = (".h5", ".hdf5", ".nxs")
"""Usual suffixes of HDF5 files. Files with other suffixes are recognised by their content."""


def split(text) -> tuple[str, str | None]:
    """Split a text into the path of a file and the path of a dataset in it.

    Existing files decide. If the whole text is an existing file or folder, it is that, whatever
    colons are in it. Otherwise the longest part before a colon that is an HDF5 file is the file,
    whatever its suffix. If there is none, the first part with one of `SUFFIXES` is taken for the
    file, so that an error can say that it is missing. The colon of a drive letter is no separator.

    Parameters
    ----------
    text : str or path

    Returns
    -------
    str, and str or None
        The file, and the dataset without slashes around it: "" is the root, None where the text
        names a file or folder alone.

    Examples
    --------
    >>> split("missing.h5:/entry/data")
    ('missing.h5', 'entry/data')
    >>> split("folder/12:30.tif")
    ('folder/12:30.tif', None)
    """
    text = os.fspath(text)
    first = len(os.path.splitdrive(text)[0])
    colons = [at for at in range(first, len(text)) if text[at] == ":"]
    if not colons or os.path.exists(text):
        return text, None
    there = (at for at in reversed(colons) if _is_hdf5(text[:at]))
    named = (at for at in colons if text[:at].lower().endswith(SUFFIXES))
    at = next(there, None) or next(named, None)
    return (text, None) if at is None else (text[:at], text[at + 1 :].strip("/"))


def _is_hdf5(path: str) -> bool:
    return os.path.isfile(path) and h5py.is_hdf5(path)


def dataset_of(file: h5py.File, inside: str) -> h5py.Dataset:
    """The dataset at a path of an open file, or `data` in the group there.

    Raises
    ------
    InputError
        When there is no such dataset.
    """
    try:
        item = file[inside or "/"]
        if isinstance(item, h5py.Group):
            item = item["data"]
        if isinstance(item, h5py.Dataset):
            return item
        error = None
    except KeyError as found:  # there is no such object, or a broken link
        error = found
    raise InputError(
        f"{file.filename} holds no dataset '/{inside}'; name one that it holds"
    ) from error
