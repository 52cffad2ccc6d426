"""How every CPU kernel is compiled.

numba's cache on disk looks at the file of a kernel, not at what that imports: whoever changes a
function that kernels of other files call must delete the cache (`cache_folder`).
"""

from __future__ import annotations

import contextlib

import numba

__all__ = ["cache_folder", "inlined", "kernel", "uncounted"]


def kernel(signature, **options):
    """Compile for exactly `signature`, cached where the file system allows it.

    In memory, where no place for the cache can be written, its disk is full, or what is there is
    another user's, or torn (numba renames what it wrote, but waits for no disk).
    """
    options = {"nogil": True, "error_model": "numpy", **options}

    def compiled(function):
        try:
            return numba.njit(signature, cache=True, **options)(function)
        except Exception:  # of reading what is torn, any; what is wrong with a kernel comes again
            with contextlib.suppress(Exception):
                # Forget what is torn: the next process writes it anew.
                numba.njit(cache=True, **options)(function).recompile()
            return numba.njit(signature, **options)(function)

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


def cache_folder() -> str | None:
    """Where compiled kernels are kept; None where no such place can be written."""
    try:
        return numba.njit(cache=True)(cache_folder).stats.cache_path  # not compiled: only asked
    except RuntimeError:
        return None
