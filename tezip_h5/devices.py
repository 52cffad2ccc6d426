"""The device that kernels run on: the CPU, or a GPU through CUDA.

`choose` chooses between the two. `status` describes the GPU, or says why there is none. Nothing
of CUDA is imported before one of them is called. The bytes of a payload do not depend on the
device.
"""

from __future__ import annotations

import importlib
import os
import re
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

from tezip_h5.errors import InputError

__all__ = [
    "DEVICES",
    "VARIABLE",
    "WORTHWHILE_CHUNKS",
    "DeviceWarning",
    "Status",
    "choose",
    "give_up",
    "status",
]

DEVICES = ("auto", "cpu", "cuda")
VARIABLE = "TEZIP_DEVICE"
INSTALL = 'pip install "tezip_h5[cuda]"'
WORTHWHILE_CHUNKS = 64
"""With fewer chunks than this, "auto" takes the CPU: one thread of a GPU is slow, and only
thousands of them are fast. This number is a guess, it has not been measured."""

_LONGEST = 160
_DRIVER_FILE = Path("/proc/driver/nvidia/version")


class DeviceWarning(UserWarning):
    """Work that was meant for the GPU is done by the CPU; the results are the same."""


@dataclass(frozen=True)
class Status:
    """The state of the GPU in this process.

    Attributes
    ----------
    usable : bool
        Whether ``device="cuda"`` works.
    reason, advice : str
        Why it does not, and what to do; empty where it does.
    simulated : bool
        Whether it is numba's simulator: no GPU, for tests of small arrays only. It is never
        chosen automatically.
    name : str, optional
        Name of the GPU.
    compute_capability : (int, int), optional
    driver, runtime : str, optional
        The driver and the CUDA it was made for; the CUDA whose compiler is used.
    memory_bytes, free_bytes : int, optional
        Total and free memory of the GPU, when it was examined.
    numba_cuda : str, optional
        Version of numba-cuda, where it is installed.
    given_up : bool
        Whether it was usable, until it failed; see `give_up`.
    """

    usable: bool
    reason: str = ""
    advice: str = ""
    simulated: bool = False
    name: str | None = None
    compute_capability: tuple[int, int] | None = None
    driver: str | None = None
    runtime: str | None = None
    memory_bytes: int | None = None
    free_bytes: int | None = None
    numba_cuda: str | None = None
    given_up: bool = False


class _Missing(Exception):
    """Something that the use of a GPU needs is missing: (reason, advice)."""


_lock = threading.Lock()
_found: Status | None = None


def choose(device: str | None = None, chunks: int | None = None) -> str:
    """Say where to run: "cpu" or "cuda".

    Parameters
    ----------
    device : "auto" | "cpu" | "cuda", optional
        "auto" and None are what the environment variable ``TEZIP_DEVICE`` says; where it is not
        set, a GPU if there is one that works, and the CPU otherwise.
    chunks : int, optional
        How many can be under way together. "auto" leaves fewer than `WORTHWHILE_CHUNKS` to the
        CPU; the variable does not.

    Raises
    ------
    InputError
        For another word, or when "cuda" is asked for and cannot be had; the message says why.

    Examples
    --------
    >>> choose("cpu")
    'cpu'
    """
    asked = f"device={device!r}"
    if device is None or device == "auto":
        text = os.environ.get(VARIABLE, "").strip()
        if text:
            asked, device = f"{VARIABLE}={text}", text.lower()
        else:
            device = "auto"
    if device not in DEVICES:
        raise InputError(f"{asked} is no device; give one of {', '.join(DEVICES)}")
    few = chunks is not None and chunks < WORTHWHILE_CHUNKS
    if device == "cpu" or (device == "auto" and few):
        return "cpu"
    found = status()
    if found.usable and (device == "cuda" or not found.simulated):
        return "cuda"
    if device == "cuda" and not found.given_up:
        raise InputError(f"{asked}, but {found.reason}: {found.advice}")
    if device == "cuda":
        warnings.warn(f"{asked}, but {found.reason}; the CPU is used", DeviceWarning, stacklevel=2)
    return "cpu"


def status() -> Status:
    """Describe the GPU. It is looked for once per process, which may take a second."""
    global _found
    if _found is None:
        with _lock:
            if _found is None:
                _found = _look()
    return _found


def give_up(reason: str) -> bool:
    """Stop using the GPU in this process, because it failed or computes other results than the CPU.

    Returns
    -------
    bool
        True for the first who says so.
    """
    global _found
    found = status()
    with _lock:
        if _found.given_up:
            return False
        _found = Status(
            False,
            f"the GPU is not used any more: {reason}",
            "run tezip-h5 doctor, and start the program again",
            name=found.name,
            numba_cuda=found.numba_cuda,
            given_up=True,
        )
    return True


