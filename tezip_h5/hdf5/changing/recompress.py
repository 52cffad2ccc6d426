"""`recompress`: encode the stacks of a file again, at another level, into another file.

All samples come back bit for bit as before, those of lossy stacks too; see `recoding`. All else in
the file is copied.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import h5py

from tezip_h5 import devices
from tezip_h5.bitstream import peek
from tezip_h5.codec import decode_chunk
from tezip_h5.errors import InputError
from tezip_h5.hdf5.changing.recoder import recoder_of
from tezip_h5.hdf5.contents import container
from tezip_h5.hdf5.contents.copying import Tree, check_target, copy_attributes
from tezip_h5.hdf5.contents.direct import store_chunk, stored_chunk
from tezip_h5.hdf5.contents.keyframes import link_keyframes
from tezip_h5.hdf5.contents.networks import model_of_stack
from tezip_h5.hdf5.contents.tables import attribute_of, model_of
from tezip_h5.hdf5.files import finished, opening
from tezip_h5.hdf5.pipeline.options import FILTER_ID, ChunkOptions, check_dataset, options_of
from tezip_h5.hdf5.reading import reader
from tezip_h5.hdf5.threads import threads_or_default
from tezip_h5.model import embedding
from tezip_h5.recoding import Kept, recode
from tezip_h5.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tezip_h5.signatures import PathLike

__all__ = ["Recompressed", "RecompressedStack", "recompress"]

_TABLES = ("frames", "keyframes", "preview", "model")


@dataclass(frozen=True)
class RecompressedStack:
    """One recompressed stack.

    Attributes
    ----------
    name : str
    bytes_before, bytes_after : int
        Size of its chunks.
    chunks, kept_chunks : int
        Number of chunks, and of those whose bytes were kept.
    """

    name: str
    bytes_before: int
    bytes_after: int
    chunks: int
    kept_chunks: int


@dataclass(frozen=True)
class Recompressed:
    """The result of recompressing a file. Printable.

    Attributes
    ----------
    path, level : str
        The new file, and its level.
    bytes_before, bytes_after : int
        Size of the whole file.
    seconds : float
        Wall time.
    stacks : list of RecompressedStack
    """

    path: str
    level: str
    bytes_before: int
    bytes_after: int
    seconds: float
    stacks: list[RecompressedStack]

    def __str__(self):
        gain = self.bytes_before / max(self.bytes_after, 1)
        lines = [
            f"{self.path}: {self.bytes_before} -> {self.bytes_after} bytes, {gain:.3f} times "
            f"smaller, level {self.level}, {self.seconds:.2f} s"
        ]
        for s in self.stacks:
            lines.append(
                f"  {s.name}: {s.bytes_before} -> {s.bytes_after} bytes, {s.kept_chunks} of "
                f"{s.chunks} chunks kept as they were"
            )
        return "\n".join(lines)


def recompress(
    source: PathLike,
    target: PathLike,
    *,
    level: str = "best",
    threads: int | None = None,
    name: str | Sequence[str] | None = None,
    device: str = "auto",
) -> Recompressed:
    """Encode the stacks of a file again; every sample stays as it is, bit for bit.

    Parameters
    ----------
    source : str or path
        The file; it is only read.
    target : str or path
        The new file. It appears under its name when it is complete.
    level : "fast" | "balanced" | "best"
        See `Settings`. Windows and warm-up frames stay where the writer put them. Other choices
        that the writer pinned are free again.
    threads : int, optional
        Default: all processors.
    name : str or list of str, optional
        Only these stacks; the others are copied. Default: all.
    device : "auto" | "cpu" | "cuda"
        See `write`.

    Returns
    -------
    Recompressed

    Raises
    ------
    InputError
        When `source` holds no such stack, or `target` exists.
    FormatError
        When a chunk of `source` is damaged. Nothing is written then.

    Notes
    -----
    No error is added to lossy samples: a chunk is stored so that it decodes to what it decoded
    to before, or its bytes are copied. Every new chunk is decoded and compared.

    Examples
    --------
    >>> import numpy as np, tempfile, os, tezip_h5
    >>> folder = tempfile.mkdtemp()
    >>> quick, small = os.path.join(folder, "quick.h5"), os.path.join(folder, "small.h5")
    >>> _ = tezip_h5.write(np.zeros((4, 32, 32), "u2"), quick, absolute=2, level="fast")
    >>> recompress(quick, small).stacks[0].name
    'scan'
    """
    started = time.perf_counter()
    source, target = opening.as_path(source), opening.target_of(target)
    Settings(level=level)  # says what is wrong with it
    threads = threads_or_default(threads)
    check_target(source, target)
    devices.choose(device)  # says what is wrong with it
    beside = finished.beside(target, f".{uuid.uuid4().hex[:8]}.tmp")
    try:
        with opening.open_existing(source) as old:
            chosen = _chosen(old, name)
            with opening.closing(h5py.File(beside, "x", libver="earliest")) as new:
                stacks = _copy(old, new, chosen, level, threads, device)
        if not finished.put(beside, target):
            raise InputError(f"{target} was made meanwhile; it is left as it is")
    finally:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
    sizes = source.stat().st_size, target.stat().st_size
    return Recompressed(str(target), level, *sizes, time.perf_counter() - started, stacks)


def _chosen(file: h5py.File, name) -> dict[str, h5py.Dataset]:
    """The stacks to encode again."""
    stacks = container.find_stacks(file)
    if not stacks:
        raise InputError(f"{file.filename} holds no dataset compressed with tezip")
    if name is None:
        return stacks
    names = list(name) if isinstance(name, list | tuple | set) else [name]
    if not names:
        raise InputError("name names no stack; give some, or leave it out for all")
    chosen = {}
    for wanted in names:
        data = reader.stack_named(file, wanted)
        found = [known for known, item in stacks.items() if item == data]
        if not found:
            raise InputError(f"{wanted} of {file.filename} is not compressed with tezip")
        chosen[found[0]] = data
    return chosen


def _copy(old, new, chosen, level, threads, device) -> list[RecompressedStack]:
    # A pipeline with other filters as well: the dataset is copied as any other.
    chosen = {n: d for n, d in chosen.items() if d.id.get_create_plist().get_nfilters() == 1}
    without = {container.INCOMING, embedding.MODELS}
    for data in container.find_stacks(old).values():
        tables = container.tables_of(data)
        if tables is not None:
            without.add(f"{tables.name}/model")
    for data in chosen.values():
        tables = container.tables_of(data)
        if tables is not None:
            without.update(f"{tables.name}/{table}" for table in _TABLES)
    tree = Tree(old, new, {Tree.address(d): d.name for d in chosen.values()}, without)
    done = []
    for name, data in chosen.items():
        tables = container.tables_of(data)
        if tables is None:
            done.append(_recompress_bare(name, data, new, level))
        else:
            done.append(_recompress_stack(name, data, tables, new, level, threads, device))
    _copy_models(old, new, chosen)
    tree.finish()
    container.drop_staging(new)
    return done


def _options(data: h5py.Dataset, level: str) -> ChunkOptions:
    """The options for encoding a dataset again: its own, with the new level and without pins."""
    check_dataset(data)
    old = options_of(data)
    kept = {n: getattr(old.settings, n) for n in ("window", "mse_threshold", "warmup", "model")}
    return replace(old, settings=Settings(level=level, **kept))


# --- a stack with its tables ---


def _recompress_stack(name, data, tables, new, level, threads, device) -> RecompressedStack:
    container.check_table(data, tables)
    chosen = devices.choose(device, data.id.get_num_chunks())
    options = _options(data, level)
    model = model_of_stack(tables, options.shape, options.settings)
    group = new[tables.name]
    for attribute in ("model", "network_chunks"):
        group.attrs.pop(attribute, None)
    options = replace(options, settings=replace(options.settings, model=model))
    encoder, tally = recoder_of(data, tables, group, options, threads, chosen)
    try:
        for start, frames in reader.blocks(data, threads, device):
            encoder.submit(frames, start)
        encoder.finish()
    finally:
        encoder.close()
    new_data = encoder.data
    path = data.name
    if path != f"{tables.name}/data":
        new.require_group(path.rpartition("/")[0] or "/")
        new[path] = new_data
        del group["data"]
        new_data = new[path]
    copy_attributes(data, new_data, besides=["tezip"])
    marks = {key: group.attrs[key] for key in group.attrs if key in ("NX_class", "signal")}
    container.finish_group(group, new_data)
    for key, value in marks.items():  # a user may have changed them
        group.attrs[key] = value
    group.attrs["complete"] = attribute_of(tables, "complete", bool, True)
    link_keyframes(group, new_data, encoder.keyframes)
    totals = encoder.totals
    before = int(data.id.get_storage_size())
    return RecompressedStack(name, before, totals.payload_bytes, totals.chunks, tally.kept)


# --- a dataset that was compressed by the filter, without tables ---


def _recompress_bare(name, data, new, level) -> RecompressedStack:
    options = _options(data, level)
    pipeline = data.id.get_create_plist()
    flags = pipeline.get_filter(0)[1]
    pipeline.remove_filter(FILTER_ID)
    pipeline.set_filter(FILTER_ID, flags, options.pack())
    path, space = data.name.encode(), data.id.get_space()
    target = h5py.Dataset(h5py.h5d.create(new.id, path, data.id.get_type(), space, pipeline))
    copy_attributes(data, target)
    before = after = chunks = kept = 0
    for offset in product(*(range(0, n, c) for n, c in zip(data.shape, data.chunks, strict=True))):
        stored = stored_chunk(data, offset)
        if stored is None:
            continue  # never written
        mask, payload = stored
        anew = None if mask else _smaller_payload(data, offset, payload, options.settings)
        store_chunk(target, offset, anew or payload, mask)
        chunks += 1
        kept += anew is None
        before += len(payload)
        after += len(anew or payload)
    return RecompressedStack(name, before, after, chunks, kept)


def _smaller_payload(data, offset, payload, settings) -> bytes | None:
    """A chunk's new payload; None if it is not smaller."""
    reader.decode_payload(payload, data, offset, keep=False)  # says where the damage is
    frames = decode_chunk(payload)[tuple(slice(n) for n in peek(payload)[0].valid)]
    encoded = recode(payload, frames, settings)
    return None if isinstance(encoded, Kept) else encoded.payload


# --- models ---


def _copy_models(old, new, chosen) -> None:
    """Copy the embedded models that copied chunks need."""
    bare = any(container.tables_of(data) is None for data in chosen.values())
    needed = set()
    for name, data in container.find_stacks(old).items():
        tables = container.tables_of(data)
        if name not in chosen and tables is not None and "model" in tables.attrs:
            needed.add(model_of(tables).hex())
        bare |= name not in chosen and tables is None
    for digest in old.get(embedding.MODELS, ()):
        path = f"{embedding.MODELS}/{digest}"
        if path not in new and (bare or digest in needed):
            new.require_group(embedding.MODELS)
            old.copy(path, new[embedding.MODELS])
    for name, data in container.find_stacks(old).items():
        tables = container.tables_of(data)
        if name not in chosen and tables is not None and "model" in tables.attrs:
            embedding.link(new[tables.name], model_of(tables))
