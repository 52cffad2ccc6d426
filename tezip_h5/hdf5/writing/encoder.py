"""Frames -> chunks of one dataset. All ways of writing use this module."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import h5py
import numpy as np

from tezip_h5.hdf5.writing.choices import NetworkChoice
from tezip_h5.hdf5.writing.crew import Crew, Work
from tezip_h5.hdf5.writing.growing import GrowingStack
from tezip_h5.hdf5.writing.past import Totals
from tezip_h5.hdf5.writing.tally import Tally
from tezip_h5.model import embedding

__all__ = ["StackEncoder"]


@dataclass(frozen=True)
class _Step:
    """One step (the frames of one chunk) that is being encoded."""

    start: int
    count: int
    known: np.ndarray  # table rows of its first frames, those that are kept exactly
    tail: bool  # whether more frames of the same chunks will follow
    work: Work


class StackEncoder:
    """Encode frames into a stack, which may have frames already.

    Frames arrive in order. A crew encodes several steps at once (a step is the frames of one
    chunk), and the caller's thread writes them in order.

    Parameters
    ----------
    stack : GrowingStack
        The stack that chunks are written to.
    networks : NetworkChoice
        Decides what each step tries.
    crew : Crew
        Encodes the steps, with the same `networks`.
    tally : Tally
        Counts what was written.
    durable : bool
        Flush the file after every chunk, so that a killed process loses nothing written.
    written : callable, optional
        Called with the number of frames each time a whole step has been written.

    Attributes
    ----------
    recipe : Recipe
    networks : NetworkChoice
    data : h5py.Dataset
    space : Space
        Reserves disk space for its file.
    past : Past
        The frames that the stack had already. Those of its tail must be submitted again first.
    """

    def __init__(
        self,
        stack: GrowingStack,
        networks: NetworkChoice,
        crew: Crew,
        tally: Tally,
        *,
        durable: bool = False,
        written: Callable[[int], None] | None = None,
    ):
        self._stack, self.networks, self._crew, self._tally = stack, networks, crew, tally
        self._durable = durable
        self._written = written or (lambda frames: None)
        self._steps: deque[_Step] = deque()
        self.recipe = stack.recipe
        self.data, self.space, self.past = stack.data, stack.space, stack.past

    # --- frames ---

    def submit(self, frames, start: int, *, tail: bool = False) -> None:
        """Encode one step: at most G frames, of which the first has the number `start`.

        `frames` must not change until the step has been written; see `drain`. A `tail` is an
        unfinished chunk. It is written now, and will be submitted again with more frames.
        """
        known = self.past.rows_from(start)
        work = self._crew.begin(frames, start, len(known))
        self._steps.append(_Step(start, len(frames), known, tail, work))
        # Now, not when the next step begins: finished frames would take memory until then.
        self.drain(work.beside)

    def drain(self, left: int = 0) -> None:
        """Write finished steps, in order, until at most `left` steps are unfinished."""
        while len(self._steps) > left:
            self._write(self._steps[0])
            step = self._steps.popleft()
            if not step.tail:
                self._written(step.count)

    def _write(self, step: _Step) -> None:
        done = self._crew.finish(step.work)
        tiles = self.networks.judge(done.trial, done.tiles)
        rows = self._tally.rows(step.count, tiles, step.known)
        self._stack.put(step.start, tiles, rows)
        if not step.tail:
            self._tally.add(step.start, done, tiles, rows)
        if self._durable:
            self._stack.flush()

    def adopt_tail(self) -> None:
        """Keep the old unfinished last chunk as it is, because no frame was added to it."""
        self._tally.adopt_tail()

    @property
    def under_way(self) -> int:
        """Number of steps that are not written yet."""
        return len(self._steps)

    # --- results ---

    @property
    def totals(self) -> Totals:
        """The totals of what has been written so far."""
        return self._tally.totals

    @property
    def keyframes(self) -> np.ndarray:
        """Numbers of the keyframes written, rising."""
        return self._tally.keyframes

    def describe(self, *, complete: bool) -> None:
        """Bring the group's attributes up to date."""
        self._stack.describe(self.totals, complete=complete)
        if self.networks.used is not None:
            embedding.link(self._stack.group, self.networks.used.digest)

    def write_preview(self, group: h5py.Group) -> None:
        """Store the thumbnails collected so far in the stack's group."""
        self._tally.write_preview(group)

    # --- the end ---

    def finish(self) -> None:
        """Write all unfinished steps, and the preview."""
        self.drain()
        self.describe(complete=True)
        self.write_preview(self._stack.group)

    def close(self) -> None:
        """Stop the crew; steps that are not written yet are dropped."""
        self._crew.close([step.work for step in self._steps])
        self._steps.clear()
