"""A crew of threads. Kernels and zstd release the GIL, and the threads use no h5py objects."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from tezip_h5.hdf5.contents.preview import picture_of
from tezip_h5.hdf5.threads import Shares, chunks_under_way
from tezip_h5.hdf5.writing.choices import NetworkChoice, Trial
from tezip_h5.hdf5.writing.crew import Finished
from tezip_h5.hdf5.writing.steps import Prepared, Recipe

__all__ = ["Pool"]

_BYTES_IN_FLIGHT = {"cpu": 128 << 20, "cuda": 1 << 30}  # at most, of steps that are being encoded


@dataclass(frozen=True)
class _Work:
    """A step that the threads are encoding."""

    trial: Trial
    frames: np.ndarray
    tiles: list[Future]
    beside: int


class Pool:
    """Encode steps with the threads of this process; a `Crew`.

    Parameters
    ----------
    recipe, networks
        The options of encoding, and what each step tries.
    encoder_at : callable
        Returns the function that encodes a chunk, such as `encode_chunk`, given its offset in the
        dataset.
    threads : int
    device : "cpu" | "cuda"
        The device that encodes.
    count : int, optional
        Number of frames of the whole stack, if it is known.
    """

    def __init__(
        self,
        recipe: Recipe,
        networks: NetworkChoice,
        encoder_at: Callable,
        *,
        threads: int,
        device: str = "cpu",
        count: int | None = None,
    ):
        self._recipe, self._networks, self._encoder_at = recipe, networks, encoder_at
        self._threads = chunks_under_way(threads, device)
        layout = recipe.layout
        # Several threads for one chunk help only on the CPU.
        each = self._threads if device == "cpu" else 1
        self._shares = Shares(each, layout.tile_count, layout.chunk[0], count)
        self._most_bytes = _BYTES_IN_FLIGHT[device]
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="tezip")

    def begin(self, frames: np.ndarray, start: int, exact: int = 0) -> _Work:
        """See `Crew.begin`."""
        step = Prepared(frames, self._recipe, exact)
        threads = self._threads
        trial = self._networks.next(lambda model: step.promises(model, threads))
        encode = partial(step.encode, trial=trial, threads=self._shares.next(trial.probe))
        layout = self._recipe.layout
        tiles = [
            self._pool.submit(encode, self._encoder_at(layout.offset(start, tile)), tile)
            for tile in layout.tiles
        ]
        fitting = self._most_bytes // max(frames.nbytes, 1)
        beside = 0 if trial.probe else max(0, min(fitting, threads + 1) - 1)
        return _Work(trial, step.frames, tiles, beside)

    def finish(self, work: _Work) -> Finished:
        """See `Crew.finish`."""
        tiles = [future.result() for future in work.tiles]
        picture = partial(picture_of, work.frames, self._recipe.layout.panel_axes)
        return Finished(work.trial, tiles, work.frames.nbytes, picture)

    def close(self, dropped: list[_Work]) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
