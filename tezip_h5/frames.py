"""Reading stacks: from arrays, HDF5 datasets, array-likes, iterables and folders of images.

Each source becomes a `Stack`: the shape and dtype of a frame, and an iterator of blocks of frames
in order. Only a few blocks are in memory, whatever the stack's size.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import numpy as np

from tezip_h5.errors import InputError
from tezip_h5.gpu_arrays import OnGpu, is_gpu_array, to_host
from tezip_h5.levels import DTYPES
from tezip_h5.stacks.dask_blocks import block_ranges, cut_steps

__all__ = [
    "Stack",
    "axis_order",
    "blocks_checked",
    "check_frames",
    "check_mask",
    "host_frames",
    "is_count",
    "open_stack",
    "take",
]

_ADVICE = {
    "c": "store real and imaginary parts as two stacks",
    "f": "use .astype('float64') if the values fit",
}


def check_dtype(dtype: np.dtype) -> np.dtype:
    """The little-endian form of a supported dtype; InputError with advice for another."""
    try:
        dtype = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError):  # NumPy raises SyntaxError for "2,"
        known = ", ".join(DTYPES)
        raise InputError(f"{dtype!r} is no dtype of numpy; give one of {known}") from None
    if dtype.newbyteorder("=").name in DTYPES:
        return dtype.newbyteorder("<")
    advice = _ADVICE.get(dtype.kind, "convert it to one of them")
    raise InputError(
        f"frames of dtype {dtype} cannot be stored ({', '.join(DTYPES)} can): {advice}"
    )


def is_count(value, least: int = 1) -> bool:
    """Whether a value is an integer of Python or NumPy, and at least `least`."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and value >= least


def check_frames(shape: tuple[int, ...], panel_axes: int = 0) -> tuple[int, ...]:
    """Check the shape of a stack, (T, H, W) or (T, H, W, C), with `panel_axes` axes after T."""
    if not is_count(panel_axes, least=0):
        raise InputError(f"panel_axes={panel_axes!r} is no number of axes; give an int >= 0")
    if not isinstance(shape, Iterable) or not all(is_count(n, least=0) for n in shape):
        raise InputError(f"{shape!r} is no shape of a stack; give ints, such as (T, H, W)")
    shape = tuple(int(n) for n in shape)
    if panel_axes:
        check_frames((shape[0], *shape[1 + panel_axes :]))
        if 0 in shape:
            raise InputError(f"a stack of shape {shape} holds no samples; give at least one frame")
        return shape
    if len(shape) == 2:
        raise InputError(
            f"a stack of shape {shape} is one frame; a stack is (T, H, W): use frame[None]"
        )
    if len(shape) not in (3, 4):
        raise InputError(
            f"a stack of shape {shape}; expected (T, H, W) or (T, H, W, C): reshape it, folding "
            "further axes into T"
        )
    if len(shape) == 4 and shape[3] > 4:
        raise InputError(
            f"a stack of shape {shape} has {shape[3]} channels, at most 4 are allowed; if its "
            "axes mean something else, name them, for example axes='TCYX', or "
            "axes='TMYX' where each frame has several modules M, or fold them into T"
        )
    if 0 in shape:
        raise InputError(f"a stack of shape {shape} holds no samples; give at least one frame")
    return shape


def check_mask(mask, shape: tuple[int, ...]) -> np.ndarray:
    """The mask as a bool array of `shape`, (H, W) after panel axes; nonzero means masked.

    Raises
    ------
    InputError
        When it has another shape, or holds no numbers.
    """
    try:
        mask = np.asarray(mask)
    except ValueError:
        raise InputError(
            f"a mask whose rows differ in length; expected bool or integers of shape {tuple(shape)}"
        ) from None
    if mask.shape != tuple(shape) or mask.dtype.kind not in "biu":
        raise InputError(
            f"a mask of {mask.dtype} {mask.shape}; expected bool or integers of shape "
            f"{tuple(shape)}, not 0 where a pixel is masked"
        )
    return mask != 0


@dataclass(frozen=True)
class Stack:
    """A source of frames to be written.

    Attributes
    ----------
    frame_shape : (H, W) or (H, W, C), after the panel axes
    dtype : numpy dtype, little-endian
    count : number of frames, or None when only the end of the iterable will tell
    filenames : names of the files the frames came from, or None
    image_format : JSON text that the images module needs to write those files again, or None
    """

    frame_shape: tuple[int, ...]
    dtype: np.dtype
    count: int | None
    _read: object = field(repr=False)
    filenames: list[str] | None = None
    image_format: str | None = None
    panel_axes: int = 0
    """Axes of a frame before its rows and columns."""

    def blocks(self, size: int, first: int = 0) -> Iterator[np.ndarray]:
        """Yield (k, *frame_shape) arrays, k = `size` except for the last, from frame `first` on.

        Raises
        ------
        InputError
            When the source yields another shape, dtype or number of frames than it declared.
        """
        stop = first
        for block in self._read(size, first):
            stop += len(block)
            yield block
            del block  # before the next one takes as much memory
        if self.count is not None and stop != self.count:
            raise InputError(
                f"the stack gave {stop} frames, but said that it has {self.count}; give one that "
                "does not change while it is read"
            )


