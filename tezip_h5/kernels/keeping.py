"""Compiled kernels on disk: each says what it is made of, and is never run where that is another.

numba's own cache compares the file of a kernel only, not those of what the kernel calls; and two
processes that write at once can mistake each other's files. What is used of numba here has no
documentation: with a numba that has it no more, kernels are compiled anew in every process.

A file is `made_of`, the digest of all sources; a digest of that, of what tells kernels of the same
sources apart, and of all that follows; then the kernel. It is written over when sources change.
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

_TAG = f"-{sys.implementation.cache_tag}{getattr(sys, 'abiflags', '')}-"  # of this Python
_ENDING = ".kernel"
_DIGEST = hashlib.sha256().digest_size
_OLD = 30 * 24 * 3600  # seconds after which one of other sources is of no use to anybody


def _numbas():
    """numba's: where a cache may lie, and how a kernel becomes bytes and back."""
    from numba.core.caching import CompileResultCacheImpl

    return CompileResultCacheImpl(folder)


def folder() -> str | None:
    """Where compiled kernels are kept; None where no such place can be written."""
    try:
        return _numbas().locator.get_cache_path()
    except Exception:  # of numba's, any
        return None


@cache
def _made_of() -> bytes:
    return sources.digest()


def _described(value) -> str:
    """What a function has been closed over, by which functions of one source differ."""
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
    """One kernel on disk: what numba's dispatchers ask for one.

    Parameters
    ----------
    function : callable
        The kernel.

    Raises
    ------
    Exception
        Any, where kernels cannot be kept.
    """

    def __init__(self, function):
        self._numbas = _numbas()
        self._described = _described(function)
        self._made_of = _made_of()
        self.cache_path = self._numbas.locator.get_cache_path()
        name = f"{function.__module__.removeprefix(f'{__package__}.')}.{function.__qualname__}"
        self._name = name.replace("<", "").replace(">", "") + _TAG

    def load_overload(self, signature, context):
        """The kernel; None where it is not there, torn, or made of something else."""
        try:
            context.refresh()
            path, identity = self._place(signature, context.codegen())
            data = path.read_bytes()
            made_of, data = data[:_DIGEST], data[_DIGEST:]
            check, kernel = data[:_DIGEST], data[_DIGEST:]
            if made_of != self._made_of or check != self._check(identity, kernel):
                return None
            return self._numbas.rebuild(context, pickle.loads(kernel))
        except Exception:  # of reading, any: it is compiled instead
            return None

    def save_overload(self, signature, result) -> None:
        """Keep the kernel, where that is possible."""
        with contextlib.suppress(Exception):  # a full disk is not the caller's concern
            if not sources.unchanged() or not self._numbas.check_cachable(result):
                return
            path, identity = self._place(signature, result.codegen)
            kernel = numba.core.serialize.dumps(self._numbas.reduce(result))
            self._numbas.locator.ensure_cache_path()
            _write(path, self._made_of + self._check(identity, kernel) + kernel)
            _sweep(path.parent)

    def flush(self) -> None:
        """Forget all there is of this kernel."""
        for path in Path(self.cache_path).glob(f"{self._name}*{_ENDING}"):
            path.unlink(missing_ok=True)

    def _place(self, signature, codegen) -> tuple[Path, str]:
        """The file for a signature and a processor, and what tells it from others."""
        identity = f"{self._described} {signature} {codegen.magic_tuple()}"
        mark = hashlib.sha256(identity.encode()).hexdigest()[:16]
        return Path(self.cache_path) / f"{self._name}{mark}{_ENDING}", identity

    def _check(self, identity: str, kernel: bytes) -> bytes:
        return hashlib.sha256(self._made_of + identity.encode() + b"\n" + kernel).digest()


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    other = path.with_name(f"{path.name}.{uuid.uuid4().hex[:16]}")
    try:
        other.write_bytes(data)
        os.replace(other, path)
    except BaseException:
        other.unlink(missing_ok=True)
        raise


def _first(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(_DIGEST)


@cache  # once is enough for a process
def _sweep(place: Path) -> None:
    """Remove what nobody reads: numba's own files, and old ones that are made of something else."""
    for path in place.iterdir():
        with contextlib.suppress(OSError):
            old = path.stat().st_mtime < time.time() - _OLD
            if path.suffix in (".nbi", ".nbc") or (
                old and _ENDING in path.suffixes and _first(path) != _made_of()
            ):
                path.unlink()


@cache
def _made_of_cuda() -> str:
    return f"cuda-{sources.digest(cuda=True).hex()[:32]}"


def on_device(function):
    """A cache of numba's for a kernel for CUDA, in a folder that only these sources have.

    It knows of launches what `Kept` does not.

    Raises
    ------
    Exception
        Any, where kernels cannot be kept.
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
    """Remove folders of other sources for CUDA, where they have not been used for long."""
    for path in place.parent.glob("cuda-*"):
        with contextlib.suppress(OSError):
            if path != place and path.stat().st_mtime < time.time() - _OLD:
                shutil.rmtree(path)


def count() -> tuple[int, int]:
    """How many kernels this Python finds compiled, and how many it will compile anew."""
    counts = [0, 0]
    for path in Path(folder()).glob(f"*{_TAG}*{_ENDING}"):
        with contextlib.suppress(OSError):
            counts[_first(path) != _made_of()] += 1
    return counts[0], counts[1]
