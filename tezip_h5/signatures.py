"""Types of what public calls take, for type checkers: nothing imports this at run time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypedDict

import h5py
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from tezip_h5.prediction.integer import IntegerModel

__all__ = ["Filenames", "PathLike", "SettingsKeywords", "StackLike"]

PathLike = str | os.PathLike[str]
Filenames = PathLike | Sequence[PathLike]
StackLike = ArrayLike | h5py.Dataset | PathLike | Iterable[ArrayLike]


class SettingsKeywords(TypedDict, total=False):
    """The fields of `settings.Settings` as keywords; a model may also be a path, or itself."""

    level: str
    window: int | None
    mse_threshold: float | None
    warmup: int
    feedback: str
    entropy: bool
    predictor: str | None
    coder: str | None
    quantizer: str | None
    spatial: bool | None
    ranks: bool | None
    model: str | os.PathLike[str] | IntegerModel | None