def open_stack(
    stack, axes: str | None = None, *, lossy: bool = False, panel_axes: int = 0
) -> Stack:
    """Make a `Stack` of whatever holds frames.

    Parameters
    ----------
    stack : array, h5py.Dataset, array-like with ``shape``, ``dtype`` and slicing, folder of
        images, TIFF, .npy or .npz file (str or path, see `stackfiles`), or iterable of frames.
        Arrays may lie on a GPU, see `gpu_arrays`.
    axes : str, optional
        The order of the axes, a permutation of "TYX" or "TYXC"; other letters between are panel
        axes, such as M for the modules of a detector: "TMYX". That of images of a folder and of
        an iterable's frames is fixed.
    panel_axes : int
        Without `axes`: how many axes after the first are panel axes.
    lossy : bool
        Whether an error bound will be applied: palette and 1-bit images are then expanded to
        the samples that they stand for.

    Raises
    ------
    InputError
        When `stack` is none of these, or its shape or dtype cannot be stored.
    """
    if isinstance(stack, str | os.PathLike):
        from tezip_h5.stacks import stackfiles

        if stackfiles.is_stack_file(stack):
            array, letters = stackfiles.open_file(stack)
            return _array_like(array, axes or letters, panel_axes)
        return _in_our_order(_folder(Path(stack), lossy), axes)
    if is_gpu_array(stack):
        stack = OnGpu(stack)
    _refuse_masked(stack)  # all of it, before anything is written
    if hasattr(stack, "shape") and hasattr(stack, "dtype"):
        return _array_like(stack, axes, panel_axes)
    if isinstance(stack, bytes) or not isinstance(stack, Iterable):
        raise InputError(
            f"{type(stack).__name__} is no stack; give an array, an HDF5 dataset, a folder of "
            "images or an iterable of frames"
        )
    count = len(stack) if isinstance(stack, list | tuple) else None
    return _in_our_order(_frames(stack, count), axes)


def _in_our_order(stack: Stack, axes: str | None) -> Stack:
    """A stack whose frames come one by one; InputError if `axes` gives another order for them."""
    letters = "TYXC"[: 1 + len(stack.frame_shape)]
    if axes is not None and str(axes).upper() != letters:
        raise InputError(
            f"axes={axes!r} for frames that come one by one, which are {letters}; leave it out, or "
            "give an array"
        )
    return stack


def _array_like(array, axes: str | None, panel_axes: int) -> Stack:
    if array.shape is None:
        raise InputError("a dataset that is empty, without even a shape; give one with frames")
    if any(n != n for n in array.shape):
        raise InputError(
            f"a stack of shape {array.shape} does not know how many frames it has; of a dask "
            "array, call compute_chunk_sizes() first"
        )
    order, named = axis_order(axes, len(array.shape))
    panel_axes = panel_axes if axes is None else named
    shape = check_frames(tuple(array.shape[i] for i in order), panel_axes)
    dtype = check_dtype(array.dtype)

    def read(size, first):
        if not hasattr(array, "dask"):
            for start in range(first, shape[0], size):
                yield take(array, order, start, min(start + size, shape[0]))
            return
        ordered = array.transpose(order)[first:]
        ranges = block_ranges(ordered, size)
        parts = ((a, b, take(array, order, first + a, first + b)) for a, b in ranges)
        for cuts in cut_steps(parts, ordered.shape[0], size):
            frames = [part[start:stop] for part, start, stop in cuts]
            yield frames[0] if len(frames) == 1 else np.concatenate(frames)

    return Stack(shape[1:], dtype, shape[0], read, panel_axes=panel_axes)


def take(array, order: tuple[int, ...], start: int, stop: int) -> np.ndarray:
    """Frames `start` to `stop` of an array-like whose axes T, ..., Y, X, C stand at `order`.

    Raises
    ------
    InputError
        When the array gives another shape or dtype than it says it has.
    """
    index, shape = [slice(None)] * len(order), list(array.shape)
    index[order[0]], shape[order[0]] = slice(start, stop), stop - start
    part = array[tuple(index)]
    if hasattr(part, "dask"):
        part = blocks_checked(part, order[0], start)
    return _as_declared(part, array.dtype, tuple(shape), start, stop).transpose(order)


