"""A `StackEncoder` that encodes the samples of an existing stack again."""

from __future__ import annotations

from functools import partial

import h5py
import numpy as np

from tezip_h5.bounds import ChunkBound
from tezip_h5.codec import Encoded, encode_chunk
from tezip_h5.errors import FormatError
from tezip_h5.hdf5.contents.direct import stored_chunk
from tezip_h5.hdf5.contents.layout import Layout
from tezip_h5.hdf5.contents.preview import Preview
from tezip_h5.hdf5.contents.tables import attribute_of, model_of, rows_of
from tezip_h5.hdf5.pipeline.options import ChunkOptions, panel_axes_of
from tezip_h5.hdf5.writing.choices import NetworkChoice
from tezip_h5.hdf5.writing.encoder import StackEncoder
from tezip_h5.hdf5.writing.growing import GrowingStack
from tezip_h5.hdf5.writing.past import Past
from tezip_h5.hdf5.writing.pool import Pool
from tezip_h5.hdf5.writing.steps import Recipe
from tezip_h5.hdf5.writing.tally import Tally
from tezip_h5.model import embedding, store
from tezip_h5.recoding import Kept, recode
from tezip_h5.windows import Kind

__all__ = ["RecodingTally", "recoder_of"]


def recoder_of(
    data: h5py.Dataset,
    tables: h5py.Group,
    group: h5py.Group,
    options: ChunkOptions,
    threads: int,
    device: str,
) -> tuple[StackEncoder, RecodingTally]:
    """The encoder that encodes a stack again, given its frames, and its tally.

    Parameters
    ----------
    data, tables
        The existing stack.
    group : h5py.Group
        The group of the new stack.
    options : ChunkOptions
        The options of the new stack.
    threads, device
        Threads and device that encode.
    """
    layout = Layout(data.shape[1:], data.chunks, panel_axes_of(data))
    dtype = options.dtype or data.dtype.newbyteorder("<")
    networks = _networks(group.file, layout, options, tables, len(data))
    stack = GrowingStack(group, Recipe(layout, dtype, options.bound, options.settings))
    encoder_at = partial(_recoder_at, data, device)
    crew = Pool(stack.recipe, networks, encoder_at, threads=threads, device=device, count=len(data))
    preview = "preview" in tables or not attribute_of(tables, "complete", bool, True)
    tally = RecodingTally(stack.past, Preview(group) if preview else None, rows_of(tables))
    return StackEncoder(stack, networks, crew, tally), tally


def _networks(
    file: h5py.File, layout: Layout, options: ChunkOptions, tables: h5py.Group, count: int
) -> NetworkChoice:
    """What decides for each step whether a network is tried."""
    digest = model_of(tables)
    embedded = digest is not None and f"{embedding.MODELS}/{digest.hex()}" in tables.file
    steps = -(-count // layout.chunk[0])
    kept = None if digest is None else store.find(digest)
    return NetworkChoice(file, options.settings, layout.channels, steps, embedded, kept)


def _recoder_at(data: h5py.Dataset, device: str, offset: tuple[int, ...]):
    """The function that encodes the chunk at this offset of the old dataset again."""
    stored = stored_chunk(data, offset)
    if stored is None:
        raise FormatError(f"{data.name} has no chunk at {offset}: frames are missing")
    return partial(_recode, None if stored[0] else stored[1], device=device)


def _recode(payload, frames, bound, settings, *, saving, shape, model, **options) -> Encoded:
    """Call `recode` with the arguments that a pool gives; `payload` is None for a raw chunk.

    The `saving` that was measured under `bound` is ignored, because here the samples are encoded
    losslessly.
    """
    if payload is None:
        return encode_chunk(frames, ChunkBound(), settings, shape=shape, model=model, **options)
    return recode(payload, frames, settings, model=model, **options)


class RecodingTally(Tally):
    """The tally of recompressing a stack, whose table has rows of all frames already.

    Attributes
    ----------
    kept : int
        Number of chunks whose bytes were kept.
    """

    def __init__(self, past: Past, preview: Preview | None, old_rows: np.ndarray):
        super().__init__(past, preview)
        self._old_rows, self.kept = old_rows, 0

    def rows(self, count: int, tiles: list[Encoded], known: np.ndarray) -> np.ndarray:
        """See `Tally.rows`; the errors are those of the first compression."""
        rows = super().rows(count, tiles, known)
        start = self.totals.frames
        old = self._old_rows[start : start + count]
        kept = [isinstance(tile, Kept) for tile in tiles]
        if all(kept):
            for column in ("kind", "keyframe_bytes", "residual_bytes", "mse"):
                rows[column] = old[column]
            opens = np.cumsum(rows["kind"] == Kind.KEYFRAME)
            rows["window"] = np.maximum(self.windows + opens - 1, 0)
        rows["max_error"] = old["max_error"]
        self.kept += sum(kept)
        return rows
