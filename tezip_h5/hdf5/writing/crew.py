"""Who encodes the steps of a stack: what `StackEncoder` asks of them, and what it is given.

Threads of this process do (`pool`), or the workers of a cluster (`workers`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tezip_h5.codec import Encoded
from tezip_h5.hdf5.writing.choices import Trial

__all__ = ["Crew", "Finished", "Work"]


@dataclass(frozen=True)
class Finished:
    """A step that is encoded.

    Attributes
    ----------
    trial : Trial
        What it tried, for `Choices.judge`.
    tiles : list of Encoded, in the order of `Layout.tiles`
    raw_bytes : int
        Of its samples.
    picture : callable
        Given the number in the step of a frame that is a keyframe, what `Preview.add` needs of it.
    """

    trial: Trial
    tiles: list[Encoded]
    raw_bytes: int
    picture: Callable[[int], np.ndarray]


class Work(Protocol):
    """A step that is being encoded.

    Attributes
    ----------
    beside : int
        Steps that may be under way until the next one begins, this one among them; more would
        take too much memory. 0 where the step must be judged before.
    """

    beside: int


class Crew(Protocol):
    """Encode steps, several at a time."""

    def begin(self, frames, start: int, exact: int = 0) -> Work:
        """Have a step encoded, at most G frames beginning at frame `start`, the first `exact` of
        them just as they are. They must not change until it is finished."""

    def finish(self, work: Work) -> Finished:
        """Wait for a step; called in the order in which they began."""

    def close(self, dropped: list[Work]) -> None:
        """Let everything go; the steps that are `dropped` will not be finished."""
