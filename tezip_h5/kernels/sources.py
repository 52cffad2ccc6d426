"""The digest of everything that compiled kernels depend on: sources, and versions of compilers.

A compiled kernel contains the functions that it calls and the constants that it reads, from any
file. So a change of any of these files may change any kernel. The files in the package for CUDA
change kernels for CUDA only.
"""

from __future__ import annotations

import hashlib
import os
import sys
from functools import cache
from pathlib import Path

__all__ = ["digest", "unchanged"]

_FOLDER = Path(__file__).parent


def _files(folder):
    """Yield (name, file) of all sources in a folder and its subfolders, maybe in an archive."""
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != "__pycache__":
            yield from ((f"{entry.name}/{name}", file) for name, file in _files(entry))
        elif entry.name.endswith(".py"):
            yield entry.name, entry


def digest(cuda: bool = False) -> bytes:
    """A digest (32 bytes) of all sources and of the versions of numba and llvmlite.

    Parameters
    ----------
    cuda : bool
        Whether to include the sources of the kernels for CUDA, and the version of numba-cuda.

    Raises
    ------
    Exception
        Any exception, if the sources cannot be read, or if there are none.
    """
    from importlib import metadata, resources

    import llvmlite
    import numba

    versions = [numba.__version__, llvmlite.__version__]
    if cuda:
        versions.append(metadata.version("numba-cuda"))
    found = hashlib.sha256(" ".join(versions).encode())
    if getattr(sys, "frozen", False):  # the sources are part of the executable
        files = {"": Path(sys.executable)}
    else:
        files = dict(_files(resources.files(__package__)))
    if not files:
        raise FileNotFoundError(f"{_FOLDER} holds no sources")
    for name, file in sorted(files.items()):
        if name.startswith("cuda/") and not cuda:
            continue
        source = file.read_bytes()
        found.update(f"\n{name} {len(source)}\n".encode() + source)
    return found.digest()


def _stamps() -> list:
    """Size, times and inode of each source, or of the archive that contains them."""
    if _FOLDER.is_dir():
        paths = [path for _, path in sorted(_files(_FOLDER))]
    else:
        paths = [next((path for path in _FOLDER.parents if path.exists()), _FOLDER)]
    found = []
    for path in paths:
        about = os.stat(path)
        found.append((str(path), about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns))
    return found


# The stamps at the time when this module was imported, before any other module of kernels.
try:
    _FIRST = _stamps()
except OSError:
    _FIRST = None


@cache
def _as_written(name: str) -> bool:
    """Whether the code of a module is that of its source file.

    Python may run an old .pyc file, because it compares it with the source only by size and by
    time in seconds.
    """
    specification = getattr(sys.modules[name], "__spec__", None)
    loader = getattr(specification, "loader", None)
    source = loader.get_data(specification.origin)
    return loader.get_code(name) == compile(source, specification.origin, "exec", dont_inherit=True)


def unchanged() -> bool:
    """Whether this process runs the sources that `digest` reads.

    It does not if the package was upgraded after the process had started, or if Python runs an
    old .pyc file (see `_as_written`).
    """
    try:
        if getattr(sys, "frozen", False):
            return True
        if _FIRST is None or _stamps() != _FIRST:
            return False
        modules = [name for name in list(sys.modules) if f"{name}.".startswith(f"{__package__}.")]
        return all(_as_written(name) for name in modules)
    except (OSError, AttributeError, ImportError):
        return False
