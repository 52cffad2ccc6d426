"""Chunks of zarr arrays <-> payloads. The codecs for both of zarr's formats use this module."""

from __future__ import annotations

import base64
import binascii
import math
from typing import TYPE_CHECKING

import numpy as np

from tezip_h5 import bitstream
from tezip_h5.errors import FormatError, InputError
from tezip_h5.frames import check_dtype
from tezip_h5.hdf5.pipeline import filter
from tezip_h5.hdf5.pipeline.options import ChunkOptions, TEZip
from tezip_h5.model import store
from tezip_h5.prediction.integer import IntegerModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Unpack

    from tezip_h5.signatures import SettingsKeywords

__all__ = ["ChunkCodec", "Configured", "frames_shape", "model_text"]


def frames_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape (G, H, W), or (G, H, W, C) with C <= 4, in which a chunk is encoded.

    The last two axes are rows and columns (before an axis of channels in chunks of four axes).
    All other axes are joined into one axis of frames.

    Raises
    ------
    InputError
        When the chunk has fewer than two axes, or no samples.
    """
    shape = tuple(int(n) for n in shape)
    if len(shape) < 2 or 0 in shape:
        raise InputError(
            f"chunks of shape {shape}: tezip stores images, (rows, columns) or (frames, rows, "
            "columns) and so on; give the array another codec"
        )
    if len(shape) == 4 and shape[3] <= 4:
        return shape
    return (math.prod(shape[:-2]), *shape[-2:])


def model_text(model: IntegerModel) -> str:
    """A model as text, for the metadata of an array whose chunks need it."""
    return base64.b64encode(model.to_bytes()).decode("ascii")


class ChunkCodec:
    """The options of a codec and the models that its chunks need; converts from and to JSON.

    Parameters
    ----------
    models : sequence of str
        Models that do not ship, as `model_text` writes them.
    **options
        See `TEZip`.
    """

    def __init__(self, models=(), **options):
        if not isinstance(models, list | tuple):
            raise InputError(f"models={models!r}; give a list of models in base64")
        self._models = tuple(models)
        for text in self._models:
            try:
                data = base64.b64decode(text, validate=True)
            except (binascii.Error, TypeError, ValueError) as error:
                raise InputError(f"models= holds no model in base64: {error}") from None
            store.register(IntegerModel.from_bytes(data))
        self.options = TEZip(**options)

    def get_config(self) -> dict:
        """The options that differ from their defaults, and the models; JSON."""
        config, texts = self.options.get_config(), set(self._models)
        digest = config.get("model")
        if digest is not None:
            texts.add(model_text(store.find(bytes.fromhex(digest))))
        return config | ({"models": sorted(texts)} if texts else {})

    def __reduce__(self):
        # Another process must be able to register the models, too.
        return _from_config, (self.get_config(),)

    def encode(self, chunk: np.ndarray) -> bytes:
        """Encode a chunk of any shape that `frames_shape` takes.

        Raises
        ------
        InputError
            When its shape or dtype cannot be stored.
        """
        dtype, shape = check_dtype(chunk.dtype), frames_shape(chunk.shape)
        options = ChunkOptions(dtype, shape, self.options.bound, self.options.settings)
        return filter.encode(options, np.ascontiguousarray(chunk).reshape(shape))

    def decode(self, payload, dtype=None, shape=None) -> np.ndarray:
        """The samples of a payload, little-endian; not to be written to.

        Parameters
        ----------
        payload : bytes-like
        dtype, shape : optional
            The expected ones; the result has this shape.

        Raises
        ------
        FormatError
            When the payload is damaged, or has another dtype or shape.
        ModelError
            When it needs a model that is not found.
        """
        header, _ = bitstream.peek(payload)
        if shape is not None and (
            math.prod(header.shape) != math.prod(shape) or header.dtype != check_dtype(dtype)
        ):
            raise FormatError(
                f"a chunk holds {header.dtype} {header.shape}, its array says {dtype} {shape}; it "
                "belongs to another array"
            )
        known = ChunkOptions(header.dtype, header.shape, self.options.bound, self.options.settings)
        frames = filter.decode(known, payload)
        return frames if shape is None else frames.reshape(shape)


class Configured:
    """A zarr codec with the options of `TEZip` as parameters, and `models` as in `ChunkCodec`."""

    def __init__(
        self,
        absolute: float | None = None,
        relative: float | None = None,
        pointwise_relative: float | None = None,
        noise: float | None = None,
        models: Sequence[str] = (),
        **settings: Unpack[SettingsKeywords],
    ) -> None:
        self._chunks = ChunkCodec(
            models,
            absolute=absolute,
            relative=relative,
            pointwise_relative=pointwise_relative,
            noise=noise,
            **settings,
        )

    def __repr__(self):
        config = self._chunks.get_config()
        options = ", ".join(f"{key}={value!r}" for key, value in config.items())
        return f"{type(self).__name__}({options})"


def _from_config(config: dict) -> ChunkCodec:
    return ChunkCodec(**config)
