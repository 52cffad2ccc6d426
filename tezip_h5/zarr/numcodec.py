"""The codec for numcodecs, found by its entry point: zarr's format 2, kerchunk's references."""

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
        Models that chunks need and that do not ship. An array's metadata hold them; nobody need
        write them by hand.
    **settings
        See `tezip_h5.Settings`.

    Raises
    ------
    InputError, ModelError
        For options that cannot be, and models that are not found.

    Notes
    -----
    A chunk says what it holds: any `TEZipCodec()` decodes it. What `tezip_h5.TEZip` says of
    relative bounds and of rewriting parts of chunks holds here, too.

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
            Of other than three or four axes, the last two are rows and columns.

        Returns
        -------
        bytes

        Raises
        ------
        InputError
            For a chunk that is not so, or of a dtype that no stack has.
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
            Filled, and returned.

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
