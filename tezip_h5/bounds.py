"""Error bound -> tolerance: from the user's bound to the bound that the codec obeys.

The user's bound holds per frame and channel, in the unit of the stack. The codec obeys one float64
bound per frame and channel (or one pointwise relative number). Only scalars per frame and channel
reach the decoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real

import numpy as np

from tezip_h5 import holes
from tezip_h5.errors import InputError

__all__ = ["MODES", "ChunkBound", "ErrorBound"]

MODES = ("lossless", "abs", "rel", "absrel", "pwrel", "noise")
"""Names of the bound modes, as the manual's ``-m`` spells them; the index is the wire number."""

_EXAMPLES = {"abs": "2", "rel": "0.001", "absrel": "2 0.001", "pwrel": "0.01", "noise": "0.5"}


def _checked(name: str, value) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real | np.integer | np.floating):
        raise InputError(f"{name}={value!r} is not a number; give a number >= 0")
    try:
        value = float(value)
    except OverflowError:  # not shown: Python refuses to print integers of many digits
        raise InputError(
            f"{name} is beyond all numbers of float64; give a finite number >= 0"
        ) from None
    if not math.isfinite(value) or value < 0:
        raise InputError(f"{name}={value!r} cannot bound an error; give a finite number >= 0")
    return value


@dataclass(frozen=True)
class ErrorBound:
    """An error bound: the largest error of a reconstructed sample.

    Nothing, or any 0, means lossless. Differences, products and roots are those of float64: what
    rounds to the bound there is within it.

    Parameters
    ----------
    absolute : float, optional
        |x - x'| <= absolute, in the unit of the stack.
    relative : float, optional
        |x - x'| <= relative * (max - min of the whole frame's channel). With
        `absolute` as well, both hold. Masked pixels, NaN, infinities and sentinel values (see
        `holes`) come back exactly and are left out of max - min.
    pointwise_relative : float, optional
        |x - x'| <= pointwise_relative * |x|; zeros stay exact. Excludes the others.
    noise : float, optional
        |x - x'| <= noise * sqrt(|x|), where sqrt(|x|) is the noise of x counted photons. For
        integers; zeros stay exact. Excludes the others.

    Raises
    ------
    InputError
        For a negative, NaN or infinite number, or a combination that has no meaning.

    Examples
    --------
    >>> ErrorBound(absolute=2).mode
    'abs'
    >>> ErrorBound.from_mode("absrel", [5, 0.1])
    ErrorBound(absolute=5.0, relative=0.1, pointwise_relative=None, noise=None)
    """

    absolute: float | None = None
    relative: float | None = None
    pointwise_relative: float | None = None
    noise: float | None = None

    def __post_init__(self):
        for name in ("absolute", "relative", "pointwise_relative", "noise"):
            object.__setattr__(self, name, _checked(name, getattr(self, name)))
        for alone in ("pointwise_relative", "noise"):
            others = self._given - {alone}
            if alone in self._given and others:
                raise InputError(
                    f"{alone} was given together with {' and '.join(sorted(others))}; give "
                    f"either {alone}, or absolute and/or relative"
                )

    @property
    def _given(self) -> set[str]:
        names = ("absolute", "relative", "pointwise_relative", "noise")
        return {name for name in names if getattr(self, name) is not None}

    @classmethod
    def from_mode(cls, mode: str | None, values: Sequence[float] = ()) -> ErrorBound:
        """Read the manual's ``-m MODE -b VALUE [VALUE]``.

        Parameters
        ----------
        mode : str or None
            One of `MODES` but "lossless"; None is that.
        values : sequence of float
            The bound, in the unit that its mode has; for "absrel" two, absolute before relative.

        Returns
        -------
        ErrorBound

        Raises
        ------
        InputError
            For an unknown mode, or other values than it takes.

        Examples
        --------
        >>> ErrorBound.from_mode("pwrel", [0.01]).pointwise_relative
        0.01
        """
        values = list(values or ())
        if mode is None:
            if values:
                raise InputError(
                    f"{len(values)} bound(s) were given without a mode; "
                    f"say -m {', '.join(MODES[1:])} before -b"
                )
            return cls()
        if mode not in MODES[1:]:
            raise InputError(
                f"unknown error bound mode {mode!r}; choose one of {', '.join(MODES[1:])}"
            )
        expected = 2 if mode == "absrel" else 1
        if len(values) != expected:
            wanted = "one bound" if expected == 1 else "two bounds, absolute and relative,"
            found = f"{len(values)} were given: {values}" if values else "-b is missing"
            raise InputError(
                f"mode {mode} takes {wanted} after -b, but {found}; for example: "
                f"-m {mode} -b {_EXAMPLES[mode]}"
            )
        if mode == "absrel":
            return cls(absolute=values[0], relative=values[1])
        field = {"abs": "absolute", "rel": "relative", "pwrel": "pointwise_relative"}
        field = field.get(mode, mode)
        return cls(**{field: values[0]})

    @property
    def lossless(self) -> bool:
        """Whether every sample comes back exactly."""
        return not self._given or 0.0 in (getattr(self, name) for name in self._given)

    @property
    def mode(self) -> str:
        """Name of the bound: one of `MODES`."""
        if self.lossless:
            return "lossless"
        if self.pointwise_relative is not None:
            return "pwrel"
        if self.noise is not None:
            return "noise"
        if self.absolute is not None and self.relative is not None:
            return "absrel"
        return "abs" if self.absolute is not None else "rel"

    def __str__(self):
        if self.lossless:
            return "lossless"
        parts = []
        if self.absolute is not None:
            parts.append(f"absolute {self.absolute:g}")
        if self.relative is not None:
            parts.append(f"relative {self.relative:g}")
        if self.pointwise_relative is not None:
            parts.append(f"pointwise relative {self.pointwise_relative:g}")
        if self.noise is not None:
            parts.append(f"noise {self.noise:g}")
        return ", ".join(parts)

    def of_frames(
        self,
        frames: np.ndarray,
        mask: np.ndarray | None = None,
        *,
        padded: bool = False,
        loosest: bool = False,
    ) -> ChunkBound:
        """Bound every frame and channel.

        Parameters
        ----------
        frames : (g, H, W) or (g, H, W, C) array of any supported dtype
            Whole frames: the relative bound looks at all their samples. Those of bool are no
            numbers, and are kept exactly.
        mask : bool (H, W) array, optional
            Pixels that the relative bound leaves out, because `encode_chunk` keeps them exactly.
        padded : bool
            Whether the frames may be one tile of a frame, padded below and on the right with one
            value. The relative bound then leaves out samples that equal the last one, so that it
            is never looser than that of the whole frame.
        loosest : bool
            True returns the bound that was promised, to check decoded frames: sentinel values are
            not left out, so they do not tighten it. False returns the bound to encode with.

        Returns
        -------
        ChunkBound
            Its `absolute`, where there is one, is float64 (g, C), in the unit of the samples.

        Raises
        ------
        InputError
            When `frames` have another number of axes.

        Examples
        --------
        >>> frames = np.arange(2 * 3 * 5, dtype="u1").reshape(2, 3, 5)
        >>> ErrorBound(relative=0.5).of_frames(frames).absolute.tolist()
        [[7.0], [7.0]]
        """
        frames = np.asarray(frames)
        if frames.ndim not in (3, 4):
            raise InputError(
                f"frames of shape {frames.shape}; expected (g, H, W) or (g, H, W, C): of one "
                "frame, give frame[None]"
            )
        if frames.ndim == 3:
            frames = frames[..., None]
        if self.lossless or frames.dtype == np.bool_:
            return ChunkBound()
        if self.pointwise_relative is not None:
            return ChunkBound(pointwise=self.pointwise_relative)
        if self.noise is not None:
            return ChunkBound(noise=self.noise)
        bounds = np.full((frames.shape[0], frames.shape[3]), np.inf)
        if self.absolute is not None:
            bounds[:] = self.absolute
        if self.relative is not None:
            with np.errstate(over="ignore"):  # infinite then, which bounds nothing, as it should
                allowed = self.relative * _ranges(frames, mask, padded, loosest)
            np.minimum(bounds, allowed, out=bounds)
        return ChunkBound(absolute=bounds)


