"""Single files that hold a whole stack: multi-page TIFF, OME-TIFF, .npy, .npz.

Each becomes something that slices like an array, a few frames at a time, with the order of its
axes where the file says so.
"""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

import numpy as np

from tezip_h5.errors import InputError

__all__ = ["is_stack_file", "open_file"]

_MEMBER = re.compile(r"(?P<path>.+\.(?:npz|tiff?|npy))(?::(?P<member>[^:/\\]+))?", re.IGNORECASE)
_LARGEST_FRAME = 2 << 30


def _split(path) -> tuple[Path, str | None] | None:
    """A file and the part of it that is meant, FILE.npz:NAME or FILE.tif:SERIES, or None."""
    text = os.fspath(path)
    found = _MEMBER.fullmatch(text) if isinstance(text, str) else None
    return found and (Path(found["path"]), found["member"])


def is_stack_file(path) -> bool:
    """Whether a path names a file that `open_file` reads."""
    parts = _split(path)
    return parts is not None and parts[0].is_file()


def open_file(path):
    """Open a file that holds a stack.

    Parameters
    ----------
    path : str or path
        ``x.npy``; ``x.npz`` or ``x.npz:NAME``, which is read into memory; ``x.tif`` or
        ``x.tif:SERIES``, for which ``pip install "tezip_h5[tiff]"`` is needed.

    Returns
    -------
    array-like, and the letters of its axes, see `open_stack`; None where the file does not say

    Raises
    ------
    InputError
        When the file is damaged, holds several stacks and none was named, or no stack.
    """
    file, member = _split(path)
    kind = file.suffix.lower()
    try:
        if kind == ".npy":
            if member is not None:
                raise InputError(f"{path}: an .npy file has no parts; give {file}")
            return np.load(file, mmap_mode="r", allow_pickle=False), None
        if kind == ".npz":
            return _npz(file, member), None
        return _tiff(file, member)
    except (ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} cannot be read: {error}") from None


def _npz(file: Path, member: str | None) -> np.ndarray:
    with np.load(file, allow_pickle=False) as arrays:
        names = arrays.files
        if member is None and len(names) == 1:
            member = names[0]
        if member not in names:
            raise InputError(
                f"{file} holds {', '.join(names) or 'nothing'}; name one of them as {file}:NAME"
            )
        _check_npz_size(arrays.zip, member)
        return arrays[member]


def _check_npz_size(archive: zipfile.ZipFile, member: str) -> None:
    """Before it is allocated: does a member have the bytes that its header claims?"""
    name = member if member in archive.namelist() else f"{member}.npy"
    with archive.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0}
        shape, _, dtype = read.get(version, np.lib.format.read_array_header_2_0)(stream)
    expected = dtype.itemsize
    for n in shape:
        expected *= n
    if expected > archive.getinfo(name).file_size:
        raise InputError(f"{member} claims {dtype} {shape}, but it has fewer bytes: it is damaged")


def _tiff(file: Path, member: str | None):
    try:
        import tifffile
    except ImportError:
        raise InputError(
            f'{file}: reading TIFF files with many pages needs pip install "tezip_h5[tiff]"'
        ) from None
    try:
        tiff = tifffile.TiffFile(file)
        count = len(tiff.series)
        number = 0 if member is None and count == 1 else int(member or -1)
        if not 0 <= number < count:
            raise InputError(
                f"{file} holds {count} series; name one of them as {file}:0 to {file}:{count - 1}"
            )
        series = tiff.series[number]
        axes, folded = _letters(series.axes, series.shape)
        if series.dataoffset is not None:  # uncompressed, in one piece
            return tifffile.memmap(file, series=number).reshape(folded), axes
        return _TiffPages(series, folded), axes
    except InputError:
        raise
    except Exception as error:  # whatever a reader raises on damaged bytes
        raise InputError(f"{file} cannot be read as TIFF: {error}") from None


def _letters(axes: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """A TIFF series' axes in our letters: T first or what stands first for it, S as channels; the
    others are panels. With the shape, in which there is a T."""
    axes = axes.upper()
    letters = [{"S": "C", "C": "K"}.get(letter, letter) for letter in axes]
    if "T" not in letters:
        first = next((i for i, letter in enumerate(letters) if letter not in "YXC"), None)
        if first is None:
            return "T" + "".join(letters), (1, *shape)
        letters[first] = "T"
    return "".join(letters), tuple(shape)


class _TiffPages:
    """A series of pages, read page by page; slices along any axis but those of a page."""

    def __init__(self, series, shape: tuple[int, ...]):
        self._series = series
        self.shape, self.dtype = shape, np.dtype(series.dtype)
        self._page_shape = tuple(series.keyframe.shape)
        page_axes = len(self._page_shape)
        self._leading = shape[: len(shape) - page_axes]
        if shape[len(self._leading) :] != self._page_shape:
            raise InputError(
                f"pages of shape {self._page_shape} in a series of {shape}; axes that lie inside "
                "a page before its rows are not supported: write the file anew"
            )
        if np.prod(self._page_shape, dtype=object) * self.dtype.itemsize > _LARGEST_FRAME:
            raise InputError(f"pages of shape {self._page_shape} are larger than 2 GiB")

    def __getitem__(self, index: tuple) -> np.ndarray:
        index = index if isinstance(index, tuple) else (index,)
        index += (slice(None),) * (len(self.shape) - len(index))
        outer, inner = index[: len(self._leading)], index[len(self._leading) :]
        numbers = np.arange(int(np.prod(self._leading))).reshape(self._leading)[outer]
        pages = [self._page(int(number)) for number in numbers.reshape(-1)]
        block = np.stack(pages) if pages else np.empty((0, *self._page_shape), self.dtype)
        return block.reshape((*numbers.shape, *self._page_shape))[(..., *inner) if inner else ...]

    def _page(self, number: int) -> np.ndarray:
        page = self._series.pages[number]
        if page is None:  # OME-TIFF may leave planes out
            return np.zeros(self._page_shape, self.dtype)
        try:
            samples = page.asarray()
        except Exception as error:  # whatever a codec raises on damaged bytes
            raise InputError(f"page {number} cannot be read: {error}") from None
        if samples.shape != self._page_shape or samples.dtype != self.dtype:
            raise InputError(
                f"page {number} is {samples.dtype} {samples.shape}, the others {self.dtype} "
                f"{self._page_shape}"
            )
        return samples
