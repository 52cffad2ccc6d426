"""Giving finished files their names: completely, durably, and never over a file made meanwhile."""

from __future__ import annotations

import contextlib
import os
from hashlib import sha256
from pathlib import Path

__all__ = ["beside", "put", "replace", "sync_folder"]

_LONGEST_NAME = 200  # bytes; file systems know 255


def beside(path: Path, ending: str) -> Path:
    """The path of the hidden file with this ending that belongs to `path`."""
    name = os.fsencode(path.name)
    if len(name) > _LONGEST_NAME:
        name = sha256(name).hexdigest().encode()
    return path.with_name(f".{os.fsdecode(name)}{ending}")


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, on systems and disks that can."""
    if hasattr(os, "O_DIRECTORY"):
        with contextlib.suppress(OSError):  # some network disks cannot
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def put(finished: Path, path: Path) -> bool:
    """Give a finished file its name; returns False and does nothing if that is taken."""
    _sync(finished)
    try:
        os.link(finished, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if path.exists():
            return False
        os.replace(finished, path)
    else:
        finished.unlink()
    sync_folder(path.parent)
    return True


def replace(finished: Path, path: Path) -> None:
    """Replace a file by a finished one; the old file stays until the new one is on the disk."""
    _keep_ownership(path, finished)
    _sync(finished)
    os.replace(finished, path)
    sync_folder(path.parent)


def _keep_ownership(old: Path, new: Path) -> None:
    """Give a file the owner of another one, as far as this user may."""
    there = os.stat(old)
    if hasattr(os, "chown"):
        with contextlib.suppress(OSError):
            os.chown(new, there.st_uid, there.st_gid)
    if hasattr(os, "listxattr"):
        with contextlib.suppress(OSError):
            for name in os.listxattr(old):
                os.setxattr(new, name, os.getxattr(old, name))
    os.chmod(new, there.st_mode & 0o7777)


def _sync(path: Path) -> None:
    with open(path, "r+b") as file:
        os.fsync(file.fileno())
