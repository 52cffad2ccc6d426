"""Training data in the original's form: files of hickle, written and read with h5py alone.

``X_*.hkl`` is an array (N, H, W, C), ``sources_*.hkl`` a list with the name of the sequence that
each frame belongs to. This module writes the layout of hickle 5, and reads those of 3, 4 and 5:

    version  root attributes        object   an array                  a list of strings
    3        CLASS, VERSION         data_0   dataset, type=ndarray     1-D dataset of strings
    4        HICKLE_VERSION         data     dataset, base_type        1-D dataset of strings
    5        HICKLE_VERSION         data     dataset, type -> table    group of data0, data1, ...

Types are recognised by their names. The pickles that hickle stores beside them are never loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from tezip_h5.errors import InputError

__all__ = ["ArrayWriter", "open_array", "opened", "read_names", "write_names"]

_TABLE = "hickle_types_table"
# The classes as pickles of protocol 0. hickle needs them to find the class that `type` names.
_CLASSES = {
    "ndarray": b"cnumpy\nndarray\n.",
    "list": b"cbuiltins\nlist\n.",
    "str": b"cbuiltins\nstr\n.",
}
_ADVICE = "make it anew with `tezip-h5 train-data`"


class ArrayWriter:
    """Writes an X file block by block.

    Parameters
    ----------
    path : path
        New file; replaced if it is there.
    shape : (N, H, W, C)
    dtype : numpy dtype, optional

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with ArrayWriter(folder + "/X_train.hkl", (4, 2, 3, 1)) as out:
    ...         out.append(np.ones((3, 2, 3, 1), np.uint8))
    ...         out.append(np.zeros((1, 2, 3, 1), np.uint8))
    ...     with h5py.File(folder + "/X_train.hkl") as file:
    ...         open_array(file)[:, 0, 0, 0]
    array([1, 1, 1, 0], dtype=uint8)
    """

    def __init__(self, path, shape: tuple[int, ...], dtype=np.uint8):
        self._file = _created(path)
        self._data = self._file.create_dataset("data", shape, dtype)
        self._data.attrs["np_dtype"] = np.dtype(dtype).str.encode("ascii")
        self._data.attrs["type"] = _type_entry(self._file, "ndarray")
        self._filled = 0

    def append(self, block: np.ndarray) -> None:
        """Write the next frames, (n, H, W, C)."""
        stop = self._filled + len(block)
        if stop > len(self._data) or block.shape[1:] != self._data.shape[1:]:
            raise InputError(
                f"frames {self._filled}..{stop} of shape {block.shape[1:]} for an X file of shape "
                f"{self._data.shape}; append as many as announced, all alike"
            )
        self._data[self._filled : stop] = block
        self._filled = stop

    def close(self) -> None:
        """Finish the file; InputError when frames are missing."""
        wanted = len(self._data)
        self._file.close()
        if self._filled != wanted:
            raise InputError(f"{self._filled} of {wanted} frames of the X file were appended")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.close()
        else:
            self._file.close()


def write_names(path, names: Sequence[str]) -> None:
    """Write a sources file: a list of str, one per frame."""
    with _created(path) as file:
        if not names:
            file.create_dataset("data", None, "int64").attrs["type"] = _type_entry(file, "list")
            return
        group = file.create_group("data")
        group.attrs["num_items"] = len(names)
        group.attrs["type"] = _type_entry(file, "list")
        stored = {}
        for index, name in enumerate(names):
            # A hard link in place of the reference that hickle would store. hickle reads both, but
            # its time for references grows with the square of their number.
            if name in stored:
                group.id.links.create_hard(f"data{index}".encode(), group.id, stored[name])
                continue
            letters = np.frombuffer(name.encode(), "S1").reshape(1, -1)
            item = group.create_dataset(f"data{index}", data=letters)
            item.attrs["str_type"] = b"str"
            item.attrs["type"] = _type_entry(file, "str")
            stored[name] = f"data{index}".encode()


def _created(path) -> h5py.File:
    file = h5py.File(path, "w")
    file.attrs["HICKLE_VERSION"] = "5.0.3"
    file.attrs["HICKLE_PYTHON_VERSION"] = "3.10.0"
    file.create_group(_TABLE, track_order=True)
    return file


def _type_entry(file: h5py.File, name: str):
    """A reference to the table's entry of a class; the entry is made if it is missing."""
    table = file[_TABLE]
    for entry in table.values():
        base = entry.attrs.get("base_type")
        if base and name in table and file[base] == table[name]:
            return entry.ref
    letters = np.frombuffer(_CLASSES[name], "S1").reshape(1, -1)
    entry = table.create_dataset(str(len(table)), data=letters)
    entry.attrs["base_type"] = table.create_dataset(name, shape=None, dtype="S1").ref
    return entry.ref


