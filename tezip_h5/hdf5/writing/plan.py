"""Planning a stack: its options, checked together, and the job of encoding all of it."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

import h5py

from tezip_h5 import devices
from tezip_h5.errors import InputError
from tezip_h5.frames import Stack, check_dtype, check_frames, check_mask, is_count
from tezip_h5.hdf5.contents import container
from tezip_h5.hdf5.contents.layout import Layout
from tezip_h5.hdf5.contents.networks import model_to_try
from tezip_h5.hdf5.contents.preview import Preview
from tezip_h5.hdf5.pipeline.options import settings_of
from tezip_h5.hdf5.threads import threads_or_default
from tezip_h5.hdf5.writing.checked import chunk_encoder
from tezip_h5.hdf5.writing.choices import NetworkChoice
from tezip_h5.hdf5.writing.encoder import StackEncoder
from tezip_h5.hdf5.writing.growing import GrowingStack
from tezip_h5.hdf5.writing.pool import Pool
from tezip_h5.hdf5.writing.steps import Recipe
from tezip_h5.hdf5.writing.tally import Tally
from tezip_h5.progress import progress_bar

__all__ = [
    "Job",
    "Plan",
    "checked_filename",
    "checked_name",
]


def checked_name(name: str) -> str:
    """A stack's name as a path without slashes around it."""
    parts = [] if not isinstance(name, str) else name.strip("/").split("/")
    if not parts or any(part in ("", ".", "..") for part in parts) or parts[0] == "tezip":
        raise InputError(f"{name!r} cannot name a stack; give a name such as 'scan'")
    if "\0" in name or not _is_text(name):  # HDF5 ends a name at a NUL
        raise InputError(
            f"{name!r} cannot name a stack: it holds a NUL or half a surrogate pair; give a name "
            "such as 'scan'"
        )
    return "/".join(parts)


def _is_text(name: str, errors: str = "strict") -> bool:
    try:
        name.encode("utf-8", errors)
    except UnicodeEncodeError:
        return False
    return True


def checked_filename(name) -> str:
    """Check that a file name fits into the table of file names, and return it."""
    text = os.fspath(name) if isinstance(name, str | os.PathLike) else None
    if not isinstance(text, str):
        raise InputError(f"{name!r} is no file name; give a str or a path")
    if "\0" in text or not _is_text(text, "surrogateescape"):
        raise InputError(
            f"the file name {text[:60]!r} holds a NUL or half a surrogate pair; rename it"
        )
    if len(text.encode("utf-8", "surrogateescape")) > container.NAME_BYTES:
        raise InputError(
            f"the file name {text[:60]!r}… has more than {container.NAME_BYTES} bytes; shorten it"
        )
    return text


def checked_filenames(given, count: int) -> list[str] | None:
    """Check the file names of `count` frames, given as a list, or as one name for one frame."""
    if given is None:
        return None
    one = isinstance(given, str | bytes | os.PathLike) or not isinstance(given, Iterable)
    names = [checked_filename(name) for name in ([given] if one else given)]
    if len(names) != count:
        raise InputError(f"{len(names)} file names for {count} frames; give one for each")
    return names


def _checked_shape(frame_shape, panel_axes: int) -> tuple[int, ...]:
    lengths = tuple(frame_shape) if isinstance(frame_shape, Iterable) else ()
    if not lengths or not all(is_count(n) for n in lengths):
        raise InputError(
            f"frame_shape={frame_shape!r} is no shape of frames; give ints >= 1, (rows, columns) "
            "or (rows, columns, channels)"
        )
    return check_frames((1, *lengths), panel_axes)[1:]


