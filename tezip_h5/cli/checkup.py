"""What `tezip-h5 doctor` looks at: each check gives findings, and never raises."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

import tezip_h5
from tezip_h5 import bitstream, devices, kernels
from tezip_h5.errors import InputError, TezipError
from tezip_h5.hdf5.pipeline import plugin
from tezip_h5.hdf5.threads import default_threads
from tezip_h5.model import store

__all__ = ["ODD", "OK", "PARTS", "WRONG", "Finding", "examine", "examine_part"]

OK, ODD, WRONG = "ok", "odd", "wrong"
"""The states of a finding. Odd: it works, but slower or not for every tool (doctor prints a
warning). Wrong: something that was asked for does not work (doctor prints an error)."""

_NEEDED = ("numpy", "h5py", "hdf5plugin", "numba", "numcodecs", "zstandard", "Pillow", "tqdm")
_OPTIONAL = ("numba-cuda", "keras", "tensorflow", "dask", "zarr")
_LEAST_FREE = 1 << 30
_INSTALL = "pip install --upgrade --force-reinstall tezip_h5"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    part, name, value : str
        Where it belongs, what it is, how it is.
    state : "ok" | "odd" | "wrong"
    advice : str
        What to do, where it is not "ok".
    """

    part: str
    name: str
    value: str
    state: str = OK
    advice: str = ""


def examine() -> Iterator[Finding]:
    """Look at everything."""
    for part in PARTS:
        yield from examine_part(part)


def examine_part(part: str) -> Iterator[Finding]:
    """Look at one of `PARTS`; a check that breaks is a finding, too."""
    try:
        for found in PARTS[part]():
            yield Finding(part, *found)
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        yield Finding(part, "check", text, WRONG, "please report this")


# --- versions and the machine ---


def _versions() -> Iterator[tuple]:
    yield "python", f"{platform.python_version()} ({sys.executable})"
    yield "tezip_h5", f"{tezip_h5.__version__}, format {bitstream.FORMAT_VERSION}"
    yield "HDF5 of h5py", h5py.version.hdf5_version
    for name in _NEEDED:
        version = _version(name)
        if version is None:
            yield name, "not installed", WRONG, _INSTALL
        else:
            yield name, version
    for name in _OPTIONAL:
        yield name, _version(name) or "not installed"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> Iterator[tuple]:
    yield "system", platform.platform()
    yield "processor", _processor_name()
    yield "threads", f"{default_threads()} of {os.cpu_count()}"


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpu() -> Iterator[tuple]:
    text = os.environ.get(devices.VARIABLE, "")
    state, advice = OK, ""
    try:
        devices.choose()
    except InputError as error:
        state, advice = WRONG, f"{error}; or unset {devices.VARIABLE}"
    yield devices.VARIABLE, text or "not set", state, advice
    found = devices.status()
    if not found.usable:
        # Without a GPU all is well; where numba-cuda is installed, one was meant to be used.
        state = OK if found.numba_cuda is None else ODD
        yield "GPU", f"none: {found.reason}", state, found.advice if state == ODD else ""
        return
    yield "GPU", found.name
    if found.simulated:
        advice = "unset NUMBA_ENABLE_CUDASIM, unless you test kernels: it is very slow"
        yield "simulator", "numba's simulator runs in place of a GPU", ODD, advice
        return
    yield "compute capability", ".".join(map(str, found.compute_capability))
    yield "driver", found.driver
    yield "CUDA's compiler", found.runtime
    yield "memory", f"{_size(found.free_bytes)} of {_size(found.memory_bytes)} free"
    yield _trial()


def _trial() -> tuple:
    """Whether the GPU makes the same bytes as the CPU."""
    frames = np.arange(3 * 9 * 11, dtype=np.uint16).reshape(3, 9, 11) % 37
    bound = tezip_h5.ErrorBound(absolute=1).of_frames(frames[..., None])
    made = {}
    for device in ("cpu", "cuda"):
        settings = tezip_h5.Settings(level="fast")
        made[device] = tezip_h5.encode_chunk(frames, bound, settings, device=device).payload
    if devices.status().given_up:
        return "trial", devices.status().reason, WRONG, "set TEZIP_DEVICE=cpu, and report this"
    if made["cpu"] != made["cuda"]:
        advice = "set TEZIP_DEVICE=cpu, and report this"
        return "trial", "the GPU encodes other bytes than the CPU", WRONG, advice
    return "trial", "the GPU encodes the same bytes as the CPU"


# --- kernels ---


def _cache() -> Iterator[tuple]:
    folder = kernels.load("compiling").cache_folder()
    if folder is None:
        advice = "set NUMBA_CACHE_DIR to one that can be; until then every process compiles again"
        yield "folder", "none: no folder can be written", WRONG, advice
        return
    yield "folder", folder
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given and not Path(folder).is_relative_to(Path(given).resolve()):
        advice = "correct NUMBA_CACHE_DIR, or unset it"
        yield "NUMBA_CACHE_DIR", f"{given} is not used: it cannot be written", ODD, advice
    current, stale = kernels.load("compiling").kept()
    if not current:
        advice = "none are compiled yet: `tezip-h5 prepare` does it, in a minute or two"
        yield "compiled", "0 kernels", ODD, advice
        return
    yield "compiled", f"{current} kernels"
    if stale:
        yield "stale", f"{stale} kernels of another version, compiled again when they are used"


