"""Files that hold a whole stack: multi-page TIFF, OME-TIFF, .npy, .npz.

Each becomes an object that is sliced like an array and reads a few frames at a time. It comes with
the order of its axes, if the file gives one.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tezip_h5.errors import InputError

__all__ = ["is_stack_file", "open_file", "split"]

_MEMBER = re.compile(r"(?P<path>.+\.(?:npz|tiff?|npy))(?::(?P<member>[^:/\\]*))?", re.IGNORECASE)
_LARGEST_FRAME = 2 << 30
# Messages that tifffile logs when pages are missing; it then reads the others. Its further warnings
# are about metadata that it does not need.
_LOST = re.compile(
    "invalid page offset|invalid offset to page|corrupted tag list|circular reference"
    "|TiffTag 270 .*invalid value offset|shaped series failed|series contains index out of range"
    "|ImageJ series metadata invalid|Missing data are zeroed"
)
_LOGGERS = ("tifffile", "tifffile.tifffile")  # tifffile's loggers; it used the second until 2023
_ONE_AT_A_TIME = threading.Lock()


def split(path) -> tuple[Path, str | None] | None:
    """A file and the part of it that is meant, FILE.npz:NAME or FILE.tif:SERIES, or None."""
    text = os.fspath(path)
    found = _MEMBER.fullmatch(text) if isinstance(text, str) else None
    return found and (Path(found["path"]), found["member"])


def is_stack_file(path) -> bool:
    """Whether a path has the suffix of a file that `open_file` reads.

    Only the suffix counts, so that a missing file gets an error of `open_file`, and is not taken
    for a folder.
    """
    parts = split(path)
    return parts is not None and not parts[0].is_dir() and not Path(path).is_dir()


def open_file(path):
    """Open a file that holds a stack.

    Parameters
    ----------
    path : str or path
        ``x.npy``; ``x.npz`` or ``x.npz:NAME``, which is read into memory; ``x.tif`` or
        ``x.tif:SERIES``, for which ``pip install "tezip_h5[tiff]"`` is needed.

    Returns
    -------
    array-like, and the letters of its axes (see `open_stack`), or None if the file has none

    Raises
    ------
    InputError
        When the file is missing, damaged or truncated, holds no stack, or holds several stacks
        and none was named.
    """
    file, member = split(path)
    _check_there(file)
    kind = file.suffix.lower()
    try:
        if kind == ".npy":
            if member is not None:
                raise InputError(f"{path}: an .npy file has no parts; give {file}")
            return _npy(file), None
        if kind == ".npz":
            return _npz(file, member), None
        return _tiff(file, member)
    except (InputError, OSError, MemoryError):
        raise
    except Exception as error:  # damage raises errors of zlib, of zipfile or of the header's parser
        reason = str(error) or type(error).__name__
        raise InputError(f"{file} cannot be read: {reason}; restore it") from None


def _check_there(file: Path) -> None:
    if file.is_file():
        return
    found = "no plain file" if file.exists() else "not there"
    if found == "not there" and file.is_symlink():
        found = f"a link to {os.readlink(file)}, which is not there"
    raise InputError(
        f"{file} is {found}; give a .tif, .npy or .npz file, a folder of images or FILE.h5:/DATASET"
    )


def _npy(file: Path) -> np.ndarray:
    # NumPy would take any other file for a pickle, and its message advises to allow that.
    with open(file, "rb") as stream:
        magic = stream.read(len(np.lib.format.MAGIC_PREFIX))
    if magic != np.lib.format.MAGIC_PREFIX:
        raise InputError(f"{file} is no .npy file of numbers; write it with numpy.save")
    return np.load(file, mmap_mode="r", allow_pickle=False)


def _npz(file: Path, member: str | None) -> np.ndarray:
    if not zipfile.is_zipfile(file):
        raise InputError(f"{file} is no .npz file of numbers; write it with numpy.savez")
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
    """Check, before memory is allocated, that a member has as many bytes as its header claims."""
    name = member if member in archive.namelist() else f"{member}.npy"
    with archive.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0}
        shape, _, dtype = read.get(version, np.lib.format.read_array_header_2_0)(stream)
    if dtype.hasobject:
        raise InputError(f"{member} holds Python objects; give an array of numbers")
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
        with _pages_are_whole(file):
            tiff = tifffile.TiffFile(file)
            _check_counts(file, tiff)
            number = _series_number(file, member, len(tiff.series))
            series = tiff.series[number]
            axes, folded = _letters(series.axes, series.shape)
            if series.dataoffset is not None:  # uncompressed, in one piece
                _check_end(file, series.dataoffset + series.nbytes, os.path.getsize(file))
                tiff.close()
                return tifffile.memmap(file, series=number, mode="r").reshape(folded), axes
            return _TiffPages(file, series, folded), axes
    except InputError:
        raise
    except Exception as error:  # whatever a reader raises on damaged bytes
        raise InputError(f"{file} cannot be read as TIFF: {error}; restore it") from None


def _check_counts(file: Path, tiff) -> None:
    """Check that the series contain all pages. Wrong metadata can hide pages at the end."""
    if any(series.kind != "shaped" for series in tiff.series):  # others may leave pages out
        return
    found = sum(len(level) for series in tiff.series for level in series.levels)
    if found < len(tiff.pages):
        raise InputError(
            f"{file} has {len(tiff.pages)} pages, but its metadata, of shape "
            f"{tiff.pages[0].shaped_description!r}, only mean {found}; write the file anew"
        )


def _series_number(file: Path, member: str | None, count: int) -> int:
    if member is None and count == 1:
        return 0
    if member and re.fullmatch("[0-9]{1,9}", member) and int(member) < count:
        return int(member)
    if count == 0:
        raise InputError(f"{file} holds no image; give a file with at least one page")
    advice = f"name one of them as {file}:0 to {file}:{count - 1}" if count > 1 else f"give {file}"
    asked = "" if member is None else f", none of them {member!r}"
    raise InputError(f"{file} holds {count} series{asked}; {advice}")


@contextmanager
def _pages_are_whole(file: Path):
    """Raise InputError where tifffile logs that pages are lost.

    tifffile continues with the pages that it finds, so a truncated file would become a shorter
    stack. Its messages in this thread are not printed meanwhile.
    """
    lost, thread = [], threading.get_ident()

    def keep(record) -> bool:
        if record.thread == thread and _LOST.search(record.getMessage()):
            lost.append(record.getMessage())
        return record.thread != thread

    with _ONE_AT_A_TIME:  # or one thread would put back another's level
        loggers = [logging.getLogger(name) for name in _LOGGERS]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.addFilter(keep)
            if logger.getEffectiveLevel() > logging.WARNING:  # a caller may have silenced it
                logger.setLevel(logging.WARNING)
        try:
            yield
        except Exception:
            if not lost:  # else what follows from the loss
                raise
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.removeFilter(keep)
                logger.setLevel(level)
    if lost:
        raise InputError(
            f"{file} is truncated or damaged, pages are missing: {lost[0]}; restore it, or, if "
            "nothing is missing, read it otherwise and pass the frames as an array"
        )


def _check_end(what, end: int, size: int) -> None:
    if end > size:
        raise InputError(
            f"{what} is truncated: its samples end at byte {end}, but the file has {size} bytes; "
            "restore it"
        )


def _letters(axes: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """The axes of a TIFF series in our letters, and its shape with a time axis.

    T comes first; without a T the first axis is time. S are channels, and other axes are panels.
    """
    axes = axes.upper()
    letters = [{"S": "C", "C": "K"}.get(letter, letter) for letter in axes]
    if "T" not in letters:
        first = next((i for i, letter in enumerate(letters) if letter not in "YXC"), None)
        if first is None:
            return "T" + "".join(letters), (1, *shape)
        letters[first] = "T"
    return "".join(letters), tuple(shape)


class _TiffPages:
    """A series of TIFF pages, read page by page. It is sliced along any axis outside a page."""

    def __init__(self, file: Path, series, shape: tuple[int, ...]):
        self._file, self._series = file, series
        self.shape, self.dtype = shape, np.dtype(series.dtype)
        self._page_shape = tuple(series.keyframe.shape)
        page_axes = len(self._page_shape)
        self._leading = shape[: len(shape) - page_axes]
        if shape[len(self._leading) :] != self._page_shape:
            raise InputError(
                f"{file}: pages of shape {self._page_shape} in a series of {shape}; axes that "
                "lie inside a page before its rows are not supported: write the file anew"
            )
        if np.prod(self._page_shape, dtype=object) * self.dtype.itemsize > _LARGEST_FRAME:
            raise InputError(f"{file}: pages of shape {self._page_shape} are larger than 2 GiB")
        self._check_pages()

    def _check_pages(self) -> None:
        """Check that there are as many pages as the shape needs, and that each has its bytes."""
        expected, found = int(np.prod(self._leading, dtype=object)), len(self._series.pages)
        if found != expected:
            raise InputError(
                f"{self._file} has {found} pages, but a stack of {self.shape} {expected}: it is "
                "truncated, or its metadata are another's; restore it"
            )
        for number, page in enumerate(self._series.pages):
            if page is not None:  # a codec may fill in what is missing, as JPEG's do
                ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=False))
                _check_end(
                    f"{self._file}, page {number},",
                    max(ends, default=0),
                    page.parent.filehandle.size,
                )

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
            raise InputError(f"{self._file}, page {number}, cannot be read: {error}") from None
        if samples.shape != self._page_shape or samples.dtype != self.dtype:
            raise InputError(
                f"{self._file}, page {number}, is {samples.dtype} {samples.shape}, the others "
                f"{self.dtype} {self._page_shape}"
            )
        return samples
