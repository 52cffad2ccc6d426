"""Choosing the chunks that try the network, and whether its model is embedded in the file."""

from __future__ import annotations

import h5py

from tezip_h5.codec import Encoded
from tezip_h5.errors import ModelError
from tezip_h5.hdf5.contents.tables import model_of
from tezip_h5.hdf5.files.space import Space
from tezip_h5.model import embedding, store
from tezip_h5.prediction.integer import IntegerModel
from tezip_h5.settings import Settings

__all__ = ["NetworkChoice", "model_of_stack", "model_to_try"]

_FIRST_GAP = 8  # steps between two probes; it doubles while the network does not pay
_STEPS_UNKNOWN = 64  # number of steps that is assumed if the length of a stack is unknown


def model_of_stack(tables: h5py.Group, chunk, settings: Settings) -> str | None:
    """The network to try: the stack's own, or the one that its options name, if it is found."""
    digest = model_of(tables)
    if digest is not None:
        return store.name_of(store.find(digest))
    channels = chunk[3] if chunk and len(chunk) == 4 else 1
    try:
        store.resolve(settings.model, channels)
    except ModelError:
        return store.DEFAULT
    return settings.model


class NetworkChoice:
    """Decide, step by step, whether the network is tried.

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

    Raises
    ------
    ModelError
        See `model_to_try`.
    """

    def __init__(
        self, file: h5py.File, settings: Settings, channels: int, steps: int | None, embed: bool
    ):
        self._file, self._steps, self._embed = file, steps or _STEPS_UNKNOWN, embed
        self._pinned = settings.predictor == "prednet"
        self.model = model_to_try(settings, channels)
        self.used: IntegerModel | None = None
        self._step = 0
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

    def next(self) -> tuple[IntegerModel | None, bool]:
        """For the next step: the model to try, and whether the step is a probe, whose result must
        be known before another step begins."""
        step, self._step = self._step, self._step + 1
        if self.model is None or self._pinned:
            return self.model, False
        if step == self._next_probe:
            return self.model, True
        return (self.model if self._pays else None), False

    def foresee(self, step: int) -> tuple[bool, bool]:
        """Whether `next` may return the model for a later `step`, and whether a probe decides that.

        This is for steps that are encoded before earlier ones have been judged. While the network
        pays, it is tried on all of them. The chunks without it are made, too, in case it stops
        paying.
        """
        if self.model is None or self._pays:
            return self.model is not None, False
        return step == self._next_probe, step == self._next_probe

    def judge(self, tiles: list[Encoded], probe: bool) -> list[Encoded]:
        """Judge the results of a step, in the order of the steps; returns the chunks to write."""
        used = [tile for tile in tiles if tile.model is not None]
        saved = sum(len(tile.without.payload) - len(tile.payload) for tile in used if tile.without)
        if used and not self._pinned and not self._worth_embedding(saved):
            tiles = [tile.without if tile.model is not None else tile for tile in tiles]
            used = []
        if probe:
            self._probed(bool(used))
        if used:
            self._saved += saved
            self._embed_once()
        return tiles

    def dismiss(self) -> None:
        """Cancel the probe that `next` asked for, because a sample shows that it does not pay."""
        self._probed(False)

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


def model_to_try(settings: Settings, channels: int) -> IntegerModel | None:
    """The network that `settings` require or allow; None if there is none.

    Raises
    ------
    ModelError
        When `settings` pin a network and there is none for this number of channels.
    """
    pinned = settings.predictor == "prednet"
    if not pinned and (settings.predictor is not None or not settings.effort.tries_networks):
        return None
    model = store.resolve(settings.model, channels)
    if pinned and model is None:
        raise ModelError(
            f"predictor='prednet', but model {settings.model!r} has none for {channels} "
            "channels; train one, or give another predictor"
        )
    return model
