"""Samples that are not fully described by their levels, and what is stored to restore them.

`SampleWriter` computes what a decoder will restore from the levels, checks it against the bound,
and stores exceptions, mantissa bits and corrections. `SampleReader` is its inverse.
"""

from __future__ import annotations

import zlib

import numpy as np

from tezip_h5 import kernels, levels
from tezip_h5.bitstream import Header, Payload, Section
from tezip_h5.bounds import ChunkBound
from tezip_h5.chunk.exceptions import ExceptionReader, ExceptionWriter
from tezip_h5.chunk.mantissa import MantissaReader, MantissaWriter
from tezip_h5.errors import BoundError, FormatError
from tezip_h5.holes import Patched
from tezip_h5.kernels import arrays

__all__ = ["SampleReader", "SampleWriter", "require_checksum"]


class SampleWriter:
    """Check the frames of a chunk against their bound, and store what their levels leave out.

    Parameters
    ----------
    carrier : dtype of the samples, little-endian
    samples : Patched
    bound : ChunkBound
    scale : Scale
        The scale that converts the samples to levels.
    tolerances : int array (g, C), in levels

    Attributes
    ----------
    checksum : int
        The CRC of the frames added so far, as a decoder will restore them.
    """

    def __init__(
        self,
        carrier: np.dtype,
        samples: Patched,
        bound: ChunkBound,
        scale: levels.Scale,
        tolerances: np.ndarray,
    ):
        self._carrier, self._samples, self._bound = carrier, samples, bound
        self._scale, self._tolerances = scale, tolerances
        self._exceptions = ExceptionWriter()
        self._mantissa = MantissaWriter(scale) if isinstance(scale, levels.Truncated) else None
        self._corrections = ExceptionWriter() if scale.corrected else None
        self._next, self.checksum = 0, 0

    def add(self, frame_levels, decoded, free: np.ndarray | None) -> float:
        """Add the next frame, and return its largest error.

        Parameters
        ----------
        frame_levels, decoded : int32 (C, h, w)
            The levels of the frame, before they were coded and as a decoder will have them.
        free : bool (C, h, w), optional
            Where the decoded levels may have any value, because the samples are holes.

        Raises
        ------
        BoundError
            If a decoded level differs from the original one by more than its tolerance.
        """
        t, self._next = self._next, self._next + 1
        frame = self._samples.original[t]
        holes = None if self._samples.holes is None else self._samples.holes[t]
        if isinstance(self._scale, levels.Integers | levels.OrderedBits):
            error, bad = self._level_error(frame_levels, decoded, free, t), holes
            values = frame  # this may be the user's own array, so it must not be changed
            if error:
                values = _pixels(self._scale.to_values(arrays.at(decoded, "cpu")))
                if holes is not None:  # errors of levels do not count there
                    error, bad = self._errors_beside(holes, frame, values, t)
        else:
            found = arrays.at(decoded, "cpu")
            values = _pixels(self._scale.of_frame(t).to_values(found))
            if self._corrections is not None:
                _, far = self._bound.check(frame, values, t)
                self._corrections.add(*_corrected(values, frame, far, holes))
            if self._mantissa is not None:
                self._mantissa.add(values, frame, np.moveaxis(found, 0, 2), holes)
            error, bad = self._errors_beside(holes, frame, values, t)
        if bad is not None and values is not frame:
            values[bad] = frame[bad]
        self._exceptions.add(bad, frame)
        values = np.ascontiguousarray(values, self._carrier)
        self.checksum = zlib.crc32(values, self.checksum)
        return error

    def _errors_beside(self, holes, frame, values, t) -> tuple[float, np.ndarray]:
        """The largest error of `values`, and which samples must be stored exactly.

        Holes are stored exactly, so they have no error. Their samples are copied to `values`.
        """
        if holes is not None:
            values[holes] = frame[holes]
        error, bad = self._bound.check(frame, values, t)
        return error, bad if holes is None else bad | holes

    def _level_error(self, frame_levels, decoded, free, t) -> float:
        """The largest error of the decoded levels; BoundError if it exceeds a tolerance."""
        if free is not None:
            frame_levels = np.where(free, decoded, frame_levels)
        kernel = kernels.of(frame_levels)
        largest = 0
        for c, tolerance in enumerate(self._tolerances[t]):
            error = kernel.largest_error(frame_levels[c].reshape(-1), decoded[c].reshape(-1))
            if error > tolerance:
                raise BoundError(
                    f"frame {t} of a chunk came back with an error of {error}, its tolerance is "
                    f"{tolerance}; nothing was written, please report this"
                )
            largest = max(largest, error)
        return float(largest)

    def pack(self) -> dict[int, bytes]:
        """The sections of the payload that hold what levels leave out, by their number."""
        sections = {}
        if exceptions := self._exceptions.pack():
            sections[Section.EXCEPTIONS] = exceptions
        if self._mantissa is not None:
            sections[Section.MANTISSA] = self._mantissa.pack()
        if self._corrections is not None and (corrections := self._corrections.pack()):
            sections[Section.CORRECTIONS] = corrections
        return sections


