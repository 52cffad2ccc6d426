"""`inspect`: describe the stacks of a file, without decoding them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from tezip_h5.errors import InputError
from tezip_h5.hdf5.contents import container
from tezip_h5.hdf5.contents.tables import KIND, attribute_of, model_of, rows_of
from tezip_h5.hdf5.files import opening
from tezip_h5.hdf5.pipeline.options import options_of
from tezip_h5.hdf5.reading import listing
from tezip_h5.hdf5.reading.chunks import ChunkReport, describe_chunks
from tezip_h5.model import embedding

if TYPE_CHECKING:
    from tezip_h5.signatures import PathLike

__all__ = [
    "FileReport",
    "StackReport",
    "frame_rows",
    "inspect",
]


@dataclass(frozen=True)
class StackReport:
    """One stack, as its file describes it. Values that the file does not have are None.

    Attributes
    ----------
    name, dataset : str
        Name of the stack, and path of its samples.
    shape, chunk : tuple of int
        Shapes of the stack and of its chunks: (T, H, W), (T, H, W, C), or with panel axes after T.
    dtype, bound, level, written_by : str
        The dtype of the samples; bound and level of the encoder, and its version.
    raw_bytes, payload_bytes : int
        Sizes of the samples, and of the chunks that hold them.
    max_error : float
        Largest |original - reconstruction|, in the unit of the samples.
    chunks, fallback_chunks, network_chunks : int
        The number of chunks, of those stored by the fallback codec, and of those that a network
        predicts.
    complete, filenames, embedded : bool
        Whether the stack was closed, has file names, and has its network in the file.
    kinds, bytes_of : dict of int
        The number of frames of each kind, and the bytes of the chunks by their use; empty if the
        stack has no tables.
    model : str
        Digest of the network, in hexadecimal.
    frame_rows, chunk_rows : list
        A row for every frame, and one for every chunk, if `inspect` was asked for them.
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
        shape = " x ".join(map(str, self.chunk))
        rows = [
            ("stack", f"/{self.dataset}  {self.dtype} {self.shape}"),
            ("chunks", f"{self.chunks}, each {shape}; {fallback} use the fallback codec"),
            ("bound", f"{self.bound}; largest error {error}"),
            ("bytes", f"{self.raw_bytes} -> {self.payload_bytes}, ratio {self.ratio:.3f}"),
        ]
        if self.kinds:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items() if count)
            rows.append(("frames", kinds))
        if self.bytes_of:
            total = max(sum(self.bytes_of.values()), 1)
            shares = ", ".join(f"{k} {100 * v / total:.1f}%" for k, v in self.bytes_of.items())
            rows.append(("shares", shares))
        if self.model:
            place = "embedded" if self.embedded else "not in this file"
            count = "?" if self.network_chunks is None else self.network_chunks
            rows.append(("network", f"predicts {count} chunks; model {self.model[:16]}…, {place}"))
        rows.append(("level", f"{self.level}; written by tezip_h5 {self.written_by or '?'}"))
        if self.filenames:
            rows.append(("names", "the frames' file names are kept"))
        if not self.complete:
            rows.append(("state", "not closed: its writer is still running, or it was killed"))
        text = f"{self.name}\n" + "\n".join(f"  {key:9}{value}" for key, value in rows)
        if self.frame_rows:
            text += "\n\n" + listing.frame_table(self.frame_rows)
        if self.chunk_rows:
            text += "\n\n" + listing.chunk_table(self.chunk_rows)
        return text


@dataclass(frozen=True)
class FileReport:
    """A description of a file. Printable; `to_dict` is for programs.

    Attributes
    ----------
    path : str
    file_bytes : int
    stacks : list of StackReport
    """

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


def inspect(path: PathLike, *, frames: bool = False, chunks: bool = False) -> FileReport:
    """Describe the stacks of a file, without decoding them.

    Parameters
    ----------
    path : str or path
    frames : bool
        Also describe every frame (`frame_rows`).
    chunks : bool
        Also describe every chunk (`chunk_rows`); this reads all chunks.

    Returns
    -------
    FileReport

    Raises
    ------
    InputError
        When the file is missing, is no HDF5 file, or holds no compressed stack.
    FormatError
        When a chunk that is read is damaged.

    Examples
    --------
    >>> import numpy as np, tempfile, os, tezip_h5
    >>> path = os.path.join(tempfile.mkdtemp(), "run.h5")
    >>> _ = tezip_h5.write(np.zeros((4, 8, 8), "u2"), path)
    >>> [(stack.name, stack.shape) for stack in inspect(path).stacks]
    [('scan', (4, 8, 8))]
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
    """The table of a stack's frames as plain values; empty if the stack has no table."""
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
