"""NeXus marks: attributes by which silx view, h5web and others open a file on its images.

A viewer follows `default` from the root to a group that is NXdata, and draws its `signal`.
"""

from __future__ import annotations

import h5py

from tezip_h5.hdf5.pipeline.options import panel_axes_of

__all__ = ["lead_to", "mark_root", "mark_stack", "unmark"]

_INTERPRETATIONS = {0: "image", 3: "rgb-image", 4: "rgba-image"}


def mark_root(file: h5py.File) -> None:
    """Mark the root of a new file as NeXus's NXroot."""
    file.attrs["NX_class"] = "NXroot"


def mark_stack(group: h5py.Group, data: h5py.Dataset) -> None:
    """Make `group` an NXdata whose signal is `data`: a series of pictures."""
    group.attrs["NX_class"] = "NXdata"
    group.attrs["signal"] = "data"
    # One or two channels are no colours, so they get no interpretation.
    channels = data.shape[-1] if data.ndim - panel_axes_of(data) > 3 else 0
    if channels in _INTERPRETATIONS:
        data.attrs["interpretation"] = _INTERPRETATIONS[channels]


def unmark(group: h5py.Group, data: h5py.Dataset) -> None:
    """Remove the marks from a dataset that will be moved; its tables become an NXcollection."""
    group.attrs["NX_class"] = "NXcollection"
    group.attrs.pop("signal", None)
    data.attrs.pop("interpretation", None)


def lead_to(file: h5py.File, name: str) -> None:
    """Let the default of an NXroot lead to the stack `name`, unless it leads somewhere already.

    Groups on the way that have no NX_class become NXentry and NXcollection. Attributes that other
    programs wrote stay.
    """
    group, parts = file["/"], name.split("/")
    if str(group.attrs.get("NX_class")) != "NXroot":
        return
    for depth, part in enumerate(parts):
        if depth and "NX_class" not in group.attrs:
            group.attrs["NX_class"] = "NXentry" if depth == 1 else "NXcollection"
        if "default" not in group.attrs:
            group.attrs["default"] = part
        group = group[part]
