"""The dataset and the tables of one stack, to which finished chunks are added."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial

import h5py
import numpy as np

from tezip_h5.codec import Encoded
from tezip_h5.errors import InputError
from tezip_h5.hdf5.contents import container
from tezip_h5.hdf5.contents.direct import store_chunk
from tezip_h5.hdf5.contents.tables import rows_of
from tezip_h5.hdf5.files.space import Space
from tezip_h5.hdf5.pipeline.options import ChunkOptions
from tezip_h5.hdf5.writing.past import Past, Totals, past_of
from tezip_h5.hdf5.writing.steps import Recipe

__all__ = ["GrowingStack"]


class GrowingStack:
    """A stack in an open file, which is made if it does not exist.

    Parameters
    ----------
    group : h5py.Group
        The group of ``data`` and the tables.
    recipe : Recipe
        How its steps are encoded.
    filenames : bool
        Whether frames come with names.
    most : int, optional
        Number of frames that the dataset can grow to; default: no limit.
    threads : int, optional
        Threads for reading existing frames.

    Attributes
    ----------
    recipe : Recipe
        The recipe, with the mask that is stored beside the frames.
    data : h5py.Dataset
    past : Past
        The frames that the stack had already.
    space : Space
        Reserves disk space for its file.
    """

    def __init__(
        self,
        group: h5py.Group,
        recipe: Recipe,
        *,
        filenames: bool = False,
        most: int | None = None,
        threads: int | None = None,
    ):
        self.group = group
        if "data" in group:
            self.data = group["data"]
            self.past = past_of(self.data, rows_of(group), threads)
        else:
            layout = recipe.layout
            options = ChunkOptions(
                recipe.dtype, layout.payload_shape, recipe.bound, recipe.settings
            )
            self.data = container.create_data(group, layout, options, most)
            container.create_tables(group, filenames)
            self.past = Past()
        self.recipe = replace(recipe, mask=container.keep_mask(group, recipe.mask))
        self.space = Space(group.file)
        self._length = self.data.shape[0]
        # The objects are kept: if one goes out of scope and HDF5 cannot write it, no error is
        # raised.
        self._table = group["frames"]

    def put(self, start: int, tiles: list[Encoded], rows: np.ndarray) -> None:
        """Write the chunks of a step that begins with frame `start`, and its rows of the table.

        Raises
        ------
        InputError
            When another writer has appended to the stack.
        OSError
            When the disk is full. Nothing has changed after either error.
        """
        if self.data.shape[0] != self._length:
            raise InputError(
                f"{self.data.name} has {self.data.shape[0]} frames now, where {self._length} were "
                "written: another writer appends to it, too; let only one write"
            )
        self.space.reserve(sum(len(tile.payload) for tile in tiles))
        stop, begun = start + len(rows), start < self._length
        self._length = max(self._length, stop)
        if not begun:
            self.data.resize(stop, axis=0)
        layout = self.recipe.layout
        try:
            for place, tile in zip(layout.tiles, tiles, strict=True):
                store_chunk(self.data, layout.offset(start, place), tile.payload)
        except BaseException:
            if not begun:  # do not count frames that were not written
                with contextlib.suppress(RuntimeError, OSError):
                    self.data.resize(start, axis=0)
            raise
        if self.data.shape[0] < stop:
            self.data.resize(stop, axis=0)
        if len(self._table) < stop:
            self._table.resize(stop, axis=0)
        self._table[start:stop] = rows

    def describe(self, totals: Totals, *, complete: bool) -> None:
        """Bring the group's attributes up to date."""
        note = partial(container.note, self.group)
        note("bound", str(self.recipe.bound))
        note("bound_mode", self.recipe.bound.mode)
        note("level", self.recipe.settings.level)
        note("max_error", totals.max_error)
        note("raw_bytes", totals.raw_bytes)
        note("payload_bytes", totals.payload_bytes)
        note("ratio", totals.raw_bytes / max(totals.payload_bytes, 1))
        note("fallback_chunks", totals.fallback_chunks)
        note("chunks", totals.chunks)
        note("network_chunks", totals.network_chunks)
        note("complete", complete)

    def flush(self) -> None:
        """Flush everything that was written to the disk."""
        self.group.file.flush()
