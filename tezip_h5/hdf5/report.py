"""What a file holds and whether it is sound: `inspect`, `verify`, comparison with an original."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path

import h5py
import numpy as np

from tezip_h5.bounds import ErrorBound
from tezip_h5.errors import BoundError, FormatError, InputError
from tezip_h5.frames import Stack, open_stack
from tezip_h5.hdf5 import container, listing, opening, reader
from tezip_h5.hdf5.chunks import ChunkReport, describe_chunks
from tezip_h5.hdf5.options import check_dataset, options_of, panel_axes_of
from tezip_h5.hdf5.tables import KIND, attribute_of, model_of, rows_of
from tezip_h5.hdf5.threads import threads_or_default
from tezip_h5.model import embedding
from tezip_h5.progress import progress_bar

__all__ = [
    "FileReport",
    "StackReport",
    "Verification",
    "compare",
    "frame_rows",
    "inspect",
    "verify",
]


@dataclass(frozen=True)
class StackReport:
    """What one stack is.

    `kinds` counts its frames by kind; `bytes_of` says where the bytes of its chunks went
    (keyframes, residuals, everything else). Both are empty without tables. `model` is the digest
    of the network that predicted `network_chunks` of its chunks, `embedded` whether the file
    has it. `frame_rows` and `chunk_rows` are filled where `inspect` was asked for them.
    """

    name: str
    dataset: str
    shape: tuple[int, ...]
    dtype: str
    chunk: tuple[int, ...]
    bound: str
    level: str
    raw_bytes: int
    payload_bytes: int
    max_error: float | None
    chunks: int
    fallback_chunks: int | None
    complete: bool
    written_by: str | None
    filenames: bool
    kinds: dict[str, int] = field(default_factory=dict)
    bytes_of: dict[str, int] = field(default_factory=dict)
    network_chunks: int | None = None
    model: str | None = None
    embedded: bool = False
    frame_rows: list[dict] = field(default_factory=list)
    chunk_rows: list[ChunkReport] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Bytes of the samples over bytes of the chunks."""
        return self.raw_bytes / max(self.payload_bytes, 1)

    def __str__(self):
        error = "unknown" if self.max_error is None else f"{self.max_error:g}"
        fallback = "?" if self.fallback_chunks is None else self.fallback_chunks
        rows = [
            ("stack", f"/{self.dataset}  {self.dtype} {self.shape}"),
            ("chunks", f"{self.chunks} of {self.chunk}, {fallback} served by the fallback"),
            ("bound", f"{self.bound}; largest error {error}"),
            ("bytes", f"{self.raw_bytes} -> {self.payload_bytes}, ratio {self.ratio:.3f}"),
        ]
        if self.kinds:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items() if count)
            rows.append(("frames", kinds))
        if self.bytes_of:
            total = max(sum(self.bytes_of.values()), 1)
            shares = ", ".join(f"{k} {100 * v / total:.1f}%" for k, v in self.bytes_of.items())
            rows.append(("bytes of", shares))
        if self.model:
            place = "embedded" if self.embedded else "not in this file"
            count = "?" if self.network_chunks is None else self.network_chunks
            rows.append(("network", f"of {count} chunks; model {self.model[:16]}…, {place}"))
        rows.append(("level", f"{self.level}; written by tezip_h5 {self.written_by or '?'}"))
        if self.filenames:
            rows.append(("names", "the frames' file names are kept"))
        if not self.complete:
            rows.append(("state", "not closed: the writer is at work, or died"))
        text = f"{self.name}\n" + "\n".join(f"  {key:9}{value}" for key, value in rows)
        if self.frame_rows:
            text += "\n\n" + listing.frame_table(self.frame_rows)
        if self.chunk_rows:
            text += "\n\n" + listing.chunk_table(self.chunk_rows)
        return text


@dataclass(frozen=True)
class FileReport:
    """What a file holds. Printable; `to_dict` for programs."""

    path: str
    file_bytes: int
    stacks: list[StackReport]

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)

    def __str__(self):
        count = f"{len(self.stacks)} stack{'s' * (len(self.stacks) != 1)}"
        head = f"{self.path}: {listing.counted_bytes(self.file_bytes)}, {count}"
        return "\n\n".join([head, listing.overview(self.stacks), *map(str, self.stacks)])


