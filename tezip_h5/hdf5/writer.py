"""`Writer`: frames as they come, each finished chunk safe on the disk."""

from __future__ import annotations

import os
import time
from pathlib import Path

import h5py
import numpy as np

from tezip_h5.bounds import ErrorBound
from tezip_h5.errors import InputError
from tezip_h5.hdf5 import container, nexus
from tezip_h5.hdf5.plan import Plan, checked_filename, checked_name
from tezip_h5.hdf5.summary import Summary, summarise

__all__ = ["Writer"]

_GUARD_BYTES = 4096  # more than HDF5 gathers into one block of small pieces


class Writer:
    """Write a stack frame by frame, as it is acquired.

    A new file is made when `path` does not exist; otherwise the stack is added to it. Every
    finished chunk is flushed: if the process dies, the file opens with every chunk written
    so far, and after `flush()` with every frame.

    Parameters
    ----------
    path : str or path
    name : str
        Of the stack; it becomes a group with the dataset ``data``.
    frame_shape : (H, W) or (H, W, C), C <= 4
    dtype : str or dtype
    absolute, relative, pointwise_relative : float, optional
        The error bound, see `ErrorBound`; none is lossless.
    chunk_frames : int, optional
        Frames per chunk; default 16, fewer for very large frames.
    tile : (rows, columns), optional
        Part of a frame per chunk; default whole frames up to 1 MiB (with `mse_threshold`: any).
    threads : int, optional
        Default: all processors.
    verify : bool
        Decode every chunk again before it is written, and compare every sample.
    overwrite : bool
        Replace a stack that is there already.
    preview : bool
        Keep thumbnails that any viewer shows without the filter.
    embed_model : bool
        Keep the network that predicted in the file, even one that ships with the package; all
        others are kept in any case.
    **settings
        See `Settings`; `model` may also be a path or a `Model`.

    Raises
    ------
    InputError
        For options or frames that do not fit.

    Examples
    --------
    >>> import numpy as np, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "run.h5")
    >>> with Writer(path, "scan", frame_shape=(64, 64), dtype="uint16", absolute=1) as w:
    ...     for i in range(20):
    ...         w.append(np.full((64, 64), i, "u2"), filename=f"img_{i:04}.tif")
    >>> w.summary.max_error <= 1
    True
    """

    def __init__(
        self,
        path,
        name: str,
        frame_shape: tuple[int, ...],
        dtype,
        *,
        absolute: float | None = None,
        relative: float | None = None,
        pointwise_relative: float | None = None,
        chunk_frames: int | None = None,
        tile: tuple[int, int] | None = None,
        threads: int | None = None,
        verify: bool = False,
        overwrite: bool = False,
        preview: bool = True,
        embed_model: bool = False,
        **settings,
    ):
        self._started = time.perf_counter()
        self._bound = ErrorBound(absolute, relative, pointwise_relative)
        plan = Plan(
            frame_shape,
            dtype,
            self._bound,
            settings,
            chunk_frames,
            tile,
            threads,
            embed_model=embed_model,
        )
        self._name = checked_name(name)
        self._path = Path(path)
        self._plan = plan
        self.summary: Summary | None = None
        self._pending = np.empty((plan.layout.chunk[0], *plan.frame_shape), plan.dtype)
        self._count = 0  # frames in _pending
        self._appended = 0
        self._names: list[str] = []
        self._file = _open_for_adding(self._path)
        try:
            if self._name in self._file:
                if not overwrite:
                    raise container.name_taken(self._path, self._name)
                del self._file[self._name]
            self._group = self._file.create_group(self._name)
            nexus.lead_to(self._file, self._name)
            self._encoder = plan.encoder(self._group, durable=True, preview=preview, verify=verify)
            container.finish_group(self._group, self._encoder.data)
            self._encoder.describe(complete=False)
            self._file.flush()
        except BaseException:
            self._file.close()
            raise

    def append(self, frames, filename=None) -> None:
        """Add one frame, or a block of frames (k, H, W[, C]).

        `filename` is the name of the frame's file, or a list of k names. The samples are
        copied before this returns.
        """
        self._require_open()
        block = np.asarray(frames)
        if block.shape == self._plan.frame_shape:
            block = block[None]
        if (
            block.shape[1:] != self._plan.frame_shape
            or block.dtype.newbyteorder("<") != self._plan.dtype
        ):
            raise InputError(
                f"a frame or block of {block.dtype} {np.shape(frames)}; this writer takes "
                f"{self._plan.dtype} {self._plan.frame_shape}"
            )
        self._note_names(filename, len(block))
        while len(block):
            take = min(len(block), len(self._pending) - self._count)
            self._pending[self._count : self._count + take] = block[:take]
            self._count += take
            self._appended += take
            block = block[take:]
            if self._count == len(self._pending):
                self._submit()
                shape, dtype, self._pending = self._pending.shape, self._pending.dtype, None
                self._pending = np.empty(shape, dtype)
                self._count = 0

    def _note_names(self, filename, count: int) -> None:
        if filename is None:
            names = [""] * count
        else:
            names = [filename] if isinstance(filename, str | os.PathLike) else list(filename)
            names = [checked_filename(n) for n in names]
            if len(names) != count:
                raise InputError(f"{len(names)} file names for {count} frames; give one for each")
            if "filenames" not in self._group:
                container.create_filenames(self._group)
        self._names.extend(names)

    def _submit(self, *, tail: bool = False) -> None:
        start = self._appended - self._count
        self._encoder.submit(self._pending[: self._count], start, tail=tail)

    def flush(self) -> None:
        """Write every frame appended so far, the unfinished last chunk too, to the disk."""
        self._require_open()
        self._encoder.drain()
        if self._count:
            self._submit(tail=True)
            self._encoder.drain()
            self._keep_off_the_end()
        self._write_names()
        self._encoder.describe(complete=False)
        self._file.flush()

    def _keep_off_the_end(self) -> None:
        """Put something behind the chunk just written: at the file's end it would be reused."""
        guard = self._file.require_group(container.INCOMING)
        if "guard" in guard:
            del guard["guard"]
        guard.create_dataset("guard", data=np.zeros(_GUARD_BYTES, np.uint8))

    def _write_names(self) -> None:
        if "filenames" in self._group:
            container.write_filenames(self._group, self._names)

    def close(self) -> None:
        """Write the rest, and the tables; afterwards `summary` says what it came to."""
        if self._file is None:
            return
        failed = True
        try:
            if self._count:
                self._submit()
                self._count = 0
            self._encoder.finish()
            self._write_names()
            if self._appended:
                container.link_keyframes(self._group, self._encoder.data, self._encoder.keyframes)
            container.drop_staging(self._file)
            self._file.flush()
            self.summary = self._summarise()
            failed = False
        finally:
            self._encoder.close()
            file, self._file = self._file, None
            container.close(file, failed=failed)

    def _summarise(self) -> Summary:
        return summarise(
            self._path, self._name, self._encoder, self._started, self._path.stat().st_size
        )

    def _require_open(self) -> None:
        if self._file is None:
            raise InputError("this writer is closed; make a new one")

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def __repr__(self):
        state = "closed" if self._file is None else f"{self._appended} frames"
        return f"<tezip_h5.Writer {self._path}:/{self._name}, {state}>"


def _open_for_adding(path: Path) -> h5py.File:
    """Open `path` to add to it, or make it."""
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{path} cannot be a file: its folder is missing, or it is a folder")
    if not path.exists():
        # Space that is freed is never taken again: HDF5 frees a chunk before it finds room for
        # its new form, and would otherwise write that over frames that were flushed.
        file = h5py.File(
            path, "x", libver="earliest", fs_strategy="fsm", fs_persist=False, fs_threshold=2**62
        )
        nexus.mark_root(file)
        return file
    return container.open_existing(path, "r+")
