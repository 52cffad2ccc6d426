"""The codec for zarr's format 3: chunks of an array <-> payloads.

It is found by its entry point.
"""

from __future__ import annotations

import asyncio

import numpy as np
from zarr.abc.codec import ArrayBytesCodec

from tezip_h5.errors import FormatError
from tezip_h5.frames import check_dtype
from tezip_h5.zarr.chunks import Configured, frames_shape

__all__ = ["TEZipSerializer"]

NAME = "tezip"


class TEZipSerializer(Configured, ArrayBytesCodec):
    """zarr's ``serializer=``: chunks become tezip payloads, as in HDF5 files.

    It takes the place of bytes and compressors (give ``compressors=None``); with sharding, every
    inner chunk is a payload.

    Parameters
    ----------
    absolute, relative, pointwise_relative, noise, models, **settings
        And what is raised, also for arrays that cannot be: see `tezip_h5.zarr.numcodec.TEZipCodec`.

    Examples
    --------
    >>> import numpy as np, zarr
    >>> array = zarr.create_array(
    ...     {}, shape=(8, 16, 16), chunks=(4, 16, 16), dtype="uint16",
    ...     serializer=TEZipSerializer(absolute=2, level="fast"), compressors=None,
    ... )
    >>> array[:] = 7
    >>> int(array[5, 3, 2])
    7
    """

    is_fixed_size = False

    @classmethod
    def from_dict(cls, data) -> TEZipSerializer:
        """The codec that an array's metadata name: a dict as `to_dict` makes it.

        Raises
        ------
        FormatError, InputError, ModelError
            When it names another codec, options that cannot be, or models that are damaged.
        """
        if data.get("name") != NAME:
            raise FormatError(f"codec {data.get('name')!r} is not {NAME!r}")
        return cls(**data.get("configuration", {}))

    def to_dict(self) -> dict:
        """The codec in an array's metadata: a dict with `name` and `configuration`."""
        return {"name": NAME, "configuration": self._chunks.get_config()}

    def evolve_from_array_spec(self, array_spec) -> TEZipSerializer:
        """The codec itself; InputError for arrays whose chunks cannot be stored."""
        check_dtype(_native(array_spec.dtype))
        frames_shape(array_spec.shape)
        return self

    def compute_encoded_size(self, input_byte_length, chunk_spec) -> int:
        """Unknown before it is encoded."""
        raise NotImplementedError

    async def _decode_single(self, chunk_data, chunk_spec):
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    async def _encode_single(self, chunk_data, chunk_spec):
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    def _decode_sync(self, chunk_data, chunk_spec):
        dtype = _native(chunk_spec.dtype)
        payload = memoryview(chunk_data.to_bytes())
        frames = self._chunks.decode(payload, dtype, chunk_spec.shape)
        samples = frames.astype(dtype, copy=False)
        return chunk_spec.prototype.nd_buffer.from_ndarray_like(samples)

    def _encode_sync(self, chunk_data, chunk_spec):
        payload = self._chunks.encode(chunk_data.as_numpy_array())
        return chunk_spec.prototype.buffer.from_bytes(payload)

    def __eq__(self, other):
        return isinstance(other, TEZipSerializer) and self.to_dict() == other.to_dict()

    def __hash__(self):
        return hash(repr(self))


def _native(dtype) -> np.dtype:
    """NumPy's dtype of one of zarr's."""
    return dtype.to_native_dtype() if hasattr(dtype, "to_native_dtype") else np.dtype(dtype)