def inspect(path, *, frames: bool = False, chunks: bool = False) -> FileReport:
    """Report what a file holds, without decoding it.

    Parameters
    ----------
    path : str or path
    frames : bool
        Also what became of every frame (`frame_rows`).
    chunks : bool
        Also what the bytes of every chunk are (`chunk_rows`); this reads them all.

    Raises
    ------
    InputError
        When the file is missing, no HDF5, or holds no compressed stack.
    FormatError
        When a chunk that is looked at is damaged.
    """
    with opening.open_existing(path) as file:
        stacks = []
        for name, data in container.find_stacks(file).items():
            stack = _describe(name, data)
            if frames:
                stack.frame_rows.extend(frame_rows(data))
            if chunks:
                stack.chunk_rows.extend(describe_chunks(data))
            stacks.append(stack)
    if not stacks:
        raise InputError(f"{path} holds no dataset compressed with tezip")
    return FileReport(str(path), Path(path).stat().st_size, stacks)


def frame_rows(data: h5py.Dataset) -> list[dict]:
    """The table of a stack's frames as plain values; nothing where there is none."""
    tables = container.tables_of(data)
    if tables is None or "frames" not in tables:
        return []
    kinds = {number: kind for kind, number in h5py.check_enum_dtype(KIND).items()}
    names = container.read_filenames(tables)
    rows = []
    for t, row in enumerate(rows_of(tables)):
        made = {
            "frame": t,
            "kind": kinds.get(int(row["kind"]), str(row["kind"])),
            "window": int(row["window"]),
            "bytes": int(row["keyframe_bytes"]) + int(row["residual_bytes"]),
            "mse": float(row["mse"]),
            "max_error": float(row["max_error"]),
        }
        if names is not None and t < len(names):
            made["filename"] = names[t]
        rows.append(made)
    return rows


def _describe(name: str, data: h5py.Dataset) -> StackReport:
    options = options_of(data)
    tables = container.tables_of(data)
    payload_bytes = int(data.id.get_storage_size())
    kinds, bytes_of = {}, {}
    if tables is not None and "frames" in tables:
        rows = rows_of(tables)
        names = h5py.check_enum_dtype(KIND)
        kinds = {kind: int(np.count_nonzero(rows["kind"] == n)) for kind, n in names.items()}
        bytes_of = {
            "keyframes": int(rows["keyframe_bytes"].sum(dtype=np.int64)),
            "residuals": int(rows["residual_bytes"].sum(dtype=np.int64)),
        }
        bytes_of["other"] = max(payload_bytes - sum(bytes_of.values()), 0)

    def said(name, kind, default=None):
        return default if tables is None else attribute_of(tables, name, kind, default)

    model = None if tables is None else model_of(tables)
    return StackReport(
        name,
        data.name.strip("/"),
        data.shape,
        data.dtype.name,
        data.chunks,
        str(options.bound),
        options.settings.level,
        int(data.size) * data.dtype.itemsize,
        payload_bytes,
        said("max_error", float, 0.0 if options.bound.lossless else None),
        int(data.id.get_num_chunks()),
        said("fallback_chunks", int),
        said("complete", bool, True),
        said("tezip_h5", str),
        tables is not None and "filenames" in tables,
        kinds,
        bytes_of,
        said("network_chunks", int),
        None if model is None else model.hex(),
        model is not None and f"{embedding.MODELS}/{model.hex()}" in data.file,
    )


@dataclass(frozen=True)
class Verification:
    """What `verify` checked. Printable."""

    path: str
    stacks: int
    chunks: int
    frames: int
    max_error: float | None
    seconds: float

    def __str__(self):
        text = (
            f"{self.path}: {self.stacks} stack(s), {self.frames} frames, {self.chunks} chunks "
            f"are sound ({self.seconds:.2f} s)"
        )
        if self.max_error is not None:
            text += f"; within the bound of the original, largest error {self.max_error:g}"
        return text


def verify(path, original=None, *, name=None, threads=None) -> Verification:
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

    Raises
    ------
    FormatError
        When a chunk is damaged or missing, or a table disagrees with the data.
    BoundError
        When a sample differs from the original by more than the bound.
    InputError
        When the file is missing, or holds no such stack, or the original's shape differs.
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
            stack = open_stack(original, lossy=not bound.lossless, panel_axes=panel_axes_of(data))
            largest = compare(data, stack, bound)
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
            stored = reader.stored_chunk(data, offset)
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
    """Compare what is stored with the original; returns the largest error.

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
            # The filter may have seen tiles, with holes that it could not tell from the others.
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
    """The largest error of frames (g, H, W[, C]), and where the first is that breaks the bound."""
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
