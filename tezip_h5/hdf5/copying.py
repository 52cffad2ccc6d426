"""Everything of a file but its stacks: objects, links and attributes copied into another."""

from __future__ import annotations

from collections.abc import Collection

import h5py
import numpy as np

__all__ = ["SCALE_ATTRIBUTES", "Tree", "copy_attributes"]

SCALE_ATTRIBUTES = {"DIMENSION_LIST", "REFERENCE_LIST"}
"""Of dimension scales: they hold references, and HDF5 writes them when a scale is attached."""


def copy_attributes(source, target, *, besides: Collection[str] = ()) -> None:
    """Copy the attributes of one object to another, in another file."""
    for name in source.attrs:
        if name in SCALE_ATTRIBUTES or name in besides:
            continue
        value = source.attrs[name]
        if isinstance(value, h5py.Empty):
            target.attrs[name] = value
            continue
        attribute = source.attrs.get_id(name)
        if h5py.check_ref_dtype(attribute.dtype) is None:
            target.attrs.create(name, value, attribute.shape, attribute.dtype)


class Tree:
    """Copy a file's tree; objects keep their paths, and several links to one stay links to one.

    Object references are made anew in `finish`, and dimension scales attached. (References to
    regions, and those inside compound or variable-length values, are left empty.)

    Parameters
    ----------
    source, target : h5py.File
    later : dict
        Objects that the caller makes before `finish`: their addresses, see `address`, and paths.
    without : paths whose links are left out
    """

    def __init__(self, source, target, later: dict, without: Collection[str]):
        self._source, self._target = source, target
        self._without = set(without)
        self._later = dict(later)
        self._links: list[tuple[str, str]] = []  # made in `finish`
        self.places = {self.address(source["/"]): "/", **self._later}
        copy_attributes(source["/"], target["/"])
        self._group(source["/"], "")

    @staticmethod
    def address(item) -> int:
        """What tells an object of a file from the others."""
        return h5py.h5o.get_info(item.id).addr

    def _group(self, source: h5py.Group, path: str) -> None:
        for name in source:
            inside = f"{path}/{name}"
            if inside in self._without:
                continue
            link = source.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                self._target[inside] = link
                continue
            item = source[name]
            address = self.address(item)
            if address in self.places:
                if self.places[address] != inside:
                    self._links.append((inside, self.places[address]))
                continue
            self.places[address] = inside
            if isinstance(item, h5py.Group):
                created = h5py.h5g.create(
                    self._target.id, inside.encode(), gcpl=item.id.get_create_plist()
                )
                copy_attributes(item, h5py.Group(created))
                self._group(item, inside)
            else:
                h5py.h5o.copy(source.id, name.encode(), self._target.id, inside.encode())

    def finish(self) -> None:
        """Make the links to the caller's objects, the references and the scales."""
        for path, place in self._links:
            self._target[path] = self._target[place]
        for path in self.places.values():
            self._references(self._source[path], self._target.get(path))
        datasets = [
            (self._source[path], self._target[path])
            for path in self.places.values()
            if isinstance(self._source[path], h5py.Dataset) and path in self._target
        ]
        for _, target in datasets:
            for name in SCALE_ATTRIBUTES & set(target.attrs):
                del target.attrs[name]
        for source, target in datasets:
            if "DIMENSION_LIST" in source.attrs:
                self._attach_scales(source, target)

    def _translated(self, references) -> np.ndarray:
        """References into the source, as references into the target."""
        array = np.asarray(references, dtype=object)
        new = np.empty(array.shape, object)
        for at in np.ndindex(array.shape):
            path = self._place_of(array[at])
            new[at] = self._target[path].ref if path else h5py.Reference()
        return new

    def _place_of(self, reference) -> str | None:
        try:
            path = self.places.get(self.address(self._source[reference]))
        except (ValueError, KeyError):  # it leads nowhere in the source either
            return None
        return path if path and path in self._target else None

    def _references(self, source, target) -> None:
        if target is None:
            return
        for name in source.attrs:
            attribute = source.attrs.get_id(name)
            if name in SCALE_ATTRIBUTES or isinstance(source.attrs[name], h5py.Empty):
                continue
            if h5py.check_ref_dtype(attribute.dtype) is h5py.Reference:
                values = self._translated(source.attrs[name])
                target.attrs.create(name, values, attribute.shape, h5py.ref_dtype)
        is_references = isinstance(source, h5py.Dataset) and source.shape is not None
        if is_references and h5py.check_ref_dtype(source.dtype) is h5py.Reference and source.size:
            target[...] = self._translated(source[()])

    def _attach_scales(self, source: h5py.Dataset, target: h5py.Dataset) -> None:
        for i, dimension in enumerate(source.dims):
            for scale in dimension.values():
                place = self.places.get(self.address(scale))
                if place in self._target:
                    target.dims[i].attach_scale(self._target[place])
