"""Decorators that compile the kernels for the CPU."""

from __future__ import annotations

import numba

from tezip_h5.kernels import keeping
from tezip_h5.kernels.keeping import count as kept
from tezip_h5.kernels.keeping import folder as cache_folder

__all__ = ["cache_folder", "inlined", "kept", "kernel", "uncounted"]


def kernel(signature, **options):
    """Compile a kernel for one signature, and keep it on disk if that is possible (`keeping`)."""
    options = {"nogil": True, "error_model": "numpy", **options}

    def compiled(function):
        dispatcher = numba.njit(**options)(function)
        if dispatcher is function:  # with NUMBA_DISABLE_JIT numba compiles nothing
            return function
        try:
            dispatcher._cache = keeping.Kept(function)
        except Exception:  # any error of numba, or of reading sources: compile without keeping
            return numba.njit(signature, **options)(function)
        dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher

    return compiled


def uncounted(function, **options):
    """Compile a function that kernels call, without reference counting; it must not allocate.

    Otherwise numba counts each view of an array with an atomic instruction. This happens several
    times per decision, and would take a seventh of the time. The option is undocumented; with a
    numba that no longer has it, references are counted.
    """
    options = {"nogil": True, "error_model": "numpy", **options}
    try:
        return numba.njit(_nrt=False, **options)(function)
    except KeyError:
        return numba.njit(**options)(function)


def inlined(function):
    """Compile a function that is inlined into the kernels that call it; it must not allocate.

    LLVM inlines it. Inlining by numba would double the code to compile, and make nothing faster.
    """
    return uncounted(function, forceinline=True)