class SampleReader:
    """Restore the samples of a chunk frame by frame: the inverse of `SampleWriter`.

    Parameters
    ----------
    parsed : Payload
    scale : Scale
        The scale of its levels.
    """

    def __init__(self, parsed: Payload, scale: levels.Scale):
        self._header = header = parsed.header
        g, h, w = header.valid
        self._scale, self._mantissa, self._checksum = scale, None, 0
        self._next, self._corrections = 0, None
        if scale.corrected:
            self._corrections = ExceptionReader(
                parsed.sections.get(Section.CORRECTIONS),
                header.valid,
                header.channels,
                np.dtype("i1"),
            )
        self._exceptions = ExceptionReader(
            parsed.sections.get(Section.EXCEPTIONS), header.valid, header.channels, header.carrier
        )
        if isinstance(scale, levels.Truncated):
            samples = h * w * header.channels
            self._mantissa = MantissaReader(parsed.section(Section.MANTISSA), scale, g, samples)

    def next(self, decoded) -> np.ndarray:
        """Restore the samples of the next frame, (h, w, C), from its levels, int32 (C, h, w).

        Raises
        ------
        FormatError
            If the stored exceptions, mantissa bits or corrections do not match the frame.
        """
        found = arrays.at(decoded, "cpu")
        values = _pixels(self._scale.of_frame(self._next).to_values(found))
        self._next += 1
        if self._corrections is not None:
            off = np.zeros(values.shape, np.int8)
            self._corrections.apply(off)
            _correct(values, off)
        if self._mantissa is not None:
            self._mantissa.apply(values, np.moveaxis(found, 0, 2))
        self._exceptions.apply(values)
        values = values.astype(self._header.carrier, copy=False)
        self._checksum = zlib.crc32(values, self._checksum)
        return values

    def finish(self) -> None:
        """Raise FormatError unless all frames were read, and their checksum is the header's."""
        self._exceptions.finish()
        if self._corrections is not None:
            self._corrections.finish()
        if self._mantissa is not None:
            self._mantissa.finish()
        require_checksum(self._checksum, self._header)


def _corrected(values, frame, far, holes) -> tuple[np.ndarray, np.ndarray]:
    """Correct the `values` outside the bound that differ from `frame` by at most `NEAREST` units
    in the last place.

    Returns
    -------
    bool and int8 arrays of the frame's shape
        Which samples were corrected, and by how many units.
    """
    if holes is not None:
        far = far & ~holes
    off = np.zeros(frame.shape, np.int8)
    differences = levels.ordered(frame[far]).astype(np.int64) - levels.ordered(values[far])
    off[far] = np.where(np.abs(differences) <= levels.NEAREST, differences, 0)
    _correct(values, off)
    return off != 0, off


def _correct(values: np.ndarray, off: np.ndarray) -> None:
    """Add `off`, in units in the last place, to the values."""
    where = off != 0
    if not where.any():
        return
    keys = levels.ordered(values[where]).astype(np.int64) + off[where]
    values[where] = levels.unordered(keys, values.dtype)


def require_checksum(found: int, header: Header) -> None:
    """Raise FormatError unless the samples of a chunk have the checksum that the header says."""
    if found != header.checksum:
        raise FormatError(
            f"the chunk decodes to samples with checksum {found:08x}, {header.checksum:08x} was "
            "written: the payload is damaged, or this machine computes something else"
        )


def _pixels(planes: np.ndarray) -> np.ndarray:
    """Change the layout from (C, h, w) to (h, w, C), C-contiguous.

    This copies channel by channel, which is faster than numpy's copy of a transposed array.
    """
    if len(planes) == 1:
        return np.ascontiguousarray(planes[0])[..., None]
    out = np.empty((*planes.shape[1:], len(planes)), planes.dtype)
    for c, plane in enumerate(planes):
        out[..., c] = plane
    return out
