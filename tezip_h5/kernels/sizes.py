"""Sizes that coders share with their kernels. Importing them compiles nothing.

Most of them are sizes of the adaptive state of the context-mixing coder. Each of its kernels has
its own set of sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["COARSE", "FINE", "FIRST_COUNTER", "LANES", "MISSED_MOST", "TONES", "Sizes"]


@dataclass(frozen=True)
class Sizes:
    """The sizes of the adaptive state of the mixing coder.

    Attributes
    ----------
    contexts : tuple of int
        The number of contexts of each context model.
    mixers : tuple of int
        The number of weight sets of each mixer, one of which is selected for a pixel.
    refiners : tuple of int
        The number of tables of each refining stage, which corrects mixed probabilities.
    slots : int
        The number of different decisions about a symbol. Each has a counter in every context.
    curves : int
        The number of distributions of the residual that mixers take as further inputs. If it is
        0, predictions that are fitted to nearby samples are left out, too.
    """

    contexts: tuple[int, ...]
    mixers: tuple[int, ...]
    refiners: tuple[int, ...]
    slots: int
    curves: int

    @property
    def fine(self) -> bool:
        """Whether the kernel of these sizes is the thorough one: slower, and compressing better."""
        return self.curves > 0

    @property
    def inputs(self) -> int:
        """The number of inputs of a mixer, not counting the constant input."""
        return len(self.contexts) + self.curves

    @property
    def weight_columns(self) -> int:
        """The length of a row of mixer weights.

        It has a weight for each input, one for the constant input, and at the end the number of
        decisions that the row has seen.
        """
        return self.inputs + 2

    @property
    def places(self) -> int:
        """The number of rows that are selected for a pixel, plus room for mixers' dot products."""
        return len(self.contexts) + 2 * len(self.mixers) + len(self.refiners)

    @property
    def marks(self) -> int:
        """The number of neighbours whose values a symbol may repeat."""
        return 8 if self.fine else 6

    @property
    def first_weight(self) -> int:
        """The initial value of each weight of a mixer; all of them add up to 1.2."""
        return 78643 // self.inputs

    @property
    def offsets(self) -> np.ndarray:
        """The first row of each context model, mixer and refiner in the array of its kind."""
        starts = [np.cumsum((0, *s[:-1])) for s in (self.contexts, self.mixers, self.refiners)]
        return np.concatenate(starts).astype(np.int64)


LANES = 16
"""The number of rows that the linear coder computes together, and the number of its streams.
Row y is coded in stream y % LANES."""

TONES = 64
"""The number of classes of predicted levels, from dark to bright."""

MISSED_MOST = 1 << 24
"""The largest error of a prediction that is recorded, in 1/64 symbols."""

BEYOND = 16
"""A decoder that reads this many bytes beyond the end of a stream has a damaged stream."""

AHEAD = 3
"""A decoder always reads at least this many bytes beyond the end of a stream. Its code has four
bytes, and the last byte of the encoder is only one of them."""

FIRST_COUNTER = 1 << 31
"""The initial value of a counter: the probability 1/2, and no decisions seen."""

# The sizes of the fast and of the thorough kernel.
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
