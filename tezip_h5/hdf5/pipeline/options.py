"""Options of the filter <-> cd_values, the integers that HDF5 stores for a filter.

`TEZip` gives the options in the way of hdf5plugin. Decoding uses only the first five values, which
hold dtype and shape of a chunk, so that a payload can be checked against its dataset. The other
values are options of encoding.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h5py
import numpy as np

from tezip_h5.bounds import MODES, ErrorBound
from tezip_h5.errors import FormatError, InputError
from tezip_h5.hdf5.pipeline.misnamed import advice_on
from tezip_h5.levels import DTYPES
from tezip_h5.model import store
from tezip_h5.settings import CODERS, FEEDBACKS, LEVELS, PREDICTORS, QUANTIZERS, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Unpack

    from tezip_h5.signatures import SettingsKeywords

__all__ = [
    "FILTER_ID",
    "FILTER_NAME",
    "ChunkOptions",
    "TEZip",
    "check_dataset",
    "options_of",
    "panel_axes_of",
    "settings_of",
]

FILTER_ID = 36471
"""The filter's number until The HDF Group assigns one. It lies in 32768..65535, the range that is
free for internal use."""
FILTER_NAME = b"tezip: predicted image stacks, pip install tezip_h5"

_VERSION = 0
_COUNT = 16  # number of cd_values; older versions of h5py read back no more
_OF_DECODER = 5
_BIG_ENDIAN = 0x100


def _double(value: float) -> tuple[int, int]:
    """A double as two 32-bit words, the low one first."""
    return struct.unpack("<II", struct.pack("<d", value))


def _from_double(low: int, high: int) -> float:
    return struct.unpack("<d", struct.pack("<II", low, high))[0]


def _pin(value, choices) -> int:
    return 0 if value is None else 1 + choices.index(value)


def _unpin(number: int, choices):
    return None if number == 0 else choices[number - 1]


def _model_word(model: str | None) -> int:
    """0 for the default model, 1 for none, else the first 32 bits of the digest."""
    if model in ("default", None):
        return int(model is None)
    return int(model[:8], 16)


def _model_name(word: int) -> str | None:
    return {0: "default", 1: None}.get(word, f"{word:08x}")


@dataclass(frozen=True)
class ChunkOptions:
    """The options in cd_values: the chunk's dtype and shape, and how to encode it.

    `dtype` and `shape` are None until the dataset is created (``set_local`` fills them in).
    """

    dtype: np.dtype | None
    shape: tuple[int, ...] | None
    bound: ErrorBound
    settings: Settings

    def pack(self) -> tuple[int, ...]:
        """The cd_values."""
        code, dims = 0, (0, 0, 0)
        if self.dtype is not None:
            code = 1 + DTYPES.index(self.dtype.name)
            code |= _BIG_ENDIAN if self.dtype.newbyteorder("=") != self.dtype else 0
            code |= self.shape[3] << 16 if len(self.shape) == 4 else 0
            dims = self.shape[:3]
        bound, settings = self.bound, self.settings
        alone = {"pwrel": bound.pointwise_relative, "noise": bound.noise}
        first = alone.get(bound.mode, bound.absolute)
        pins = (
            _pin(settings.predictor, PREDICTORS)
            | _pin(settings.coder, CODERS) << 4
            | _pin(settings.quantizer, QUANTIZERS) << 8
            | _pin(settings.spatial, (False, True)) << 12
            | _pin(settings.ranks, (False, True)) << 16
            | FEEDBACKS.index(settings.feedback) << 20
            | (not settings.entropy) << 21
        )
        threshold = settings.mse_threshold
        return (
            _VERSION,
            code,
            *dims,
            MODES.index(bound.mode) | LEVELS.index(settings.level) << 8,
            *_double(first or 0.0),
            *_double(bound.relative or 0.0),
            settings.window or 0,
            *_double(-1.0 if threshold is None else threshold),
            settings.warmup,
            pins,
            _model_word(settings.model),
        )

    @classmethod
    def unpack(cls, values) -> ChunkOptions:
        """Read cd_values. Raises FormatError when they are not ours."""
        values = tuple(int(v) for v in values)
        try:
            return cls._unpack(values)
        except (IndexError, InputError, struct.error) as error:
            raise FormatError(f"cd_values {values} cannot be read: {error}") from None

    @classmethod
    def of_decoder(cls, values) -> ChunkOptions:
        """Read the cd_values that a decoder needs; unreadable options of encoding are defaults.

        Raises FormatError if the values do not hold dtype and shape of a chunk.
        """
        values = tuple(int(v) for v in values)
        dtype, shape = _chunk_of(values)
        if dtype is None:
            raise FormatError(
                f"cd_values {values} do not say what a chunk holds; expected a dtype and a shape, "
                "which a dataset gets that is created with tezip_h5"
            )
        try:
            return cls.unpack(values)
        except FormatError:
            return cls(dtype, shape, ErrorBound(), Settings())

    @classmethod
    def _unpack(cls, values) -> ChunkOptions:
        dtype, shape = _chunk_of(values)
        if len(values) != _COUNT:
            raise FormatError(f"{len(values)} cd_values; this tezip_h5 encodes with {_COUNT}")
        mode = MODES[values[5] & 0xFF]
        first, relative = _from_double(*values[6:8]), _from_double(*values[8:10])
        bound = {
            "lossless": ErrorBound(),
            "abs": ErrorBound(absolute=first),
            "rel": ErrorBound(relative=relative),
            "absrel": ErrorBound(absolute=first, relative=relative),
            "pwrel": ErrorBound(pointwise_relative=first),
            "noise": ErrorBound(noise=first),
        }[mode]
        threshold = _from_double(*values[11:13])
        pins = values[14]
        settings = Settings(
            level=LEVELS[values[5] >> 8],
            window=values[10] or None,
            mse_threshold=None if threshold < 0 else threshold,
            warmup=values[13],
            feedback=FEEDBACKS[pins >> 20 & 1],
            entropy=not pins >> 21 & 1,
            predictor=_unpin(pins & 15, PREDICTORS),
            coder=_unpin(pins >> 4 & 15, CODERS),
            quantizer=_unpin(pins >> 8 & 15, QUANTIZERS),
            spatial=_unpin(pins >> 12 & 15, (False, True)),
            ranks=_unpin(pins >> 16 & 15, (False, True)),
            model=_model_name(values[15]),
        )
        return cls(dtype, shape, bound, settings)


def _chunk_of(values: tuple[int, ...]) -> tuple[np.dtype | None, tuple[int, ...] | None]:
    """Dtype and shape of a chunk in cd_values; None for both if they are not set."""
    if len(values) < _OF_DECODER or values[0] != _VERSION:
        raise FormatError(
            f"{len(values)} cd_values of version {values[:1]}; this tezip_h5 reads {_COUNT} "
            f"of version {_VERSION}"
        )
    code, channels = values[1] & 0xFF, values[1] >> 16
    if not code:
        return None, None
    if code > len(DTYPES):
        raise FormatError(f"cd_values {values}: {code} is no dtype; the last is {len(DTYPES)}")
    dtype = np.dtype(DTYPES[code - 1]).newbyteorder(">" if values[1] & _BIG_ENDIAN else "<")
    return dtype, values[2:5] + ((channels,) if channels else ())


def settings_of(given: dict, sample=None) -> Settings:
    """Make `Settings` from a caller's keywords; `model` may be anything that `store.name_of` takes.

    Raises
    ------
    InputError
        For an unknown keyword, or a value of a wrong type.
    """
    known = Settings.__dataclass_fields__
    for name in given:
        if name not in known:
            raise InputError(f"unknown option {name!r}; {advice_on(name)}")
    if "model" in given:
        given = given | {"model": store.name_of(given["model"], sample)}
    try:
        return Settings(**given)
    except TypeError as error:
        raise InputError(f"an option of {given} has a value of the wrong type: {error}") from None


def options_of(data: h5py.Dataset) -> ChunkOptions:
    """The options in a dataset's filter pipeline."""
    return ChunkOptions.unpack(_values_of(data))