def _after_fork() -> None:
    """CUDA does not survive a fork: a child of a process that used it has no GPU."""
    global _found, _lock
    _lock = threading.Lock()
    if _found is not None and _found.usable and not _found.simulated:
        _found = Status(
            False,
            "this process was forked from one that had used the GPU, which CUDA does not allow",
            "start processes with multiprocessing's 'spawn' method",
            numba_cuda=_found.numba_cuda,
        )


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# --- looking for a GPU ---


def _look() -> Status:
    version = None
    try:
        version = _numba_cuda_version()
        cuda = _import_cuda()
        if _simulated(cuda):
            return Status(True, simulated=True, name="numba's simulator", numba_cuda=version)
        _require_driver(cuda)
        runtime = _require_compiler(cuda)
        return _describe(cuda, version, runtime)
    except _Missing as missing:
        return Status(False, *missing.args, driver=_driver_version(), numba_cuda=version)


def _numba_cuda_version() -> str:
    from importlib import metadata  # takes longer than all the rest of this room

    try:
        return metadata.version("numba-cuda")
    except metadata.PackageNotFoundError:
        raise _Missing("numba-cuda is not installed", INSTALL) from None


def _import_cuda():
    try:
        return importlib.import_module("numba.cuda")
    except Exception as error:  # a broken installation breaks in many ways
        raise _Missing(
            f"numba.cuda cannot be imported ({_line(error)})",
            f"{INSTALL} --upgrade; numba and numba-cuda must be of versions that fit together",
        ) from None


def _simulated(cuda) -> bool:
    """Whether numba.cuda is its simulator, which its first import decides."""
    return hasattr(cuda.cudadrv.devicearray, "FakeCUDAArray")


def _require_driver(cuda) -> None:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    module = _driver_version()
    try:
        error = None if cuda.cudadrv.driver.driver.is_available else cuda.cuda_error()
        count = len(cuda.gpus) if error is None else 0
    except Exception as problem:
        error, count = _line(problem), 0
    if count:
        return
    if hidden is not None and not re.match(r"\s*(\d|GPU-|MIG-)", hidden):
        raise _Missing(
            f"CUDA_VISIBLE_DEVICES={hidden!r} hides every GPU", "unset it, or set it to 0"
        )
    if "NUMBA_DISABLE_CUDA" in str(error):
        raise _Missing("NUMBA_DISABLE_CUDA is set", "unset it")
    if "not be found" in str(error) and module:
        raise _Missing(
            f"driver {module} is loaded, but its library libcuda is not found",
            "in a container, start it with the GPU (docker run --gpus all); else install the "
            "driver's libraries of the same version",
        )
    if "not be found" in str(error):
        raise _Missing(
            "there is no NVIDIA driver",
            "install one (nvidia-smi then lists the GPU), or use device='cpu'",
        )
    if module is None:
        raise _Missing(
            f"the NVIDIA driver does not start ({_line(error)})",
            "if nvidia-smi fails, too, install the driver again; else look for a second libcuda "
            "(a stub of the toolkit) in LD_LIBRARY_PATH",
        )
    raise _Missing(
        f"driver {module} finds no GPU ({_line(error)})",
        "see nvidia-smi; after an update of the driver, start the machine again",
    )


def _require_compiler(cuda) -> str | None:
    """The version of CUDA's compiler, which kernels are compiled with here."""
    advice = (
        'pip install "numba-cuda[cu12]" (or [cu13], for drivers of CUDA 13), or install the CUDA '
        "toolkit and set CUDA_HOME"
    )
    try:
        importlib.import_module("numba.cuda.cudadrv.nvvm").NVVM().get_version()
    except Exception as error:
        raise _Missing(f"CUDA's compiler (NVVM) is not found ({_line(error)})", advice) from None
    try:
        return ".".join(map(str, cuda.runtime.get_version()))
    except Exception as error:
        raise _Missing(f"CUDA's NVRTC is not found ({_line(error)})", advice) from None


def _describe(cuda, version: str, runtime: str | None) -> Status:
    try:
        device = cuda.get_current_device()
        name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
        free, total = cuda.current_context().get_memory_info()
        known = ".".join(map(str, cuda.cudadrv.driver.driver.get_version()))
        return Status(
            True,
            name=name,
            compute_capability=tuple(device.compute_capability),
            driver=f"{_driver_version() or 'unknown'} (CUDA {known})",
            runtime=runtime,
            memory_bytes=int(total),
            free_bytes=int(free),
            numba_cuda=version,
        )
    except Exception as error:
        raise _Missing(
            f"the GPU cannot be opened ({_line(error)})",
            "see nvidia-smi: it may be full, or reserved by another process",
        ) from None


def _driver_version() -> str | None:
    """The version of the driver that the kernel has loaded (Linux), or None."""
    try:
        found = re.search(r"Kernel Module\D*([\d.]+)", _DRIVER_FILE.read_text())
    except OSError:
        return None
    return found and found[1]


def _line(error) -> str:
    """An error as one line, shortened if it is long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
