"""`verify`: check that a file is intact, and compare it with an original."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import h5py
import numpy as np

from tezip_h5.bounds import ErrorBound
from tezip_h5.errors import BoundError, FormatError, InputError
from tezip_h5.frames import Stack, open_stack
from tezip_h5.hdf5.contents import container
from tezip_h5.hdf5.contents.direct import stored_chunk
from tezip_h5.hdf5.files import opening
from tezip_h5.hdf5.pipeline.options import check_dataset, options_of, panel_axes_of
from tezip_h5.hdf5.reading import reader, sources
from tezip_h5.hdf5.threads import threads_or_default
from tezip_h5.progress import progress_bar

if TYPE_CHECKING:
    from tezip_h5.signatures import PathLike, StackLike

__all__ = ["Verification", "compare", "verify"]


@dataclass(frozen=True)
class Verification:
    """The result of `verify`. Printable.

    Attributes
    ----------
    path : str
    stacks, chunks, frames : int
        Numbers of those that were checked.
    max_error : float or None
        Largest |original - stored|, in the unit of the samples; None where nothing was compared.
    seconds : float
        Wall time.
    """

    path: str
    stacks: int
    chunks: int
    frames: int
    max_error: float | None
    seconds: float

    def __str__(self):
        text = (
            f"{self.path}: {self.stacks} stack(s), {self.frames} frames, {self.chunks} chunks "
            f"are intact ({self.seconds:.2f} s)"
        )
        if self.max_error is not None:
            text += f"; within the bound of the original, largest error {self.max_error:g}"
        return text


def verify(
    path: PathLike,
    original: StackLike | None = None,
    *,
    name: str | None = None,
    threads: int | None = None,
) -> Verification:
    """Decode every chunk of a file from its stored bytes, and check all that can be checked.

    Parameters
    ----------
    path : str or path
    original : stack, optional
        Compare every sample with it, within the bound the file promises (see `write` for
        what a stack can be).
    name : str, optional
        Check only this stack; needed with `original` when there are several.
    threads : int, optional
        Default: all processors.

    Returns
    -------
    Verification

    Raises
    ------
    FormatError
        When a chunk is damaged or missing, or a table disagrees with the data.
    BoundError
        When a sample differs from the original by more than the bound.
    InputError
        When the file is missing, or holds no such stack, or the original's shape differs.

    Examples
    --------
    >>> import numpy as np, tempfile, os, tezip_h5
    >>> path = os.path.join(tempfile.mkdtemp(), "run.h5")
    >>> stack = np.zeros((4, 8, 8), "u2")
    >>> _ = tezip_h5.write(stack, path, absolute=2)
    >>> verify(path, stack).max_error
    0.0
    """
    started = time.perf_counter()
    threads = threads_or_default(threads)
    with opening.open_existing(path) as file:
        stacks = container.find_stacks(file)
        if name is not None or original is not None:
            data = reader.stack_named(file, name)
            stacks = {data.name: data}
        if not all(container.is_tezip(data) for data in stacks.values()) or not stacks:
            raise InputError(f"{path} holds no dataset compressed with tezip")
        chunks = sum(_verify_chunks(data, threads) for data in stacks.values())
        frames = sum(data.shape[0] for data in stacks.values())
        largest = None
        if original is not None:
            bound = options_of(data).bound
            how = {"lossy": not bound.lossless, "panel_axes": panel_axes_of(data)}
            with sources.open_source(original) as source:
                largest = compare(data, open_stack(source, **how), bound)
    return Verification(
        str(path), len(stacks), chunks, frames, largest, time.perf_counter() - started
    )


def _verify_chunks(data: h5py.Dataset, threads: int) -> int:
    """Decode every chunk of a dataset, in parallel; returns how many there are."""
    check_dataset(data)
    tables = container.tables_of(data)
    if tables is not None:
        container.check_table(data, tables)
    grids = [range(0, n, c) for n, c in zip(data.shape, data.chunks, strict=True)]
    geometry = reader.Geometry(data)
    filters = data.id.get_create_plist().get_nfilters()
    skips_all = (1 << filters) - 1
    count = 0
    with ThreadPoolExecutor(threads) as pool:
        running = []
        for offset in progress_bar(product(*grids), total=math.prod(map(len, grids))):
            stored = stored_chunk(data, offset)
            if stored is None:
                if tables is not None:
                    raise FormatError(f"{data.name} has no chunk at {offset}: frames are missing")
                continue
            count += 1
            if filters > 1 and stored[0] & skips_all != skips_all:
                reader.read_chunk(data, offset)
                continue
            if len(running) > threads:
                running.pop(0).result()
            running.append(pool.submit(reader.decode_stored, stored, geometry, offset, keep=False))
        for future in running:
            future.result()
    return count


def compare(data: h5py.Dataset, original: Stack, bound: ErrorBound) -> float:
    """Compare a stored stack with the original; returns the largest error.

    Raises
    ------
    BoundError
        For the first sample outside the bound.
    InputError
        When the shapes or dtypes differ.
    """
    expected = (original.frame_shape, original.dtype)
    if expected != (data.shape[1:], data.dtype.newbyteorder("<")) or (
        original.count not in (None, data.shape[0])
    ):
        raise InputError(
            f"{data.name} is {data.dtype} {data.shape}; the original is {original.dtype} "
            f"({original.count}, {', '.join(map(str, original.frame_shape))})"
        )
    largest = 0.0
    tables = container.tables_of(data)
    masked = tables is not None and container.MASK in tables
    mask = tables[container.MASK][()] != 0 if masked else None
    blocks = original.blocks(data.chunks[0])
    panels = list(np.ndindex(*original.frame_shape[: original.panel_axes]))
    for start, decoded in reader.blocks(data):
        frames = next(blocks, decoded[:0])
        if len(frames) != len(decoded):
            raise InputError(
                f"{data.name} has {data.shape[0]} frames; the original "
                f"{'has more' if len(frames) > len(decoded) else f'only {start + len(frames)}'}"
            )
        frames = frames.astype(decoded.dtype, copy=False)
        for panel in panels:
            index = (slice(None), *panel)
            judged = frames[index].reshape((*frames[index].shape[:3], -1))
            hidden = None if mask is None else mask[panel]
            # Without tables the filter wrote this stack. It saw tiles, where it may not have
            # recognised sentinel values, so the loosest bound that it may have used is checked.
            limits = bound.of_frames(judged, hidden, loosest=tables is None)
            error, at = _worst(frames[index], decoded[index], limits)
            if at is not None:
                place = (at[0], *panel, *at[1:])
                found, wanted = decoded[place], frames[place]
                raise BoundError(
                    f"{data.name}: frame {start + at[0]}, sample {place[1:]} is {found}, the "
                    f"original {wanted}: outside the bound ({bound})"
                )
            largest = max(largest, error)
    if next(blocks, None) is not None:
        raise InputError(f"{data.name} has {data.shape[0]} frames; the original has more")
    return largest


def _worst(frames, decoded, limits):
    """The largest error of frames (g, H, W[, C]), and the index of the first that is too large."""
    shape = frames.shape
    frames = frames.reshape((*shape[:3], -1))
    largest = 0.0
    for t, (frame, back) in enumerate(zip(frames, decoded, strict=True)):
        error, bad = limits.check(frame, back.reshape(frame.shape), t)
        if bad.any():
            at = (t, *(int(i) for i in np.argwhere(bad)[0]))
            return error, at[: len(shape)]
        largest = max(largest, error)
    return largest, None
