"""Files: how they are opened, changed, and closed, and what is wrong with their paths."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from pathlib import Path

import h5py

from tezip_h5.errors import FormatError, InputError, disk_error
from tezip_h5.hdf5 import journal, superblock
from tezip_h5.hdf5.space import Space, give_back

__all__ = [
    "abandon",
    "as_path",
    "changing",
    "check_is_hdf5",
    "close",
    "closing",
    "open_existing",
    "target_of",
]

# Held while a file is changed, by its real path: other threads wait, and do not fail.
_locks: weakref.WeakValueDictionary[str, threading.RLock] = weakref.WeakValueDictionary()
_known = threading.Lock()


def _lock_of(path) -> threading.RLock:
    with _known:
        return _locks.setdefault(os.path.realpath(path), threading.RLock())


def _forget_locks() -> None:
    global _known
    _known = threading.Lock()
    _locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


def as_path(path) -> Path:
    """What a user gave as the name of a file; InputError where it can be none."""
    try:
        text = os.fsdecode(path)
        valid = text != "" and b"\0" not in os.fsencode(text)
    except (TypeError, UnicodeError):
        valid = False
    if not valid:
        raise InputError(f"{path!r} cannot be the name of a file; give its path")
    return Path(text)


def target_of(path) -> Path:
    """Where a file is written that `path` names: a link stays, what it leads to is replaced."""
    path = as_path(path)
    return path.resolve() if path.is_symlink() else path


def check_is_hdf5(path) -> Path:
    """The path of an HDF5 file, sound or not; InputError where there is none."""
    path = as_path(path)
    if not path.is_file():
        raise InputError(f"{path} is no file; give the path of an HDF5 file")
    if not h5py.is_hdf5(path):
        raise InputError(f"{path} is no HDF5 file; give one, or another path")
    return path


def open_existing(path, mode: str = "r", **options) -> h5py.File:
    """Open an HDF5 file, or say in our words why not.

    A file that is being written so that others may read it, or whose writer died so, is opened for
    reading as those do.
    """
    path = check_is_hdf5(path)
    try:
        with _lock_of(path):
            journal.recover(path)
            return h5py.File(path, mode, **options)
    except OSError as error:
        if "truncated" in str(error):
            raise FormatError(f"{path} is damaged: {error}") from None
        if "consistency flags" not in str(error):
            raise
        if mode == "r":
            with contextlib.suppress(OSError):
                return h5py.File(path, mode, swmr=True)
        raise _being_written(path) from None


def _being_written(path) -> InputError:
    return InputError(
        f"{path} is being written by another process, or its writer died; in that case "
        "`tezip-h5 repair` makes it a file like others"
    )


@contextlib.contextmanager
def changing(path: Path, room: int, libver=None):
    """Open an existing file to change it: all that is done to it, or nothing.

    It is, whenever this process dies, but where h5py has the file open in this process already:
    then HDF5 shares that, and changes the file as it likes.

    Parameters
    ----------
    path : path
    room : int
        Bytes that will be added, about.
    libver
        As for `h5py.File`.

    Raises
    ------
    InputError
        When another process writes the file, or one died of that.
    OSError
        When it is open in another process, or the disk has no room; nothing has changed then.
    """
    if _open_here(path):
        with closing(open_existing(path, "r+", libver=libver)) as file:
            Space(file).reserve(room)
            yield file
        return
    open_existing(path).close()  # a journal is finished, or what is wrong is said
    # What a death left behind HDF5's end is not kept in memory when it is written over.
    with _lock_of(path), journal.Pages(path, superblock.end) as pages:
        if superblock.is_marked(path):  # of which h5py's driver of Python objects knows nothing
            raise _being_written(path)
        pages.reserve(room)
        try:
            with h5py.File(pages, "r+", libver=libver) as file:
                yield file
        except RuntimeError as error:
            if of_the_disk := disk_error(error):
                raise of_the_disk from None
            raise
        pages.commit()


def _open_here(path: Path) -> bool:
    """Whether h5py has a file open in this process, under whatever name."""
    wanted = os.stat(path)
    for file in h5py.h5f.get_obj_ids(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE):
        with contextlib.suppress(ValueError, RuntimeError):  # another thread has just closed it
            sec2 = file.get_access_plist().get_driver() == h5py.h5fd.SEC2
            if sec2 and os.path.samestat(os.fstat(file.get_vfd_handle()), wanted):
                return True
    return False


def close(file: h5py.File, *, failed: bool) -> None:
    """Close a file; when that fails (a full disk), raise OSError unless one is on its way."""
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
    """Close a file to which nothing will be added, and remove it if it was `made` for that."""
    with contextlib.suppress(OSError, RuntimeError):  # what HDF5 cannot write is not needed
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
