"""The record of an unfinished training: the values that it began with."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

from tezip_h5.errors import ModelError
from tezip_h5.placing import place

__all__ = ["UNFINISHED", "go_on", "require_space"]

UNFINISHED = "unfinished"
"""Name of the subfolder for the backup, which exists until the training is over."""

_BEGUN = "begun.json"


def go_on(folder: Path, begun: dict) -> None:
    """Record the values that a training begins with; a continued one must have the same.

    Raises
    ------
    ModelError
        When the unfinished training in `folder` began with other values.
    """
    path = folder / UNFINISHED / _BEGUN
    begun = json.loads(json.dumps(begun))
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        place(path, json.dumps(begun, indent=1).encode())
        return
    advice = f"give another folder, or remove {folder} to begin anew"
    try:
        before = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path} is damaged ({error}); {advice}") from None
    other = [name for name in begun if before.get(name) != begun[name]]
    if other:
        was = ", ".join(
            f"{name} {before.get(name)!s:.60}, not {begun[name]!s:.60}" for name in other
        )
        raise ModelError(f"the unfinished training in {folder} began with {was}; {advice}")


def require_space(folder: Path, weights: dict) -> None:
    """Raise OSError unless there is room for the files that are written after an epoch.

    They hold the weights twice, and the optimizer's two means of each weight. HDF5 would end the
    process if it found the disk full.
    """
    size = sum(array.nbytes for pair in weights.values() for array in pair)
    if shutil.disk_usage(folder).free < 8 * size + (1 << 18):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
