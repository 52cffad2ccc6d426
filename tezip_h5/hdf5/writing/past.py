"""The frames that a stack has already, for a writer that appends to it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

import h5py
import numpy as np

from tezip_h5 import bitstream, prediction, residual
from tezip_h5.errors import FormatError
from tezip_h5.hdf5.contents.container import FRAME_DTYPE
from tezip_h5.hdf5.contents.direct import stored_chunk
from tezip_h5.hdf5.reading import reader
from tezip_h5.windows import Kind

__all__ = ["Past", "Totals", "past_of"]


@dataclass
class Totals:
    """Counts of what has been written so far."""

    frames: int = 0
    raw_bytes: int = 0
    payload_bytes: int = 0
    max_error: float = 0.0
    chunks: int = 0
    fallback_chunks: int = 0
    network_chunks: int = 0


@dataclass
class Past:
    """The frames that were written before. The *tail* is an unfinished last chunk.

    Attributes
    ----------
    totals : Totals
        Counts of all whole chunks.
    keyframes : int64 array, the numbers of the keyframes in whole chunks
    with_tail : Totals
        Counts of all chunks, the tail included.
    tail : array (k, *frame_shape) or None
        The decoded frames of the tail. They are encoded again with new frames, exactly.
    tail_rows : FRAME_DTYPE array (k,)
        Rows of the table for the frames of the tail.
    """

    totals: Totals = field(default_factory=Totals)
    keyframes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    with_tail: Totals = field(default_factory=Totals)
    tail: np.ndarray | None = None
    tail_rows: np.ndarray = field(default_factory=lambda: np.zeros(0, FRAME_DTYPE))

    def rows_from(self, start: int) -> np.ndarray:
        """Rows of the frames of the tail, if a step that begins at `start` has them; else none."""
        return self.tail_rows if start == self.totals.frames else self.tail_rows[:0]


def past_of(data: h5py.Dataset, rows: np.ndarray, threads: int | None = None) -> Past:
    """Read what a stack has already, from its stored chunks.

    Parameters
    ----------
    data : the stack's dataset
    rows : FRAME_DTYPE array, a row for every frame

    Raises
    ------
    FormatError
        When a chunk is missing or damaged, or the number of rows is wrong.
    """
    if len(rows) != data.shape[0]:
        raise FormatError(
            f"{data.name} has {data.shape[0]} frames, its table {len(rows)}: its writer died; "
            "`tezip-h5 repair` the file first"
        )
    count = data.shape[0]
    whole = count - count % data.chunks[0]
    heads = _Heads(data)
    totals = Totals()
    for offset in reader.offsets(data, slice(0, whole)):
        heads.count(totals, offset)
    _complete(totals, data, rows[:whole])
    with_tail = replace(totals)
    for offset in reader.offsets(data, slice(whole, count)):
        heads.count(with_tail, offset)
    _complete(with_tail, data, rows)
    keyframes = np.flatnonzero(rows["kind"][:whole] == Kind.KEYFRAME)
    tail = reader.read(data, slice(whole, count), threads=threads) if whole < count else None
    return Past(totals, keyframes, with_tail, tail, rows[whole:])


def _complete(totals: Totals, data: h5py.Dataset, rows: np.ndarray) -> None:
    totals.frames = len(rows)
    totals.raw_bytes = len(rows) * int(np.prod(data.shape[1:])) * data.dtype.itemsize
    totals.max_error = float(rows["max_error"].max(initial=0))


class _Heads:
    """Reads only the first bytes of a dataset's payloads."""

    _BYTES = 256

    def __init__(self, data: h5py.Dataset):
        self._data, self._descriptor = data, None
        plain = data.file.driver == "sec2" and data.file.userblock_size == 0
        if plain and hasattr(os, "pread"):
            self._descriptor = data.file.id.get_vfd_handle()

    def count(self, totals: Totals, offset: tuple[int, ...]) -> None:
        """Add the chunk at `offset` to the totals."""
        info = self._data.id.get_chunk_info_by_coord(offset)
        if not info.size:
            raise FormatError(f"{self._data.name} has no chunk at {offset}: frames are missing")
        totals.chunks += 1
        totals.payload_bytes += info.size
        if info.filter_mask:  # stored without the filter
            return
        if self._descriptor is None:
            head = stored_chunk(self._data, offset)[1]
        else:
            head = os.pread(self._descriptor, min(self._BYTES, info.size), info.byte_offset)
        header, _ = bitstream.peek(head)
        totals.fallback_chunks += header.coder == residual.NUMBERS["fallback"]
        totals.network_chunks += header.predictor == prediction.NUMBERS["prednet"]
