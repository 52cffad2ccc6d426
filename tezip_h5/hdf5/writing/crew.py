"""A crew encodes the steps of a stack for `StackEncoder`. This module defines its interface.

There are two crews: threads of this process (`pool`) and workers of a cluster (`workers`).
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
    """An encoded step.

    Attributes
    ----------
    trial : Trial
        What the step tried, for `NetworkChoice.judge`.
    tiles : list of Encoded, in the order of `Layout.tiles`
    raw_bytes : int
        Size of its samples.
    picture : callable
        Returns the small picture of a keyframe for `Preview.add`, given its number in the step.
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
        Number of steps, this one included, that may be unfinished when the next one begins; more
        would take too much memory. 0 if this step must be judged first.
    """

    beside: int


class Crew(Protocol):
    """The interface of a crew: it encodes several steps at a time."""

    def begin(self, frames, start: int, exact: int = 0) -> Work:
        """Begin to encode a step: at most G frames, of which the first has the number `start`.

        The first `exact` frames are kept exactly. The frames must not change until the step is
        finished.
        """

    def finish(self, work: Work) -> Finished:
        """Wait for a step and return its result; called in the order in which steps began."""

    def close(self, dropped: list[Work]) -> None:
        """Release all resources; the steps in `dropped` will not be finished."""