def _ranges(frames: np.ndarray, mask, padded: bool, loosest: bool) -> np.ndarray:
    """max - min of the finite unmasked samples of every frame and channel, float64 (g, C)."""
    ranges = np.zeros((frames.shape[0], frames.shape[3]))
    for t, frame in enumerate(frames):
        if mask is not None:  # what is left is a frame one pixel wide, or nothing
            frame = frame[~mask][:, None]
        if not frame.size:
            continue
        if loosest:
            used = np.isfinite(frame) if frame.dtype.kind == "f" else None
        else:
            missing = holes.find(frame[None])
            used = None if missing is None else ~missing[0]
        if padded:
            used = (True if used is None else used) & (frame != frame[-1, -1])
        if used is None:
            low, high = frame.min(axis=(0, 1)), frame.max(axis=(0, 1))
        else:
            largest = np.inf if frame.dtype.kind == "f" else np.iinfo(frame.dtype).max
            smallest = -np.inf if frame.dtype.kind == "f" else np.iinfo(frame.dtype).min
            low = np.min(frame, axis=(0, 1), where=used, initial=largest)
            high = np.max(frame, axis=(0, 1), where=used, initial=smallest)
        with np.errstate(over="ignore", invalid="ignore"):
            ranges[t] = np.where(high >= low, _widths(low, high), 0.0)
    return np.where(np.isfinite(ranges), ranges, np.finfo(np.float64).max)


