"""Opening, changing and closing HDF5 files, with clear errors for wrong paths."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
import weakref
from collections.abc import Iterable
from pathlib import Path

import h5py

from tezip_h5.errors import FormatError, InputError, disk_error
from tezip_h5.hdf5.files import journal, superblock
from tezip_h5.hdf5.files.space import Space, give_back
from tezip_h5.stacks import dataset_paths

__all__ = [
    "abandon",
    "as_path",
    "changing",
    "check_changeable",
    "check_inside",
    "check_is_hdf5",
    "check_not_followed",
    "close",
    "closing",
    "open_existing",
    "open_to_write",
    "real_path",
    "target_of",
]

# A lock for each file (by its real path) that is held while it is changed; other threads wait.
_locks: weakref.WeakValueDictionary[str, threading.RLock] = weakref.WeakValueDictionary()
_known = threading.RLock()  # the handler of a signal may close a writer
_PATIENCE, _PAUSE = 5.0, 0.02  # seconds to wait for other threads that read, and between checks
_LINKS = 16  # a path may lead through at most so many external links


def _lock_of(path) -> threading.RLock:
    path = os.path.realpath(path)
    with _known:
        return _locks.setdefault(path, threading.RLock())


def _forget_locks() -> None:
    global _known
    _known = threading.RLock()
    _locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


def as_path(path) -> Path:
    """A user's file name as a path; InputError if it cannot be one."""
    try:
        text = os.fsdecode(path)
        valid = text != "" and b"\0" not in os.fsencode(text)
    except (TypeError, UnicodeError):
        valid = False
    if not valid:
        raise InputError(f"{path!r} cannot be the name of a file; give its path")
    return Path(text)


def target_of(path) -> Path:
    """The file that writing to `path` changes: the target of a symbolic link, not the link."""
    path = as_path(path)
    try:
        return path.resolve() if path.is_symlink() else path
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path} leads nowhere: {error}; give another path") from None


def real_path(path) -> Path:
    """`target_of` as an absolute path, which later changes of links or folder do not affect."""
    return Path(os.path.realpath(target_of(path)))


def check_is_hdf5(path) -> Path:
    """Check that a path is an HDF5 file, damaged or not; returns it, or raises InputError."""
    path = as_path(path)
    if not path.is_file():
        file, inside = dataset_paths.split(path)
        if inside:
            meant = f"to choose a stack of {file}, say name={inside!r}"
        else:
            meant = "give the path of an HDF5 file"
        raise InputError(f"{path} is no file; {meant}")
    if not h5py.is_hdf5(path):
        raise InputError(f"{path} is no HDF5 file; give one, or another path")
    return path


def open_existing(path, mode: str = "r", **options) -> h5py.File:
    """Open an HDF5 file; errors say clearly why that is not possible.

    For reading, a file that is being written in SWMR mode, or whose SWMR writer died, is opened in
    SWMR mode.
    """
    path = check_is_hdf5(path)
    try:
        return _open(path, mode, **options)
    except BlockingIOError:
        raise InputError(
            f"{path} is open in another process, which writes to it or has locked it; try "
            "again when it is closed there"
        ) from None


def _open(path: Path, mode: str = "r", **options) -> h5py.File:
    try:
        with _lock_of(path):
            journal.recover(path)
            return h5py.File(path, mode, **options)
    except OSError as error:
        if "consistency flags" not in str(error):
            if error.errno is not None:
                raise
            if "already open" in str(error) or "don't match" in str(error):
                raise InputError(
                    f"{path} is open in this process, in another mode ({error}); close it first"
                ) from None
            raise FormatError(f"{path} is damaged: {error}") from None
        if mode == "r":
            with contextlib.suppress(OSError):
                return h5py.File(path, mode, swmr=True)
        raise _being_written(path) from None


def _being_written(path) -> InputError:
    return InputError(
        f"{path} is being written by another process, or its writer died; in that case "
        "run `tezip-h5 repair`"
    )


def check_changeable(path: Path, names: Iterable[str] = (), patience: float = _PATIENCE) -> None:
    """Check that `changing` will succeed, as far as that can be known.

    Parameters
    ----------
    path, names, patience
        As for `changing`.

    Raises
    ------
    InputError, BlockingIOError, FormatError
    """
    with _lock_of(path):
        _look(path, names, patience)
        if not _open_here(path):
            with contextlib.closing(_patient(lambda: journal.Locked(path), path, patience)):
                if superblock.is_marked(path):
                    raise _being_written(path)


def _look(path: Path, names: Iterable[str], patience: float) -> None:
    """Finish an interrupted change, check the file and the names, and wait for readers."""
    check_is_hdf5(path)
    with _patient(lambda: _open(path), path, patience) as file:
        for name in names:
            check_inside(file, name)
    _await(path, patience)


