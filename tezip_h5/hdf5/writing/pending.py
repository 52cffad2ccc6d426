"""The unfinished chunk of a `Writer`: frames that do not fill a chunk yet."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Pending"]


class Pending(NamedTuple):
    """The frames of an unfinished chunk.

    A writer keeps one of these in one attribute and always replaces it as a whole. A signal handler
    may close the writer at any moment, and then finds a consistent value.
    """

    frames: np.ndarray
    """An array with room for a whole chunk."""
    start: int
    """Number in the stack of its first frame."""
    count: int = 0
    """Number of frames that it has."""
    kept: int = 0
    """Number of its first frames that are in the file already."""

    @property
    def stop(self) -> int:
        """Number of frames of the stack so far."""
        return self.start + self.count

    @property
    def room(self) -> int:
        """Number of frames that still fit."""
        return len(self.frames) - self.count

    @property
    def new(self) -> np.ndarray | None:
        """Its frames; None if all of them are in the file already."""
        return self.frames[: self.count] if self.count > self.kept else None

    def with_more(self, frames: np.ndarray) -> Pending:
        """The chunk with more frames at its end."""
        self.frames[self.count : self.count + len(frames)] = frames
        return self._replace(count=self.count + len(frames))
