"""Sizes that coders share with their kernels: they are known here before anything is compiled.

Most are of the context-mixing coder's adaptive state, one set for every of its kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["COARSE", "FINE", "FIRST_COUNTER", "LANES", "MISSED_MOST", "TONES", "Sizes"]


@dataclass(frozen=True)
class Sizes:
    """Sizes of the adaptive state.

    Attributes
    ----------
    contexts, mixers, refiners : tuple of int
        Number of contexts of every kind of context, mixer selector and refining table.
    slots : int
        Decisions told apart in every context.
    curves : int
        Distributions of the residual that the mixers see besides; 0 also leaves out what is
        fitted nearby.
    """

    contexts: tuple[int, ...]
    mixers: tuple[int, ...]
    refiners: tuple[int, ...]
    slots: int
    curves: int

    @property
    def fine(self) -> bool:
        """Whether everything that takes time is in."""
        return self.curves > 0

    @property
    def inputs(self) -> int:
        """Inputs of a mixer, but for the constant one."""
        return len(self.contexts) + self.curves

    @property
    def weight_columns(self) -> int:
        """Length of a row of a mixer's weights: the constant input's is among them, and behind
        them stands how many decisions the row has seen."""
        return self.inputs + 2

    @property
    def places(self) -> int:
        """Rows chosen for one pixel, and behind them room for the mixers' dot products."""
        return len(self.contexts) + 2 * len(self.mixers) + len(self.refiners)

    @property
    def marks(self) -> int:
        """Neighbours that a symbol may repeat."""
        return 8 if self.fine else 6

    @property
    def first_weight(self) -> int:
        """What every weight of a mixer begins with: 1.2 in all."""
        return 78643 // self.inputs

    @property
    def offsets(self) -> np.ndarray:
        """First row of every context, mixer and refining table, each among its kind."""
        starts = [np.cumsum((0, *s[:-1])) for s in (self.contexts, self.mixers, self.refiners)]
        return np.concatenate(starts).astype(np.int64)


LANES = 16
"""Rows that the linear coder computes together, and its streams: row y is in stream y % LANES."""

TONES = 64
"""Classes of the predicted level, from dark to bright."""

MISSED_MOST = 1 << 24
"""By how much a prediction can miss, in 1/64 symbols."""

BEYOND = 16
"""No decoder reads so many bytes behind the end of a stream, unless that is damaged."""

AHEAD = 3
"""But at least these: a code has four bytes, of which the encoder's last is one."""

FIRST_COUNTER = 1 << 31
"""What counters begin with: even chances, and nothing seen."""

COARSE = Sizes(contexts=(256, 81, 81, 90, 64), mixers=(20,), refiners=(10,), slots=12, curves=0)
FINE = Sizes(
    contexts=(
        *(80, 225, 225, 225, 256, 225, 225, 150, 324, 320, 405, 225, 256, 225, 256, 225),
        1024,
    ),
    mixers=(20, 15, 32),
    refiners=(20, 25, 64),
    slots=22,
    curves=5,
)
