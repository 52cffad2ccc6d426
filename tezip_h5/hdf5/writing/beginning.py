"""The start of a `Writer`: open or make the file, and make the stack before the first frame."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py

from tezip_h5.hdf5.contents import container, nexus
from tezip_h5.hdf5.contents.direct import store_chunk
from tezip_h5.hdf5.contents.metadata import places, write_metadata
from tezip_h5.hdf5.files import opening
from tezip_h5.hdf5.files.space import Space
from tezip_h5.hdf5.writing import live
from tezip_h5.hdf5.writing.plan import Plan

__all__ = ["Beginning"]

_ROOM = 1 << 16  # about the number of bytes that an empty stack takes


@dataclass
class Beginning:
    """The file and the name under which a `Writer` writes a stack.

    Attributes
    ----------
    path : path of the file
    name : of the stack
    swmr : bool
        Whether SWMR mode will be used.
    new : bool
        Whether the file was made for this stack.
    file : h5py.File, open to be written, or None
    """

    path: Path
    name: str
    swmr: bool
    new: bool = False
    file: h5py.File | None = None

    @property
    def apart(self) -> bool:
        """Whether the file holds other data, too.

        Such a file is changed all at once (`opening.changing`) before the first frame and after
        the last one. In between only the stack itself changes.
        """
        return not self.new and not self.swmr

    def open(self, *, must_exist: bool) -> bool:
        """Open the file, or make it; returns whether it holds the stack already."""
        if not must_exist:
            self.file = live.make_to_add(self.path, self.swmr)
            self.new = self.file is not None
        if not self.new:
            self.file = live.open_to_add(self.path, self.swmr)
            opening.check_not_followed(self.file)
            opening.check_inside(self.file, self.name)
        return self.name in self.file

    def make(self, plan: Plan, *, going_on: bool, overwrite: bool, metadata: dict) -> h5py.Group:
        """Make the stack, or open it for appending, with all that must precede the first frame."""
        begin = self._go_on if going_on else partial(self._begin, plan, overwrite)
        if self.apart:
            file, self.file = self.file, None
            file.close()
            names = [self.name, *places(self.name, metadata)]
            with opening.changing(self.path, _ROOM, live.LIBVER, names) as file:
                begin(file, metadata)
            self.file = opening.open_existing(self.path, "r+", libver=live.LIBVER)
        else:
            begin(self.file, metadata)
        return self.file[self.name]

    def _begin(self, plan: Plan, overwrite: bool, file: h5py.File, metadata: dict) -> None:
        container.check_place(file, self.path, self.name, overwrite)
        Space(file).reserve()
        with container.replacing(file, self.name):
            encoder = plan.encoder(file.create_group(self.name))
            try:
                encoder.describe(complete=False)
            finally:
                encoder.close()
            self._go_on(file, metadata)
            _make_index(file[self.name]["data"], 1)
            table = file[self.name]["frames"]
            _make_index(table, table.chunks[0] * table.dtype.itemsize)
            file.flush()

    def _go_on(self, file: h5py.File, metadata: dict) -> None:
        group = file[self.name]
        container.finish_group(group, group["data"])
        nexus.lead_to(file, self.name)
        write_metadata(group, metadata)
        if not self.swmr:  # early: a failure now loses no frames
            file.require_group(container.INCOMING)

    @property
    def identity(self) -> os.stat_result:
        """The identity of the file, which tells whether another one has taken its name."""
        return os.fstat(self.file.id.get_vfd_handle())

    def abandon(self) -> None:
        """Close the file, and remove it if it is new."""
        opening.abandon(self.file, self.path if self.new else None)


def _make_index(dataset: h5py.Dataset, size: int) -> None:
    """Make the index of a dataset's chunks, by writing one chunk and removing it.

    HDF5 makes the index with the first chunk, and then links it from the dataset's header. A
    writer that is killed between these steps would lose chunks. So both happen here, before there
    are frames. With a filter the chunk may have any `size`; without one it must be that of a
    chunk.
    """
    dataset.resize(dataset.chunks[0], axis=0)
    store_chunk(dataset, (0,) * dataset.ndim, bytes(size), mask=1)
    dataset.resize(0, axis=0)
