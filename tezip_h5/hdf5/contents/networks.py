"""Which chunks of a stack try the network, and when its model must travel with the file."""

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

_FIRST_GAP = 8  # steps between two probes; doubled while the network does not pay
_STEPS_UNKNOWN = 64  # what a stream of unknown length is taken for


def model_of_stack(tables: h5py.Group, chunk, settings: Settings) -> str | None:
    """The network to try: that of the stack, else the one its options name, if it is found."""
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
    """Decide, chunk of time by chunk of time, whether the network is tried.

    The first step is a probe: where a sample of it says that the network clearly pays, its chunks
    are encoded with it; where that is in doubt, both ways, and the network's are kept if they save
    `Effort.network_worth`. While it pays, all chunks are treated so; while it does not, one step in
    8, then in 16, ... is a probe again. A model that does not ship is embedded when it has saved,
    or will at this rate, more bytes than it has.

    Parameters
    ----------
    file : h5py.File
        Takes the model.
    settings : Settings
    channels : int
    steps : int, optional
        Chunks of time in the whole stack, when known.
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
        """Whether using the model costs no bytes of its own."""
        return self.model is None or store.is_shipped(self.model)

    @property
    def regretted(self) -> bool:
        """Whether the model that was embedded has more bytes than it saved."""
        return self._saved < self._cost

    def next(self) -> tuple[IntegerModel | None, bool]:
        """For the next step: the model to try, and whether its result must be waited for."""
        step, self._step = self._step, self._step + 1
        if self.model is None or self._pinned:
            return self.model, False
        if step == self._next_probe:
            return self.model, True
        return (self.model if self._pays else None), False

    def foresee(self, step: int) -> tuple[bool, bool]:
        """Whether `next` may name the model for a later `step`, and whether that hangs on a probe.

        For steps that are encoded before those in front of them have been judged. While the
        network pays, it is tried on all of them: whatever comes of it, the chunks without it are
        at hand, too.
        """
        if self.model is None or self._pays:
            return self.model is not None, False
        return step == self._next_probe, step == self._next_probe

    def judge(self, tiles: list[Encoded], probe: bool) -> list[Encoded]:
        """Take a step's results, in order; returns the chunks to write."""
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
        """The probe that `next` asked for is not worth it; its step goes without the network."""
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
    """The network that `settings` ask for, or allow; None for none.

    Raises
    ------
    ModelError
        When they pin a network and there is none for so many channels.
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
