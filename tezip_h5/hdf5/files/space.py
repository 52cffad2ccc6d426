"""Reserving disk space before HDF5 needs it.

If a disk fills up while HDF5 writes, a dataset counts frames that were not written, and the file
may not close. Reserving space raises an OSError before anything has changed.
"""

from __future__ import annotations

import errno
import os

import h5py
from h5py import _objects  # its lock, which every call of HDF5 takes

__all__ = ["Space", "give_back", "lengthen"]

_CANNOT_RESERVE = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


def _can_reserve(file: h5py.File) -> bool:
    return file.driver == "sec2" and hasattr(os, "posix_fallocate")


def lengthen(descriptor: int, end: int, size: int) -> bool:
    """Reserve `size` bytes behind the end of a file; returns False on systems that cannot.

    Raises
    ------
    OSError
        When the disk has none.
    """
    if not hasattr(os, "posix_fallocate"):
        return False
    try:
        os.posix_fallocate(descriptor, end, size)
    except OSError as error:
        if error.errno not in _CANNOT_RESERVE:
            raise
        return False
    return True


class Space:
    """Reserved disk space of one open file."""

    _MARGIN = 1 << 16  # for HDF5's own structures, until the file is closed

    def __init__(self, file: h5py.File):
        self._file = file if _can_reserve(file) else None

    def reserve(self, size: int = 0, *, last: bool = False) -> None:
        """Reserve space for `size` bytes more, and for HDF5's own structures.

        With `last`, nothing will be reserved after this. `give_back` releases what is not used.

        Raises
        ------
        OSError
            When the disk has none; nothing has changed then.
        """
        size += 0 if last else self._MARGIN
        if self._file is None or not size:
            return
        with _objects.phil:
            descriptor = self._file.id.get_vfd_handle()
            there = os.fstat(descriptor).st_size
            missing = self._file.id.get_filesize() + size - there
            if missing > 0 and not lengthen(descriptor, there, missing):
                self._file = None  # nothing can be reserved: HDF5 itself may find the disk full


def give_back(file: h5py.File) -> None:
    """Cut off reserved space that was not used, before the file is closed.

    HDF5 does not do that, because it does not know that the file has become longer.
    """
    if not _can_reserve(file) or file.mode == "r":
        return
    with _objects.phil:  # no other thread may extend the file meanwhile
        file.flush()
        used, descriptor = file.id.get_filesize(), file.id.get_vfd_handle()
        if os.fstat(descriptor).st_size > used:
            os.ftruncate(descriptor, used)
