"""What each step of a stack tries, and what its results say of the steps to come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tezip_h5.codec import Encoded
from tezip_h5.hdf5.contents.networks import NetworkChoice
from tezip_h5.hdf5.writing.coders import CoderChoice
from tezip_h5.prediction.integer import IntegerModel

__all__ = ["Choices", "Trial"]


@dataclass(frozen=True)
class Trial:
    """What a step tries.

    Attributes
    ----------
    model : IntegerModel or None
        The network to try.
    probe : bool
        Whether it is on probation: the steps to come try it if it pays here.
    compares : bool
        Whether the coders are: the steps to come take the one that is kept here.
    preferred : list of str or None
        Of each tile, the coder that runs alone where a sample is in doubt, see `encode_chunk`.
    spare : bool
        Whether what comes of it without the network is needed, too.
    """

    model: IntegerModel | None
    probe: bool
    compares: bool
    preferred: list[str | None]
    spare: bool

    @property
    def alone(self) -> bool:
        """Whether the step must be judged before the next one begins."""
        return self.probe or self.compares


class Choices:
    """Decide what each step tries, in their order, and judge what came of it.

    Parameters
    ----------
    networks : NetworkChoice
    coders : CoderChoice
    tiles : int
        Of a step.
    """

    def __init__(self, networks: NetworkChoice, coders: CoderChoice, tiles: int):
        self.networks, self._coders, self._tiles = networks, coders, tiles
        self._decided = self._foreseen = 0

    def next(self, promises: Callable, doubtful: Callable[[], bool]) -> Trial:
        """What the next step tries; those before it that are on probation have been judged.

        Parameters
        ----------
        promises : callable
            Given a network, whether a sample of the step says that it may pay. Asked of probes.
        doubtful : callable
            Whether a sample leaves in doubt which coder to take. Asked where they may be compared.
        """
        step, self._decided = self._decided, self._decided + 1
        model, probe = self.networks.next()
        if probe and not promises(model):
            model, probe = self.networks.dismiss(), False
        compares = self._coders.probes(step)
        if compares and not doubtful():
            self._coders.forget()
            compares = False
        return Trial(model, probe, compares, self._preferred(step), not self.networks.free)

    def foresee(self) -> Trial:
        """What a step tries that begins while others before it are under way: whatever `next` may
        say of it later. Called for one step after the other, as `next` is."""
        step, self._foreseen = self._foreseen, self._foreseen + 1
        tried, probe = self.networks.foresee(step)
        model = self.networks.model if tried else None
        spare = tried and not (probe and self.networks.free)
        return Trial(model, probe, self._coders.probes(step), self._preferred(step), spare)

    def _preferred(self, step: int) -> list[str | None]:
        return [self._coders.preferred(step, tile) for tile in range(self._tiles)]

    def judge(self, trial: Trial, tiles: list[Encoded]) -> list[Encoded]:
        """Take what came of a step, in order; returns the chunks to write."""
        tiles = self.networks.judge(tiles, trial.probe)
        if trial.compares:
            self._coders.judge(tiles)
        return tiles