def check_inside(file: h5py.File, name: str, links: int = _LINKS) -> None:
    """Refuse a path that leads into another file by an external link.

    HDF5 would open the other file with the same driver, and confuse the two.
    """
    group, parts = file, [part for part in name.split("/") if part not in ("", ".")]
    for at, part in enumerate(parts):
        link = group.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise InputError(
                f"{name} of {file.filename} leads into another file, by a link to {link.path} of "
                f"{link.filename}; name that file and its path"
            )
        if isinstance(link, h5py.SoftLink):
            begin = "" if link.path.startswith("/") else group.name
            if links:
                check_inside(file, "/".join([begin, link.path, *parts[at + 1 :]]), links - 1)
            return
        group = None if link is None else group.get(part)
        if not isinstance(group, h5py.Group):
            return


def check_not_followed(file: h5py.File) -> None:
    """Refuse a file that this process writes in SWMR mode, which does not allow new objects."""
    if file.swmr_mode:
        raise InputError(
            f"{file.filename} is open in this process so that others can read it meanwhile (SWMR): "
            "nothing can be added; close it first, or give another file"
        )


def _await(path: Path, patience: float) -> None:
    """Wait until no thread of this process reads a file; the caller keeps new ones out."""
    end = time.monotonic() + patience
    while _open_here(path) is False:
        if time.monotonic() > end:
            raise BlockingIOError(
                errno.EAGAIN, "the file is open to be read, in this process; close it", str(path)
            )
        time.sleep(_PAUSE)


def _patient(opened, path: Path, patience: float):
    """Call `opened` until it succeeds, or until `patience` seconds of a busy file have passed."""
    end = time.monotonic() + patience
    while True:
        try:
            return opened()
        except BlockingIOError:
            if time.monotonic() > end:
                raise
        time.sleep(_PAUSE)
        _await(path, patience)


@contextlib.contextmanager
def changing(
    path: Path, room: int, libver=None, names: Iterable[str] = (), patience: float = _PATIENCE
):
    """Open an existing file for changes that take effect completely or not at all.

    That holds whenever this process is killed, with one exception: if h5py has the file open in
    this process already, HDF5 shares the open file and changes it directly.

    Parameters
    ----------
    path : path
    room : int
        About the number of bytes that will be added.
    libver
        As for `h5py.File`.
    names : iterable of str
        Paths in the file that will be used.
    patience : float
        Seconds to wait for others that read the file.

    Raises
    ------
    InputError
        When another process writes the file, or its writer died, or a path leads into another file.
    BlockingIOError
        When it is open in another process, or for reading in this one; nothing has changed then.
    OSError
        When the disk has no room; nothing has changed then.
    """
    with _lock_of(path):
        _look(path, names, patience)
        if _open_here(path):
            with closing(open_existing(path, "r+", libver=libver)) as file:
                check_not_followed(file)
                Space(file).reserve(room)
                yield file
            return
        # Bytes behind HDF5's end, which a killed writer left, may be overwritten at once.
        with _patient(lambda: journal.Pages(path, superblock.end), path, patience) as pages:
            if superblock.is_marked(path):  # h5py's fileobj driver does not check the mark
                raise _being_written(path)
            pages.reserve(room)
            try:
                with h5py.File(pages, "r+", libver=libver) as file:
                    pages.seal()
                    yield file
                if pages.error is not None:
                    raise pages.error
            except (RuntimeError, KeyError, OSError) as error:
                if pages.error is not None and pages.error is not error:
                    raise pages.error from None
                if isinstance(error, RuntimeError) and (of_the_disk := disk_error(error)):
                    raise of_the_disk from None
                raise
            pages.commit()


def _open_here(path: Path) -> bool | None:
    """Whether this process has a file open for writing in h5py, under any name.

    None if it has not opened the file at all.
    """
    wanted, found = os.stat(path), None
    for file in h5py.h5f.get_obj_ids(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE):
        with contextlib.suppress(ValueError, RuntimeError):  # another thread has just closed it
            sec2 = file.get_access_plist().get_driver() == h5py.h5fd.SEC2
            if sec2 and os.path.samestat(os.fstat(file.get_vfd_handle()), wanted):
                found = found or bool(file.get_intent() & h5py.h5f.ACC_RDWR)
    return found


def open_to_write(path: Path) -> bool:
    """Whether this process has a file open for writing in h5py."""
    return _open_here(path) is True


def close(file: h5py.File, *, failed: bool) -> None:
    """Close a file; if that fails (a full disk), raise OSError unless an error is being raised."""
    try:
        try:
            if not failed:
                give_back(file)
        finally:
            file.close()
    except (RuntimeError, OSError) as error:
        if not failed:
            raise OSError(f"{error}: the file could not be closed, its last part is lost") from None


def abandon(file: h5py.File | None, made: Path | None) -> None:
    """Close a file after a failure, and remove it if it was `made` for this purpose."""
    with contextlib.suppress(OSError, RuntimeError):  # data that cannot be written are not needed
        if file is not None:
            file.close()
    if made is not None:
        made.unlink(missing_ok=True)


@contextlib.contextmanager
def closing(file: h5py.File):
    """Use a file and `close` it."""
    try:
        yield file
    except BaseException as error:
        close(file, failed=True)
        if isinstance(error, RuntimeError) and (of_the_disk := disk_error(error)):
            raise of_the_disk from None
        raise
    close(file, failed=False)
