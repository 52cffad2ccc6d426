"""Copying everything but the stacks into another file: objects, links and attributes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import h5py
import numpy as np

from tezip_h5.errors import InputError
from tezip_h5.hdf5.contents.tables import reading

__all__ = ["SCALE_ATTRIBUTES", "Tree", "check_target", "copy_attributes"]

SCALE_ATTRIBUTES = {"DIMENSION_LIST", "REFERENCE_LIST"}
"""Attributes of dimension scales. They hold references; HDF5 writes them when it attaches a
scale, so they are not copied."""


def check_target(source: Path, target: Path) -> None:
    """Check that a new file can be made from `source` at `target`; InputError if not."""
    if target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"{target} is the file to read; give another path for the new file")
    if target.exists():
        raise InputError(f"{target} is there already; give the path of a new file")
    if not target.parent.is_dir():
        raise InputError(f"the folder of {target} is missing; make it first")


def copy_attributes(source, target, *, besides: Collection[str] = ()) -> None:
    """Copy the attributes of one object to another; references into another file come later."""
    same_file = source.file == target.file
    for name in source.attrs:
        if name in SCALE_ATTRIBUTES or name in besides:
            continue
        with reading(source, f"attribute {name!r}"):
            attribute = source.attrs.get_id(name)
            kind = attribute.get_type()
        refers = kind.detect_class(h5py.h5t.REFERENCE)
        if refers and not same_file:
            continue
        if name in target.attrs:
            del target.attrs[name]
        if refers or kind.detect_class(h5py.h5t.VLEN) or _is_text(kind):
            with reading(source, f"attribute {name!r}"):
                value = source.attrs[name]
            if isinstance(value, h5py.Empty):
                target.attrs[name] = value
            else:
                target.attrs.create(name, value, attribute.shape, attribute.dtype)
        else:  # copied byte for byte, whatever its type
            with reading(source, f"attribute {name!r}"):
                values = _bytes_of(attribute, kind)
            _write_bytes(values, attribute.get_space(), target, name, kind)


def _is_text(kind: h5py.h5t.TypeID) -> bool:
    return isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()


def _bytes_of(attribute, kind) -> np.ndarray | None:
    """The bytes of an attribute's values in the file; None if it has no values."""
    space = attribute.get_space()
    if space.get_simple_extent_type() == h5py.h5s.NULL:
        return None
    buffer = np.empty(space.get_simple_extent_npoints(), f"V{kind.get_size()}")
    attribute.read(buffer, mtype=kind)
    return buffer


def _write_bytes(values, space, target, name: str | bytes, kind) -> None:
    kind = kind.copy() if kind.committed() else kind
    if isinstance(name, str):  # h5py gives a name that is not UTF-8 as bytes
        name = name.encode("utf-8", "surrogateescape")
    new = h5py.h5a.create(target.id, name, kind, space)
    if values is not None:
        new.write(values, mtype=kind)


def has_references(dtype: np.dtype) -> bool:
    """Whether values of this type hold references, however deep."""
    if h5py.check_ref_dtype(dtype) is not None:
        return True
    if (base := h5py.check_vlen_dtype(dtype)) is not None:
        return has_references(np.dtype(base))
    if dtype.subdtype is not None:
        return has_references(dtype.subdtype[0])
    return any(has_references(dtype[name]) for name in dtype.names or ())


def _group_plan(group: h5py.Group) -> h5py.h5p.PropGCID:
    """The property list for creating a group like this one.

    Not its own creation list: of a large group that holds addresses in the file it lies in.
    """
    own, plan = group.id.get_create_plist(), h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    plan.set_link_creation_order(own.get_link_creation_order())
    plan.set_attr_creation_order(own.get_attr_creation_order())
    return plan


def _names(group: h5py.Group) -> list[str]:
    """Names of a group's members, in the order of their creation if the file records it."""
    names = list(group)
    if group.id.get_create_plist().get_link_creation_order() & h5py.h5p.CRT_ORDER_TRACKED:
        links = group.id.links
        names.sort(key=lambda name: links.get_info(name.encode("utf-8", "surrogateescape")).corder)
    return names