# --- HDF5 ---


def _filter() -> Iterator[tuple]:
    number = tezip_h5.FILTER_ID
    if not h5py.h5z.filter_avail(number):
        yield "registered", "no", WRONG, "call tezip_h5.register(); is another h5py installed?"
        return
    yield "registered", f"{number}, with h5py's HDF5"
    frames = np.arange(2 * 8 * 8, dtype=np.uint16).reshape(2, 8, 8)
    options = tezip_h5.TEZip(coder="fallback")  # which compiles nothing
    try:
        with h5py.File(uuid.uuid4().hex, "w", driver="core", backing_store=False) as file:
            file.create_dataset("data", data=frames, chunks=frames.shape, **options)
            file.flush()
            size = file["data"].id.get_chunk_info(0)
            same = size.filter_mask == 0 and np.array_equal(file["data"][()], frames)
    except (OSError, TezipError) as error:
        cause = tezip_h5.last_error() or error
        yield "trial", f"a chunk cannot be read: {cause}", WRONG, _INSTALL
        return
    if same:
        yield "trial", "a chunk was written and read back"
    else:
        yield "trial", "a chunk was written, but other samples were read back", WRONG, _INSTALL


def _plugin() -> Iterator[tuple]:
    library = plugin.library()
    if library is None:
        advice = (
            "for h5dump, HDFView and others: install a C compiler and tezip_h5 again, or build it "
            "as filters/README.md says. Python does not need it"
        )
        yield "library", f"none in {plugin.PLUGIN_PATH}", ODD, advice
    else:
        try:
            ctypes.CDLL(str(library))
            yield "library", str(library)
        except OSError as error:
            yield "library", f"cannot be loaded: {error}", WRONG, _INSTALL
    text = os.environ.get("HDF5_PLUGIN_PATH", "")
    folders = [folder for folder in text.split(os.pathsep) if folder]
    missing = [folder for folder in folders if not Path(folder).is_dir()]
    if missing:
        advice = "correct it: HDF5 looks for plugins there and finds none"
        yield "HDF5_PLUGIN_PATH", f"{text}: no folder {', '.join(missing)}", WRONG, advice
    elif library is not None and not any(Path(f).samefile(plugin.PLUGIN_PATH) for f in folders):
        advice = 'for tools that are not Python: export HDF5_PLUGIN_PATH="$(tezip-h5 plugin path)"'
        yield "HDF5_PLUGIN_PATH", text or "not set", ODD if folders else OK, advice
    else:
        yield "HDF5_PLUGIN_PATH", text or "not set"


# --- models ---


def _models() -> Iterator[tuple]:
    for channels, name in ((1, "default, grey"), (3, "default, RGB")):
        try:
            model = store.default(channels)
        except TezipError as error:
            yield name, str(error), WRONG, _INSTALL
            continue
        if model is None:
            yield name, "does not ship with this installation", WRONG, _INSTALL
        else:
            yield name, f"{model.digest.hex()}, passes its test"
    text = os.environ.get(store.SEARCH_PATH, "")
    yield store.SEARCH_PATH, text or "not set"
    for folder in filter(None, text.split(os.pathsep)):
        if not Path(folder).is_dir():
            yield folder, "no such folder", WRONG, f"correct {store.SEARCH_PATH}"
            continue
        for path in sorted(Path(folder).rglob("*.tzm")):
            try:
                yield str(path), f"{store.load(path).digest.hex()}, passes its test"
            except (OSError, TezipError) as error:
                yield str(path), str(error), WRONG, "train or copy it again, or delete it"


# --- folders ---


def _folders() -> Iterator[tuple]:
    try:
        temporary = tempfile.gettempdir()
    except FileNotFoundError as error:
        yield "temporary", f"none ({error})", WRONG, "set TMPDIR to a folder that can be written"
        return
    for name, folder in (("temporary", temporary), ("here", os.getcwd())):
        free = shutil.disk_usage(folder).free
        value = f"{folder}, {_size(free)} free"
        if free < _LEAST_FREE:
            yield name, value, ODD, "make room, or write to another disk"
        else:
            yield name, value


def _size(count: int) -> str:
    """Bytes, for people."""
    return f"{count / 2**30:.1f} GiB"


PARTS: dict[str, Callable[[], Iterator[tuple]]] = {
    "versions": _versions,
    "machine": _processor,
    "GPU": _gpu,
    "kernel cache": _cache,
    "HDF5 filter": _filter,
    "C plugin": _plugin,
    "models": _models,
    "folders": _folders,
}
