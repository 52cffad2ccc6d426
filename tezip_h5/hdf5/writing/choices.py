"""Choosing what each step of a stack tries, from the results of earlier steps."""

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
    """The network and the coders that a step tries.

    Attributes
    ----------
    model : IntegerModel or None
        The network to try.
    probe : bool
        Whether the step is a probe of the network: later steps try it only if it pays here.
    compares : bool
        Whether the step is a probe of the coders: later steps use the one that is smaller here.
    preferred : list of str or None
        For each tile, the coder to use if a sample is inconclusive, see `encode_chunk`.
    spare : bool
        Whether the payloads without the network are needed, too.
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
    """Decide what each step tries, in the order of the steps, and judge the results.

    Parameters
    ----------
    networks : NetworkChoice
    coders : CoderChoice
    tiles : int
        Number of tiles of a step.
    """

    def __init__(self, networks: NetworkChoice, coders: CoderChoice, tiles: int):
        self.networks, self._coders, self._tiles = networks, coders, tiles
        self._decided = self._foreseen = 0

    def next(self, promises: Callable, doubtful: Callable[[], bool]) -> Trial:
        """Decide what the next step tries. All probes before it must have been judged.

        Parameters
        ----------
        promises : callable
            Returns whether a network may pay, by a sample of the step. It is called for probes.
        doubtful : callable
            Returns whether a sample of the step is inconclusive about the coders. It is called if
            the coders may be compared.
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
        """What a step must try that begins before earlier steps are judged.

        It has everything that `next` may decide for this step later. It is called for one step
        after the other, as `next` is.
        """
        step, self._foreseen = self._foreseen, self._foreseen + 1
        tried, probe = self.networks.foresee(step)
        model = self.networks.model if tried else None
        spare = tried and not (probe and self.networks.free)
        return Trial(model, probe, self._coders.probes(step), self._preferred(step), spare)

    def _preferred(self, step: int) -> list[str | None]:
        return [self._coders.preferred(step, tile) for tile in range(self._tiles)]

    def judge(self, trial: Trial, tiles: list[Encoded]) -> list[Encoded]:
        """Judge the results of a step, in the order of the steps; returns the chunks to write."""
        tiles = self.networks.judge(tiles, trial.probe)
        if trial.compares:
            self._coders.judge(tiles)
        return tiles
