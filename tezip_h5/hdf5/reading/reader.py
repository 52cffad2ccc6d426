"""`read`: read frames with chunks decoded in parallel.

`h5py` itself reads every stack (through the filter, one chunk at a time). `read` decodes
the chunks of a selection side by side.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from tezip_h5 import codec, devices, gpu_arrays
from tezip_h5.errors import FormatError, InputError, SelectionError, TezipError
from tezip_h5.hdf5.contents import container
from tezip_h5.hdf5.contents.direct import stored_chunk
from tezip_h5.hdf5.files import opening
from tezip_h5.hdf5.pipeline import cache, filter
from tezip_h5.hdf5.pipeline.options import check_dataset
from tezip_h5.hdf5.threads import chunks_under_way, threads_or_default
from tezip_h5.progress import progress_bar

if TYPE_CHECKING:
    from tezip_h5.signatures import PathLike

__all__ = [
    "Geometry",
    "blocks",
    "decode_payload",
    "decode_stored",
    "offsets",
    "read",
    "read_chunk",
    "stack_named",
]

_AT_ONCE = 16  # frames of a dataset without chunks


def read(
    path_or_dataset: PathLike | h5py.Dataset,
    selection: Any = None,
    *,
    name: str | None = None,
    threads: int | None = None,
    cache_bytes: int | None = None,
    device: str = "auto",
) -> np.ndarray | Any:
    """Read frames of a compressed stack, decoding its chunks in parallel.

    Parameters
    ----------
    path_or_dataset : str, path or h5py.Dataset
    selection : int, slice, or tuple of them, optional
        As in ``dataset[selection]``; default everything. A selection that is not a plain box
        (with steps, lists or masks) is read through h5py, one chunk at a time.
    name : str, optional
        Name of the stack; needed if the file holds several.
    threads : int, optional
        Default: all processors.
    cache_bytes : int, optional
        Set how many bytes of decoded chunks this process keeps, see `configure`.
    device : "auto" | "cpu" | "cuda"
        The device that decodes, see `write`; the samples do not depend on it. With "cuda" the
        result is an array in the GPU's memory. The code for GPUs has run in numba's simulator
        only. Checksums find wrong samples, and the CPU decodes those chunks.

    Returns
    -------
    array in the machine's byte order. With ``device="cuda"`` it is a numba array (it has
    ``__cuda_array_interface__``: ``cupy.asarray(a)`` and ``torch.as_tensor(a)`` copy nothing). If
    the GPU has no room for it, it is a NumPy array, with a `DeviceWarning`.

    Raises
    ------
    InputError
        When the file is missing or holds no such stack, or the selection has no meaning there; one
        that lies outside it is an IndexError, too.
    FormatError
        When a chunk is damaged.
    ModelError
        When a chunk needs a model that is not found.

    Examples
    --------
    >>> import numpy as np, tempfile, os, tezip_h5
    >>> path = os.path.join(tempfile.mkdtemp(), "run.h5")
    >>> _ = tezip_h5.write(np.arange(4 * 8 * 8, dtype="u2").reshape(4, 8, 8), path)
    >>> tezip_h5.read(path, slice(1, 3)).shape
    (2, 8, 8)
    """
    if cache_bytes is not None:
        cache.configure(cache_bytes=cache_bytes)
    if isinstance(path_or_dataset, h5py.Dataset):
        return _read(path_or_dataset, selection, threads, device)
    if isinstance(selection, str) and name is None:
        raise InputError(
            f"the selection {selection!r} is a text; did you mean name={selection!r}? A selection "
            "is an int, a slice, or a tuple of them"
        )
    with opening.open_existing(path_or_dataset) as file:
        return _read(stack_named(file, name), selection, threads, device)


def _read(dataset: h5py.Dataset, selection, threads, device):
    devices.choose(device)  # says what is wrong with it
    array = _read_dataset(dataset, selection, threads, device)
    return gpu_arrays.to_device(array) if device == "cuda" else array


def stack_named(file: h5py.File, name: str | None) -> h5py.Dataset:
    """The dataset of the stack `name`, or of the only stack of the file."""
    if name is not None and not isinstance(name, str):
        raise InputError(f"name={name!r} is no text; give the name of a stack, such as 'scan'")
    if name is not None:
        item = file.get(name.strip("/") or "/")
        if isinstance(item, h5py.Group) and "data" in item:
            item = item["data"]
        if isinstance(item, h5py.Dataset):
            return item
    stacks = container.find_stacks(file)
    if name is None and len(stacks) == 1:
        return next(iter(stacks.values()))
    known = ", ".join(sorted(stacks)) or "none"
    wanted = "several stacks" if name is None and stacks else f"no stack {name or ''}".rstrip()
    raise InputError(f"{file.filename} holds {wanted}; its stacks are: {known}. Give name=")


def _read_dataset(dataset: h5py.Dataset, selection, threads, device):
    threads = threads_or_default(threads)
    selection = () if selection is None else selection
    if container.is_tezip(dataset):
        check_dataset(dataset)
    try:
        box = _box(dataset, selection)
    except TypeError as error:  # a slice from 0.5
        raise _wrong(dataset, selection, error, InputError) from None
    if box is None or os.environ.get("TEZIP_NO_PARALLEL_READ"):
        return _native(_selected(dataset, selection))
    starts, stops, dropped = box
    out = np.empty([b - a for a, b in zip(starts, stops, strict=True)], dataset.dtype)
    _fill(dataset, starts, stops, out, threads, device)
    return _native(out.reshape([n for n, drop in zip(out.shape, dropped, strict=True) if not drop]))


def _selected(dataset: h5py.Dataset, selection):
    """``dataset[selection]``; where h5py finds it wrong, our error."""
    try:
        return _through_h5py(dataset, selection)
    except TezipError:
        raise
    except (IndexError, OSError, TypeError, ValueError) as error:
        beyond = "not within extent" in str(error)  # HDF5 finds what h5py let pass
        if isinstance(error, OSError) and not beyond:
            raise
        kind = SelectionError if beyond or isinstance(error, IndexError) else InputError
        raise _wrong(dataset, selection, error, kind) from None


def _wrong(dataset: h5py.Dataset, selection, error, kind: type[InputError]) -> InputError:
    what = f"{selection!r} selects nothing of {dataset.name}, which is {dataset.shape}"
    return kind(f"{what}: {error}; give ints, slices or ... within it")


def _through_h5py(dataset: h5py.Dataset, selection):
    """Return ``dataset[selection]``; if our filter fails, raise its error instead of HDF5's."""
    before = filter.last_error()
    try:
        return dataset[selection]
    except OSError:
        error = filter.last_error()
        if isinstance(error, TezipError) and error is not before:
            raise error from None
        raise


