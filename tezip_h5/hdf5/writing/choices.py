"""Choosing what each step of a stack tries, from the results of earlier steps: whether the network
predicts, and whether its model is embedded in the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import h5py

from tezip_h5.codec import Encoded
from tezip_h5.hdf5.contents.networks import model_to_try
from tezip_h5.hdf5.files.space import Space
from tezip_h5.model import embedding, store
from tezip_h5.prediction.integer import IntegerModel
from tezip_h5.settings import Settings

__all__ = ["NetworkChoice", "Trial"]

_FIRST_GAP = 8  # steps between two probes; it doubles while the network does not pay
_STEPS_UNKNOWN = 64  # number of steps that is assumed if the length of a stack is unknown


@dataclass(frozen=True)
class Trial:
    """What a step tries.

    Attributes
    ----------
    model : IntegerModel or None
        The network to try.
    probe : bool
        Whether the step is a probe: later steps try the network only if it pays here. So the step
        must be judged before the next one begins.
    spare : bool
        Whether the payloads without the network are needed, too.
    """

    model: IntegerModel | None
    probe: bool
    spare: bool


class NetworkChoice:
    """Decide what each step tries, in the order of the steps, and judge the results.

    A step is the frames of one chunk. The first step is a *probe*. If a sample of it shows that
    the network clearly pays, its chunks are encoded with the network. If the sample is
    inconclusive, they are encoded both ways, and those of the network are kept if they save
    `Effort.network_worth`. While the network pays, all steps are treated like that. While it does
    not, only one step in 8, then one in 16 and so on is a probe. A model that does not ship is
    embedded when it has saved more bytes than it has itself, or will at this rate.

    Parameters
    ----------
    file : h5py.File
        The file in which the model is embedded.
    settings : Settings
    channels : int
    steps : int, optional
        Number of steps of the whole stack, if it is known.
    embed : bool
        Embed the model even if it ships with the package.
    kept : IntegerModel, optional
        The model of chunks that are kept as they are. If no network is tried, it is the one to
        embed.

    Raises
    ------
    ModelError
        See `model_to_try`.
    """

    def __init__(
        self,
        file: h5py.File,
        settings: Settings,
        channels: int,
        steps: int | None,
        embed: bool,
        kept: IntegerModel | None = None,
    ):
        self._file, self._steps, self._embed = file, steps or _STEPS_UNKNOWN, embed
        self._pinned = settings.predictor == "prednet"
        self._tried = model_to_try(settings, channels)
        self.model = kept if self._tried is None else self._tried
        self.used: IntegerModel | None = None
        self._step = self._foreseen = 0
        self._next_probe, self._gap = 0, _FIRST_GAP
        self._pays = self._pinned
        self._saved, self._cost = 0, 0

    @property
    def free(self) -> bool:
        """Whether the model can be used without embedding it."""
        return self.model is None or store.is_shipped(self.model)

    @property
    def regretted(self) -> bool:
        """Whether the embedded model has more bytes than it saved."""
        return self._saved < self._cost

    def next(self, promises: Callable[[IntegerModel], bool]) -> Trial:
        """Decide what the next step tries. All probes before it must have been judged.

        Parameters
        ----------
        promises : callable
            Returns whether the network may pay, by a sample of the step. It is called for probes.
        """
        step, self._step = self._step, self._step + 1
        spare = not self.free
        if self._tried is None or self._pinned:
            return Trial(self._tried, False, spare)
        if step == self._next_probe:
            if promises(self._tried):
                return Trial(self._tried, True, spare)
            self._probed(False)
            return Trial(None, False, spare)
        return Trial(self._tried if self._pays else None, False, spare)

    def foresee(self) -> Trial:
        """What a step must try that begins before earlier steps are judged.

        It has everything that `next` may decide for this step later. It is called for one step
        after the other, as `next` is. While the network pays, it is tried on all steps. The chunks
        without it are made, too, in case it stops paying.
        """
        step, self._foreseen = self._foreseen, self._foreseen + 1
        probe = not self._pays and step == self._next_probe
        if self._tried is None or not (probe or self._pays):
            return Trial(None, False, False)
        return Trial(self._tried, probe, not (probe and self.free))

    def judge(self, trial: Trial, tiles: list[Encoded]) -> list[Encoded]:
        """Judge the results of a step, in the order of the steps; returns the chunks to write."""
        used = [tile for tile in tiles if tile.model is not None]
        saved = sum(len(tile.without.payload) - len(tile.payload) for tile in used if tile.without)
        if used and not self._pinned and not self._worth_embedding(saved):
            tiles = [tile.without if tile.model is not None else tile for tile in tiles]
            used = []
        if trial.probe:
            self._probed(bool(used))
        if used:
            self._saved += saved
            self._embed_once()
        return tiles

    def _probed(self, pays: bool) -> None:
        self._pays = pays
        self._gap = _FIRST_GAP if pays else 2 * self._gap
        self._next_probe = self._step - 1 + self._gap

    def _worth_embedding(self, saved: int) -> bool:
        if self.used is not None or self.free:
            return True
        left = max(self._steps - self._step + 1, 1)
        return saved * left > self._bytes_embedded()

    def _bytes_embedded(self) -> int:
        path = f"{embedding.MODELS}/{self.model.digest.hex()}"
        return 0 if path in self._file else embedding.size(self.model)

    def _embed_once(self) -> None:
        if self.used is None and (self._embed or not self.free):
            size = self._bytes_embedded()
            if not (self._embed or self._pinned):
                self._cost = size
            Space(self._file).reserve(size)
            embedding.embed(self._file, self.model)
        self.used = self.model
