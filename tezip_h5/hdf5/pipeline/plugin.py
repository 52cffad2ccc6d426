"""Where the C plugin is: for HDF5_PLUGIN_PATH, so that tools that are not Python read stacks."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

__all__ = ["PLUGIN_PATH", "library"]

PLUGIN_PATH = str(files("tezip_h5").joinpath("plugins"))
"""The folder that HDF5_PLUGIN_PATH needs; nothing is in it where no compiler was found."""


def library() -> Path | None:
    """The plugin's shared library, or None where it was not built."""
    return next(iter(sorted(Path(PLUGIN_PATH).glob("libh5tezip*"))), None)
