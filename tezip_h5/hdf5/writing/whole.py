"""`write`: writing a whole stack, which appears complete or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from tezip_h5.bounds import ErrorBound
from tezip_h5.errors import InputError
from tezip_h5.frames import open_stack
from tezip_h5.hdf5.contents import container, nexus
from tezip_h5.hdf5.contents.keyframes import link_keyframes
from tezip_h5.hdf5.files import finished, opening
from tezip_h5.hdf5.reading import sources, verifying
from tezip_h5.hdf5.writing import cluster, inplace
from tezip_h5.hdf5.writing.plan import Job, Plan, checked_name
from tezip_h5.hdf5.writing.summary import Stopwatch, Summary, summarise
from tezip_h5.model import embedding
from tezip_h5.model.batches import clip_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from typing_extensions import Unpack

    from tezip_h5.signatures import PathLike, SettingsKeywords, StackLike

__all__ = ["write"]

_SAMPLE_FRAMES = 8


def write(
    stack: StackLike,
    path: PathLike | None = None,
    name: str = "scan",
    *,
    absolute: float | None = None,
    relative: float | None = None,
    pointwise_relative: float | None = None,
    noise: float | None = None,
    axes: str | None = None,
    mask: ArrayLike | None = None,
    chunk_frames: int | None = None,
    tile: tuple[int, int] | None = None,
    threads: int | None = None,
    verify: bool = False,
    overwrite: bool = False,
    preview: bool = True,
    embed_model: bool = False,
    progress: bool | None = None,
    scheduler: Any = None,
    device: str = "auto",
    **settings: Unpack[SettingsKeywords],
) -> Summary:
    """Compress a stack into an HDF5 file.

    Parameters
    ----------
    stack : array, h5py.Dataset, array-like, iterable, or the name of one
        (T, H, W) or (T, H, W, C), C <= 4; bool, integers of 8 to 64 bits, floats of 16 to 64.
        Further axes are named by `axes`. An array of a GPU (of CuPy, PyTorch, numba: whatever has
        ``__cuda_array_interface__``) is copied to the host chunk by chunk, where bounds and
        checksums are computed. A name is the path of a folder of images, of a TIFF, .npy or .npz
        file, or of an HDF5 file: "FILE.h5:/DATASET", or "FILE.h5" that holds one stack.
    path : str or path, optional
        The file. It appears under its name only when it is complete; if it exists, the stack
        is added to it. Without it, `stack` must be an h5py.Dataset, which is compressed where
        it stands, in its own file.
    name : str
        Of the stack in the file: a group with the dataset ``data``.
    absolute, relative, pointwise_relative, noise : float, optional
        The error bound, see `ErrorBound`; none is lossless.
    axes : str, optional
        Order of the stack's axes, if not "TYX" or "TYXC". Other letters than these are panel
        axes: (T, modules, H, W) is "TMYX". Panels are encoded each for itself.
    mask : bool or integer array (H, W), optional
        Masked pixels (not 0) come back exactly, and do not affect others; see `Writer`.
    chunk_frames, tile, threads, preview, embed_model, **settings
        See `Writer` and `Settings`.
    verify : bool
        Read back what was written and compare every sample with the original. (Compressing in
        place always does. The stack must be readable twice.)
    overwrite : bool
        Replace a stack, with whatever lies in its group, or a dataset of the same name. A group
        that is no stack, or in which another stack lies, is left alone.
    progress : bool, optional
        Show a progress bar; default: on a terminal, after two seconds.
    scheduler : str or distributed.Client, optional
        A dask cluster ("tcp://HOST:PORT") whose workers encode; this process writes. Default: for
        a dask array the cluster that dask would use, if any; else none. The chunks are the
        same, byte for byte. Workers compute dask arrays, and read HDF5 datasets that are open
        read-only; other frames are sent to them. `threads` are then those of each task, default
        1, and `verify` has the workers compare.
    device : "auto" | "cpu" | "cuda"
        The device that encodes; the file does not depend on it. "auto" means the value of the
        environment variable ``TEZIP_DEVICE``, else a GPU if there is one and the stack has many
        chunks. Work that fails on the GPU is done by the CPU, with a `DeviceWarning`. On a cluster
        the workers need a GPU, and for "auto" the chunks of one task count. The code for GPUs has
        run in numba's simulator only: use `verify`, so that the CPU decodes and compares.

    Returns
    -------
    Summary

    Raises
    ------
    InputError
        When the stack, the options or the path cannot be used; nothing is changed then.
    BoundError, FormatError
        When what was written does not read back within the bound; nothing is kept then.
    TezipError
        When a cluster loses its scheduler or all its workers; nothing is kept then.

    Examples
    --------
    >>> import numpy as np, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "run.h5")
    >>> write(np.zeros((4, 32, 32), "u2"), path, absolute=2).max_error
    0.0
    """
    watch = Stopwatch()
    bound = ErrorBound(absolute, relative, pointwise_relative, noise)
    if path is None and not isinstance(stack, h5py.Dataset):
        what = repr(stack) if isinstance(stack, str | os.PathLike) else f"a {type(stack).__name__}"
        raise InputError(
            f"no path was given for what is made of {what}; give one (only an open HDF5 dataset "
            "can be compressed where it stands)"
        )
    with contextlib.ExitStack() as opened:
        named, stack = stack, opened.enter_context(sources.open_source(stack))
        if stack is not named:
            _check_apart(stack, path)
        source = open_stack(stack, axes, lossy=not bound.lossless)
        plan = Plan(
            frame_shape=source.frame_shape,
            dtype=source.dtype,
            bound=bound,
            settings=settings,
            chunk_frames=chunk_frames,
            tile=tile,
            threads=threads,
            count=source.count,
            embed_model=embed_model,
            sample=lambda: _sample(stack, source),
            panel_axes=source.panel_axes,
            mask=mask,
            device="cpu" if cluster.serves(stack, scheduler) else device,
        )
        workers = opened.enter_context(
            cluster.connect(stack, scheduler, axes, threads=threads, verify=verify, device=device)
        )
        job = Job(source, plan, preview, progress, workers)
        if path is None:
            return inplace.compress(stack, job, watch)
        path = opening.target_of(path)
        return _write_file(stack, job, path, checked_name(name), overwrite, verify, watch)


def _check_apart(stack: h5py.Dataset, path) -> None:
    """InputError where `path` names the file that is open to read `stack` of it."""
    if os.path.exists(path := opening.as_path(path)) and os.path.samefile(
        stack.file.filename, path
    ):
        raise InputError(
            f"{path} is the file that is read; give another one, or tezip-h5 convert --in-place "
            "compresses its stacks where they are"
        )


def _write_file(stack, job, path, name, overwrite, verify, watch) -> Summary:
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{path} cannot be a file: its folder is missing, or it is a folder")
    if path.exists():
        opening.check_changeable(path, [name])
        with opening.open_existing(path) as file:
            container.check_place(file, path, name, overwrite)
    beside = path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex[:8]}.tmp")  # at most 255 bytes
    try:
        encoder = _encode_file(beside, name, stack, job, verify)
        if encoder.networks.regretted and _readable_twice(stack):
            beside.unlink()
            encoder = _encode_file(beside, name, stack, job.without_network(), verify)
        reclaimable = 0
        if not finished.put(beside, path):
            reclaimable = _add(path, beside, name, overwrite)
    finally:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
    return summarise(path, name, encoder, watch, path.stat().st_size, reclaimable)


def _encode_file(path: Path, name: str, stack, job: Job, verify: bool):
    """Make a file that holds just this stack; returns the encoder."""
    with opening.closing(h5py.File(path, "x", libver="earliest")) as file:
        nexus.mark_root(file)
        group = file.create_group(name)
        nexus.lead_to(file, name)
        encoder = job.run(group)
        link_keyframes(group, encoder.data, encoder.keyframes)
        if verify and job.cluster is None:  # the workers of a cluster verify
            verifying.compare(encoder.data, _again(stack, job), job.plan.bound)
    return encoder


def _again(stack, job):
    """The stack again from its beginning, for comparing."""
    _require_readable_twice(stack, "verify=True")
    return job.source


def _sample(stack, source) -> np.ndarray:
    """The first frames, to calibrate a network on."""
    _require_readable_twice(stack, "a network of the original")
    block = next(source.blocks(_SAMPLE_FRAMES))
    block = block[(slice(None), *(0,) * source.panel_axes)]
    block = block.reshape((*block.shape[:3], -1))
    return clip_of(block, 0, len(block), block.shape[3])


def _readable_twice(stack) -> bool:
    return hasattr(stack, "shape") or isinstance(stack, str | os.PathLike)


def _require_readable_twice(stack, what: str) -> None:
    if not _readable_twice(stack) and not isinstance(stack, list | tuple):
        raise InputError(f"{what} needs a stack that can be read twice, not an iterator")


def _add(path: Path, beside: Path, name: str, overwrite: bool) -> int:
    """Call `_add_to_file`; if the file is in use, the finished stack stays beside it."""
    try:
        return _add_to_file(path, beside, name, overwrite)
    except (InputError, BlockingIOError) as error:
        kept = beside.with_name(f"{path.name[:50]}.{uuid.uuid4().hex[:8]}.h5")
        os.replace(beside, kept)
        raise InputError(
            f"{name!r} could not be added to {path}: {error}. The finished stack is in {kept}"
        ) from None


def _add_to_file(path: Path, beside: Path, name: str, overwrite: bool) -> int:
    """Copy a finished stack into an existing file; it appears under its name in one step.

    Returns the bytes of a stack of that name which it replaces.
    """
    room = beside.stat().st_size
    with h5py.File(beside) as made, opening.changing(path, room, names=[name]) as file:
        container.check_place(file, path, name, overwrite)  # the file may have changed meanwhile
        staging = file.create_group(None)  # without a link: a failure leaves the file as it was
        made.copy(made[name], staging, "scan")
        replaced = _stored_bytes(file.get(name))
        file.flush()
        with container.replacing(file, name):
            file.require_group(name.rpartition("/")[0] or "/")
            file[name] = staging["scan"]
            group = file[name]
            nexus.lead_to(file, name)
            embedding.relink(group)
            container.finish_group(group, group["data"])
            kinds = group["frames"]["kind"]
            link_keyframes(group, group["data"], np.flatnonzero(kinds == 0))
            file.flush()
        container.drop_staging(file)
    return replaced


def _stored_bytes(item) -> int:
    """The bytes that replacing a stack or a dataset leaves unused in the file."""
    if isinstance(item, h5py.Group):
        item = item.get("data")
    return item.id.get_storage_size() if isinstance(item, h5py.Dataset) else 0