@contextmanager
def _reading(file: h5py.File) -> Iterator[h5py.Dataset | h5py.Group]:
    """The object in an open file; errors that h5py raises for damage become InputError."""
    name = file.filename
    try:
        if {"CLASS", "VERSION"} <= set(file.attrs) and _text(file.attrs["CLASS"]) == "hickle":
            key, version = "data_0", _text(file.attrs["VERSION"])
        elif "HICKLE_VERSION" in file.attrs:
            key, version = "data", _text(file.attrs["HICKLE_VERSION"])
        else:
            raise InputError(
                f"{name} is an HDF5 file, but none that hickle wrote (it names no hickle version); "
                f"{_ADVICE}"
            )
        if not re.match(r"[345]\.", version):
            raise InputError(
                f"{name} was written by hickle {version}; versions 3, 4 and 5 are read: {_ADVICE}"
            )
        if key not in file:
            raise InputError(f"{name} holds no object of hickle's ({key}); {_ADVICE}")
        node = file[key]
        _refuse_pickles(name, node)
        yield node
    except InputError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise InputError(f"{name} is damaged: {error}; {_ADVICE}") from error


def _refuse_pickles(name: str, node) -> None:
    kind = _kind(node)
    if kind in (None, "pickle"):
        raise InputError(
            f"{name} holds a pickled Python object, which could run any program when loaded, so it "
            f"is not; an array or a list of names was expected: {_ADVICE}"
        )


def _kind(node) -> str | None:
    """hickle's name for the type of an object ("ndarray", "list", "str"), or None."""
    kind = node.attrs.get("base_type", node.attrs.get("type"))
    if isinstance(kind, h5py.Reference):
        base = node.file[node.file[kind].attrs["base_type"]]
        # Not base.name: HDF5 would search the whole file for a name.
        return next((name for name, entry in node.file[_TABLE].items() if entry == base), None)
    if kind is None:
        return None
    # hickle 3 has "ndarray", or the str() of a type: <class 'list'>, <type 'list'>
    text = _text(kind)
    return re.sub(r"<\w+ '(?:\w+\.)*(\w+)'>", r"\1", text)


def _text(value) -> str:
    """An attribute as str: text, bytes, or an array of one of these."""
    value = np.asarray(value).reshape(-1)[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def open_array(file: h5py.File) -> h5py.Dataset:
    """The array of an open X file, to be read by slices.

    Returns
    -------
    h5py.Dataset, numeric, of 3 or 4 dimensions: (N, H, W) or (N, H, W, C)

    Raises
    ------
    InputError
        When hickle did not write the file, or put something else into it.
    """
    with _reading(file) as node:
        if not isinstance(node, h5py.Dataset) or node.dtype.kind not in "iuf":
            found = "strings" if isinstance(node, h5py.Dataset) else f"a {_kind(node)}"
            raise InputError(
                f"{file.filename} holds {found}; an array of frames was expected: {_ADVICE}"
            )
        if node.ndim not in (3, 4):
            raise InputError(
                f"{file.filename} holds an array of shape {node.shape}; frames (N, H, W, C) were "
                f"expected: {_ADVICE}"
            )
        return node


def read_names(path) -> list[str]:
    """The list in a sources file.

    Raises
    ------
    InputError
        When the file is not a sources file, or is damaged.
    """
    with opened(path) as file, _reading(file) as node:
        if isinstance(node, h5py.Group):
            return _items(file, node)
        if node.shape is None:  # an empty list
            return []
        if node.ndim == 1 and (node.dtype.kind == "S" or h5py.check_string_dtype(node.dtype)):
            return [_text(name) for name in node[()]]
        raise InputError(
            f"{file.filename} holds {node.dtype} {node.shape}; a list of names, one per frame, was "
            f"expected: {_ADVICE}"
        )


def _items(file: h5py.File, group: h5py.Group) -> list[str]:
    """The strings of a list that hickle 5 stored, each a dataset of its own."""
    known, items = {}, {}
    for key, node in group.items():
        named = re.fullmatch(r"data_?(\d+)", key)
        if not named:
            raise InputError(
                f"{file.filename} holds a {_kind(group)} with the item {key}; a list of names, one "
                f"per frame, was expected: {_ADVICE}"
            )
        text = known.get(node.id)  # known already, if the item is another link to the same string
        if text is None:
            text = _string(file, node, known)
        items[int(named[1])] = text
    if sorted(items) != list(range(int(group.attrs.get("num_items", len(items))))):
        raise InputError(f"{file.filename} lacks items of its list; {_ADVICE}")
    return [items[index] for index in range(len(items))]


def _string(file: h5py.File, node, known: dict) -> str:
    """The string that a dataset holds or refers to; `known` keeps strings that were read."""
    if h5py.check_ref_dtype(getattr(node, "dtype", None)):
        node = file[node[()]]
    if node.id not in known:
        if not isinstance(node, h5py.Dataset) or _kind(node) != "str":
            raise InputError(
                f"{file.filename} holds, at {node.name}, something that is no string; a list of "
                f"names, one per frame, was expected: {_ADVICE}"
            )
        known[node.id] = _text(node[()]) if node.shape == () else node[()].tobytes().decode()
    return known[node.id]


def opened(path) -> h5py.File:
    """Open a file for reading; InputError when it is missing or no HDF5 file."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is missing or no file; {_ADVICE}")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} is no HDF5 file, or is damaged ({error}); {_ADVICE}") from error