class Tree:
    """Copy a file's tree. Objects keep their paths, and hard links to one object stay so.

    `finish` translates references to objects and regions, those inside compound and
    variable-length values too, and attaches dimension scales. References that cannot be
    translated are listed in `lost`.

    Parameters
    ----------
    source, target : h5py.File
    later : dict
        Paths of the objects that the caller makes before `finish`, by their `address`.
    without : paths whose links are left out
    """

    def __init__(self, source, target, later: dict, without: Collection[str]):
        self._source, self._target = source, target
        self._without = set(without)
        self._later = dict(later)
        self._links: list[tuple[str, str]] = []  # made in `finish`
        self.lost: list[str] = []
        self.places = {self.address(source["/"]): "/", **self._later}
        copy_attributes(source["/"], target["/"])
        self._group(source["/"], "")

    @staticmethod
    def address(item) -> int:
        """A value that identifies an object within its file."""
        return h5py.h5o.get_info(item.id).addr

    def _group(self, source: h5py.Group, path: str) -> None:
        for name in _names(source):
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
                place = self.places[address]
                if place != inside and place in self._target:
                    self._target[inside] = self._target[place]
                elif place != inside:
                    self._links.append((inside, place))
                continue
            self.places[address] = inside
            if isinstance(item, h5py.Group):
                if inside not in self._target:
                    h5py.h5g.create(self._target.id, inside.encode(), gcpl=_group_plan(item))
                copy_attributes(item, self._target[inside])
                self._group(item, inside)
            elif inside not in self._target:
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

    def _translated(self, values, dtype: np.dtype):
        """The same values, with references into the source replaced by those into the target."""
        kind = h5py.check_ref_dtype(dtype)
        if kind is None and h5py.check_vlen_dtype(dtype) is None:
            if dtype.subdtype is not None:
                return self._translated(values, dtype.subdtype[0])
            new = np.array(values, dtype)
            for name in dtype.names:
                if has_references(dtype[name]):
                    new[name] = self._translated(new[name], dtype[name])
            return new
        array = np.asarray(values, dtype=object)
        new = np.empty(array.shape, dtype)
        for at in np.ndindex(array.shape):
            if kind is not None:
                new[at] = self._reference(array[at], kind)
            elif len(array[at]):
                new[at] = self._translated(array[at], np.dtype(h5py.check_vlen_dtype(dtype)))
        return new if array.shape else new[()]

    def _reference(self, reference, kind):
        path = self._place_of(reference)
        if path is None:
            return kind()
        if kind is h5py.Reference:
            return self._target[path].ref
        region = h5py.h5r.get_region(reference, self._source.id)
        return h5py.h5r.create(self._target.id, path.encode(), h5py.h5r.DATASET_REGION, region)

    def _place_of(self, reference) -> str | None:
        try:
            path = self.places.get(self.address(self._source[reference]))
        except (ValueError, KeyError):  # the reference is broken in the source, too
            return None
        return path if path and path in self._target else None

    def _references(self, source, target) -> None:
        if target is None:
            return
        for name in source.attrs:
            attribute = source.attrs.get_id(name)
            if name in SCALE_ATTRIBUTES or not has_references(attribute.dtype):
                continue
            value = source.attrs[name]
            if isinstance(value, h5py.Empty):
                target.attrs[name] = value
                continue
            try:
                values = self._translated(value, attribute.dtype)
                target.attrs.create(name, values, attribute.shape, attribute.dtype)
            except (TypeError, ValueError, RuntimeError) as error:
                self.lost.append(f"{source.name}@{name}: {error}")
        if not isinstance(source, h5py.Dataset) or not source.size:
            return
        if not has_references(source.dtype):
            return
        try:
            values = self._translated(source[()], source.dtype)
            if h5py.check_vlen_dtype(source.dtype) is None or source.shape == ():
                target[()] = values
                return
            for at in np.ndindex(source.shape):
                if isinstance(values[at], np.ndarray):
                    target[at] = values[at]
        except (TypeError, ValueError, RuntimeError) as error:
            self.lost.append(f"{source.name}: {error}")

    def _attach_scales(self, source: h5py.Dataset, target: h5py.Dataset) -> None:
        for i, dimension in enumerate(source.dims):
            for scale in dimension.values():
                place = self.places.get(self.address(scale))
                if place in self._target:
                    target.dims[i].attach_scale(self._target[place])