def _native(array: np.ndarray) -> np.ndarray:
    if isinstance(array, np.ndarray):
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    return array


def _box(dataset: h5py.Dataset, selection):
    """Starts, stops and dropped axes of a selection; None if it is not a plain box."""
    plist = dataset.id.get_create_plist()
    if not container.is_tezip(dataset) or plist.get_nfilters() != 1 or 0 in dataset.shape:
        return None
    selection = selection if isinstance(selection, tuple) else (selection,)
    if any(not isinstance(s, int | np.integer | slice | type(...)) for s in selection):
        return None
    if any(isinstance(s, bool) for s in selection) or selection.count(...) > 1:
        return None
    if ... in selection:
        at = selection.index(...)
        missing = dataset.ndim - len(selection) + 1
        selection = selection[:at] + (slice(None),) * missing + selection[at + 1 :]
    if len(selection) > dataset.ndim:
        return None
    selection += (slice(None),) * (dataset.ndim - len(selection))
    starts, stops, dropped = [], [], []
    for part, size in zip(selection, dataset.shape, strict=True):
        if isinstance(part, slice):
            start, stop, step = part.indices(size)
            if step != 1:
                return None
            stop = max(start, stop)
        else:
            start = int(part) + (size if part < 0 else 0)
            if not 0 <= start < size:
                return None  # h5py says so
            stop = start + 1
        starts.append(start)
        stops.append(stop)
        dropped.append(not isinstance(part, slice))
    return starts, stops, dropped


