"""Files that are there whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

__all__ = ["place"]


def place(path: Path, data: bytes) -> None:
    """Make `path`, or replace it, by way of a temporary file beside it. What is replaced goes only
    when the other is on the disk."""
    beside = path.with_name(f".{uuid4().hex}.tmp")  # a name of 255 bytes has no room for more
    try:
        beside.write_bytes(data)
        if path.exists():
            with beside.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