def _values_of(data: h5py.Dataset) -> tuple[int, ...]:
    pipeline = data.id.get_create_plist()
    filters = [pipeline.get_filter(i) for i in range(pipeline.get_nfilters())]
    return next(f[2] for f in filters if f[0] == FILTER_ID)


def check_dataset(data: h5py.Dataset) -> None:
    """Check that the filter's dtype and shape are those of the dataset; FormatError otherwise.

    HDF5 does not check that. It would misinterpret the samples, and read past the end of a chunk
    that is too short.
    """
    options = ChunkOptions.of_decoder(_values_of(data))
    # The filter may have been given frames without a time, panel or channel axis.
    chunk, own = ([n for n in shape if n != 1] for shape in (options.shape, data.chunks))
    if options.dtype != data.dtype or chunk != own:
        raise FormatError(
            f"{data.name} has chunks of {data.dtype.str} {data.chunks}, its filter says "
            f"{options.dtype.str} {options.shape}; the file is damaged, or another program made it "
            "with the filter's values of another dataset"
        )


def panel_axes_of(data: h5py.Dataset) -> int:
    """Axes between time and rows of a compressed dataset, which its payloads do not have."""
    return max(data.ndim - len(_chunk_of(_values_of(data))[1] or data.shape), 0)


class TEZip(h5py.filters.FilterRefBase):
    """Filter options for `h5py`, in hdf5plugin's way.

    Parameters
    ----------
    absolute, relative, pointwise_relative, noise : float, optional
        The error bound, see `tezip_h5.ErrorBound`; none is lossless.
    **settings
        See `tezip_h5.Settings`.

    Raises
    ------
    InputError
        For options that are not valid.

    Notes
    -----
    The filter sees one chunk at a time and cannot raise: prefer `tezip_h5.write`, where an
    error is an exception. The filter sees one tile of a frame, and HDF5 may have padded it. A
    relative bound is therefore taken of that tile alone, without the samples that equal its last
    one, and is never looser than that of the whole frame. Rewriting part of a chunk encodes all
    of it again; frames that this process read from it and that are unchanged are then kept
    exactly, so that errors do not add up.

    Examples
    --------
    >>> TEZip(absolute=2, level="fast")
    TEZip(absolute=2.0, level='fast')
    >>> import h5py, numpy as np
    >>> with h5py.File("doctest.h5", "w", driver="core", backing_store=False) as f:
    ...     x = np.arange(2 * 8 * 8, dtype="u2").reshape(2, 8, 8)
    ...     d = f.create_dataset("x", data=x, chunks=(2, 8, 8), **TEZip())
    ...     bool((d[:] == x).all())
    True
    """

    filter_id = FILTER_ID
    filter_name = "tezip"

    def __init__(
        self,
        absolute: float | None = None,
        relative: float | None = None,
        pointwise_relative: float | None = None,
        noise: float | None = None,
        **settings: Unpack[SettingsKeywords],
    ) -> None:
        self._settings = settings_of(settings)
        self._bound = ErrorBound(absolute, relative, pointwise_relative, noise)
        self.filter_options = ChunkOptions(None, None, self._bound, self._settings).pack()

    @property
    def bound(self) -> ErrorBound:
        """The error bound."""
        return self._bound

    @property
    def settings(self) -> Settings:
        """How chunks are encoded."""
        return self._settings

    def get_config(self) -> dict:
        """The options that differ from their defaults, by name: what `TEZip` takes.

        Returns
        -------
        dict
        """
        default = Settings()
        config = {
            name: value
            for name in ("absolute", "relative", "pointwise_relative", "noise")
            if (value := getattr(self._bound, name)) is not None
        }
        for name in Settings.__dataclass_fields__:
            value = getattr(self._settings, name)
            if value != getattr(default, name):
                config[name] = value
        if not self._settings.entropy:
            config.pop("ranks", None)
        return config

    @classmethod
    def from_filter_options(cls, filter_id: int, filter_options: Sequence[int]) -> TEZip:
        """The options of a dataset's filter, from its id and cd_values.

        Parameters
        ----------
        filter_id : int
            `FILTER_ID`.
        filter_options : sequence of int
            The filter's cd_values, as HDF5 stores them.

        Returns
        -------
        TEZip

        Raises
        ------
        InputError
            For the id of another filter.
        FormatError
            For values that no tezip wrote.

        Examples
        --------
        >>> TEZip.from_filter_options(FILTER_ID, TEZip(absolute=2).filter_options)
        TEZip(absolute=2.0)
        """
        if filter_id != FILTER_ID:
            raise InputError(f"filter {filter_id} is not tezip ({FILTER_ID})")
        options = ChunkOptions.unpack(filter_options)
        bound = options.bound
        config = {name: getattr(options.settings, name) for name in Settings.__dataclass_fields__}
        return cls(bound.absolute, bound.relative, bound.pointwise_relative, bound.noise, **config)

    def __repr__(self):
        return f"TEZip({', '.join(f'{k}={v!r}' for k, v in self.get_config().items())})"
