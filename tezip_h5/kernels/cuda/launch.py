"""Compile and launch CUDA kernels, on a device or in numba's simulator.

Each host thread has a CUDA stream of its own. So launches and copies of one thread are done in
order, and those of several threads, which have different chunks, overlap. An array belongs to the
thread that made it. Before another thread uses it, call `finish`.

The simulator (set ``NUMBA_ENABLE_CUDASIM=1`` before numba is imported) runs kernels as Python
code, with one operating-system thread for each thread of a block. Therefore blocks are small
there. It can run one kernel at a time, so launches take a lock. It does not check types, so
arguments are compared with the signatures that `Kernel.ptx` compiles.
"""

from __future__ import annotations

import contextlib
import sys
import threading

import numba
import numpy as np
from numba import cuda as _cuda
from numba import types

from tezip_h5.errors import InputError
from tezip_h5.kernels import keeping

__all__ = [
    "KERNELS",
    "SIMULATED",
    "THREADS",
    "Kernel",
    "cuda",
    "device",
    "finish",
    "grid",
    "kernel",
]

SIMULATED = bool(numba.config.ENABLE_CUDASIM)
"""Whether kernels run in numba's simulator."""

THREADS = 8 if SIMULATED else 256
"""The default number of threads of a block."""

_MOST_BLOCKS = 2 if SIMULATED else 4096  # largest number of blocks that `grid` returns

KERNELS: dict[str, Kernel] = {}
"""All kernels defined so far, by module and name."""


class _Running:
    """The object that takes the place of `numba.cuda` in the kernel that the simulator runs."""

    def __getattr__(self, name):
        from numba.cuda.simulator.kernel import _get_kernel_context

        return getattr(_get_kernel_context(), name)


cuda = _Running() if SIMULATED else _cuda
"""The module `numba.cuda`, for functions that kernels of other modules call. The simulator replaces
the name `cuda` only in modules that define kernels."""

_lock = threading.Lock()
_here = threading.local()


def stream():
    """The CUDA stream of this host thread."""
    if not hasattr(_here, "stream"):
        _here.stream = _cuda.stream()
    return _here.stream


def finish() -> None:
    """Wait for everything that this host thread has launched."""
    stream().synchronize()


def grid(samples: int) -> tuple[int, int]:
    """The blocks and threads for a kernel whose threads loop over `samples` with a stride."""
    return max(1, min(-(-samples // THREADS), _MOST_BLOCKS)), THREADS


def device(function):
    """Compile a function that kernels call. In the simulator it is called as it is.

    In a module without kernels, such a function must use `cuda` from this module.
    """
    return function if SIMULATED else _cuda.jit(device=True, forceinline=True)(function)


def kernel(*signatures):
    """A decorator that makes a kernel that may be called with any of the `signatures`."""
    return lambda function: Kernel(function, signatures)


class Kernel:
    """A CUDA kernel.

    Parameters
    ----------
    function : callable
        It takes arrays, of which `out` is the last, and returns nothing.
    signatures : tuple of numba signatures
        The types that it may be called with.
    """

    def __init__(self, function, signatures):
        self._function, self._signatures = function, signatures
        self._compiled = _jit(function)
        module = function.__module__.removeprefix("tezip_h5.kernels.")
        KERNELS[f"{module}.{function.__name__}"] = self

    def __call__(self, blocks, threads, *arguments) -> None:
        """Launch the kernel on the stream of this host thread, and return at once."""
        if not SIMULATED:
            self._compiled[blocks, threads, stream()](*arguments)
            return
        self._check(arguments)
        with _lock:
            interval = sys.getswitchinterval()
            sys.setswitchinterval(1e-5)  # threads of the simulator often wait for each other
            try:
                self._compiled[blocks, threads](*arguments)
            finally:
                sys.setswitchinterval(interval)

    @property
    def signatures(self) -> int:
        """The number of signatures that it is defined for."""
        return len(self._signatures)

    @property
    def compiled(self) -> int:
        """The number of signatures that were compiled for the device; 0 in the simulator."""
        return 0 if SIMULATED else len(self._compiled.overloads)

    def ptx(self, capability: tuple[int, int]) -> list[str]:
        """Compile all signatures to PTX for a compute capability. This needs no device."""
        return [
            _cuda.compile(
                self._function, s, device=False, abi="numba", cc=capability, output="ptx"
            )[0]
            for s in self._signatures
        ]

    def _check(self, arguments) -> None:
        found = tuple(_type_of(argument) for argument in arguments)
        if all(found != tuple(signature.args) for signature in self._signatures):
            raise InputError(
                f"the kernel {self._function.__name__} was called with {found}; it takes "
                f"{' or '.join(str(tuple(s.args)) for s in self._signatures)}"
            )


def _jit(function):
    found = _cuda.jit(function)
    if not SIMULATED:
        # Kernels that cannot be kept, for whatever reason, are compiled in every process.
        with contextlib.suppress(Exception):
            found._cache = keeping.on_device(function)
    return found


def _type_of(value):
    """The numba type of an argument."""
    if isinstance(value, bool):
        return types.boolean
    if isinstance(value, int | np.integer):
        return types.int64
    return types.Array(numba.from_dtype(value.dtype), value.ndim, "C" if contiguous(value) else "A")


def contiguous(array) -> bool:
    """Whether a device array is C-contiguous."""
    flags = getattr(array, "flags", None)
    return array.is_c_contiguous() if flags is None else flags["C_CONTIGUOUS"]


# --- the simulator's shared memory ---


def _shared_array(shared, shape, dtype, alignment=None):
    """Make or find a shared array of a block. This replaces a function of the simulator.

    The simulator's function takes no lock, so two threads of a block may get different arrays.

    As in that function, an array is identified by the line of code that calls.
    """
    asking = sys._getframe(1)
    line = asking.f_code.co_filename, asking.f_lineno
    with _shared_lock:
        if line not in shared._allocations:
            shared._allocations[line] = np.empty(shape, numba.np.numpy_support.as_dtype(dtype))
        return shared._allocations[line]


_shared_lock = threading.Lock()
if SIMULATED:
    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    FakeCUDAShared.array = _shared_array
