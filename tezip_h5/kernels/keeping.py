"""Keep compiled kernels on disk, each with a digest of the sources that it was compiled from.

A kernel is never run with other sources. numba's own cache compares only the file that a kernel
is in, not the files of the functions that it calls, and two processes that write at the same time
can confuse each other's files. This module uses undocumented parts of numba. With a numba that no
longer has them, every process compiles its kernels.

A file consists of a digest of all sources (`made_of`), a check digest, and the kernel. The check
digest is made from `made_of`, from what distinguishes kernels of the same sources, and from the
bytes of the kernel. A file is overwritten when sources have changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import shutil
import sys
import time
import uuid
from functools import cache
from pathlib import Path
from types import FunctionType

import numba
import numpy as np

from tezip_h5.kernels import sources

__all__ = ["Kept", "count", "folder", "on_device"]

# The part of a file's name that says which Python the kernel is for.
_TAG = f"-{sys.implementation.cache_tag}{getattr(sys, 'abiflags', '')}-"
_ENDING = ".kernel"  # the ending of a file's name
_DIGEST = hashlib.sha256().digest_size  # bytes of a digest
_OLD = 30 * 24 * 3600  # kernels of other sources are removed when they are this old, in seconds


def _numbas():
    """numba's object that knows the cache folder, and converts kernels to bytes and back."""
    from numba.core.caching import CompileResultCacheImpl

    return CompileResultCacheImpl(folder)


def folder() -> str | None:
    """The folder in which compiled kernels are kept; None if no such folder can be written."""
    try:
        return _numbas().locator.get_cache_path()
    except Exception:  # any error of numba
        return None


@cache
def _made_of() -> bytes:
    """The digest of the sources of kernels for the CPU."""
    return sources.digest()


def _described(value) -> str:
    """A text that describes a function's closure, or a value in one.

    Functions of the same source differ in their closures.
    """
    value = getattr(value, "py_func", value)
    if isinstance(value, FunctionType):
        cells = [_described(cell.cell_contents) for cell in value.__closure__ or ()]
        return f"{value.__module__}.{value.__qualname__}({', '.join(cells)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_described, value))})"
    if type(value) is np.ndarray:
        return f"{value.dtype.str} {value.shape} {value.tobytes().hex()}"
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    raise TypeError(f"kernels closed over {type(value)} are not kept")


class Kept:
    """The cache of one kernel, with the methods that numba's dispatchers call.

    Parameters
    ----------
    function : callable
        The kernel.

    Raises
    ------
    Exception
        Any exception, if kernels cannot be kept.
    """

    def __init__(self, function):
        self._numbas = _numbas()
        self._described = _described(function)
        self._made_of = _made_of()
        self.cache_path = self._numbas.locator.get_cache_path()
        name = f"{function.__module__.removeprefix(f'{__package__}.')}.{function.__qualname__}"
        self._name = name.replace("<", "").replace(">", "") + _TAG

    def load_overload(self, signature, context):
        """Load the kernel; None if there is none, or if it is damaged or of other sources."""
        try:
            if not sources.unchanged():  # this process runs other sources than those on disk
                return None
            context.refresh()
            path, identity = self._place(signature, context.codegen())
            data = path.read_bytes()
            made_of, data = data[:_DIGEST], data[_DIGEST:]
            check, kernel = data[:_DIGEST], data[_DIGEST:]
            if made_of != self._made_of or check != self._check(identity, kernel):
                return None
            return self._numbas.rebuild(context, pickle.loads(kernel))
        except Exception:  # any error of reading: the kernel is compiled instead
            return None

    def save_overload(self, signature, result) -> None:
        """Write the kernel to disk, if that is possible."""
        with contextlib.suppress(Exception):  # callers need not know of a full disk
            if not sources.unchanged() or not self._numbas.check_cachable(result):
                return
            path, identity = self._place(signature, result.codegen)
            kernel = numba.core.serialize.dumps(self._numbas.reduce(result))
            self._numbas.locator.ensure_cache_path()
            _write(path, self._made_of + self._check(identity, kernel) + kernel)
            _sweep(path.parent)

    def flush(self) -> None:
        """Remove all files of this kernel."""
        for path in Path(self.cache_path).glob(f"{self._name}*{_ENDING}"):
            path.unlink(missing_ok=True)

    def _place(self, signature, codegen) -> tuple[Path, str]:
        """The file for a signature and a processor, and a text that identifies the kernel."""
        options = numba.config.BOUNDSCHECK, str(numba.config.OPT), numba.config.DEBUGINFO_DEFAULT
        identity = f"{self._described} {signature} {codegen.magic_tuple()} {options}"
        mark = hashlib.sha256(identity.encode()).hexdigest()[:16]
        return Path(self.cache_path) / f"{self._name}{mark}{_ENDING}", identity

    def _check(self, identity: str, kernel: bytes) -> bytes:
        """The check digest of a kernel."""
        return hashlib.sha256(self._made_of + identity.encode() + b"\n" + kernel).digest()