def _widths(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """high - low of a few numbers, float64; of integers exact, or else rounded down."""
    if low.dtype.kind == "f":
        return high.astype(np.float64) - low.astype(np.float64)
    exact = [int(h) - int(one) for one, h in zip(low, high, strict=True)]
    return np.array([w if (w := float(n)) <= n else math.nextafter(w, 0) for n in exact])


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """|one - other| of two arrays of a dtype, float64; of integers of 64 bits exact until then."""
    if one.dtype.kind == "f" or one.dtype.itemsize < 8:
        return np.abs(one.astype(np.float64) - other.astype(np.float64))
    return (np.maximum(one, other) - np.minimum(one, other)).view(np.uint64).astype(np.float64)


@dataclass(frozen=True)
class ChunkBound:
    """The bound of the frames of one chunk: what the codec obeys.

    Attributes
    ----------
    absolute : float64 (g, C) or None
        Largest |x - x'| allowed in each frame and channel.
    pointwise : float
        Largest |x - x'| / |x| allowed, if `absolute` is None; 0 is lossless.
    noise : float
        Largest |x - x'| / sqrt(|x|) allowed, if `absolute` is None and `pointwise` 0.
    """

    absolute: np.ndarray | None = None
    pointwise: float = 0.0
    noise: float = 0.0

    @cached_property
    def lossless(self) -> bool:
        """Whether every sample must come back exactly."""
        if self.absolute is not None:
            return not np.any(self.absolute > 0)
        return self.pointwise == 0 and self.noise == 0

    def exact_where(self, frozen: np.ndarray) -> ChunkBound:
        """Return the same bound with the frames marked in `frozen` (bool (g,)) kept exactly."""
        if self.absolute is None:
            return ChunkBound() if frozen.any() else self
        return ChunkBound(absolute=np.where(frozen[:, None], 0.0, self.absolute))

    def check(self, frame: np.ndarray, decoded: np.ndarray, t: int) -> tuple[float, np.ndarray]:
        """Compare frame `t` with what it decodes to, both (H, W, C) of the same dtype.

        Returns the largest error of the samples within the bound, and a mask (bool, H W C) of
        those outside it. NaN and infinities are within it only where the bits are the same.
        """
        if self.lossless:
            raw = f"u{frame.dtype.itemsize}"
            bits, back = (np.ascontiguousarray(a).view(raw) for a in (frame, decoded))
            return 0.0, bits != back
        # Infinities, signalling NaN and bounds beyond all numbers compare as they should.
        with np.errstate(invalid="ignore", over="ignore"):
            error = _distances(frame, decoded)
            good = error <= self._allowed(frame, t)
            largest = float(np.max(error, initial=0.0))
        if math.isfinite(largest) and good.all():  # the usual case, so it is found out first
            return largest, ~good
        if frame.dtype.kind == "f":
            raw, finite = f"u{frame.dtype.itemsize}", np.isfinite(frame)
            bits, back = (np.ascontiguousarray(a).view(raw) for a in (frame, decoded))
            good = np.where(finite, good, bits == back)
        return float(np.max(error, where=good & np.isfinite(error), initial=0.0)), ~good

    def _allowed(self, frame: np.ndarray, t: int) -> np.ndarray:
        """The largest error of each sample of frame `t`, float64, or of each of its channels."""
        if self.absolute is not None:
            return self.absolute[t]
        sizes = np.abs(frame.astype(np.float64))
        return self.noise * np.sqrt(sizes) if self.noise else self.pointwise * sizes
