"""What a worker of a cluster does: the chunks of one step, from its frames and nothing else.

A task is a pure function of its arguments, so a cluster may run it anywhere, and again when a
worker dies. Nothing here knows which cluster it is.
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
    """How every step of a stack is encoded by workers; sent with each task."""

    recipe: Recipe
    threads: int
    verify: bool
    preview: bool
    device: str
    version: str = __version__


@dataclass(frozen=True)
class StoredFrames:
    """Frames that a worker reads itself, from a dataset in a file that it can open."""

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
            When this machine cannot read them.
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
    """What comes back.

    Attributes
    ----------
    tiles : list of Encoded, in the order of `Layout.tiles`
        `model` is taken out of them; `predicted` says where it was.
    predicted : list of bool
    promises : bool
        Whether the network that was given may pay, judged by a sample of the frames.
    doubtful : bool
        Whether coders were compared, because a sample could not say which to take.
    raw_bytes : int
    pictures : dict of frame number to what `Preview` needs of it, for all that may be keyframes
    """

    tiles: list[Encoded]
    predicted: list[bool]
    promises: bool
    doubtful: bool
    raw_bytes: int
    pictures: dict[int, np.ndarray]


@lru_cache(maxsize=4)
def _model(data: bytes) -> IntegerModel:
    return store.register(IntegerModel.from_bytes(data))


def _gathered(parts) -> np.ndarray:
    """One array of the frames in `parts`: `StoredFrames`, an array, or (array, first, last)s."""
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
        How many of the first are kept exactly as they are.
    trial : Trial
        What may be tried, as `Choices.foresee` says; but for the network.
    model : bytes, optional
        That network. On probation it is tried only where a sample of the frames promises that it
        pays.

    Raises
    ------
    InputError
        When the frames are not what was announced, or this worker's tezip_h5 is another one.
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
    doubtful = trial.compares and step.doubtful(threads)
    trial = replace(trial, model=network if promises or not trial.probe else None)
    device = devices.choose(options.device, recipe.layout.tile_count)
    encode = partial(step.encode, chunk_encoder(options.verify, device))
    tiles = [
        encode(number, tile, trial, threads) for number, tile in enumerate(recipe.layout.tiles)
    ]
    return EncodedStep(
        [replace(tile, model=None) for tile in tiles],
        [tile.model is not None for tile in tiles],
        promises,
        doubtful,
        frames.nbytes,
        _pictures(step.frames, tiles, recipe.layout.panel_axes) if options.preview else {},
    )


def _pictures(frames: np.ndarray, tiles: list[Encoded], panel_axes: int) -> dict:
    """What `Preview` needs of frames that may be keyframes, whichever way of encoding is kept."""
    ways = [*tiles, *(tile.without for tile in tiles if tile.without is not None)]
    return {
        t: np.ascontiguousarray(picture_of(frames, panel_axes, t))
        for t in range(len(frames))
        if any(way.frames[t].kind == Kind.KEYFRAME for way in ways)
    }