def _fill(dataset, starts, stops, out, threads, device) -> None:
    """Decode the chunks that overlap the box into `out`; only this thread uses h5py."""
    chunk = dataset.chunks
    grids = [
        range(a // c * c, b, c) if b > a else ()
        for a, b, c in zip(starts, stops, chunk, strict=True)
    ]
    offsets = list(product(*grids))
    device = devices.choose(device, len(offsets))
    many = chunks_under_way(threads, device)
    box = (starts, stops, out, device)
    if len(offsets) <= 1 or many == 1:
        for offset in offsets:
            _place(stored_chunk(dataset, offset), dataset, offset, *box, threads)
        return
    # If fewer chunks than threads are left, several threads work on each. If the very last chunk
    # is short, its thread helps with the one before it.
    short = stops[0] == dataset.shape[0] and stops[0] % chunk[0] != 0
    shared = (len(offsets) - short) // many * many
    shape = Geometry(dataset)
    with ThreadPoolExecutor(many, thread_name_prefix="tezip") as pool:
        running = []
        for i, offset in enumerate(progress_bar(offsets)):
            if len(running) > many:
                running.pop(0).result()
            payload = stored_chunk(dataset, offset)
            helpers = 1 if short else len(offsets) - shared
            each = 1 if i < shared else max(1, threads // helpers)
            running.append(pool.submit(_place, payload, shape, offset, *box, each))
        for future in running:
            future.result()


class Geometry:
    """The properties of a dataset that a thread needs, so that it does not have to use h5py."""

    def __init__(self, dataset: h5py.Dataset):
        self.chunks, self.dtype, self.shape = dataset.chunks, dataset.dtype, dataset.shape
        self.fillvalue = dataset.fillvalue


def read_chunk(dataset: h5py.Dataset, offset) -> np.ndarray:
    """Read one chunk through all filters of the dataset; FormatError if one of them fails."""
    box = tuple(
        slice(at, min(at + size, extent))
        for at, size, extent in zip(offset, dataset.chunks, dataset.shape, strict=True)
    )
    try:
        return _through_h5py(dataset, box)
    except (OSError, FormatError) as error:
        raise FormatError(f"chunk at {tuple(offset)}: {error}") from None


def offsets(dataset: h5py.Dataset, frames: slice = slice(None)) -> Iterator[tuple[int, ...]]:
    """The offsets of the chunks of these frames, in order."""
    first, stop, _ = frames.indices(dataset.shape[0])
    grids = [range(0, n, c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)]
    grids[0] = range(first // dataset.chunks[0] * dataset.chunks[0], stop, dataset.chunks[0])
    return product(*grids)


def _place(stored, dataset, offset, starts, stops, out, device, threads) -> None:
    """Decode one chunk, and copy the part of it that the box needs."""
    inside, target, whole = [], [], True
    sizes = zip(offset, dataset.chunks, dataset.shape, starts, stops, strict=True)
    for at, size, extent, start, stop in sizes:
        a, b = max(at, start), min(at + size, stop)
        inside.append(slice(a - at, b - at))
        target.append(slice(a - start, b - start))
        whole = whole and b - a == min(size, extent - at)
    if stored is None:
        out[tuple(target)] = dataset.fillvalue
        return
    options = {"threads": threads, "device": device}
    frames = decode_stored(stored, dataset, offset, keep=not whole, **options)
    out[tuple(target)] = frames[tuple(inside)]


def decode_stored(stored, dataset, offset, **options) -> np.ndarray:
    """The samples of a `stored_chunk`; as `decode_payload`, unless the filter was skipped."""
    mask, payload = stored
    if mask & 1:  # other bits belong to filters that the dataset does not have
        return _raw(payload, dataset, offset)
    return decode_payload(payload, dataset, offset, **options)


def _raw(payload, dataset, offset) -> np.ndarray:
    """The samples of a chunk that was stored without the filter."""
    expected = int(np.prod(dataset.chunks)) * dataset.dtype.itemsize
    if len(payload) != expected:
        raise FormatError(
            f"chunk at {tuple(offset)} was stored without the filter, but has {len(payload)} bytes "
            f"instead of {expected}"
        )
    return np.frombuffer(payload, dataset.dtype).reshape(dataset.chunks)


def decode_payload(
    payload, dataset, offset, *, keep: bool, threads: int = 1, device: str = "cpu"
) -> np.ndarray:
    """Decode a chunk of `dataset` (or its geometry); damage is reported with its place."""
    expected = int(np.prod(dataset.chunks)) * dataset.dtype.itemsize
    try:
        decode = cache.decoded if keep else codec.decode_chunk
        frames = decode(payload, max_bytes=expected, threads=threads, device=device)
    except FormatError as error:
        raise FormatError(f"chunk at {tuple(offset)}: {error}") from None
    # Frames may have come without a time or channel axis through the filter.
    same = frames.dtype == dataset.dtype.newbyteorder("<")
    if not same or frames.squeeze().shape != np.empty(dataset.chunks, "V0").squeeze().shape:
        raise FormatError(
            f"chunk at {tuple(offset)} holds {frames.dtype} {frames.shape}, its dataset's chunks "
            f"are {dataset.dtype} {dataset.chunks}; it belongs to another dataset"
        )
    return frames.reshape(dataset.chunks)


def blocks(
    dataset: h5py.Dataset, threads: int | None = None, device: str = "cpu"
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first frame, frames) for every step of chunks in time; frames on the host."""
    step = dataset.chunks[0] if dataset.chunks else _AT_ONCE
    for start in progress_bar(range(0, dataset.shape[0], step)):
        stop = min(start + step, dataset.shape[0])
        yield start, _read_dataset(dataset, slice(start, stop), threads, device)
