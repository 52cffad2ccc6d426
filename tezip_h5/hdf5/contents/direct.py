"""Reading and writing chunks as they are stored, without HDF5's filter pipeline."""

from __future__ import annotations

import h5py
from h5py import _objects

__all__ = ["store_chunk", "stored_chunk"]

# h5py's own methods for this take its lock only since 3.16 (its pull request 2764). Before that,
# two threads could be in HDF5 at once, which fails or crashes.


def stored_chunk(dataset: h5py.Dataset, offset) -> tuple[int, bytes] | None:
    """The filter mask and the bytes of the chunk at `offset`; None if it was never written."""
    with _objects.phil:
        if not dataset.id.get_chunk_info_by_coord(offset).size:
            return None
        return dataset.id.read_direct_chunk(offset)


def store_chunk(dataset: h5py.Dataset, offset, payload: bytes, mask: int = 0) -> None:
    """Store bytes as the chunk at `offset`; a bit of `mask` is set for each filter not applied."""
    with _objects.phil:
        dataset.id.write_direct_chunk(offset, payload, mask)
