"""The task of a cluster's worker: encoding the chunks of one step from its frames.

A task is a pure function of its arguments, so a cluster may run it anywhere, and again if a worker
dies. This module does not depend on the kind of cluster.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial

import h5py
import numpy as np

from tezip_h5 import devices
from tezip_h5.codec import Encoded
from tezip_h5.errors import InputError
from tezip_h5.frames import take
from tezip_h5.hdf5.contents.preview import picture_of
from tezip_h5.hdf5.writing.checked import chunk_encoder
from tezip_h5.hdf5.writing.choices import Trial
from tezip_h5.hdf5.writing.steps import Prepared, Recipe
from tezip_h5.model import store
from tezip_h5.prediction.integer import IntegerModel
from tezip_h5.version import __version__
from tezip_h5.windows import Kind

__all__ = ["EncodedStep", "StepOptions", "StoredFrames", "encode_step"]


@dataclass(frozen=True)
class StepOptions:
    """The options with which workers encode every step of a stack; sent with each task."""

    recipe: Recipe
    threads: int
    verify: bool
    preview: bool
    device: str
    version: str = __version__


@dataclass(frozen=True)
class StoredFrames:
    """Frames that a worker reads itself, from a dataset in a file."""

    path: str
    dataset: str
    order: tuple[int, ...]
    start: int
    stop: int

    def __len__(self):
        return self.stop - self.start

    def read(self) -> np.ndarray:
        """The frames, (k, *frame_shape).

        Raises
        ------
        InputError
            When this machine cannot read the file.
        """
        try:
            with h5py.File(self.path, "r") as file:
                return take(file[self.dataset], self.order, self.start, self.stop)
        except (OSError, KeyError) as error:
            raise InputError(
                f"a worker cannot read {self.dataset} of {self.path}: {error}; the file must lie "
                "where every worker sees it under this path"
            ) from None


@dataclass(frozen=True)
class EncodedStep:
    """The result of a task.

    Attributes
    ----------
    tiles : list of Encoded, in the order of `Layout.tiles`
        Without their `model`, to save bytes; see `predicted`.
    predicted : list of bool
        Whether each tile had a model.
    promises : bool
        Whether the network may pay, by a sample of the frames.
    raw_bytes : int
    pictures : dict from frame numbers to small pictures, for all frames that may be keyframes
    """

    tiles: list[Encoded]
    predicted: list[bool]
    promises: bool
    raw_bytes: int
    pictures: dict[int, np.ndarray]


@lru_cache(maxsize=4)
def _model(data: bytes) -> IntegerModel:
    return store.register(IntegerModel.from_bytes(data))


def _gathered(parts) -> np.ndarray:
    """The frames of `parts` in one array; `parts` as for `encode_step`."""
    if isinstance(parts, StoredFrames):
        return parts.read()
    if isinstance(parts, np.ndarray):
        return parts
    cut = [np.asarray(array)[first:last] for array, first, last in parts]
    return cut[0] if len(cut) == 1 else np.concatenate(cut)


def encode_step(
    options: StepOptions, parts, count: int, exact: int, trial: Trial, model: bytes | None
) -> EncodedStep:
    """Encode `count` frames as the chunks of one step.

    Parameters
    ----------
    options : StepOptions
    parts : StoredFrames, array, or list of (array, first, last)
        The frames.
    exact : int
        Number of the first frames that are kept exactly.
    trial : Trial
        What may be tried, from `NetworkChoice.foresee`, without the network.
    model : bytes, optional
        The network. In a probe it is tried only if a sample of the frames shows that it may pay.

    Raises
    ------
    InputError
        When the frames have another dtype or shape than announced, or this worker has another
        version of tezip_h5.
    """
    if options.version != __version__:
        raise InputError(
            f"a worker has tezip_h5 {__version__}, the writer {options.version}; install the same "
            "version everywhere"
        )
    recipe, threads = options.recipe, options.threads
    frames = _gathered(parts)
    expected = (count, *recipe.layout.frame_shape)
    if frames.shape != expected or frames.dtype.newbyteorder("<") != recipe.dtype:
        raise InputError(
            f"the array said that its frames are {recipe.dtype} {expected}, but they were "
            f"computed as {frames.dtype} {frames.shape}; correct its meta, dtype or chunks"
        )
    step = Prepared(frames, recipe, exact)
    network = None if model is None else _model(model)
    promises = network is not None and (
        recipe.settings.predictor == "prednet" or step.promises(network, threads)
    )
    trial = replace(trial, model=network if promises or not trial.probe else None)
    device = devices.choose(options.device, recipe.layout.tile_count)
    encode = partial(step.encode, chunk_encoder(options.verify, device))
    tiles = [encode(tile, trial, threads) for tile in recipe.layout.tiles]
    return EncodedStep(
        [replace(tile, model=None) for tile in tiles],
        [tile.model is not None for tile in tiles],
        promises,
        frames.nbytes,
        _pictures(step.frames, tiles, recipe.layout.panel_axes) if options.preview else {},
    )


def _pictures(frames: np.ndarray, tiles: list[Encoded], panel_axes: int) -> dict:
    """Small pictures for `Preview` of all frames that are keyframes in any of the payloads."""
    ways = [*tiles, *(tile.without for tile in tiles if tile.without is not None)]
    return {
        t: np.ascontiguousarray(picture_of(frames, panel_axes, t))
        for t in range(len(frames))
        if any(way.frames[t].kind == Kind.KEYFRAME for way in ways)
    }
