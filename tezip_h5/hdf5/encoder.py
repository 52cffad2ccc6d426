"""Frames -> chunks of one dataset: the part that every way of writing shares.

Frames arrive in order; chunks are encoded by a pool of threads (kernels and zstd hold no
GIL, and touch no h5py object) and written in order by the caller's thread.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import h5py
import numpy as np

from tezip_h5 import rescue
from tezip_h5.bounds import ErrorBound
from tezip_h5.codec import Encoded, FrameRecord, decode_chunk, encode_chunk
from tezip_h5.errors import BoundError, InputError
from tezip_h5.hdf5 import container
from tezip_h5.hdf5.coders import CoderChoice
from tezip_h5.hdf5.container import FRAME_DTYPE
from tezip_h5.hdf5.layout import Layout, panels_joined
from tezip_h5.hdf5.networks import NetworkChoice
from tezip_h5.hdf5.options import ChunkOptions
from tezip_h5.hdf5.past import Past, Totals, past_of
from tezip_h5.hdf5.preview import Preview
from tezip_h5.hdf5.space import Space
from tezip_h5.hdf5.steps import Prepared
from tezip_h5.hdf5.tables import rows_of
from tezip_h5.hdf5.threads import chunks_under_way
from tezip_h5.model import embedding
from tezip_h5.settings import Settings
from tezip_h5.windows import Kind

__all__ = ["StackEncoder"]

_BYTES_IN_FLIGHT = {"cpu": 128 << 20, "cuda": 1 << 30}


@dataclass
class _Step:
    """One chunk of time on its way: its frames and what its tiles become."""

    start: int
    frames: np.ndarray
    tiles: list[Future]
    tail: bool  # more frames of the same chunks will follow
    probe: bool  # of the network
    compares: bool  # coders, for the steps to come
    known: np.ndarray  # rows of its first frames, which are written exactly as they are


def encode_and_check(frames, bound, settings, *, threads=1, device="cpu", **options) -> Encoded:
    """`encode_chunk`, then decode the payload and compare every sample with the original.

    It is the CPU that decodes, whatever encoded.

    Raises
    ------
    BoundError
        When a sample lies outside the bound.
    """

    def work(place: str) -> Encoded:
        encoded = encode_chunk(frames, bound, settings, threads=threads, device=place, **options)
        _check(encoded, frames, bound, threads)
        return encoded

    return rescue.run(work, device)


def _check(encoded: Encoded, frames, bound, threads: int) -> None:
    stored = decode_chunk(encoded.payload, threads=threads)[tuple(slice(n) for n in frames.shape)]
    native = frames.astype(stored.dtype, copy=False)
    for t, (frame, back) in enumerate(zip(native, stored, strict=True)):
        pixels = (*frame.shape[:2], -1)
        if bound.check(frame.reshape(pixels), back.reshape(pixels), t)[1].any():
            raise BoundError(f"frame {t} of a chunk does not decode within its bound; not written")


class StackEncoder:
    """Encode frames into the dataset ``data`` of `group`; go on with it if it is there.

    Parameters
    ----------
    group : h5py.Group
        Where ``data`` and the tables are made, or are.
    layout, dtype, bound, settings
        How; `dtype` little-endian.
    threads : int
    filenames : bool
        Whether frames come with names.
    preview : bool
    verify : bool
        Decode every chunk again before it is written, and compare.
    durable : bool
        Flush the file after every chunk, so that a killed process loses nothing written.
    count : int, optional
        Frames of the whole stack, when known.
    embed_model : bool
        Embed the model that was used even if it ships with the package.
    mask : bool array, optional
        Pixels that come back exactly, see `encode_chunk`; kept beside the frames.
    most : int, optional
        Frames that the dataset can grow to; default without end.
    written : callable, optional
        Called with the number of frames each time a whole chunk of time has been written.
    device : "cpu" | "cuda"
        What encodes; the file does not depend on it.

    Attributes
    ----------
    past : Past
        What was there already. The frames of its tail must be submitted again, before others.
    """

    def __init__(
        self,
        group: h5py.Group,
        layout: Layout,
        dtype: np.dtype,
        bound: ErrorBound,
        settings: Settings,
        *,
        threads: int,
        filenames: bool = False,
        preview: bool = True,
        verify: bool = False,
        durable: bool = False,
        count: int | None = None,
        embed_model: bool = False,
        written=None,
        mask: np.ndarray | None = None,
        most: int | None = None,
        device: str = "cpu",
    ):
        self.group, self.layout, self.bound, self.settings = group, layout, bound, settings
        self.dtype = dtype
        steps = None if count is None else -(-count // layout.chunk[0])
        self._left = steps or 1 << 62
        self._uneven = count is not None and count % layout.chunk[0] != 0  # the last step is short
        self._submitted = 0
        self._group = [0, 1]  # steps to come in it, threads of each of their tiles
        self.networks = NetworkChoice(group.file, settings, layout.channels, steps, embed_model)
        self.coders = CoderChoice(settings)
        if "data" in group:
            self.data = group["data"]
            self.past = past_of(self.data, rows_of(group), threads)
        else:
            options = ChunkOptions(dtype, layout.payload_shape, bound, settings)
            self.data = container.create_data(group, layout, options, most)
            container.create_tables(group, filenames)
            self.past = Past()
        self.totals: Totals = replace(self.past.totals)
        self._mask = container.keep_mask(group, mask)
        self._durable = durable
        self._encode = partial(encode_and_check if verify else encode_chunk, device=device)
        self._device = device
        self._threads = chunks_under_way(threads, device)
        self._most_bytes = _BYTES_IN_FLIGHT[device]
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="tezip")
        self._steps: deque[_Step] = deque()
        self._preview = Preview(group) if preview else None
        self._keyframes: list[np.ndarray] = [self.past.keyframes]
        self._windows = len(self.past.keyframes)
        self._written = written or (lambda frames: None)
        self.space = Space(group.file)
        self._length = self.data.shape[0]

    # --- encoding ---

    def submit(self, frames: np.ndarray, start: int, *, tail: bool = False) -> None:
        """Encode one chunk of time, at most G frames beginning at frame `start`.

        `frames` must not change until it has been written; see `drain`. A `tail` is written
        as far as it goes, and will be submitted again with more frames.
        """
        number, self._submitted = self._submitted, self._submitted + 1
        known = self._known(start)
        step = Prepared(frames, self.layout, self.bound, self.settings, self._mask, len(known))
        model, probe = self.networks.next()
        if probe and not step.promises(model, self._threads):
            model, probe = self.networks.dismiss(), False
        compares = self.coders.probes(number)
        if compares and not step.doubtful(self._threads):
            self.coders.forget()
            compares = False
        alone = probe or compares
        each, spare = self._threads_each(alone), not self.networks.free
        tiles = [
            self._pool.submit(
                self._encoder_of(self.layout.offset(start, tile)),
                *step.arguments(tile),
                **step.options(tile),
                model=model,
                spare=spare,
                preferred=self.coders.preferred(number, place),
                threads=each,
            )
            for place, tile in enumerate(self.layout.tiles)
        ]
        self._steps.append(_Step(start, step.frames, tiles, tail, probe, compares, known))
        # Now, not before the next step: until then its frames take memory beside these.
        limit = self._most_bytes // max(frames.nbytes, 1)
        self.drain(0 if alone else max(0, min(limit, self._threads + 1) - 1))

    def _known(self, start: int) -> np.ndarray:
        """Rows of the frames from `start` on that were there before."""
        return self.past.tail_rows if start == self.past.totals.frames else self.past.tail_rows[:0]

    def _threads_each(self, alone: bool) -> int:
        """Threads for each tile of the next step: steps go in groups that keep all busy, and a
        group that is smaller than that shares the threads among its tiles. Where the last step
        is short, its threads help with the one before it."""
        if self._device != "cpu":
            return 1
        tiles = len(self.layout.tiles)
        if alone:
            self._group = [0, 0]
            self._left -= 1
            return max(1, self._threads // tiles)
        if self._group[0] == 0:
            size = max(1, min(self._threads // tiles, self._left))
            shorter = self._uneven and self._left == size
            self._group = [size, max(1, self._threads // (tiles if shorter else size * tiles))]
        self._group[0] -= 1
        self._left -= 1
        return self._group[1]

    def _encoder_of(self, offset: tuple[int, ...]):
        """What encodes the chunk that lies at this offset in the dataset."""
        return self._encode

    def drain(self, left: int = 0) -> None:
        """Write finished chunks, in order, until at most `left` steps are under way."""
        while len(self._steps) > left:
            self._write(self._steps[0])
            step = self._steps.popleft()
            if not step.tail:
                self._written(len(step.frames))

    @property
    def under_way(self) -> int:
        """Chunks of time that are not written yet."""
        return len(self._steps)

    def _write(self, step: _Step) -> None:
        tiles = self.networks.judge([future.result() for future in step.tiles], step.probe)
        if step.compares:
            self.coders.judge(tiles)
        stop = step.start + len(step.frames)
        if self.data.shape[0] != self._length:
            raise InputError(
                f"{self.data.name} has {self.data.shape[0]} frames now, where {self._length} were "
                "written: another writer goes on with it; let only one write"
            )
        self.space.reserve(sum(len(tile.payload) for tile in tiles))
        self._length = max(self._length, stop)
        if self.data.shape[0] < stop:
            self.data.resize(stop, axis=0)
        for place, tile in zip(self.layout.tiles, tiles, strict=True):
            offset = self.layout.offset(step.start, place)
            self.data.id.write_direct_chunk(offset, tile.payload)
        records = self._records(tiles, step.frames, windows_before=self._windows)
        records["max_error"][: len(step.known)] = step.known["max_error"]
        table = self.group["frames"]
        if len(table) < stop:
            table.resize(stop, axis=0)
        table[step.start : stop] = records
        if not step.tail:
            self._account(step, tiles, records)
        if self._durable:
            self.group.file.flush()

    def _account(self, step: _Step, tiles: list[Encoded], records: np.ndarray) -> None:
        totals = self.totals
        totals.frames += len(step.frames)
        totals.raw_bytes += step.frames.nbytes
        totals.payload_bytes += sum(len(tile.payload) for tile in tiles)
        totals.max_error = max(totals.max_error, float(records["max_error"].max()))
        totals.chunks += len(tiles)
        totals.fallback_chunks += sum(tile.coder == "fallback" for tile in tiles)
        totals.network_chunks += sum(tile.model is not None for tile in tiles)
        keyframes = np.flatnonzero(records["kind"] == Kind.KEYFRAME)
        self._windows += keyframes.size
        self._keyframes.append(step.start + keyframes)
        if self._preview is not None:
            for t in keyframes:
                picture = panels_joined(step.frames[t][None], self.layout.panel_axes)[0]
                self._preview.add(step.start + int(t), picture)

    def _records(self, tiles: list[Encoded], frames: np.ndarray, windows_before: int) -> np.ndarray:
        """Rows of the ``frames`` table: the tiles of each frame added up."""
        records = np.zeros(len(frames), FRAME_DTYPE)
        window = windows_before - 1
        for t, row in enumerate(records):
            parts: list[FrameRecord] = [tile.frames[t] for tile in tiles]
            kind = max(part.kind for part in parts)  # a keyframe when all its tiles are
            window += kind == Kind.KEYFRAME
            row["kind"], row["window"] = kind, max(window, 0)
            row["keyframe_bytes"] = sum(part.keyframe_bytes for part in parts)
            row["residual_bytes"] = sum(part.residual_bytes for part in parts)
            row["mse"] = np.mean([part.mse for part in parts])
            row["max_error"] = max(part.max_error for part in parts)
        return records

    def adopt_tail(self) -> None:
        """Leave the unfinished last chunk that was there as it is: no frame has come to it."""
        past = self.past
        self.totals = replace(past.with_tail)
        self._keyframes.append(
            past.totals.frames + np.flatnonzero(past.tail_rows["kind"] == Kind.KEYFRAME)
        )

    # --- the end ---

    def describe(self, *, complete: bool) -> None:
        """Bring the group's attributes up to date."""
        totals = self.totals
        note = partial(container.note, self.group)
        note("bound", str(self.bound))
        note("bound_mode", self.bound.mode)
        note("level", self.settings.level)
        note("max_error", totals.max_error)
        note("raw_bytes", totals.raw_bytes)
        note("payload_bytes", totals.payload_bytes)
        note("ratio", totals.raw_bytes / max(totals.payload_bytes, 1))
        note("fallback_chunks", totals.fallback_chunks)
        note("chunks", totals.chunks)
        note("network_chunks", totals.network_chunks)
        note("complete", complete)
        if self.networks.used is not None:
            embedding.link(self.group, self.networks.used.digest)

    def finish(self) -> None:
        """Write what is under way, and the preview."""
        self.drain()
        self.describe(complete=True)
        self.write_preview()

    def write_preview(self) -> None:
        """Store the thumbnails collected so far."""
        if self._preview is not None:
            self._preview.write(self.group)

    @property
    def keyframes(self) -> np.ndarray:
        """Numbers of the keyframes written, rising."""
        return np.concatenate(self._keyframes)

    def close(self) -> None:
        """Stop the threads; what was not written is dropped."""
        for step in self._steps:
            for future in step.tiles:
                future.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._steps.clear()
