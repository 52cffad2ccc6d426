"""`Writer`: writing frames as they come; each finished chunk is flushed to the disk."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

import numpy as np

from tezip_h5.bounds import ErrorBound
from tezip_h5.errors import InputError
from tezip_h5.frames import host_frames
from tezip_h5.hdf5.contents import container
from tezip_h5.hdf5.files import opening
from tezip_h5.hdf5.writing import live
from tezip_h5.hdf5.writing.appending import plan_of
from tezip_h5.hdf5.writing.beginning import Beginning
from tezip_h5.hdf5.writing.encoder import StackEncoder
from tezip_h5.hdf5.writing.ending import close_at_exit, let_go
from tezip_h5.hdf5.writing.line import line_for
from tezip_h5.hdf5.writing.pending import Pending
from tezip_h5.hdf5.writing.plan import Plan, checked_filenames, checked_name
from tezip_h5.hdf5.writing.summary import Stopwatch, Summary, summarise
from tezip_h5.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike
    from typing_extensions import Unpack

    from tezip_h5.signatures import Filenames, PathLike, SettingsKeywords

__all__ = ["Writer"]

_log = logging.getLogger("tezip_h5")


class Writer:
    """Write a stack frame by frame, as it is acquired.

    A new file is made when `path` does not exist; otherwise the stack is added to it. `append`
    copies a frame and returns; threads encode, and one writes chunks in order. Every finished
    chunk is flushed: if the process dies, the file opens with every chunk written so far, and
    after `flush()` with every frame.

    Parameters
    ----------
    path : str or path
    name : str
        Of the stack; it becomes a group with the dataset ``data``.
    frame_shape : (H, W) or (H, W, C), C <= 4
        With `panel_axes`, those come first: (modules, H, W).
    dtype : str or dtype
    absolute, relative, pointwise_relative, noise : float, optional
        The error bound, see `ErrorBound`; none is lossless.
    chunk_frames : int, optional
        Frames per chunk; default 16, up to 64 while a chunk stays within 2 MiB (level fast), 4 MiB
        (balanced) or 16 MiB (best), fewer for frames above 8 MiB.
    tile : (rows, columns), optional
        Part of a frame per chunk; default: whole frames of up to 1 MiB, else near-square tiles.
        With `mse_threshold` frames are never cut.
    threads : int, optional
        Default: all processors.
    verify : bool
        Decode every chunk again before it is written, and compare every sample.
    overwrite : bool
        Replace a stack or a dataset that is there already, now; see `write`.
    append : bool
        Continue an existing stack, with its options. `frame_shape`, `dtype` and the other options
        may be left out, or must agree (`level` and `model` may differ).
    swmr : bool
        Let other processes read while this one writes: ``h5py.File(path, swmr=True)``. The file
        needs HDF5 1.10 or later, and after a crash `tezip-h5 repair`.
    queue_frames : int, optional
        Frames that may wait to be written, at least those of two chunks; default 256 MiB.
    when_full : "block" | "raise"
        What `append` does when that many wait: wait itself, or raise `OverrunError`. No frame is
        ever dropped silently.
    panel_axes : int
        Axes of a frame before rows and columns, such as the modules of a detector; each panel is
        encoded for itself.
    mask : bool or integer array, shape (H, W), or with the panel axes, optional
        Pixels that are not 0 are masked, as in NeXus's ``pixel_mask``: whatever is in them comes
        back exactly, and does not affect other pixels.
    metadata : dict, optional
        What to write beside the frames: ``{"/entry/sample/name": "x", "data@units": "counts"}``.
        Paths without a leading slash begin at the stack; ``@`` is before an attribute's name.
    preview : bool
        Keep thumbnails that any viewer shows without the filter.
    device : "auto" | "cpu" | "cuda"
        See `write`.
    embed_model : bool
        Embed the network that predicted in the file, even one that ships with the package. Other
        networks are embedded in any case.
    **settings
        See `Settings`; `model` may also be a path or a `Model`.

    Raises
    ------
    InputError
        For options or frames that do not fit.
    OverrunError
        From `append`, with ``when_full="raise"``: the frames were not taken.
    OSError, BoundError
        From any method, when a chunk could not be written; nothing more is written then.

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
        path: PathLike,
        name: str = "scan",
        frame_shape: tuple[int, ...] | None = None,
        dtype: DTypeLike | None = None,
        *,
        absolute: float | None = None,
        relative: float | None = None,
        pointwise_relative: float | None = None,
        noise: float | None = None,
        chunk_frames: int | None = None,
        tile: tuple[int, int] | None = None,
        threads: int | None = None,
        verify: bool = False,
        overwrite: bool = False,
        append: bool = False,
        swmr: bool = False,
        queue_frames: int | None = None,
        when_full: str = "block",
        panel_axes: int = 0,
        mask: ArrayLike | None = None,
        preview: bool = True,
        device: str = "auto",
        embed_model: bool = False,
        metadata: dict | None = None,
        **settings: Unpack[SettingsKeywords],
    ) -> None:
        self._watch = Stopwatch()
        bound = ErrorBound(absolute, relative, pointwise_relative, noise)
        if append and overwrite:
            raise InputError("append=True continues a stack, overwrite=True replaces it; give one")
        self._name, self._path = checked_name(name), opening.real_path(path)
        self._swmr = swmr
        self._lock = threading.RLock()  # frames keep together; a signal handler may close
        self._closing = False
        self._stop: int | None = None  # frames of the stack, once it is closed
        self._process, self._line = os.getpid(), None
        self.summary: Summary | None = None
        plan = None
        if not append or frame_shape is not None:
            if frame_shape is None or dtype is None:
                raise InputError("a new stack needs frame_shape and dtype; give both")
            plan = Plan(
                frame_shape=frame_shape,
                dtype=dtype,
                bound=bound,
                settings=settings,
                chunk_frames=chunk_frames,
                tile=tile,
                threads=threads,
                embed_model=embed_model,
                panel_axes=panel_axes,
                mask=mask,
                device=device,
            )
            # Errors in the name must show before there is a file.
            self._make_line(plan, queue_frames, when_full)
        self._file, place = None, Beginning(self._path, self._name, swmr)
        try:
            there = place.open(must_exist=plan is None)
            if there and append:
                given = {"frame_shape": frame_shape, "dtype": dtype, "mask": mask}
                given |= {"chunk_frames": chunk_frames, "tile": tile}
                given |= {"panel_axes": panel_axes or None}
                plan = plan_of(
                    place.file.get(self._name), bound, settings, threads, device, **given
                )
                self._make_line(plan, queue_frames, when_full)
            elif plan is None:
                raise InputError(f"{path} holds no stack {name!r} to append to; give frame_shape")
            self._plan = plan
            self._group = place.make(
                plan, going_on=there and append, overwrite=overwrite, metadata=metadata or {}
            )
            self._file, self._identity = place.file, place.identity
            self._begin(plan, preview, verify)
        except BaseException:
            place.abandon()
            if self._line is not None:
                self._line.close()
            raise
        close_at_exit(self)

    def _make_line(self, plan: Plan, queue_frames: int | None, when_full: str) -> None:
        frame_bytes = int(np.prod(plan.frame_shape)) * plan.dtype.itemsize
        made = line_for(plan.layout.chunk[0], frame_bytes, queue_frames, when_full)
        if self._line is not None:
            self._line.close()
        self._line = made

    def _begin(self, plan: Plan, preview: bool, verify: bool) -> None:
        """Make the encoder, which appends to the frames that the stack has."""
        self._encoder: StackEncoder = plan.encoder(
            self._group, durable=True, preview=preview, verify=verify, written=self._line.leave
        )
        try:
            past = self._encoder.past
            self._encoder.describe(complete=False)
            self._names = container.read_filenames(self._group) or []
            self._pending = self._empty_from(past.totals.frames)
            self._submitted = self._pending.start  # all whole chunks up to here went to the encoder
            if past.tail is not None:
                self._line.enter(len(past.tail))
                self._pending = self._pending.with_more(past.tail)._replace(kept=len(past.tail))
                if not self._swmr:
                    container.keep_off_the_end(self._file)
            self._live = live.begin(self._group, self._encoder) if self._swmr else None
            self._file.flush()
        except BaseException:
            self._encoder.close()
            raise

    def _empty_from(self, start: int) -> Pending:
        shape = (self._plan.layout.chunk[0], *self._plan.frame_shape)
        return Pending(np.empty(shape, self._plan.dtype), start)

    @property
    def settings(self) -> Settings:
        """How frames are encoded."""
        return self._plan.settings

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closing

    @property
    def queued(self) -> int:
        """Number of frames that are not written yet, those of the unfinished chunk included."""
        return self._line.frames

    def append(self, frames: ArrayLike, filename: Filenames | None = None) -> None:
        """Add one frame, or a block of frames.

        Parameters
        ----------
        frames : array of `dtype`, of `frame_shape`, or with an axis of k frames before it
            Copied before this returns, from a GPU to the host.
        filename : str or list of k str, optional
            Name of each frame's file.

        Raises
        ------
        InputError
            For frames of another shape or dtype; none of them is taken then.
        OverrunError, OSError, BoundError
            See `Writer`.
        """
        block = host_frames(frames)
        if block.shape == self._plan.frame_shape:
            block = block[None]
        if (
            block.shape[1:] != self._plan.frame_shape
            or block.dtype.newbyteorder("<") != self._plan.dtype
        ):
            raise InputError(
                f"a frame or block of {block.dtype} {block.shape}; this writer takes "
                f"{self._plan.dtype} {self._plan.frame_shape}"
            )
        names = checked_filenames(filename, len(block))
        self._require_open()  # before the lock, too: in a fork nobody may ever release it
        with self._lock:
            self._require_open()
            self._take(block, names)

    def _take(self, block: np.ndarray, names: list[str] | None) -> None:
        if not self._line.blocks:  # all of it or nothing
            self._line.enter(len(block))
        while len(block):
            pending = self._pending
            take = min(len(block), pending.room)
            if self._line.blocks:
                self._line.enter(take)
            if names is not None or self._names:
                self._names += [""] * (pending.stop - len(self._names))
                self._names += names[:take] if names is not None else [""] * take
                names = None if names is None else names[take:]
            self._pending = pending = pending.with_more(block[:take])
            block = block[take:]
            if not pending.room:
                following = self._empty_from(pending.stop)
                self._line.put(self._encode, pending.frames, pending.start)
                self._pending = following
            if self._stop is not None and pending.stop > self._stop:  # a handler closed before
                raise InputError("the writer was closed; the last frames were not taken")

    # The queue's thread runs the following methods, in order. A signal handler that closes the
    # writer just after a chunk was queued queues it once more, which is harmless.

    def _encode(self, frames: np.ndarray, start: int) -> None:
        encoder = self._encoder
        encoder.submit(frames, start)
        self._submitted = start + len(frames)
        while self._line.empty and encoder.under_way:  # nothing else to do: write what is ready
            encoder.drain(encoder.under_way - 1)

    def _write_all(self, pending: Pending, names: list[str]) -> None:
        self._encoder.drain()
        if pending.new is not None and pending.start >= self._submitted:
            self._encoder.submit(pending.new, pending.start, tail=True)
            self._encoder.drain()
            if not self._swmr:
                container.keep_off_the_end(self._file)
        self._encoder.space.reserve(sum(map(len, names)))
        container.write_filenames(self._group, names)
        self._encoder.describe(complete=False)
        self._file.flush()

    def _finish(self, pending: Pending, names: list[str]) -> None:
        if pending.start >= self._submitted:
            if pending.new is not None:
                self._encoder.submit(pending.new, pending.start)
            elif pending.kept:
                self._encoder.adopt_tail()
        self._encoder.drain()
        self._encoder.space.reserve(sum(map(len, names)), last=True)
        self._encoder.describe(complete=True)
        container.write_filenames(self._group, names)
        self._file.flush()

    # Until here.

    def flush(self) -> None:
        """Write all frames so far, an unfinished chunk too, to the disk; raises as `append`."""
        self._require_open()
        with self._lock:
            self._require_open()
            pending = self._pending
            self._line.put(self._write_all, pending, self._padded_names(pending.stop))
            self._line.wait()

    def _padded_names(self, count: int) -> list[str]:
        if not self._names:
            return []
        return (self._names + [""] * (count - len(self._names)))[:count]

    def close(self) -> None:
        """Write the remaining frames and the tables; then `summary` is a `Summary` of the stack.

        When this is interrupted, or a chunk could not be written, the file keeps what was written.
        In a fork of the process that made the writer it does nothing. Raises what `append` does.
        """
        if self._closing or os.getpid() != self._process:
            return
        self._closing, done = True, False  # from now on no frame is taken
        try:
            with self._lock:
                self._line.raise_untold()
                if not self._line.failed:
                    pending = self._pending
                    self._stop = pending.stop
                    self._line.put(self._finish, pending, self._padded_names(pending.stop))
            if not self._line.failed:
                self._line.wait()
                done = True
        finally:
            let_go(self)
            self._line.close(give_up=not done)
            self._encoder.close()
            file, self._file = self._file, None
            size = file.id.get_filesize() if done else 0
            if self._live is not None:
                self._live.close()
            opening.close(file, failed=not done)
        wrong = ""
        if self._swmr or done:
            wrong = live.complete(self._path, self._name, self._encoder, self._identity)
        if wrong:
            _log.warning(
                "%s %s: its keyframes and preview can be added later, by `tezip-h5 repair`",
                self._path,
                wrong,
            )
        if done:
            self.summary = self._summarise(size)

    def _summarise(self, size: int) -> Summary:
        if self._path.exists():  # else it was moved, and nothing was added to it at the end
            size = self._path.stat().st_size
        return summarise(self._path, self._name, self._encoder, self._watch, size)

    def _require_open(self) -> None:
        if os.getpid() != self._process:
            raise InputError(
                "this writer was made by another process, of which this is a fork; append there"
            )
        if self._closing:
            raise InputError("this writer is closed; make a new one")

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self):
        state = "closed" if self._file is None else f"{self._pending.stop} frames"
        return f"<tezip_h5.Writer {self._path}:/{self._name}, {state}>"
