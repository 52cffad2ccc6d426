"""The network of a stack, and the one that its settings allow."""

from __future__ import annotations

import h5py

from tezip_h5.errors import ModelError
from tezip_h5.hdf5.contents.tables import model_of
from tezip_h5.model import store
from tezip_h5.prediction.integer import IntegerModel
from tezip_h5.settings import Settings

__all__ = ["model_of_stack", "model_to_try"]


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


def model_to_try(settings: Settings, channels: int) -> IntegerModel | None:
    """The network that `settings` require or allow; None if there is none.

    Raises
    ------
    ModelError
        When `settings` pin a network and there is none for this number of channels.
    """
    pinned, effort = settings.predictor == "prednet", settings.effort
    if not pinned and (settings.predictor is not None or not effort.tries_networks):
        return None
    model = store.resolve(settings.model, channels)
    if pinned:
        if model is None:
            raise ModelError(
                f"predictor='prednet', but model {settings.model!r} has none for {channels} "
                "channels; train one, or give another predictor"
            )
        return model
    ships = model is not None and store.is_shipped(model)
    return None if ships and not effort.tries_shipped_network else model