def blocks_checked(part, time_axis: int, first: int):
    """A dask array that starts at frame `first` of a stack, whose blocks are checked.

    A block must have the shape and dtype that the array declares. dask itself would broadcast or
    cast a block that has not.
    """
    how = {"dtype": part.dtype, "meta": part._meta, "time_axis": time_axis, "first": first}
    return part.map_blocks(_checked_block, **how)


def _as_declared(frames, dtype, shape: tuple[int, ...], start: int, stop: int) -> np.ndarray:
    """Check that frames `start` to `stop` of an array have its declared dtype and shape."""
    _refuse_masked(frames)
    found = np.asarray(frames)
    dtype = np.dtype(dtype)
    if found.shape != shape or found.dtype.newbyteorder("=") != dtype.newbyteorder("="):
        name = "None" if frames is None else f"{found.dtype} {found.shape}"
        raise InputError(
            f"frames {start} to {stop - 1} came as {name}; the array says {dtype} {shape}: "
            "correct what it says (of a dask array its meta, dtype or chunks), or what it gives"
        )
    return found


def _checked_block(block, time_axis: int, first: int, block_info=None):
    """A block of a dask array whose frame 0 is frame `first`, checked where it is computed."""
    said = block_info[None]
    start, stop = said["array-location"][time_axis]
    return _as_declared(block, said["dtype"], said["chunk-shape"], first + start, first + stop)


def _refuse_masked(frames) -> None:
    if isinstance(frames, np.ma.MaskedArray) and np.ma.is_masked(frames):
        raise InputError(
            "a masked array would lose its mask; give its .data and the pixels as mask=, or its "
            ".filled() with a sentinel value"
        )


def axis_order(axes: str | None, rank: int) -> tuple[tuple[int, ...], int]:
    """Where T, the panel axes, Y, X and C stand in `axes`, and how many panel axes it names."""
    if axes is None:
        return tuple(range(rank)), 0
    letters = str(axes).upper()
    panels = [letter for letter in letters if letter not in "TYXC"]
    wanted = "T" + "".join(panels) + ("YXC" if "C" in letters else "YX")
    if len(letters) != rank or sorted(letters) != sorted(wanted) or len(set(letters)) < rank:
        raise InputError(
            f"axes={axes!r} for an array with {rank} axes; expected one letter for each: T for "
            "time, Y and X for rows and columns, C for channels if there are any, and any others "
            "for panels, such as TMYX"
        )
    return tuple(letters.index(letter) for letter in wanted), len(panels)


def host_frames(frame) -> np.ndarray:
    """A frame, or several, as an array in the host's memory.

    Raises
    ------
    InputError
        When it is no array, or a masked array.
    """
    _refuse_masked(frame)
    try:
        return to_host(frame)
    except ValueError as error:  # numpy's, of nested lists
        raise InputError(f"a frame is no array, nor can one be made of it: {error}") from None


def _frames(frames: Iterable, count: int | None) -> Stack:
    """The frames of a list of length `count`, or those that an iterator yields, once."""
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise InputError("the iterable yields no frame; give at least one")
    first = host_frames(first)
    unread = [chain([first], iterator)]

    def read(size, start):
        if count is None and (start or not unread):
            raise InputError("an iterator gives its frames only once; give a list or an array")
        numbered = enumerate(unread.pop() if count is None else frames)
        return _gathered(islice(numbered, start, None), size, first)

    shape = check_frames((1, *first.shape))
    return Stack(shape[1:], check_dtype(first.dtype), count, read)


def _gathered(frames: Iterator, size: int, first: np.ndarray) -> Iterator[np.ndarray]:
    """Blocks of `size` of the numbered `frames`, all like `first`."""
    while True:
        block = np.empty((size, *first.shape), first.dtype)
        filled = 0
        for number, frame in islice(frames, size):
            block[filled] = _same(host_frames(frame), first, number)
            filled += 1
        if filled:
            yield block[:filled]
        del block  # before the next one takes as much memory
        if filled < size:
            return


def _same(frame: np.ndarray, first: np.ndarray, index: int) -> np.ndarray:
    if frame.shape != first.shape or frame.dtype != first.dtype:
        raise InputError(
            f"frame {index} is {frame.dtype} {frame.shape}, the first was {first.dtype} "
            f"{first.shape}; all frames of a stack must be alike"
        )
    return frame


def _folder(folder: Path, lossy: bool) -> Stack:
    from tezip_h5.stacks.images import ImageFolder

    images = ImageFolder(folder, expand=lossy)

    def read(size, first):
        alike = np.empty(images.shape[1:], images.dtype)
        return _gathered(islice(enumerate(images), first, None), size, alike)

    return Stack(
        images.shape[1:],
        check_dtype(images.dtype),
        len(images),
        read,
        images.filenames,
        images.image_format.to_json(),
    )
