"""The place of the C plugin, with which programs other than Python read stacks."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

__all__ = ["PLUGIN_PATH", "library"]

PLUGIN_PATH = str(files("tezip_h5").joinpath("plugins"))
"""The folder for HDF5_PLUGIN_PATH; it is empty if no compiler was found at installation."""


def library() -> Path | None:
    """The plugin's shared library, or None if it was not built."""
    return next(iter(sorted(Path(PLUGIN_PATH).glob("libh5tezip*"))), None)
