"""`prepare`: compile everything that encoding and decoding need, before the first frame comes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tezip_h5 import kernels
from tezip_h5.bounds import ErrorBound
from tezip_h5.codec import decode_chunk, encode_chunk
from tezip_h5.errors import InputError
from tezip_h5.frames import is_count
from tezip_h5.hdf5.contents.networks import model_to_try
from tezip_h5.hdf5.writing.plan import Plan
from tezip_h5.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import DTypeLike
    from typing_extensions import Unpack

    from tezip_h5.signatures import SettingsKeywords

__all__ = ["prepare"]

_SHAPE = 4, 64, 64
# Kernels that only some samples need: those of any coder, and those of the mixing coder.
_OF_ANY = ("bits", "masks")
_OF_MIXING = ("mixing.mean", "mixing.motion", "mixing.rehearsal", "mixing.sums")
_WIDE = ErrorBound(relative=0.05)


def prepare(
    dtype: DTypeLike = "uint16",
    *,
    channels: int = 1,
    absolute: float | None = None,
    relative: float | None = None,
    pointwise_relative: float | None = None,
    noise: float | None = None,
    device: str = "auto",
    **settings: Unpack[SettingsKeywords],
) -> float:
    """Compile now what writing and reading frames would compile when the first one comes.

    Kernels are compiled once per machine and kept on its disk, which takes a minute or two; later
    calls load them, in seconds. Call it before an acquisition begins, with what
    `Writer` or `write` will be given. It encodes and decodes a few small frames in memory.

    Parameters
    ----------
    dtype : str or dtype
        Of the frames.
    channels : int
        Of the frames, 1 to 4.
    absolute, relative, pointwise_relative, noise, device, **settings
        As `write` and `Writer` take them.

    Returns
    -------
    float
        Seconds of compiling; 0.0 where all was compiled already.

    Raises
    ------
    InputError
        For options that cannot be, as `Writer` does.
    ModelError
        When `model` is not found.

    Examples
    --------
    >>> prepare("uint16", level="fast", relative=1e-3) >= 0
    True
    """
    before = kernels.compile_seconds()
    bound = ErrorBound(absolute, relative, pointwise_relative, noise)
    if not is_count(channels) or channels > 4:
        raise InputError(f"channels={channels!r} is no number of channels; give an int, 1 to 4")
    shape = (*_SHAPE[1:], channels)[: 2 + (channels > 1)]
    plan = Plan(
        frame_shape=shape,
        dtype=dtype,
        bound=bound,
        settings=settings,
        chunk_frames=None,
        tile=None,
        threads=None,
        device=device,
    )
    model = model_to_try(plan.settings, channels)
    ways, frames = _ways(plan.settings, model is not None), _frames(plan.dtype, channels)
    mixing = any(way.main_coder == "mixing" for way in ways)
    for name in _OF_ANY + _OF_MIXING * mixing:
        kernels.load(name)
    # In a frame the bound may be less than a level, or that of these small ones be.
    bounds = [ErrorBound()] if bound.lossless else [ErrorBound(), bound, _WIDE]
    for place in sorted({"cpu", plan.device}):
        for way in ways:
            network = model if way.predictor == "prednet" else None
            for limit in bounds:
                of_frames = limit.of_frames(frames)
                made = encode_chunk(frames, of_frames, way, model=network, device=place)
                decode_chunk(made.payload, device=place)
    return kernels.compile_seconds() - before


def _ways(settings: Settings, network: bool) -> list[Settings]:
    """Settings that pin what the samples would decide, one by one."""
    ways = [settings]
    if settings.coder is None and settings.predictor != "prednet":
        ways += [replace(settings, coder=coder) for coder in {"linear", settings.main_coder}]
    if network and settings.predictor is None:
        ways += [replace(way, predictor="prednet") for way in ways]
    return ways


def _frames(dtype: np.dtype, channels: int) -> np.ndarray:
    """Frames with something to predict in them, and noise."""
    rng = np.random.default_rng(0)
    t, y, x = np.ogrid[: _SHAPE[0], : _SHAPE[1], : _SHAPE[2]]
    smooth = 60 + 30 * np.sin((x + 2 * t) / 5) * np.cos(y / 7)
    frames = rng.poisson(smooth[..., None] * np.ones(channels))
    return (frames > 60 if dtype.kind == "b" else frames).astype(dtype)
