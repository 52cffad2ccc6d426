"""What a training that is interrupted leaves, besides what Keras needs: how it began."""

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
"""Folder in that of the model, until the training is over."""

_BEGUN = "begun.json"


def go_on(folder: Path, begun: dict) -> None:
    """Write down how a training begins; one that goes on must have begun so.

    Raises
    ------
    ModelError
        When the unfinished training in `folder` began otherwise: it would be neither the one nor
        the other.
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
    """OSError unless there is room for all that is written after an epoch.

    Twice the weights, with the optimizer's two means of each; HDF5 ends the process where it
    meets a full disk itself.
    """
    size = sum(array.nbytes for pair in weights.values() for array in pair)
    if shutil.disk_usage(folder).free < 8 * size + (1 << 18):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
