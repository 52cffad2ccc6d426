"""Files in HDF5's SWMR mode (single writer, multiple readers), and files that a `Writer` closes.

In SWMR mode no object or attribute can be added. Objects are therefore made before it begins.
Those whose contents are known only at the end are added when no reader has the file open.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from pathlib import Path

import h5py

from tezip_h5.errors import InputError
from tezip_h5.hdf5.contents import container, nexus
from tezip_h5.hdf5.contents.keyframes import link_keyframes
from tezip_h5.hdf5.files import opening, superblock
from tezip_h5.hdf5.writing.encoder import StackEncoder
from tezip_h5.model import embedding, store

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = [
    "begin",
    "complete",
    "in_use",
    "make_to_add",
    "new_file",
    "open_to_add",
]

LIBVER = ("v110", "v110")  # "latest" makes files that HDF5 1.10 cannot open
_PATIENCE = 0.25  # seconds for which a closing writer waits for readers
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # errors of a full disk
_UNUSABLE = {*_FULL, errno.EIO, errno.ENOLCK}  # errors after which a new file is left incomplete
_EXTRAS = 1 << 20  # about the most bytes that preview and keyframes take


def new_file(path, swmr: bool) -> h5py.File:
    """Make a file that stays readable if its writer is killed.

    Freed space is never reused. HDF5 frees a chunk before it finds a place for the new version,
    and would otherwise overwrite frames that were flushed.

    Chunks are indexed by extensible arrays, as in HDF5 1.10, because entries of those keep their
    place. The B-trees of older versions are inconsistent while a node is split. Without SWMR the
    file has the format of HDF5 1.8, because the newer one has a mark of an open writer that must be
    cleared after a kill.
    """
    strategy = {"fs_strategy": "fsm", "fs_persist": False, "fs_threshold": 2**62}
    if not swmr:
        h5py.File(path, "x", libver="earliest", **strategy).close()
        file = h5py.File(path, "r+", libver=LIBVER)  # fails if another process was faster
    else:
        file = h5py.File(path, "x", libver=LIBVER, **strategy)
    nexus.mark_root(file)
    return file


def make_to_add(path: Path, swmr: bool) -> h5py.File | None:
    """Make the file `path` for writing; returns None if it exists."""
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{path} cannot be a file: its folder is missing, or it is a folder")
    try:
        return None if path.exists() else new_file(path, swmr)
    except BlockingIOError:
        raise InputError(f"{path} is being written by another process already") from None
    except OSError as error:
        if error.errno in _UNUSABLE:  # HDF5 leaves an incomplete file
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        if "exists" not in str(error):
            raise
        return None  # another writer has made the file meanwhile


def open_to_add(path: Path, swmr: bool) -> h5py.File:
    """Open the file `path` for adding a stack to it."""
    if not swmr:
        return opening.open_existing(path, "r+")
    opening.open_existing(path).close()  # raises a clear error for a wrong path
    if superblock.version(path) < 3:
        raise InputError(
            f"{path} has an older HDF5 format, which cannot be read while it is written (SWMR); "
            "make it with swmr=True from the beginning, or leave that out"
        )
    return opening.open_existing(path, "r+", libver=LIBVER)


class _Mark:
    """A shared lock on the file, because HDF5 releases its own lock when SWMR mode begins.

    It does not disturb readers, which take shared locks, too. `in_use` finds it.
    """

    def __init__(self, path):
        self._descriptor = None
        if fcntl is not None:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                self._descriptor = descriptor
            except OSError:  # a file system without locks
                os.close(descriptor)

    def close(self) -> None:
        if self._descriptor is not None:
            # Closing is not enough, because a forked child may share the lock.
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None


def begin(group: h5py.Group, encoder: StackEncoder) -> _Mark:
    """Make all objects that may be needed later, then begin SWMR mode."""
    file = group.file
    if "filenames" not in group:
        container.create_filenames(group)
    model = encoder.networks.model
    if model is not None:
        if not store.is_shipped(model) and model.digest not in embedding.embedded(file):
            encoder.space.reserve(embedding.size(model))
            embedding.embed(file, model)
        embedding.link(group, model.digest)
    file.flush()
    file.swmr_mode = True
    return _Mark(file.filename)


def complete(path, name: str, encoder: StackEncoder, identity: os.stat_result) -> str:
    """Open a file again after its last frame, and add preview and keyframes.

    Returns an empty text, or the reason why that was not possible: others have the file open, or
    the disk is too full.

    Raises
    ------
    OSError
        When the file that was written, which has this `identity`, was replaced by another one.
    """
    opened = False
    try:
        _require(os.path.samestat(os.stat(path), identity), path)
    except FileNotFoundError:
        return "was moved while it was written"
    try:
        with opening.changing(path, _EXTRAS, names=[name], patience=_PATIENCE) as file:
            opened = True
            group = file.get(name)
            known = isinstance(group, h5py.Group)
            _require(known and len(group.get("frames", ())) >= encoder.totals.frames, path)
            _drop_unused(group, encoder)
            encoder.write_preview(group)
            if group["data"].shape[0]:
                link_keyframes(group, group["data"], encoder.keyframes)
            container.drop_staging(file)
        return ""
    except (OSError, InputError) as error:
        number = getattr(error, "errno", None)
        if number in _FULL:
            return f"has no room ({os.strerror(number)})"
        if opened:
            raise
        if isinstance(error, BlockingIOError):
            return "is being read"
        return f"could not be opened again ({error})"


def _require(same: bool, path) -> None:
    if not same:
        raise OSError(
            f"{path} was replaced by another file while it was written: the frames are in the "
            "file that was there before, if it still has a name"
        )


def _drop_unused(group: h5py.Group, encoder: StackEncoder) -> None:
    """Remove objects that `begin` made and that were not needed."""
    if "filenames" in group and not any(container.read_filenames(group)):
        del group["filenames"]
    if not encoder.totals.network_chunks:
        for place, key in ((group, "model"), (group.attrs, "model")):
            if key in place:
                del place[key]


def in_use(path) -> bool:
    """Whether another process has a file open, as far as locks show it."""
    if fcntl is None:
        return False
    writable = os.access(path, os.W_OK)  # some network disks need that to lock a file
    with open(path, "r+b" if writable else "rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        with contextlib.suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_UN)
    return superblock.is_marked(path) and _open_elsewhere(path)


def _open_elsewhere(path) -> bool:
    """Whether any process has a file open, even without a lock, if the system can tell.

    SWMR writers of other programs hold no lock. They leave only a mark in the file, which stays
    when they die.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    with open(path, "rb") as stream:
        try:
            # If another process opens the file just now, this one gets a signal. The default one
            # would kill it.
            fcntl.fcntl(stream, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(stream, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except BlockingIOError:
            return True
        except OSError:  # another user's file, or a network disk
            return False
        fcntl.fcntl(stream, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
