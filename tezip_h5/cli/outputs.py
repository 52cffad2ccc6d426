"""Output files of commands: checked before the work starts, and put in place when it is done."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tezip_h5 import placing
from tezip_h5.errors import InputError

__all__ = ["check_out", "place"]


def check_out(out, sources: Iterable = (), *, replace: bool = False, advice: str) -> None:
    """Raise InputError unless a command may make the file `out`.

    Parameters
    ----------
    out : str or path
    sources : paths
        The inputs of the command, which are never replaced.
    replace : bool
        Whether another existing file may be replaced.
    advice : str
        Advice for the case that a file exists and may not be replaced.
    """
    path = Path(out)
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{out} cannot be a file: its folder is missing, or it is a folder")
    for source in sources:
        if path.exists() and os.path.exists(source) and path.samefile(source):
            raise InputError(f"{out} is what is read, and would be lost; give another name")
    if path.is_file() and not replace:
        raise InputError(f"{out} exists; {advice}")


def place(out, data: bytes) -> None:
    """Write the file `out`, completely or not at all (except pipes and devices); a link stays."""
    path = Path(out)
    if path.exists() and not path.is_file():  # a pipe or a device is written to, not replaced
        path.write_bytes(data)
    else:
        placing.place(Path(os.path.realpath(path)), data)
