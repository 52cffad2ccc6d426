"""The chunk that a `Writer` fills: frames that came and make no whole chunk yet."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Pending"]


class Pending(NamedTuple):
    """Frames of a chunk that is not full, and where it begins.

    A writer has one of these in one attribute and replaces it as a whole: the handler of a signal
    closes at any moment, and must find what belongs together.
    """

    frames: np.ndarray
    """Room for a chunk of them."""
    start: int
    """Number of the first one in the stack."""
    count: int = 0
    """How many have come."""
    kept: int = 0
    """The first of them, which lie in the file."""

    @property
    def stop(self) -> int:
        """Frames of the stack so far."""
        return self.start + self.count

    @property
    def room(self) -> int:
        """How many more it takes."""
        return len(self.frames) - self.count

    @property
    def new(self) -> np.ndarray | None:
        """What has come, if any of it does not lie in the file."""
        return self.frames[: self.count] if self.count > self.kept else None

    def with_more(self, frames: np.ndarray) -> Pending:
        """The same with frames behind those that have come."""
        self.frames[self.count : self.count + len(frames)] = frames
        return self._replace(count=self.count + len(frames))
