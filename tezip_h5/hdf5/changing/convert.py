"""`convert`: make a new file in which image stacks are compressed and all else is copied.

The new file is made beside the target, under a temporary name. The stacks come first, chunk by
chunk, so that an interrupted conversion can be continued. The rest of the tree comes last.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import h5py

from tezip_h5.bounds import ErrorBound
from tezip_h5.errors import InputError, TezipError
from tezip_h5.frames import open_stack
from tezip_h5.hdf5.changing import repair
from tezip_h5.hdf5.contents import container, nexus
from tezip_h5.hdf5.contents.copying import Tree, check_target, copy_attributes
from tezip_h5.hdf5.contents.keyframes import link_keyframes
from tezip_h5.hdf5.files import finished, opening
from tezip_h5.hdf5.files.space import Space
from tezip_h5.hdf5.reading import verifying
from tezip_h5.hdf5.writing.plan import Job, Plan
from tezip_h5.levels import DTYPES
from tezip_h5.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Unpack

    from tezip_h5.signatures import PathLike, SettingsKeywords

__all__ = ["Converted", "ConvertedStack", "convert"]

_log = logging.getLogger("tezip_h5")
_STAGING = "/tezip.converting"
_LEAST_BYTES = 1 << 15  # smaller datasets are compressed only if they are named
_LEAST_SIDE, _LEAST_PANEL_SIDE = 8, 32


@dataclass(frozen=True)
class ConvertedStack:
    """One converted stack.

    Attributes
    ----------
    path, dtype : str
    shape : tuple of int
    bytes_before, bytes_after : int
        Size of its samples in the old file, and of its chunks in the new one.
    max_error : float
        Largest |original - reconstruction|, in the unit of the samples.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    bytes_before: int
    bytes_after: int
    max_error: float


@dataclass(frozen=True)
class Converted:
    """The result of converting a file. Printable.

    Attributes
    ----------
    path : str
        The file that holds the stacks now.
    bytes_before, bytes_after : int
        Size of the whole file.
    seconds : float
        Wall time.
    stacks : list of ConvertedStack
    lost : list of str
        References that could not be copied, and are empty in the new file.
    """

    path: str
    bytes_before: int
    bytes_after: int
    seconds: float
    stacks: list[ConvertedStack]
    lost: list[str] = field(default_factory=list)

    def __str__(self):
        gain = self.bytes_before / max(self.bytes_after, 1)
        lines = [
            f"{self.path}: {self.bytes_before} -> {self.bytes_after} bytes, {gain:.2f} times "
            f"smaller, {self.seconds:.2f} s"
        ]
        for s in self.stacks:
            lines.append(
                f"  {s.path}  {s.dtype} {s.shape}: {s.bytes_before} -> {s.bytes_after} bytes, "
                f"largest error {s.max_error:g}"
            )
        lines += [f"  reference left empty: {text}" for text in self.lost]
        return "\n".join(lines)