def _write(path: Path, data: bytes) -> None:
    """Write a file completely or not at all."""
    other = path.with_name(f"{path.name}.{uuid.uuid4().hex[:16]}")
    try:
        other.write_bytes(data)
        os.replace(other, path)
    except BaseException:
        other.unlink(missing_ok=True)
        raise


def _first(path: Path) -> bytes:
    """The digest of sources at the start of a file."""
    with open(path, "rb") as file:
        return file.read(_DIGEST)


@cache  # once is enough for a process
def _sweep(place: Path) -> None:
    """Remove files that nobody reads: those of numba's own cache, and old ones of other sources."""
    for path in place.iterdir():
        with contextlib.suppress(OSError):
            old = path.stat().st_mtime < time.time() - _OLD
            if path.suffix in (".nbi", ".nbc") or (
                old and _ENDING in path.suffixes and _first(path) != _made_of()
            ):
                path.unlink()


@cache
def _made_of_cuda() -> str:
    """The name of the folder for kernels for CUDA of these sources."""
    return f"cuda-{sources.digest(cuda=True).hex()[:32]}"


def on_device(function):
    """numba's own cache for a kernel for CUDA, in a folder that belongs to these sources only.

    `Kept` cannot serve here, because it knows nothing of kernel launches.

    Raises
    ------
    Exception
        Any exception, if kernels cannot be kept.
    """
    from numba.cuda.dispatcher import CUDACache

    sources_place = Path(folder()) / _made_of_cuda()
    place = str(sources_place / function.__module__.removeprefix(f"{__package__}."))

    class Numbas(CUDACache._impl_class):
        def __init__(self, function):
            super().__init__(function)
            self.locator.get_cache_path = lambda: place

    class Cache(CUDACache):
        _impl_class = Numbas

        def save_overload(self, signature, kernel):
            if sources.unchanged():
                super().save_overload(signature, kernel)
                _sweep_folders(sources_place)

    found = Cache(function)
    if os.path.dirname(found._cache_file._index_path) != place:
        raise RuntimeError("this numba keeps kernels elsewhere")
    return found


@cache
def _sweep_folders(place: Path) -> None:
    """Remove the folders of other sources for CUDA that have not changed for long."""
    for path in place.parent.glob("cuda-*"):
        with contextlib.suppress(OSError):
            if path != place and path.stat().st_mtime < time.time() - _OLD:
                shutil.rmtree(path)


def count() -> tuple[int, int]:
    """The number of kernels on disk of these sources, and the number of those of other sources.

    Both are for this Python. It will compile the latter again.
    """
    counts = [0, 0]
    for path in Path(folder()).glob(f"*{_TAG}*{_ENDING}"):
        with contextlib.suppress(OSError):
            counts[_first(path) != _made_of()] += 1
    return counts[0], counts[1]
