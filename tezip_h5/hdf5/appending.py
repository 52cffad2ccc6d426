"""Go on with a stack that is in the file: its options, as it was begun with."""

from __future__ import annotations

import h5py
import numpy as np

from tezip_h5.bounds import ErrorBound
from tezip_h5.errors import InputError
from tezip_h5.hdf5 import container
from tezip_h5.hdf5.networks import model_of_stack
from tezip_h5.hdf5.options import check_dataset, options_of, panel_axes_of
from tezip_h5.hdf5.plan import Plan
from tezip_h5.hdf5.tables import reading
from tezip_h5.settings import Settings

__all__ = ["plan_of"]


def plan_of(
    group: h5py.Group, bound: ErrorBound, settings: dict, threads, device=None, **given
) -> Plan:
    """The plan of a stack that is there. What the caller gives must agree with it.

    Parameters
    ----------
    group : h5py.Group
        With ``data`` and ``frames``, as `write` and `Writer` make it.
    bound, settings
        As given; what is left out comes from the stack. The level may differ.
    **given
        ``frame_shape``, ``dtype``, ``chunk_frames``, ``tile``; None is left out.

    Raises
    ------
    InputError
        When they do not agree, or `group` is no such stack.
    """
    data = group.get("data") if isinstance(group, h5py.Group) else None
    if not container.is_tezip(data) or "frames" not in group:
        name = "a link that leads nowhere" if group is None else group.name
        raise InputError(
            f"{name} is no stack that write or Writer made; only those can be appended to"
        )
    if data.maxshape[0] is not None:
        raise InputError(f"{data.name} cannot grow: it was made with {data.maxshape[0]} frames")
    for table in ("frames", "filenames"):
        if table in group and not _grows(group, table):
            raise InputError(
                f"the table {table!r} of {group.name} cannot grow; another program made it"
            )
    check_dataset(data)
    options = options_of(data)
    rows, columns = options.shape[1:3]
    stored = {
        "frame_shape": data.shape[1:],
        "dtype": data.dtype.newbyteorder("<"),
        "chunk_frames": data.chunks[0],
        "tile": (rows, columns),
    }
    for name, value in given.items():
        if value is not None and _plain(name, value) != stored[name]:
            raise InputError(
                f"{name}={value!r}, but {data.name} has {stored[name]!r}; leave it out, or give "
                "another name for a new stack"
            )
    if bound not in (ErrorBound(), options.bound):
        raise InputError(
            f"a bound of {bound}, but {data.name} was begun with {options.bound}; leave it out"
        )
    names = Settings.__dataclass_fields__
    kept = {name: getattr(options.settings, name) for name in names}
    kept["model"] = model_of_stack(group, options.shape, options.settings)
    return Plan(
        stored["frame_shape"],
        stored["dtype"],
        options.bound,
        kept | settings,
        stored["chunk_frames"],
        stored["tile"],
        threads,
        panel_axes=panel_axes_of(data),
        device=device,
    )


def _grows(group: h5py.Group, name: str) -> bool:
    with reading(group, f"the table {name!r}"):
        table = group[name]
    return isinstance(table, h5py.Dataset) and table.maxshape == (None,)


def _plain(name: str, value):
    """What a caller gave, in the form that is compared."""
    try:
        if name == "dtype":
            return np.dtype(value).newbyteorder("<")
        return tuple(value) if name in ("frame_shape", "tile") else value
    except TypeError:
        raise InputError(f"{name}={value!r} has no meaning; leave it out") from None
