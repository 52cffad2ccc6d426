"""The options of the encoder, as one frozen value that can be printed and compared.

None means that the encoder tries the choices and keeps the smallest result. Any other value pins
a choice. Decoding needs no settings: every payload describes itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

from tezip_h5.efforts import EFFORTS, Effort
from tezip_h5.errors import InputError

__all__ = ["CODERS", "FEEDBACKS", "LEVELS", "PREDICTORS", "QUANTIZERS", "Settings"]

LEVELS = tuple(EFFORTS)
FEEDBACKS = ("reconstruction", "prediction")
QUANTIZERS = ("uniform", "run-merging")
PREDICTORS = ("none", "previous", "prednet")
CODERS = ("fallback", "stages", "linear", "mixing")

_MOST_FRAMES = 2**31 - 1  # it is stored in one of the filter's 32-bit options


def _choice(name, value, choices):
    known = value is None or isinstance(value, str | bool)  # arrays are neither in nor not
    if not known or value not in choices:
        raise InputError(
            f"{name}={value!r} is unknown; choose one of {', '.join(map(str, choices))}"
        )


def _check_frames(name, value, least):
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not least <= value <= _MOST_FRAMES:
        raise InputError(
            f"{name}={value!r} is no number of frames; give an int from {least} to {_MOST_FRAMES}"
        )
    return int(value)


@dataclass(frozen=True)
class Settings:
    """Encoder options of one stack.

    Parameters
    ----------
    level : "fast" | "balanced" | "best"
        The trade of speed for size; `efforts` describes each level.
    window : int, optional
        A keyframe every `window` frames (the manual's ``-w``).
    mse_threshold : float, optional
        A keyframe where the mean squared error of the window's predictions so far, on the
        0..1 scale of the dtype, exceeds this (the manual's ``-t``). Excludes `window`.
    warmup : int
        That many frames at the start of every chunk are keyframes before the first window
        (the manual's ``-p``).
    feedback : "reconstruction" | "prediction"
        The input of the predictor for later frames: the reconstruction of a predicted frame, so
        that each prediction is one step ahead, or its prediction (the original's scheme).
    entropy : bool
        False leaves out partitioned entropy encoding and pins the original's stages (the
        manual's ``-n``).
    predictor : "auto" | "none" | "previous" | "prednet", optional
        Pin the predictor. "auto" means the same as None: the network is used where it pays. With
        "none" all frames are keyframes.
    coder : "stages" | "linear" | "mixing" | "fallback", optional
        Pin the residual coder. A chunk that the fallback codec makes smaller uses the fallback
        codec with every setting.
    quantizer : "uniform" | "run-merging", optional
        Pin the quantizer; only the stages have the second one.
    spatial, ranks : bool, optional
        Pin density-based spatial encoding and partitioned entropy encoding on or off.
    model : "default" | None | str
        The network that may predict: one that ships (tried at "best"), none, or one that was
        registered (its digest in hexadecimal; `write` and `Writer` take a path or a `Model` and
        register it).

    Raises
    ------
    InputError
        For an unknown name, a number out of range, or `window` with `mse_threshold`.

    Examples
    --------
    >>> Settings(level="fast", window=8).main_coder
    'linear'
    >>> Settings() == Settings(level="balanced", predictor="auto")
    True
    """

    level: str = "balanced"
    window: int | None = None
    mse_threshold: float | None = None
    warmup: int = 0
    feedback: str = "reconstruction"
    entropy: bool = True
    predictor: str | None = None
    coder: str | None = None
    quantizer: str | None = None
    spatial: bool | None = None
    ranks: bool | None = None
    model: str | None = "default"

    def __post_init__(self):
        _choice("level", self.level, LEVELS)
        _choice("feedback", self.feedback, FEEDBACKS)
        if self.predictor == "auto":
            object.__setattr__(self, "predictor", None)
        for name, choices in (
            ("predictor", PREDICTORS),
            ("coder", CODERS),
            ("quantizer", QUANTIZERS),
        ):
            if getattr(self, name) is not None:
                _choice(name, getattr(self, name), choices)
        for name in ("entropy", "spatial", "ranks"):
            if isinstance(getattr(self, name), np.bool_):
                object.__setattr__(self, name, bool(getattr(self, name)))
            _choice(name, getattr(self, name), (True, False) + (None,) * (name != "entropy"))
        if self.window is not None and self.mse_threshold is not None:
            raise InputError(
                "window (-w) and mse_threshold (-t) were both given; they place keyframes in "
                "two different ways, give only one"
            )
        if self.window is not None:
            object.__setattr__(self, "window", _check_frames("window", self.window, 1))
        if self.mse_threshold is not None and not (
            isinstance(self.mse_threshold, Real) and 0 <= self.mse_threshold < math.inf
        ):
            raise InputError(
                f"mse_threshold={self.mse_threshold!r} is no mean squared error on the 0..1 "
                "scale; give a finite number >= 0"
            )
        object.__setattr__(self, "warmup", _check_frames("warmup", self.warmup, 0))
        if self.predictor == "prednet" and self.model is None:
            raise InputError("predictor='prednet' needs a model, but model=None was given")
        if not self.entropy:
            if self.ranks:
                raise InputError("entropy=False leaves out PEE, but ranks=True asks for it")
            object.__setattr__(self, "ranks", False)
            if self.coder is None:
                object.__setattr__(self, "coder", "stages")

    @property
    def effort(self) -> Effort:
        """The choices of the encoder at this level."""
        return EFFORTS[self.level]

    @property
    def main_coder(self) -> str:
        """The residual coder that is tried first, before the fallback."""
        if self.coder in ("stages", "linear", "mixing"):
            return self.coder
        if (self.quantizer, self.spatial, self.ranks) != (None, None, None):
            return "stages"
        return self.effort.coder

    @property
    def automatic_windows(self) -> bool:
        """Whether the encoder may place keyframes where they are cheapest."""
        return self.window is None and self.mse_threshold is None and self.warmup == 0
