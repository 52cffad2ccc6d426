"""What a worker of a cluster does: the chunks of one step, from its frames and nothing else.

A task is a pure function of its arguments, so a cluster may run it anywhere, and again when a
worker dies. Nothing here knows which cluster it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import h5py
import numpy as np

from tezip_h5 import devices
from tezip_h5.bounds import ErrorBound
from tezip_h5.codec import Encoded, encode_chunk
from tezip_h5.errors import InputError
from tezip_h5.frames import take
from tezip_h5.hdf5.encoder import encode_and_check
from tezip_h5.hdf5.layout import Layout, panels_joined
from tezip_h5.hdf5.preview import shrunk
from tezip_h5.hdf5.steps import Prepared
from tezip_h5.model import store
from tezip_h5.prediction.integer import IntegerModel
from tezip_h5.settings import Settings
from tezip_h5.version import __version__
from tezip_h5.windows import Kind

__all__ = ["EncodedStep", "StepOptions", "StoredFrames", "encode_step"]


@dataclass(frozen=True)
class StepOptions:
    """How every step of a stack is encoded; sent with each task."""

    layout: Layout
    dtype: np.dtype
    bound: ErrorBound
    settings: Settings
    threads: int
    verify: bool
    preview: bool
    device: str
    mask: np.ndarray | None = None
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
    thumbnails : dict of frame number to what `Preview` needs of it, for all that may be keyframes
    """

    tiles: list[Encoded]
    predicted: list[bool]
    promises: bool
    doubtful: bool
    raw_bytes: int
    thumbnails: dict[int, np.ndarray]


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
    options: StepOptions,
    parts,
    count: int,
    model: bytes | None,
    probe: bool,
    compares: bool,
    preferred: list[str | None],
) -> EncodedStep:
    """Encode `count` frames as the chunks of one step.

    Parameters
    ----------
    options : StepOptions
    parts : StoredFrames, array, or list of (array, first, last)
        The frames.
    model : bytes, optional
        An integer model to try.
    probe : bool
        Whether it is tried only where a sample of the frames promises that it pays.
    compares : bool
        Whether it matters that a sample leaves in doubt which coder to take.
    preferred : list of str or None
        Of each tile, see `encode_chunk`.

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
    frames = _gathered(parts)
    expected = (count, *options.layout.frame_shape)
    if frames.shape != expected or frames.dtype.newbyteorder("<") != options.dtype:
        raise InputError(
            f"the array said that its frames are {options.dtype} {expected}, but they were "
            f"computed as {frames.dtype} {frames.shape}; correct its meta, dtype or chunks"
        )
    layout, settings = options.layout, options.settings
    step = Prepared(frames, layout, options.bound, settings, options.mask)
    network = None if model is None else _model(model)
    promises = network is not None and (
        settings.predictor == "prednet" or step.promises(network, options.threads)
    )
    doubtful = compares and step.doubtful(options.threads)
    encode = encode_and_check if options.verify else encode_chunk
    device = devices.choose(options.device, len(layout.tiles))
    tiles = [
        encode(
            *step.arguments(tile),
            **step.options(tile),
            model=network if promises or not probe else None,
            threads=options.threads,
            device=device,
            spare=network is not None and not (probe and store.is_shipped(network)),
            preferred=coder,
        )
        for tile, coder in zip(layout.tiles, preferred, strict=True)
    ]
    return EncodedStep(
        [replace(tile, model=None) for tile in tiles],
        [tile.model is not None for tile in tiles],
        promises,
        doubtful,
        frames.nbytes,
        _thumbnails(panels_joined(step.frames, layout.panel_axes), tiles, layout)
        if options.preview
        else {},
    )


def _thumbnails(frames: np.ndarray, tiles: list[Encoded], layout: Layout) -> dict:
    """What `Preview` needs of frames that may be keyframes; panel axes have one panel then."""
    ways = [*tiles, *(tile.without for tile in tiles if tile.without is not None)]
    found = {}
    for t in range(len(frames)):
        if any(way.frames[t].kind == Kind.KEYFRAME for way in ways):
            small = np.ascontiguousarray(shrunk(frames[t]))
            found[t] = small.reshape((1,) * layout.panel_axes + small.shape)
    return found
