"""How every CPU kernel is compiled."""

from __future__ import annotations

import numba

from tezip_h5.kernels import keeping
from tezip_h5.kernels.keeping import count as kept
from tezip_h5.kernels.keeping import folder as cache_folder

__all__ = ["cache_folder", "inlined", "kept", "kernel", "uncounted"]


def kernel(signature, **options):
    """Compile for exactly `signature`; kept on disk where the file system allows it (`keeping`)."""
    options = {"nogil": True, "error_model": "numpy", **options}

    def compiled(function):
        dispatcher = numba.njit(**options)(function)
        if dispatcher is function:  # NUMBA_DISABLE_JIT
            return function
        try:
            dispatcher._cache = keeping.Kept(function)
        except Exception:  # of numba's, or of reading sources, any
            return numba.njit(signature, **options)(function)
        dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher

    return compiled


def uncounted(function, **options):
    """Compile what a kernel calls without numba's counts of references; it cannot allocate.

    Every view of an array is counted otherwise, by an atomic instruction: several times a decision,
    a seventh of the time. The option has no documentation: a numba that has it no more counts.
    """
    options = {"nogil": True, "error_model": "numpy", **options}
    try:
        return numba.njit(_nrt=False, **options)(function)
    except KeyError:
        return numba.njit(**options)(function)


def inlined(function):
    """Compile what a kernel calls for every pixel, within the kernel; it cannot allocate.

    By LLVM: numba's own inlining makes twice as much to compile, and nothing faster.
    """
    return uncounted(function, forceinline=True)
