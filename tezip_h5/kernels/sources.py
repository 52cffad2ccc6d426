"""What kernels are made of: sources, and versions of what compiles them.

A kernel holds what it calls and every constant that it reads, of whatever file. So any of these
files may change any kernel; those in the room for CUDA only those for CUDA.
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
    """Every source in a folder and its rooms, which may lie in an archive: (name, file)."""
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != "__pycache__":
            yield from ((f"{entry.name}/{name}", file) for name, file in _files(entry))
        elif entry.name.endswith(".py"):
            yield entry.name, entry


def digest(cuda: bool = False) -> bytes:
    """32 bytes that are others as soon as any source is another, or numba, or llvmlite.

    Parameters
    ----------
    cuda : bool
        Of kernels for CUDA. Their own sources are among these, and numba-cuda.

    Raises
    ------
    Exception
        Any, where sources cannot be read, or there are none.
    """
    from importlib import metadata, resources

    import llvmlite
    import numba

    versions = [numba.__version__, llvmlite.__version__]
    if cuda:
        versions.append(metadata.version("numba-cuda"))
    found = hashlib.sha256(" ".join(versions).encode())
    if getattr(sys, "frozen", False):  # the sources lie in the program
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
    """What the file system says of the sources; of their archive, where they lie in one."""
    if _FOLDER.is_dir():
        paths = [path for _, path in sorted(_files(_FOLDER))]
    else:
        paths = [next((path for path in _FOLDER.parents if path.exists()), _FOLDER)]
    found = []
    for path in paths:
        about = os.stat(path)
        found.append((str(path), about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns))
    return found


try:
    _FIRST = _stamps()
except OSError:
    _FIRST = None


@cache
def _as_written(name: str) -> bool:
    """Whether Python runs of a module what its source says: what Python keeps compiled, it
    compares with the source by time, to the second, and by size."""
    specification = getattr(sys.modules[name], "__spec__", None)
    loader = getattr(specification, "loader", None)
    source = loader.get_data(specification.origin)
    return loader.get_code(name) == compile(source, specification.origin, "exec", dont_inherit=True)


def unchanged() -> bool:
    """Whether this process runs the sources that `digest` reads.

    It does not where an upgrade came after it had begun, or where Python took an old source for
    one of the same second.
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
