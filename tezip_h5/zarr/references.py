"""`references`: the places of chunks in an HDF5 file, so that zarr reads stacks without HDF5.

The result is version 1 of kerchunk's references, which fsspec's ``reference://`` reads: zarr
fetches byte ranges of the HDF5 file, locally or from an object store, and decodes them with our
codec. kerchunk itself does not know our filter, so it is not used here.
"""

from __future__ import annotations

import base64
import gc
import json
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from tezip_h5.errors import InputError
from tezip_h5.hdf5.contents import container
from tezip_h5.hdf5.contents.direct import stored_chunk
from tezip_h5.hdf5.contents.tables import model_of
from tezip_h5.hdf5.files import opening
from tezip_h5.hdf5.pipeline.options import TEZip, options_of, panel_axes_of
from tezip_h5.hdf5.reading import reader
from tezip_h5.model import embedding, store
from tezip_h5.zarr.chunks import ChunkCodec, model_text

if TYPE_CHECKING:
    from tezip_h5.signatures import PathLike

__all__ = ["references"]

_OF_HDF5 = {"DIMENSION_LABELS", "DIMENSION_LIST", "REFERENCE_LIST", "tezip"}


def references(
    path: PathLike,
    name: str | None = None,
    *,
    url: str | None = None,
    zarr_format: int = 2,
    others: bool = False,
) -> dict:
    """References to the chunks of a file's stacks, for fsspec and zarr.

    Parameters
    ----------
    path : str or path
        The HDF5 file. Its samples are not read.
    name : str, optional
        Only this stack; default all.
    url : str, optional
        The address of the file for readers, such as ``s3://bucket/run.h5``; default: its absolute
        path.
    zarr_format : 2 or 3
        The zarr format of the arrays and groups. kerchunk's own tools know format 2.
    others : bool
        Let kerchunk describe the file's other datasets, too (zarr_format 2 only). A warning names
        those that it cannot describe.

    Returns
    -------
    dict
        Plain values, for JSON. A stack ``scan`` is the array ``scan/data``.

    Raises
    ------
    InputError
        When the file is missing, or holds no such stack, or its chunks pass through further
        filters.

    Notes
    -----
    Chunks that HDF5 stored without the filter are encoded, lossless, into the references. Models
    that do not ship are in them, too.

    Examples
    --------
    >>> import numpy as np, tempfile, os, tezip_h5
    >>> path = os.path.join(tempfile.mkdtemp(), "run.h5")
    >>> _ = tezip_h5.write(np.ones((40, 8, 8), "u2"), path)
    >>> sorted(tezip_h5.references(path)["refs"])[-2:]
    ['scan/data/.zattrs', 'scan/data/0.0.0']
    """
    if zarr_format not in (2, 3):
        raise InputError(f"zarr_format={zarr_format!r} is unknown; give 2 or 3")
    if others and zarr_format != 2:
        raise InputError("kerchunk describes other datasets in zarr_format 2 only; give that")
    path = Path(path)
    with opening.open_existing(path) as file:
        stacks = container.find_stacks(file)
        if name is not None:
            data = reader.stack_named(file, name)
            stacks = {known: item for known, item in stacks.items() if item == data}
        if not stacks:
            raise InputError(f"{path} holds no dataset compressed with tezip {name or ''}".rstrip())
        url = url or str(path.absolute())
        refs = _Refs(url, zarr_format)
        if others:
            refs.add_others(path, file)
        for data in stacks.values():
            refs.add(data)
        refs.consolidate()
    return {"version": 1, "refs": refs.refs}


