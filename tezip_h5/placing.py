"""Writing files atomically: a file is whole, or not there at all."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

__all__ = ["place"]


def place(path: Path, data: bytes) -> None:
    """Write `path` through a temporary file beside it.

    A file that it replaces is removed only when the new one is on the disk.
    """
    # The file's own name may have the full 255 bytes already, so nothing is added to it.
    beside = path.with_name(f".{uuid4().hex}.tmp")
    try:
        beside.write_bytes(data)
        if path.exists():
            with beside.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
