"""Options of one stack, checked together, and the work of encoding it whole."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, replace

import h5py

from tezip_h5.errors import InputError
from tezip_h5.frames import Stack, check_dtype, check_frames
from tezip_h5.hdf5 import container
from tezip_h5.hdf5.container import Layout
from tezip_h5.hdf5.encoder import StackEncoder
from tezip_h5.hdf5.progress import progress
from tezip_h5.model import store
from tezip_h5.settings import Settings

__all__ = ["Job", "Plan", "checked_filename", "checked_name", "default_threads"]

_CHUNK_BYTES = {"fast": 0, "balanced": 4 << 20, "best": 16 << 20}
"""More than 16 frames make a chunk if it stays below this: reading one frame decodes its whole
chunk, and an archive is read whole more often than frame by frame."""


def default_threads() -> int:
    """Threads when the caller names no number: the processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def checked_name(name: str) -> str:
    """A stack's name as a path without slashes around it."""
    parts = [] if not isinstance(name, str) else name.strip("/").split("/")
    if not parts or any(part in ("", ".", "..") for part in parts) or parts[0] == "tezip":
        raise InputError(f"{name!r} cannot name a stack; give a name such as 'scan'")
    return "/".join(parts)


def checked_filename(name) -> str:
    """A file name that fits into the table."""
    text = os.fspath(name)
    if len(text.encode("utf-8", "surrogateescape")) > container.NAME_BYTES or "\0" in text:
        raise InputError(
            f"the file name {text[:60]!r}… has more than {container.NAME_BYTES} bytes; shorten it"
        )
    return text


class Plan:
    """Options of one stack, checked together."""

    def __init__(
        self,
        frame_shape,
        dtype,
        bound,
        settings,
        chunk_frames,
        tile,
        threads,
        count=None,
        embed_model=False,
        sample=None,
    ):
        self.frame_shape = check_frames((1, *frame_shape))[1:]
        self.dtype = check_dtype(dtype)
        self.bound = bound
        self._count, self._embed_model = count, embed_model
        if "model" in settings:
            settings = settings | {"model": store.name_of(settings["model"], sample)}
        try:
            self.settings = Settings(**settings)
        except TypeError as error:
            raise InputError(f"unknown option: {error}") from None
        if threads is not None and (threads != int(threads) or threads < 1):
            raise InputError(f"threads={threads!r} is no number of threads; give one >= 1")
        self.threads = threads or default_threads()
        if self.settings.mse_threshold is not None and tile is None:
            tile = self.frame_shape[:2]  # tiles could not agree where keyframes go
        self.layout = Layout.choose(
            self.frame_shape,
            self.dtype.itemsize,
            chunk_frames=chunk_frames,
            tile=tile,
            warmup=self.settings.warmup,
            count=count,
            most_bytes=_CHUNK_BYTES[self.settings.level],
            even=self.settings.automatic_windows,
        )
        if self.layout.tiled and self.settings.mse_threshold is not None:
            raise InputError(
                f"mse_threshold with frames of {self.frame_shape} cut into tiles of "
                f"{self.layout.chunk[1:3]}: tiles could not agree where keyframes go; give "
                f"tile={self.frame_shape[:2]}, or use window"
            )

    def encoder(self, group, **options) -> StackEncoder:
        return StackEncoder(
            group,
            self.layout,
            self.dtype,
            self.bound,
            self.settings,
            threads=self.threads,
            count=self._count,
            embed_model=self._embed_model,
            **options,
        )


@dataclass(frozen=True)
class Job:
    """A stack and how to encode it; `run` does, into a group."""

    source: Stack
    plan: Plan
    preview: bool
    progress: bool | None

    def without_network(self) -> Job:
        """The same job, no network tried."""
        plan = copy.copy(self.plan)
        plan.settings = replace(plan.settings, model=None)
        return replace(self, plan=plan)

    def run(self, group: h5py.Group) -> StackEncoder:
        """Encode the whole stack into `group`; the encoder is closed on return."""
        names = self.source.filenames
        encoder = self.plan.encoder(group, filenames=bool(names), preview=self.preview)
        bar = progress(total=self.source.count, unit="frame", show=self.progress)
        try:
            with bar:
                start = 0
                for block in self.source.blocks(self.plan.layout.chunk[0]):
                    encoder.submit(block, start)
                    start += len(block)
                    bar.update(len(block))
                    del block  # before the source makes the next one
                encoder.finish()
            if names:
                container.write_filenames(group, [checked_filename(n) for n in names])
                group["filenames"].attrs["image_format"] = self.source.image_format
            container.finish_group(group, encoder.data)
        finally:
            encoder.close()
        return encoder
