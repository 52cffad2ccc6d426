"""A crew of threads. Kernels and zstd hold no GIL, and no thread touches an h5py object."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from tezip_h5.hdf5.contents.preview import picture_of
from tezip_h5.hdf5.threads import Shares, chunks_under_way
from tezip_h5.hdf5.writing.choices import Choices, Trial
from tezip_h5.hdf5.writing.crew import Finished
from tezip_h5.hdf5.writing.steps import Prepared, Recipe

__all__ = ["Pool"]

_BYTES_IN_FLIGHT = {"cpu": 128 << 20, "cuda": 1 << 30}


@dataclass(frozen=True)
class _Work:
    """A step in the hands of the threads."""

    trial: Trial
    frames: np.ndarray
    tiles: list[Future]
    beside: int


class Pool:
    """Encode steps with the threads of this process; a `Crew`.

    Parameters
    ----------
    recipe, choices
        How, and what is tried.
    encoder_at : callable
        Given the offset of a chunk in the dataset, what encodes it, such as `encode_chunk`.
    threads : int
    device : "cpu" | "cuda"
        What encodes.
    count : int, optional
        Frames of the whole stack, when known.
    """

    def __init__(
        self,
        recipe: Recipe,
        choices: Choices,
        encoder_at: Callable,
        *,
        threads: int,
        device: str = "cpu",
        count: int | None = None,
    ):
        self._recipe, self._choices, self._encoder_at = recipe, choices, encoder_at
        self._threads = chunks_under_way(threads, device)
        layout = recipe.layout
        # Threads of one chunk are of use to the CPU only.
        each = self._threads if device == "cpu" else 1
        self._shares = Shares(each, layout.tile_count, layout.chunk[0], count)
        self._most_bytes = _BYTES_IN_FLIGHT[device]
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="tezip")

    def begin(self, frames: np.ndarray, start: int, exact: int = 0) -> _Work:
        """See `Crew.begin`."""
        step = Prepared(frames, self._recipe, exact)
        threads = self._threads
        trial = self._choices.next(
            lambda model: step.promises(model, threads), lambda: step.doubtful(threads)
        )
        encode = partial(step.encode, trial=trial, threads=self._shares.next(trial.alone))
        layout = self._recipe.layout
        tiles = [
            self._pool.submit(encode, self._encoder_at(layout.offset(start, tile)), number, tile)
            for number, tile in enumerate(layout.tiles)
        ]
        fitting = self._most_bytes // max(frames.nbytes, 1)
        beside = 0 if trial.alone else max(0, min(fitting, threads + 1) - 1)
        return _Work(trial, step.frames, tiles, beside)

    def finish(self, work: _Work) -> Finished:
        """See `Crew.finish`."""
        tiles = [future.result() for future in work.tiles]
        picture = partial(picture_of, work.frames, self._recipe.layout.panel_axes)
        return Finished(work.trial, tiles, work.frames.nbytes, picture)

    def close(self, dropped: list[_Work]) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
