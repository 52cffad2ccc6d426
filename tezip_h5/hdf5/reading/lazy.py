"""`to_dask`: a stack as a dask array, whose blocks are read when they are computed.

Nothing of the samples is read before.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tezip_h5.errors import FormatError, InputError
from tezip_h5.hdf5.files import opening
from tezip_h5.hdf5.reading import reader

if TYPE_CHECKING:
    import dask.array

    from tezip_h5.signatures import PathLike

__all__ = ["to_dask"]

_BLOCK_BYTES = 16 << 20  # small chunks are read several at a time
_FRAMES = 16  # per block, of a dataset without chunks


@dataclass(frozen=True)
class _Stored:
    """A dataset in a file, which is opened only when a part of it is read."""

    path: str
    dataset: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, selection) -> np.ndarray:
        with opening.open_existing(self.path) as file:
            data = reader.stack_named(file, self.dataset)
            now, dtype = data.shape, data.dtype.newbyteorder("=")
            if now[1:] != self.shape[1:] or now[0] < self.shape[0] or dtype != self.dtype:
                raise FormatError(
                    f"{self.dataset} of {self.path} is {dtype} {now} now; it was "
                    f"{self.dtype} {self.shape} when to_dask was called: call it again"
                )
            return reader.read(data, selection, threads=1)


def to_dask(path: PathLike, name: str | None = None, *, chunks: Any = None) -> dask.array.Array:
    """Read a stack lazily, as a dask array.

    Every block opens the file for itself, so blocks may be computed by threads, by processes and
    on other machines that see the file under the same path.

    Parameters
    ----------
    path : str or path
    name : str, optional
        Name of the stack, needed if the file holds several; or the path of any other dataset.
    chunks : optional
        Blocks of the dask array, as in `dask.array.from_array`. Default: whole frames, as many as
        one or several chunks of the file have, about 16 MiB.

    Returns
    -------
    dask.array.Array, in the machine's byte order

    Raises
    ------
    InputError
        When dask is missing, or the file holds no such stack. Errors of the samples are raised
        when they are computed, see `read`.

    Examples
    --------
    >>> import numpy as np, tempfile, os, tezip_h5
    >>> path = os.path.join(tempfile.mkdtemp(), "run.h5")
    >>> _ = tezip_h5.write(np.ones((40, 8, 8), "u2"), path)
    >>> int(tezip_h5.to_dask(path)[3:6].sum())
    192
    """
    try:
        import dask.array
    except ImportError:
        raise InputError('to_dask needs dask: pip install "tezip_h5[dask]"') from None
    path = opening.as_path(path).absolute()
    with opening.open_existing(path) as file:
        data = reader.stack_named(file, name)
        if data.ndim == 0 or data.dtype.kind not in "biufc":
            raise InputError(f"{data.name} of {path} is {data.dtype} {data.shape}, no stack")
        source = _Stored(str(path), data.name, data.shape, data.dtype.newbyteorder("="))
        chunks = chunks or _blocks(data)
    status = os.stat(path)
    token = dask.base.tokenize(source, chunks, status.st_mtime_ns, status.st_size)
    return dask.array.from_array(
        source,
        chunks,
        name=f"tezip-{token}",
        asarray=False,
        inline_array=True,
        meta=np.empty((0,) * source.ndim, source.dtype),
    )


def _blocks(data) -> tuple[int, ...]:
    """Whole frames of one or several chunks in time."""
    step = data.chunks[0] if data.chunks else _FRAMES
    frame_bytes = data.dtype.itemsize * int(np.prod(data.shape[1:]))
    steps = max(1, _BLOCK_BYTES // max(step * frame_bytes, 1))
    return (min(step * steps, max(data.shape[0], 1)), *data.shape[1:])