def convert(
    source: PathLike,
    target: PathLike | None = None,
    datasets: str | Sequence[str] | None = None,
    *,
    in_place: bool = False,
    absolute: float | None = None,
    relative: float | None = None,
    pointwise_relative: float | None = None,
    noise: float | None = None,
    chunk_frames: int | None = None,
    tile: tuple[int, int] | None = None,
    threads: int | None = None,
    preview: bool = True,
    embed_model: bool = False,
    progress: bool | None = None,
    device: str = "auto",
    **settings: Unpack[SettingsKeywords],
) -> Converted:
    """Compress the image stacks of an HDF5 file, and copy everything else.

    The stacks keep their paths. Groups, attributes, links of all kinds, references, dimension
    scales and other datasets, in their own filters, are copied. Every stack is read back and
    compared before the new file gets its name. After an interruption, the same call continues
    where it stopped.

    Parameters
    ----------
    source : str or path
    target : str or path, optional
        The new file. It appears under its name when it is complete.
    datasets : str or list of str, optional
        Paths of the stacks. Default: every numeric dataset (T, H, W) or (T, H, W, C <= 4) with
        frames of at least 8 x 8 pixels, and (T, modules, H, W) with at least 32 x 32, of 32 KiB
        or more.
    in_place : bool
        Replace `source` by the new file. The disk must have room for both until then.
    absolute, relative, pointwise_relative, noise
        The error bound, see `ErrorBound`; none is lossless.
    chunk_frames, tile, threads, preview, embed_model, progress, device, **settings
        See `write`.

    Returns
    -------
    Converted

    Raises
    ------
    InputError
        When a path or an option cannot be used, or the file holds no stack.
    BoundError, FormatError
        When what was written does not read back within the bound; nothing is kept then.

    Examples
    --------
    >>> import h5py, numpy as np, tempfile, os
    >>> folder = tempfile.mkdtemp()
    >>> old, new = os.path.join(folder, "old.h5"), os.path.join(folder, "new.h5")
    >>> with h5py.File(old, "w") as f:
    ...     f["entry/images"] = np.zeros((4, 64, 64), "u2")
    >>> convert(old, new).stacks[0].path
    '/entry/images'
    """
    started = time.perf_counter()
    source = opening.as_path(source)
    bound = ErrorBound(absolute, relative, pointwise_relative, noise)
    if (target is None) != in_place:
        raise InputError("give either the path of a new file, or in_place=True")
    target = opening.target_of(source if in_place else target)
    if not in_place:
        check_target(source, target)
    part = finished.beside(target, ".part")
    with opening.open_existing(source) as old:
        if in_place and old.swmr_mode:  # its writer would continue in the replaced file
            raise InputError(
                f"{source} is being written by another process, or its writer died; convert it in "
                "place when that has ended, or after `tezip-h5 repair`"
            )
        if in_place and opening.open_to_write(source):
            raise InputError(
                f"{source} is open in this process, to be written: what is written from now on "
                "would be lost with the old file; close it first"
            )
        before = source.stat()
        chosen = _chosen(old, datasets)
        options = dict(settings, chunk_frames=chunk_frames, tile=tile, embed_model=embed_model)
        jobs = {}
        for path, data in chosen.items():
            plan_of = {"bound": bound, "settings": settings, "chunk_frames": chunk_frames}
            plan_of |= {"tile": tile, "threads": threads, "embed_model": embed_model}
            plan_of["device"] = device
            jobs[path] = _job(data, plan_of, preview, progress)
        what = [before.st_size, before.st_mtime_ns, list(chosen), str(bound), options, __version__]
        lost = []
        what, mode = json.dumps(what, default=str), before.st_mode if in_place else None
        again = part.exists()
        while True:
            new = _open_part(part, what, mode)
            try:
                with opening.closing(new):
                    stacks = [_encode(chosen[path], job, new) for path, job in jobs.items()]
                    lost = _copy_rest(old, new, chosen)
                break
            except TezipError:
                part.unlink(missing_ok=True)
                raise
            except (RuntimeError, KeyError, ValueError):  # HDF5's: its process died in a bad moment
                if not again:
                    raise
                again = False
                part.unlink()
    if in_place:
        now = source.stat()
        changed = (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns)
        if changed or opening.open_to_write(source):
            part.unlink()
            raise InputError(f"{source} was changed meanwhile; it is left as it is")
        if now.st_nlink > 1:
            _log.warning("%s has other names (hard links), which keep the old file", source)
    after = part.stat().st_size
    if in_place:
        finished.replace(part, target)
    elif not finished.put(part, target):
        raise InputError(f"{target} was made meanwhile; it is left as it is, {part} is the new one")
    return Converted(
        str(target), before.st_size, after, time.perf_counter() - started, stacks, lost
    )


# --- which datasets ---


def _chosen(file: h5py.File, datasets) -> dict[str, h5py.Dataset]:
    """The datasets to compress, by path."""
    if datasets is None:
        found: dict[str, h5py.Dataset] = {}

        def visit(name, item):
            if _is_stack(item):
                found[f"/{name}"] = item

        container.visit_all(file, visit)
        if not found:
            raise InputError(
                f"{file.filename} holds no image stack that is not compressed with tezip yet; "
                "name datasets to have others compressed"
            )
        return found
    named = {}
    for path in [datasets] if isinstance(datasets, str) else datasets:
        data = file.get(str(path))
        if not isinstance(data, h5py.Dataset):
            raise InputError(f"{file.filename} holds no dataset {path}")
        if data.file.filename != file.filename:
            raise InputError(f"{path} lies in another file, {data.file.filename}; convert that")
        if container.is_tezip(data):
            raise InputError(f"{path} is compressed with tezip already; see `recompress`")
        named[f"/{str(path).strip('/')}"] = data
    if len({Tree.address(data) for data in named.values()}) < len(named):
        raise InputError("two of the paths lead to the same dataset; name it once")
    return named


def _is_stack(item) -> bool:
    if not isinstance(item, h5py.Dataset) or item.ndim < 3 or container.is_tezip(item):
        return False
    if item.dtype.newbyteorder("=").name not in DTYPES or item.is_virtual or item.external:
        return False
    if "tezip_h5" in item.parent.attrs:  # a table of a stack
        return False
    if item.shape[0] < 2 or item.size * item.dtype.itemsize < _LEAST_BYTES:
        return False
    panel_axes = _panel_axes(item)
    least = _LEAST_PANEL_SIDE if panel_axes else _LEAST_SIDE
    return min(item.shape[1 + panel_axes :][:2]) >= least


