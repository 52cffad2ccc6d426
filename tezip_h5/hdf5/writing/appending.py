"""Appending to an existing stack: its options, which new ones must agree with."""

from __future__ import annotations

import h5py
import numpy as np

from tezip_h5.bounds import ErrorBound
from tezip_h5.errors import InputError
from tezip_h5.frames import check_mask
from tezip_h5.hdf5.contents import container
from tezip_h5.hdf5.contents.networks import model_of_stack
from tezip_h5.hdf5.contents.tables import reading
from tezip_h5.hdf5.pipeline.options import check_dataset, options_of, panel_axes_of, settings_of
from tezip_h5.hdf5.writing.plan import Plan
from tezip_h5.settings import Settings

__all__ = ["plan_of"]


def plan_of(
    group: h5py.Group,
    bound: ErrorBound,
    settings: dict,
    threads,
    device=None,
    *,
    mask=None,
    **given,
) -> Plan:
    """The plan of an existing stack. The caller's options must agree with it.

    Parameters
    ----------
    group : h5py.Group
        The group of the stack, with ``data`` and ``frames``, as `write` and `Writer` make it.
    bound, settings
        The caller's; those that are left out or None come from the stack. The level and the model
        may differ.
    mask
        The caller's; None means that it is left out.
    **given
        The caller's ``frame_shape``, ``dtype``, ``chunk_frames``, ``tile`` and ``panel_axes``; None
        means left out.

    Raises
    ------
    InputError
        When the options do not agree, or `group` is no stack of `write` or `Writer`.
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
        "panel_axes": panel_axes_of(data),
    }
    frame = data.shape[1 + stored["panel_axes"] :][:2]
    for name, value in given.items():
        if value is not None and _plain(name, value, frame) != stored[name]:
            raise InputError(
                f"{name}={value!r}, but {data.name} has {stored[name]!r}; leave it out, or give "
                "another name for a new stack"
            )
    if mask is not None:
        mask = check_mask(mask, data.shape[1 : stored["panel_axes"] + 3])
        if not np.array_equal(mask, container.keep_mask(group, None)):
            raise InputError(
                f"the mask is not the one that {data.name} was begun with; leave mask out"
            )
    same = bound == options.bound or (bound.lossless and options.bound.lossless)
    if not same and bound != ErrorBound():
        raise InputError(
            f"a bound of {bound}, but {data.name} was begun with {options.bound}; leave it out"
        )
    names = Settings.__dataclass_fields__
    kept = {name: getattr(options.settings, name) for name in names}
    kept["model"] = model_of_stack(group, options.shape, options.settings)
    return Plan(
        **stored,
        bound=options.bound,
        settings=kept | _agreeing(settings, options.settings, data.name),
        threads=threads,
        device=device,
    )


def _grows(group: h5py.Group, name: str) -> bool:
    with reading(group, f"the table {name!r}"):
        table = group[name]
    return isinstance(table, h5py.Dataset) and table.maxshape == (None,)


def _agreeing(given: dict, stored: Settings, name: str) -> dict:
    """The settings that a caller gave, without unset ones; InputError if one differs from the
    stack's."""
    wanted = settings_of(given)
    # None means "unset" for all settings but `model`, where it means "no network".
    said = {key: getattr(wanted, key) for key in given}
    said = {key: value for key, value in said.items() if value is not None or key == "model"}
    for key, value in said.items():
        if key not in ("level", "model") and value != getattr(stored, key):
            raise InputError(
                f"{key}={value!r}, but {name} was begun with {getattr(stored, key)!r}; leave it "
                "out, or give another name for a new stack"
            )
    return {key: given[key] for key in said}


def _plain(name: str, value, frame: tuple[int, int]):
    """A caller's value in the form that is compared; `frame` is (rows, columns)."""
    try:
        if name == "dtype":
            return np.dtype(value).newbyteorder("<")
        if name == "tile":  # a tile may be larger than a frame
            return tuple(min(pair) for pair in zip(value, frame, strict=True))
        return tuple(value) if name == "frame_shape" else value
    except (TypeError, ValueError):
        raise InputError(f"{name}={value!r} has no meaning; leave it out") from None