class _Refs:
    """Collects references."""

    def __init__(self, url: str, zarr_format: int):
        self._url, self._format = url, zarr_format
        self.refs: dict[str, str | list] = {}

    def _note(self, place: str, name: str, value: dict) -> None:
        self.refs[f"{place}/{name}".strip("/")] = json.dumps(value)

    def _group(self, group: h5py.Group) -> None:
        place = group.name.strip("/")
        attributes = _plain_attributes(group)
        if self._format == 3:
            about = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
            self._note(place, "zarr.json", about)
        else:
            self._note(place, ".zgroup", {"zarr_format": 2})
            self._note(place, ".zattrs", attributes)

    def add(self, data: h5py.Dataset) -> None:
        """Add a stack: its groups, its array, its chunks."""
        if data.id.get_create_plist().get_nfilters() != 1:
            raise InputError(f"{data.name} has further filters beside tezip; give other stacks")
        path = ""
        for part in ("", *data.name.strip("/").split("/")[:-1]):
            path = f"{path}/{part}".replace("//", "/")
            self._group(data.file[path])
        self._array(data)
        place = data.name.strip("/")
        join = ".".join if self._format == 2 else lambda at: "/".join(("c", *at))
        for info in _chunks(data):
            at = [str(o // n) for o, n in zip(info.chunk_offset, data.chunks, strict=True)]
            self.refs[f"{place}/{join(at)}"] = self._chunk(data, info)

    def _chunk(self, data: h5py.Dataset, info) -> str | list:
        if not info.filter_mask:
            return [self._url, int(info.byte_offset), int(info.size)]
        raw = stored_chunk(data, info.chunk_offset)[1]
        samples = reader.decode_stored((1, raw), data, info.chunk_offset)
        samples = samples.astype(samples.dtype.newbyteorder("<"), copy=False)
        return "base64:" + base64.b64encode(ChunkCodec(level="fast").encode(samples)).decode()

    def _array(self, data: h5py.Dataset) -> None:
        options = options_of(data)
        bound, level = options.bound, options.settings.level
        config = TEZip(
            bound.absolute, bound.relative, bound.pointwise_relative, bound.noise, level=level
        ).get_config()
        if models := _models_of(data):
            config["models"] = models
        place, attributes, dims = data.name.strip("/"), _plain_attributes(data), _dimensions(data)
        fill = _plain(data.fillvalue)
        if self._format == 3:
            grid = {"name": "regular", "configuration": {"chunk_shape": list(data.chunks)}}
            about = {
                "zarr_format": 3,
                "node_type": "array",
                "shape": list(data.shape),
                "data_type": data.dtype.newbyteorder("=").name,
                "chunk_grid": grid,
                "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
                "fill_value": fill,
                "codecs": [{"name": "tezip", "configuration": config}],
                "attributes": attributes,
                "dimension_names": dims,
            }
            self._note(place, "zarr.json", about)
            return
        # xarray would replace all samples that equal a fill value by NaN.
        grid = zip(data.shape, data.chunks, strict=True)
        complete = data.id.get_num_chunks() == math.prod(-(-n // c) for n, c in grid)
        about = {
            "zarr_format": 2,
            "shape": list(data.shape),
            "chunks": list(data.chunks),
            "dtype": data.dtype.newbyteorder("<").str,
            "fill_value": None if complete else fill,
            "order": "C",
            "filters": [{"id": "tezip", **config}],
            "compressor": None,
        }
        self._note(place, ".zarray", about)
        self._note(place, ".zattrs", attributes | {"_ARRAY_DIMENSIONS": dims})

    def consolidate(self) -> None:
        """List the contents of every group in it, because zarr cannot list references itself."""
        if self._format != 2:
            return
        about = {
            key: json.loads(value)
            for key, value in self.refs.items()
            if key.rpartition("/")[2] in (".zgroup", ".zarray", ".zattrs")
        }
        for group in [key.removesuffix(".zgroup") for key in about if key.endswith(".zgroup")]:
            inside = {key[len(group) :]: v for key, v in about.items() if key.startswith(group)}
            note = {"zarr_consolidated_format": 1, "metadata": inside}
            self.refs[f"{group}.zmetadata"] = json.dumps(note)

    def add_others(self, path: Path, file: h5py.File) -> None:
        """Add kerchunk's references to all other datasets."""
        try:
            from kerchunk.hdf import SingleHdf5ToZarr
        except ImportError:
            raise InputError('others=True needs kerchunk: pip install "tezip_h5[zarr]"') from None
        translator = SingleHdf5ToZarr(str(path), self._url, error="ignore", inline_threshold=0)
        # kerchunk waits for zarr's threads inside a callback of HDF5. If garbage collection in one
        # of them closed an h5py object, both would deadlock.
        collecting = gc.isenabled()
        gc.collect()
        gc.disable()
        try:
            self.refs.update(translator.translate()["refs"])
        finally:
            if collecting:
                gc.enable()
            translator.close()
        left_out = []

        def visit(name, item):
            known = not isinstance(item, h5py.Dataset) or container.is_tezip(item)
            if not known and f"{name}/.zarray" not in self.refs:
                left_out.append(name)

        container.visit_all(file, visit)
        if left_out:
            warnings.warn(
                f"kerchunk cannot describe these datasets of {path}: {', '.join(left_out)}",
                stacklevel=3,
            )


def _chunks(data: h5py.Dataset):
    """The place of every chunk of a dataset in the file."""
    if hasattr(data.id, "chunk_iter"):
        found: list = []
        data.id.chunk_iter(found.append)
        return found
    return [data.id.get_chunk_info(i) for i in range(data.id.get_num_chunks())]


def _models_of(data: h5py.Dataset) -> list[str]:
    """The embedded models that a dataset's chunks may need, as text."""
    tables = container.tables_of(data)
    digests = embedding.embedded(data.file)
    if tables is not None:
        digests = [d for d in digests if d == model_of(tables)]
    models = [embedding.read(data.file, digest) for digest in digests]
    return [model_text(model) for model in models if not store.is_shipped(model)]


def _dimensions(data: h5py.Dataset) -> list[str]:
    """Names of the axes: their labels, or names by their meaning."""
    own = container.tables_of(data) == data.parent
    prefix = "" if own else f"{data.name.rpartition('/')[2]}_"  # others may have other sizes
    names = [label.label for label in data.dims]
    panel_axes = panel_axes_of(data)
    panels = ["panel"] if panel_axes == 1 else [f"panel_{i}" for i in range(panel_axes)]
    axes = ["frame", *panels, "row", "column", "channel"]
    return [name or prefix + axis for name, axis in zip(names, axes, strict=False)]


def _plain_attributes(item) -> dict:
    """The attributes that JSON can hold; references and similar types are left out."""
    plain = {}
    for name in sorted(set(item.attrs) - _OF_HDF5):
        try:
            value = _plain(item.attrs[name])
        except (TypeError, ValueError, OSError):
            continue
        plain[name] = value
    return plain


def _plain(value):
    """A number, text or list of them, for JSON; TypeError for anything else."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
        return _plain(value) if isinstance(value, bytes) else _plain_number(value)
    if isinstance(value, str | bool | int | float | list):
        return value
    raise TypeError(f"{type(value).__name__} is nothing for JSON")


def _plain_number(value):
    """A number for JSON; NaN and infinities are written as zarr does."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"{type(value).__name__} is nothing for JSON")