def _panel_axes(data: h5py.Dataset) -> int:
    """Number of panel axes, between time and rows; 0 if the last axis is one of channels."""
    if data.ndim == 4 and data.shape[3] <= 4:
        return 0
    return max(data.ndim - 3, 0)


def _job(data, options: dict, preview, progress) -> Job:
    panel_axes = _panel_axes(data)
    stack = open_stack(data, panel_axes=panel_axes, lossy=not options["bound"].lossless)
    plan = Plan(
        frame_shape=stack.frame_shape,
        dtype=stack.dtype,
        count=stack.count,
        panel_axes=panel_axes,
        **options,
    )
    return Job(stack, plan, preview, progress, durable=True, most=data.maxshape[0])


# --- the part that survives an interruption ---


def _open_part(part: Path, what: str, mode: int | None) -> h5py.File:
    """Open the unfinished file of the same conversion, or make a new one.

    The permissions of the file are `mode`, those of the file that it will replace.
    """
    if part.exists():
        try:
            file = h5py.File(part, "r+")
        except BlockingIOError:
            raise InputError(f"{part} is in use: the same conversion is running already") from None
        except OSError:
            file = None  # no HDF5 file: its process died before there was anything in it
        if file is not None:
            with contextlib.suppress(RuntimeError, KeyError, ValueError, OSError):  # torn
                if _STAGING in file and file[_STAGING].attrs.get("what") == what:
                    for name in list(file):  # a copied tree, perhaps half of it
                        if f"/{name}" not in (_STAGING, "/tezip"):
                            del file[name]
                    return file
            with contextlib.suppress(RuntimeError, OSError):
                file.close()
        part.unlink()
    if mode is not None:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode & 0o700))
    strategy = {"fs_strategy": "fsm", "fs_persist": False, "fs_threshold": 2**62}
    file = h5py.File(part, "x" if mode is None else "w", libver="earliest", **strategy)
    try:
        Space(file).reserve()
        file.create_group(_STAGING).attrs["what"] = what
        file.flush()
    except BaseException:
        opening.abandon(file, part)
        raise
    return file


def _encode(data: h5py.Dataset, job: Job, new: h5py.File) -> ConvertedStack:
    """Encode one stack into the staging group, or the rest of it."""
    group = new.require_group(f"{_STAGING}{data.name}.stack")
    if not group.attrs.get("compared", False):
        if "data" in group and "frames" in group:
            repair.cut_to_whole_chunks(group)
        else:
            group.clear()
        encoder = job.run(group)
        if encoder.past.totals.frames and "preview" in group:
            del group["preview"]
            repair.add_preview(group, encoder.data, encoder.keyframes)
        verifying.compare(encoder.data, job.source, job.plan.bound)
        group.attrs["compared"] = True
        new.flush()
    return ConvertedStack(
        data.name,
        data.shape,
        data.dtype.name,
        data.id.get_storage_size(),
        group["data"].id.get_storage_size(),
        float(group.attrs["max_error"]),
    )


# --- the rest ---


def _copy_rest(old: h5py.File, new: h5py.File, chosen: dict[str, h5py.Dataset]) -> list[str]:
    """Copy everything else, and put the stacks where they stood; returns what was lost."""
    later = {Tree.address(data): path for path, data in chosen.items()}
    tree = Tree(old, new, later, {container.INCOMING, _STAGING})
    for path, data in chosen.items():
        staged = new[f"{_STAGING}{data.name}.stack"]
        new.require_group(path.rpartition("/")[0] or "/")
        new[path] = staged["data"]
        nexus.unmark(staged, new[path])
        copy_attributes(data, new[path], besides=["tezip"])
        tables = f"{container.STACKS}{path}"
        new.require_group(tables.rpartition("/")[0])
        new[tables] = staged  # a second link: the staging group stays until all is there
        link_keyframes(new[tables], new[path], keyframes_of(new[tables]))
    tree.finish()
    for path in chosen:
        del new[f"{container.STACKS}{path}"]["data"]
        del new[f"{container.STACKS}{path}"].attrs["compared"]
    del new[_STAGING]
    return tree.lost


def keyframes_of(tables: h5py.Group):
    """Numbers of the keyframes in a stack's table."""
    return (tables["frames"]["kind"] == 0).nonzero()[0]
