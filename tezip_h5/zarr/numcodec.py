"""The codec for numcodecs, for zarr's format 2 and kerchunk's references.

It is found by its entry point.
"""

from __future__ import annotations

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ensure_contiguous_ndarray, ensure_ndarray, ndarray_copy

from tezip_h5.errors import InputError
from tezip_h5.zarr.chunks import Configured

__all__ = ["TEZipCodec"]


class TEZipCodec(Configured, Codec):
    """A numcodecs codec whose encoded chunks are tezip payloads, as in HDF5 files.

    Use it as the only filter of an array without compressor, or as its compressor: chunks must
    arrive with their shape, in C order and little-endian.

    Parameters
    ----------
    absolute, relative, pointwise_relative, noise : float, optional
        The error bound, see `tezip_h5.ErrorBound`; none is lossless.
    models : list of str, optional
        Models that chunks need and that do not ship. They are stored in an array's metadata.
    **settings
        See `tezip_h5.Settings`.

    Raises
    ------
    InputError, ModelError
        For options that are not valid, and models that are not found.

    Notes
    -----
    A chunk describes itself, so any `TEZipCodec()` decodes it. The notes of `tezip_h5.TEZip` on
    relative bounds and on rewriting parts of chunks hold here, too.

    Examples
    --------
    >>> import numpy as np, numcodecs
    >>> codec = TEZipCodec(absolute=2, level="fast")
    >>> codec
    TEZipCodec(absolute=2.0, level='fast')
    >>> numcodecs.get_codec(codec.get_config()) == codec
    True
    >>> frames = np.arange(4 * 8 * 8, dtype="u2").reshape(4, 8, 8)
    >>> int(np.abs(codec.decode(codec.encode(frames)).astype(int) - frames).max()) <= 2
    True
    """

    codec_id = "tezip"

    def encode(self, buf) -> bytes:
        """The payload of a chunk.

        Parameters
        ----------
        buf : array (G, H, W[, C]), C order, little-endian
            If there are not three or four axes, the last two are rows and columns.

        Returns
        -------
        bytes

        Raises
        ------
        InputError
            For a chunk in another order or byte order, or of a dtype that cannot be stored.
        BoundError
            If the decoder would break the bound.
        """
        chunk = ensure_ndarray(buf)
        if chunk.dtype.kind in "biuf" and chunk.dtype.newbyteorder("<") != chunk.dtype:
            raise InputError(
                f"a chunk of big-endian {chunk.dtype} would come back little-endian; give the "
                f"array the dtype {chunk.dtype.newbyteorder('<').str!r}"
            )
        if not chunk.flags.c_contiguous:
            raise InputError("a chunk in Fortran order; give the array order='C'")
        return self._chunks.encode(chunk)

    def decode(self, buf, out=None) -> np.ndarray:
        """The samples of a payload.

        Parameters
        ----------
        buf : bytes-like
        out : array of as many bytes, optional
            An array to fill and return.

        Returns
        -------
        array (G, H, W[, C]), little-endian; read-only without `out`

        Raises
        ------
        FormatError, ModelError
            When the payload is damaged, or needs a model that is not found.
        """
        frames = self._chunks.decode(memoryview(ensure_contiguous_ndarray(buf)).cast("B"))
        return frames if out is None else ndarray_copy(frames, out)

    def get_config(self) -> dict:
        """The codec's id and options, for `numcodecs.get_codec`.

        Returns
        -------
        dict of what JSON can hold
        """
        return {"id": self.codec_id, **self._chunks.get_config()}
