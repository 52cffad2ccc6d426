"""Training data in the original's form, from folders of images: `train_data_create`.

Memory is a few frames, whatever the number of images.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tezip_h5.errors import InputError
from tezip_h5.model import hickle
from tezip_h5.model.sequences import image_folders
from tezip_h5.progress import Bar, progress_bar
from tezip_h5.stacks.images import ImageFolder

__all__ = ["Source", "check_space", "choose_validation", "create", "save"]

_MULTIPLE = 8  # sides are padded to multiples of this, as the original's four layers need
_BLOCK_BYTES = 16 << 20
_KEPT = {"LA": 1, "RGBA": 3}  # channels without alpha


@dataclass(frozen=True)
class Source:
    """A sequence to be stored.

    Attributes
    ----------
    name : str, different from its neighbours'
    count : int, number of frames
    frames : callable that yields them, uint8 (H, W, C)
    """

    name: str
    count: int
    frames: Callable[[], Iterator[np.ndarray]]


def create(images, out, *, validation=None, progress: bool | None = None) -> dict:
    """Write training data of a folder with a sub-folder of images per sequence.

    Frames are grey (C = 1) if all images are, else RGB; alpha is left out. As in the original,
    they have the largest height and width of all, rounded up to multiples of 8. Smaller images lie
    at the top left, and their edges are repeated, so that no artificial edges are learned.

    Parameters
    ----------
    images : path
    out : path
        Folder for ``X_train.hkl``, ``X_val.hkl``, ``sources_train.hkl`` and ``sources_val.hkl``;
        made when missing. Files of these names are replaced, all at the end.
    validation : names of sub-folders, optional
        Default: every tenth or so, at least one.
    progress : bool, optional
        Show a bar; default: on a terminal.

    Returns
    -------
    dict
        Shape (N, H, W, C) of what was written, for "train" and "val".

    Raises
    ------
    InputError
        When there are fewer than two sequences; when a sequence has fewer than two frames or images
        of several sizes; when an image has more than 8 bits; or when a name is unknown. Nothing is
        written then.
    """
    folders = image_folders(images)
    if Path(out).exists() and Path(out).samefile(images):
        raise InputError(f"{out} holds the sequences; give another folder for the training data")
    names = [folder.name for folder in folders]
    if len(folders) < 2:
        raise InputError(
            f"{images} holds {len(folders)} sequence(s); at least 2 sub-folders are needed, one to "
            "learn from and one to validate with"
        )
    kept = choose_validation(names, validation)
    stacks = {name: _stack(folder) for name, folder in zip(names, folders, strict=True)}
    colour = any(_channels(stack) > 1 for stack in stacks.values())
    height, width = (max(s.shape[axis] for s in stacks.values()) for axis in (1, 2))
    shape = (_rounded_up(height), _rounded_up(width), 3 if colour else 1)
    parts = {"train": [], "val": []}
    for name, stack in stacks.items():
        part = "val" if name in kept else "train"
        parts[part].append(Source(f"{part}-{name}", len(stack), _frames_of(stack, shape)))
    return save(out, parts, shape, progress=progress)


def choose_validation(names: list[str], wanted=None) -> set[str]:
    """The sequences to validate with: those wanted, or a tenth (at least one), evenly spread.

    >>> sorted(choose_validation([f"s{i}" for i in range(25)]))
    ['s18', 's6']
    """
    if wanted is None:
        count = max(1, len(names) // 10)
        return {names[(2 * i + 1) * len(names) // (2 * count)] for i in range(count)}
    for name in wanted:
        if name not in names:
            raise InputError(f"no sequence {name!r} to validate with; there are {_listed(names)}")
    if not wanted or len(set(wanted)) == len(names):
        raise InputError(
            f"{len(set(wanted))} of {len(names)} sequences are for validation; keep at least one "
            "for that and one to learn from"
        )
    return set(wanted)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _stack(folder: Path) -> ImageFolder:
    stack = ImageFolder(folder, expand=True)
    if stack.dtype != np.uint8:
        raise InputError(
            f"{folder} holds images of {stack.dtype}, but these files have 8 bits per sample; give "
            "the folder itself to `tezip-h5 train`, which takes every depth"
        )
    if len(stack) < 2:
        raise InputError(
            f"{folder} holds one image; a sequence has at least 2, one to predict the other: add "
            "some, or remove the folder"
        )
    return stack


def _channels(stack: ImageFolder) -> int:
    """Channels without alpha."""
    return _KEPT.get(stack.image_format.mode, (*stack.shape, 1)[3])


def _rounded_up(size: int) -> int:
    return -(-size // _MULTIPLE) * _MULTIPLE


def _frames_of(stack: ImageFolder, shape) -> Callable[[], Iterator[np.ndarray]]:
    mode = stack.image_format.mode

    def frames():
        for frame in stack:
            yield _fitted(_without_alpha(frame, mode), shape)

    return frames


def _without_alpha(frame: np.ndarray, mode: str) -> np.ndarray:
    """Grey or RGB levels (H, W, 1 or 3) of an image."""
    if mode == "CMYK":
        frame = np.asarray(
            Image.frombytes(mode, frame.shape[1::-1], frame.tobytes()).convert("RGB")
        )
    frame = frame.reshape(*frame.shape[:2], -1)
    return frame[..., : _KEPT.get(mode, frame.shape[2])]


def _fitted(frame: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """A frame brought to `shape`: grey repeated for RGB, the edge repeated below and right."""
    below, right = shape[0] - frame.shape[0], shape[1] - frame.shape[1]
    frame = np.pad(frame, ((0, below), (0, right), (0, 0)), mode="edge")
    return np.broadcast_to(frame, shape)


def save(out, parts: dict, shape, *, progress: bool | None = None) -> dict:
    """Write ``X_<part>.hkl`` and ``sources_<part>.hkl`` for every part, or nothing.

    Parameters
    ----------
    out : path
    parts : dict of str to list of Source
    shape : (H, W, C)
    progress : bool, optional

    Returns
    -------
    dict
        Shape (N, H, W, C) of each part.

    Raises
    ------
    InputError
        When the disk has no space for it, or a source yields another number of frames than it
        announced.
    """
    out = Path(out)
    shapes = {part: (sum(s.count for s in sources), *shape) for part, sources in parts.items()}
    total = sum(s[0] for s in shapes.values())
    made = _made(out)
    try:
        check_space(out, total * int(np.prod(shape)) + (1 << 20), "the training data")
        bar = progress_bar(total=total, show=progress, unit="frame", delay=0, leave=True)
        _write(out, parts, shapes, bar)
    except BaseException:
        if made:
            with contextlib.suppress(OSError):  # only the first error is reported
                out.rmdir()
        raise
    return shapes


def _write(out: Path, parts: dict, shapes: dict, bar: Bar) -> None:
    suffix = f".{uuid.uuid4().hex}.tmp"
    temporary = {}
    try:
        for part, sources in parts.items():
            for name in (f"X_{part}.hkl", f"sources_{part}.hkl"):
                temporary[out / f".{name}{suffix}"] = out / name
            with hickle.ArrayWriter(out / f".X_{part}.hkl{suffix}", shapes[part]) as array:
                for source in sources:
                    bar.set_postfix_str(source.name, refresh=False)
                    _append(array, source, shapes[part][1:], bar)
            names = [source.name for source in sources for _ in range(source.count)]
            hickle.write_names(out / f".sources_{part}.hkl{suffix}", names)
        for path, target in temporary.items():
            os.replace(path, target)
    finally:
        bar.close()
        for path in temporary:
            path.unlink(missing_ok=True)


def _append(array: hickle.ArrayWriter, source: Source, shape, bar: Bar) -> None:
    """Write a source's frames, several at a time."""
    size = max(1, min(source.count, _BLOCK_BYTES // int(np.prod(shape))))
    block, filled, count = np.empty((size, *shape), np.uint8), 0, 0
    for frame in source.frames():
        block[filled] = frame
        filled, count = filled + 1, count + 1
        bar.update()
        if filled == size:
            array.append(block)
            filled = 0
    array.append(block[:filled])
    if count != source.count:
        raise InputError(
            f"{source.name} gave {count} frames, but {source.count} were there at first; start anew"
        )


def _made(folder: Path) -> bool:
    """Make a folder; returns whether it was missing."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder for the training data")
    missing = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raise InputError unless the disk of `folder` has `needed` free bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{what} need {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free; "
            "make room, or give a folder on another disk"
        )
