"""Pictures of frames, predictions and residuals: reduced, in 8 bits, as PNG."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass, field

import h5py
import numpy as np

from tezip_h5.chunk import anatomy
from tezip_h5.hdf5.contents import container
from tezip_h5.hdf5.contents.direct import stored_chunk
from tezip_h5.hdf5.contents.layout import Layout, panels_joined
from tezip_h5.hdf5.pipeline.options import panel_axes_of
from tezip_h5.hdf5.reading import reader

__all__ = ["Pictures", "Shown", "chosen_frames", "take_pictures"]

MOST_FRAMES = 1000  # a page shows at most so many frames
_PIXELS = 12_000_000  # about the most pixels of all frames that are shown
_LEAST_SIDE, _MOST_SIDE = 96, 512


@dataclass(frozen=True)
class Shown:
    """One frame: its number, and the numbers of the pictures of it, its prediction and residual."""

    number: int
    frame: int
    prediction: int | None = None
    residual: int | None = None


@dataclass
class Pictures:
    """Pictures of some frames of a stack.

    Attributes
    ----------
    images : PNG files as data URIs, each once
    frames : list of Shown, by number
    low, high : the samples that are black and white
    largest : the residual that has the strongest colour; 0 is the middle grey, 128
    reduction : number of rows and of columns that were averaged into one
    size : (width, height) of the pictures
    """

    low: float
    high: float
    largest: float
    reduction: int
    size: tuple[int, int]
    images: list[str] = field(default_factory=list)
    frames: list[Shown] = field(default_factory=list)

    def add(self, picture: np.ndarray) -> int:
        """Add a picture, uint8 (H, W) or (H, W, 3); returns its number among the images."""
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        uri = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        if uri not in self._known:
            self._known[uri] = len(self.images)
            self.images.append(uri)
        return self._known[uri]

    def __post_init__(self):
        self._known = {uri: i for i, uri in enumerate(self.images)}


def chosen_frames(frames: int, chunk: int, wanted: int | slice | None) -> list[range]:
    """Runs of frames to show, each within one chunk: all, or those of chunks evenly spaced.

    Parameters
    ----------
    frames, chunk : of the stack, and in each of its chunks
    wanted : at least so many frames, or these; None for all

    >>> chosen_frames(100, 16, 30)
    [range(0, 16), range(96, 100), range(64, 80)]
    """
    if isinstance(wanted, slice):
        first, stop, _ = wanted.indices(frames)
        starts = range(first // chunk * chunk, stop, chunk)
        return [range(max(a, first), min(a + chunk, stop)) for a in starts if stop > first]
    starts = range(0, frames, chunk)
    runs = [range(a, min(a + chunk, frames)) for a in starts]
    if wanted is None or wanted >= frames:
        return runs
    found: list[range] = []
    for at in _spread(len(runs)):
        if sum(map(len, found)) >= wanted:
            break
        found.append(runs[at])
    return found


def _spread(count: int):
    """The numbers 0 to count - 1, in an order in which the first few are far from each other."""
    seen = set()
    for at in (0, count - 1):
        if at not in seen:
            seen.add(at)
            yield at
    step = count
    while step > 1:
        step = -(-step // 2)
        for at in range(step, count, step):
            if at not in seen:
                seen.add(at)
                yield at
    yield from (at for at in range(count) if at not in seen)


def take_pictures(data: h5py.Dataset, runs: list[range], threads: int | None = None) -> Pictures:
    """Decode these frames of a stack, and take pictures of them; panels one below the other.

    Parameters
    ----------
    data : h5py.Dataset, compressed
    runs : list of range
        Frames, each run within one chunk.
    threads : int, optional

    Raises
    ------
    FormatError, ModelError
    """
    count = max(sum(map(len, runs)), 1)
    side = min(max(math.isqrt(_PIXELS // count), _LEAST_SIDE), _MOST_SIDE)
    panel_axes = panel_axes_of(data)
    height = math.prod(data.shape[1 : 2 + panel_axes])
    reduction = max(1, -(-max(height, data.shape[2 + panel_axes]) // side))
    seen, masked = [], _masked(data, panel_axes)
    for run in sorted(runs, key=lambda run: run.start):
        start = run.start // data.chunks[0] * data.chunks[0]
        frames = reader.read(data, slice(start, start + data.chunks[0]), threads=threads)
        guesses, known = _predictions(data, start, run.stop, frames, panel_axes)
        frames, guesses = panels_joined(frames, panel_axes), panels_joined(guesses, panel_axes)
        for number in run:
            frame, guess = frames[number - start], guesses[number - start]
            pictures: list = [reduced(frame, reduction, masked), None, None]
            if known[number - start]:
                difference = frame.astype(np.float64) - guess.astype(np.float64)
                pictures[1:] = (
                    reduced(guess, reduction, masked),
                    reduced(difference, reduction, masked),
                )
            seen.append((number, *pictures))
    return _as_pictures(seen, reduction)


def _predictions(data, start: int, stop: int, frames: np.ndarray, panel_axes: int):
    """The predictions of a chunk's frames, up to `stop`, and which frames were predicted.

    Tiles are put together. If a tile is a keyframe while others are predicted, the tile itself is
    shown.
    """
    guesses, known = frames.copy(), np.zeros(len(frames), bool)
    layout = Layout(data.shape[1:], data.chunks, panel_axes)
    for part in layout.tiles:
        stored = stored_chunk(data, layout.offset(start, part))
        if stored is None or stored[0]:
            continue
        found = anatomy.predictions(stored[1], frames[(slice(None), *part)])
        for t, guess in zip(range(stop - start), found, strict=False):
            if guess is not None:
                guesses[(t, *part)] = guess
                known[t] = True
    return guesses, known


def _masked(data: h5py.Dataset, panel_axes: int) -> np.ndarray | None:
    """The stack's masked pixels, which are not used to choose grey levels."""
    tables = container.tables_of(data)
    mask = None if tables is None else container.keep_mask(tables, None)
    return None if mask is None else panels_joined(mask[None], panel_axes)[0]


