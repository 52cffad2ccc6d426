"""Error-bounded compression of image stacks inside HDF5.

    import tezip_h5, h5py
    tezip_h5.write(stack, "run.h5", name="scan", absolute=2)
    with h5py.File("run.h5") as f:
        f["scan/data"][120:130]

Importing registers the HDF5 filter with h5py; kernels are compiled on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tezip_h5.bounds import ErrorBound
from tezip_h5.codec import decode_chunk, encode_chunk
from tezip_h5.devices import DeviceWarning
from tezip_h5.errors import (
    BoundError,
    FormatError,
    InputError,
    ModelError,
    OverrunError,
    TezipError,
)
from tezip_h5.hdf5.changing.convert import convert
from tezip_h5.hdf5.changing.recompress import recompress
from tezip_h5.hdf5.changing.repair import repair
from tezip_h5.hdf5.pipeline.cache import configure
from tezip_h5.hdf5.pipeline.filter import last_error, register
from tezip_h5.hdf5.pipeline.options import FILTER_ID, TEZip
from tezip_h5.hdf5.pipeline.plugin import PLUGIN_PATH
from tezip_h5.hdf5.reading.extract import extract
from tezip_h5.hdf5.reading.lazy import to_dask
from tezip_h5.hdf5.reading.reader import read
from tezip_h5.hdf5.reading.report import inspect
from tezip_h5.hdf5.reading.verifying import verify
from tezip_h5.hdf5.writing.preparing import prepare
from tezip_h5.hdf5.writing.whole import write
from tezip_h5.hdf5.writing.writer import Writer
from tezip_h5.model.store import load as load_model
from tezip_h5.prediction.integer import IntegerModel as Model
from tezip_h5.settings import Settings
from tezip_h5.version import __version__
from tezip_h5.zarr.references import references

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tezip_h5.signatures import PathLike

__all__ = [
    "FILTER_ID",
    "PLUGIN_PATH",
    "BoundError",
    "DeviceWarning",
    "ErrorBound",
    "FormatError",
    "InputError",
    "Model",
    "ModelError",
    "OverrunError",
    "Settings",
    "TEZip",
    "TezipError",
    "Writer",
    "__version__",
    "configure",
    "convert",
    "decode_chunk",
    "encode_chunk",
    "extract",
    "inspect",
    "last_error",
    "load_model",
    "prepare",
    "read",
    "recompress",
    "references",
    "register",
    "repair",
    "report",
    "to_dask",
    "train",
    "verify",
    "write",
]


def train(out: PathLike, data: PathLike | Sequence[PathLike], **options: Any) -> Model:
    """Train a network on stacks; see `tezip_h5.model.learning.train`.

    Needs ``pip install "tezip_h5[train]"``; Keras is imported only here.

    Parameters
    ----------
    out : path
        The model's folder.
    data : paths, or one path
        What to learn from.
    **options
        And what is raised: as there.

    Returns
    -------
    Model
    """
    from tezip_h5.model import learning

    return learning.train(out, data, **options)


def report(path: PathLike, out: PathLike, **options: Any) -> Path:
    """Write a page about the stacks of a file; see `tezip_h5.page.report`.

    Parameters
    ----------
    path : str or path
        The HDF5 file.
    out : str or path
        The page.
    **options
        And what is raised: as there.

    Returns
    -------
    Path of the page
    """
    from tezip_h5 import page

    return page.report(path, out, **options)


register()
