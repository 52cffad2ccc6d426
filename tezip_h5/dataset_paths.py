"""FILE.h5:/DATASET: the file and the dataset that one text names."""

from __future__ import annotations

import os

import h5py

from tezip_h5.errors import InputError

__all__ = ["SUFFIXES", "dataset_of", "split"]

SUFFIXES = (".h5", ".hdf5", ".nxs")
"""What names of HDF5 files end in; many end otherwise."""


def split(text) -> tuple[str, str | None]:
    """Tell a file from the dataset in it.

    What is there decides: a file or folder of the whole name is meant, whatever colons are in it,
    else the longest beginning that is an HDF5 file, whatever its suffix. Where neither is there,
    the first beginning with one of `SUFFIXES` is taken for the file, so that it can be missed. The
    colon of a drive ends no file.

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
        When there is none.
    """
    try:
        item = file[inside or "/"]
        if isinstance(item, h5py.Group):
            item = item["data"]
        if isinstance(item, h5py.Dataset):
            return item
        error = None
    except KeyError as found:  # not there, or a link that leads nowhere
        error = found
    raise InputError(
        f"{file.filename} holds no dataset '/{inside}'; name one that it holds"
    ) from error