class Plan:
    """Options of one stack, checked together."""

    def __init__(
        self,
        *,
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
        panel_axes=0,
        mask=None,
        device=None,
    ):
        self.frame_shape = _checked_shape(frame_shape, panel_axes)
        self.dtype = check_dtype(dtype)
        if bound.mode == "noise" and self.dtype.kind == "f":
            raise InputError(
                f"a noise bound for {self.dtype} samples; it is for counts, which are integers: "
                "convert them, or give an absolute bound"
            )
        self.mask = None
        if mask is not None:
            self.mask = check_mask(mask, self.frame_shape[: panel_axes + 2])
        self.bound = bound
        self._count, self._embed_model = count, embed_model
        self.settings = settings_of(settings, sample)
        self.threads = threads_or_default(threads)
        if self.settings.mse_threshold is not None and tile is None:
            tile = self.frame_shape[panel_axes:][:2]  # tiles could not agree where keyframes go
        self.layout = Layout.choose(
            self.frame_shape,
            self.dtype.itemsize,
            chunk_frames=chunk_frames,
            tile=tile,
            warmup=self.settings.warmup,
            count=count,
            most_bytes=self.settings.effort.chunk_bytes,
            even=2 * self.settings.automatic_windows,
            panel_axes=panel_axes,
        )
        if self.layout.tiled and self.settings.mse_threshold is not None:
            raise InputError(
                f"mse_threshold with frames of {self.frame_shape} cut into tiles of "
                f"{self.layout.payload_shape[1:3]}: tiles could not agree where keyframes go; "
                f"give tile={self.frame_shape[panel_axes:][:2]}, or use window"
            )

        # Checked now, before a file is made or an old stack is replaced.
        self._steps = None if count is None else -(-count // self.layout.chunk[0])
        steps = 1 << 30 if self._steps is None else self._steps
        self.device = devices.choose(device, steps * self.layout.tile_count)
        model_to_try(self.settings, self.layout.channels)

    def encoder(
        self,
        group: h5py.Group,
        *,
        cluster=None,
        verify: bool = False,
        filenames: bool = False,
        preview: bool = True,
        most: int | None = None,
        durable: bool = False,
        written=None,
    ) -> StackEncoder:
        """The encoder of the stack in `group`; it appends to an existing one.

        Parameters
        ----------
        group : h5py.Group
        cluster : cluster.Cluster, optional
            Its workers encode and verify; default: threads of this process.
        verify : bool
            Decode every chunk again before it is written, and compare.
        filenames, most
            See `GrowingStack`.
        preview : bool
        durable, written
            See `StackEncoder`.
        """
        layout, settings = self.layout, self.settings
        networks = NetworkChoice(
            group.file, settings, layout.channels, self._steps, self._embed_model
        )
        recipe = Recipe(layout, self.dtype, self.bound, settings, self.mask)
        stack = GrowingStack(group, recipe, filenames=filenames, most=most, threads=self.threads)
        if cluster is not None:
            crew = cluster.crew(stack.recipe, networks, preview)
        else:
            encode = chunk_encoder(verify, self.device)
            crew = Pool(
                stack.recipe,
                networks,
                lambda offset: encode,
                threads=self.threads,
                device=self.device,
                count=self._count,
            )
        tally = Tally(stack.past, Preview(group) if preview else None)
        return StackEncoder(stack, networks, crew, tally, durable=durable, written=written)


@dataclass(frozen=True)
class Job:
    """A stack and the options to encode it with; `run` encodes it into a group.

    With `durable`, written chunks survive a kill, and a new `run` continues after them. `most` is
    the number of frames that the dataset can grow to.
    """

    source: Stack
    plan: Plan
    preview: bool
    progress: bool | None
    cluster: object | None = None  # a `cluster.Cluster`, where there is one
    durable: bool = False
    most: int | None = None

    def without_network(self) -> Job:
        """The same job without a network."""
        plan = copy.copy(self.plan)
        plan.settings = replace(plan.settings, model=None)
        return replace(self, plan=plan)

    def run(self, group: h5py.Group) -> StackEncoder:
        """Encode the whole stack into `group`; the encoder is closed on return."""
        names, size = self.source.filenames, self.plan.layout.chunk[0]
        encoder = self.plan.encoder(
            group,
            cluster=self.cluster,
            filenames=bool(names),
            preview=self.preview,
            most=self.most,
            durable=self.durable,
        )
        if self.cluster is None:
            start = encoder.past.totals.frames
            blocks = self.source.blocks(size, start)
        else:  # the stack is new
            start, blocks = 0, self.cluster.blocks(self.source, size)
        bar = progress_bar(total=self.source.count, unit="frame", show=self.progress)
        try:
            with bar:
                bar.update(start)
                for block in blocks:
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
