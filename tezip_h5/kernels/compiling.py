"""How every CPU kernel is compiled."""

from __future__ import annotations

import numba

__all__ = ["cache_folder", "kernel"]


def kernel(signature, **options):
    """Compile for exactly `signature`, cached where the file system allows it."""
    options = {"nogil": True, "error_model": "numpy", **options}

    def compiled(function):
        try:
            return numba.njit(signature, cache=True, **options)(function)
        except RuntimeError:  # no writable place for the cache: compile in memory
            return numba.njit(signature, **options)(function)

    return compiled


def cache_folder() -> str | None:
    """Where compiled kernels are kept; None where no such place can be written."""
    try:
        return numba.njit(cache=True)(cache_folder).stats.cache_path  # not compiled: only asked
    except RuntimeError:
        return None
