"""Reports of the chunks of a stack: offset, coder, predictor, and the use of the bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import h5py

from tezip_h5 import bitstream
from tezip_h5.chunk import anatomy
from tezip_h5.errors import FormatError
from tezip_h5.hdf5.contents.direct import stored_chunk

__all__ = ["ChunkReport", "describe_chunks"]


@dataclass(frozen=True)
class ChunkReport:
    """One chunk.

    Attributes
    ----------
    offset : tuple of int
        Position of its first sample, along every axis of the stack.
    frames : int
        Number of its frames.
    nbytes, raw_bytes : int
        Size of the payload, and of the samples that it stores.
    coder, predictor : str
        Names of the coder and the predictor that made it.
    parts : dict of dict of int
        Number of bytes of each part, by section and name.
    """

    offset: tuple[int, ...]
    frames: int
    nbytes: int
    raw_bytes: int
    coder: str
    predictor: str
    parts: dict[str, dict[str, int]] = field(default_factory=dict)


def describe_chunks(data: h5py.Dataset, most: int | None = None) -> Iterator[ChunkReport]:
    """Yield a report of every chunk that is stored, or of at most `most` of them, evenly spaced.

    This reads the payloads, and decodes nothing.

    Raises
    ------
    FormatError
        When a payload is damaged.
    """
    grid = [-(-n // c) for n, c in zip(data.shape, data.chunks, strict=True)]
    total = math.prod(grid)
    count = total if most is None else min(total, most)
    for i in range(count):
        number, offset = i * total // count, []
        for size, chunk in zip(reversed(grid), reversed(data.chunks), strict=True):
            number, at = divmod(number, size)
            offset.insert(0, at * chunk)
        stored = stored_chunk(data, tuple(offset))
        if stored is not None:
            yield _describe(data, tuple(offset), *stored)


def _describe(data: h5py.Dataset, offset: tuple[int, ...], mask: int, payload) -> ChunkReport:
    if mask:  # HDF5 stored it raw
        frames = min(data.chunks[0], data.shape[0] - offset[0])
        raw = {"chunk": {"samples as they are": len(payload)}}
        return ChunkReport(offset, frames, len(payload), len(payload), "none", "none", raw)
    try:
        header, _ = bitstream.peek(payload)
        divided = anatomy.divide(payload)
    except FormatError as error:
        raise FormatError(f"chunk at {offset}: {error}") from None
    parts: dict[str, dict[str, int]] = {}
    for part in divided:
        names = parts.setdefault(part.section, {})
        names[part.name] = names.get(part.name, 0) + part.nbytes
    return ChunkReport(
        offset,
        header.valid[0],
        len(payload),
        math.prod(header.valid) * header.channels * header.dtype.itemsize,
        anatomy.CODERS.get(header.coder, f"coder {header.coder}"),
        anatomy.PREDICTORS.get(header.predictor, f"predictor {header.predictor}"),
        parts,
    )