def reduced(frame: np.ndarray, reduction: int, masked: np.ndarray | None = None) -> np.ndarray:
    """Means over squares of `reduction` rows and columns; NaN where all pixels are masked.

    Parameters
    ----------
    frame : (H, W) or (H, W, C) array
    masked : bool (H, W), optional
        Pixels that are left out.

    Returns
    -------
    float32 (h, w), or (h, w, 3) of frames with colours
    """
    values = frame.astype(np.float32) if frame.dtype.itemsize < 4 else frame.astype(np.float64)
    if values.ndim == 3:
        values = values[..., :3] if values.shape[2] > 2 else values[..., 0]
    good = np.isfinite(values)
    if masked is not None:
        good &= ~(masked if values.ndim == 2 else masked[..., None])
    sums, counts = np.where(good, values, 0), good.astype(np.float32)
    if reduction > 1:
        for axis in (0, 1):
            starts = np.arange(0, frame.shape[axis], reduction)
            sums = np.add.reduceat(sums, starts, axis=axis)
            counts = np.add.reduceat(counts, starts, axis=axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (sums / counts).astype(np.float32)


def _as_pictures(seen: list, reduction: int) -> Pictures:
    frames = [small for _, small, _, _ in seen]
    values = np.concatenate([f[np.isfinite(f)].ravel()[::7] for f in frames] or [np.zeros(0)])
    low, high = (float(v) for v in np.percentile(values, (0.3, 99.7))) if values.size else (0, 1)
    residuals = [np.abs(r[np.isfinite(r)]).ravel() for _, _, _, r in seen if r is not None]
    sizes = np.concatenate([r[::7] for r in residuals] or [np.zeros(0)])
    largest = float(np.percentile(sizes, 99.7)) if sizes.size else 0.0
    if largest == 0:
        largest = max((float(r.max(initial=0)) for r in residuals), default=0.0)
    height, width = frames[0].shape[:2] if frames else (1, 1)
    pictures = Pictures(low, high, largest, reduction, (width, height))
    for number, small, guess, difference in seen:
        shown = [pictures.add(_grey(small, low, high)), None, None]
        if guess is not None:
            shown[1] = pictures.add(_grey(guess, low, high))
            shown[2] = pictures.add(_signed(difference, largest))
        pictures.frames.append(Shown(number, *shown))
    return pictures


def _grey(values: np.ndarray, low: float, high: float) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = (values - low) * (255 / (high - low if high > low else 1.0))
    return np.clip(np.nan_to_num(scaled, nan=0), 0, 255).astype(np.uint8)


def _signed(values: np.ndarray, largest: float) -> np.ndarray:
    """Residuals in 8 bits, where 128 is 0; of several channels, the largest residual."""
    if values.ndim == 3:
        which = np.abs(np.nan_to_num(values)).argmax(axis=2)
        values = np.take_along_axis(values, which[..., None], axis=2)[..., 0]
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = 128 + values * (127 / (largest or 1.0))
    return np.clip(np.rint(np.nan_to_num(scaled, nan=128)), 1, 255).astype(np.uint8)
