"""How every CUDA kernel is compiled and launched, on a device or in numba's simulator.

Every host thread has a stream of its own: what one thread launches and copies happens in
order, and the work of several threads (each with its own chunk) overlaps. An array belongs to
the thread that made it; to give it to another, call `finish` first.

The simulator (``NUMBA_ENABLE_CUDASIM=1`` before numba is imported) runs kernels as Python, one
operating-system thread for every thread of a block: sizes of blocks are small there. It runs one
kernel at a time, so launches take a lock, and it does not type anything, so they are checked
against the signatures that `Kernel.ptx` compiles.
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
"""Threads of a block, where nothing else is said."""

_MOST_BLOCKS = 2 if SIMULATED else 4096  # of kernels that stride over their samples

KERNELS: dict[str, Kernel] = {}
"""Every kernel defined so far, by module and name."""


class _Running:
    """The `cuda` of the kernel that the simulator runs."""

    def __getattr__(self, name):
        from numba.cuda.simulator.kernel import _get_kernel_context

        return getattr(_get_kernel_context(), name)


cuda = _Running() if SIMULATED else _cuda
"""The module `numba.cuda` for functions that kernels of other modules call: the simulator gives
a `cuda` of their own only to the modules of kernels."""

_lock = threading.Lock()
_here = threading.local()


def stream():
    """The stream of this host thread."""
    if not hasattr(_here, "stream"):
        _here.stream = _cuda.stream()
    return _here.stream


def finish() -> None:
    """Wait for everything that this host thread has launched."""
    stream().synchronize()


def grid(samples: int) -> tuple[int, int]:
    """Blocks and threads for a kernel whose threads stride over `samples`."""
    return max(1, min(-(-samples // THREADS), _MOST_BLOCKS)), THREADS


def device(function):
    """A function that kernels call; in the simulator it is called as it is.

    In a module without kernels it must take its `cuda` from here.
    """
    return function if SIMULATED else _cuda.jit(device=True, forceinline=True)(function)


def kernel(*signatures):
    """Make a kernel of a function of one of the `signatures`."""
    return lambda function: Kernel(function, signatures)


class Kernel:
    """A CUDA kernel.

    Parameters
    ----------
    function : callable
        Arrays in, `out` last; returns nothing.
    signatures : tuple of numba signatures
        What it may be called with.
    """

    def __init__(self, function, signatures):
        self._function, self._signatures = function, signatures
        self._compiled = _jit(function)
        module = function.__module__.removeprefix("tezip_h5.kernels.")
        KERNELS[f"{module}.{function.__name__}"] = self

    def __call__(self, blocks, threads, *arguments) -> None:
        """Launch on this host thread's stream; returns at once."""
        if not SIMULATED:
            self._compiled[blocks, threads, stream()](*arguments)
            return
        self._check(arguments)
        with _lock:
            interval = sys.getswitchinterval()
            sys.setswitchinterval(1e-5)  # the simulator's threads wait for each other all the time
            try:
                self._compiled[blocks, threads](*arguments)
            finally:
                sys.setswitchinterval(interval)

    @property
    def signatures(self) -> int:
        """How many sets of types it is defined for."""
        return len(self._signatures)

    @property
    def compiled(self) -> int:
        """How many sets of types the device has seen; 0 in the simulator."""
        return 0 if SIMULATED else len(self._compiled.overloads)

    def ptx(self, capability: tuple[int, int]) -> list[str]:
        """Compile without a device, for every signature: PTX for a compute capability."""
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
        # Where they cannot be kept, for whatever reason, they are compiled in every process.
        with contextlib.suppress(Exception):
            found._cache = keeping.on_device(function)
    return found


def _type_of(value):
    """The type that a kernel sees."""
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
    """In the place of the simulator's own, which looks for a block's array and makes it without a
    lock: two threads may each get one of their own, and read what nobody wrote.

    As there, an array is known by the line that asks for it.
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
