"""Image files <-> frames, through Pillow. Reading and writing side by side.

Files come back as they were: same name, same mode, same samples, same palette. What a name's
format cannot hold without loss goes to a .png, .tif or .npy instead, and is reported.
"""

from __future__ import annotations

import base64
import json
import os
import re
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from tezip_h5.errors import InputError

__all__ = ["ImageFolder", "ImageFormat", "write_images"]

_DTYPES = {"1": "u1", "L": "u1", "P": "u1", "LA": "u1", "RGB": "u1", "RGBA": "u1", "CMYK": "u1",
           "I;16": "u2", "I": "i4", "F": "f4"}  # fmt: skip
_EXPANDED = {"1": "L", "P": "RGB", "PA": "RGBA"}
_LITTER = {"thumbs.db", "desktop.ini"}
_DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
# Formats that keep these modes exactly; what is written is read back and compared all the same.
_LOSSLESS = {".png", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".pnm", ".pbm", ".tga", ".gif"}


def natural_key(name: str):
    """Sort key that puts img_2 before img_10, and agrees with plain order for padded numbers."""
    parts = re.split(r"(\d+)", name)
    return [int(p) if p.isdecimal() else p.casefold() for p in parts], name


@dataclass(frozen=True)
class ImageFormat:
    """What is needed besides samples to write files back as they were.

    Attributes
    ----------
    mode : Pillow's mode of the files ("1", "L", "P", "RGB", "I;16", …)
    palettes : RGB palettes as base64, one per file or one for all
    transparencies : transparency of each file (int, or base64), one per file or one for all
    """

    mode: str
    palettes: tuple[str | None, ...] = (None,)
    transparencies: tuple[int | str | None, ...] = (None,)

    def to_json(self) -> str:
        """This, as text to store."""
        return json.dumps({k: v for k, v in asdict(self).items() if v != (None,)})

    @classmethod
    def from_json(cls, text: str) -> ImageFormat:
        """Inverse of `to_json`; InputError when the text is something else."""
        try:
            values = json.loads(text)
            lists = {k: tuple(v) for k, v in values.items() if k != "mode"}
            made = cls(values["mode"], **lists)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"the stored image format cannot be read: {error!r}") from None
        if made.mode not in _DTYPES:
            raise InputError(f"the stored image format has the unknown mode {made.mode!r}")
        return made

    def apply(self, image: Image.Image, index: int) -> None:
        """Give `image` the palette and transparency of file `index`."""
        palette = _one_of(self.palettes, index)
        if palette is not None:
            image.putpalette(base64.b64decode(palette))
        transparency = _one_of(self.transparencies, index)
        if transparency is not None:
            value = transparency
            if isinstance(value, str):
                value = base64.b64decode(value)
            image.info["transparency"] = tuple(value) if isinstance(value, list) else value


def _one_of(values: tuple, index: int):
    return values[index] if len(values) > 1 else values[0]


def _compact(values: list) -> tuple:
    return (values[0],) if all(v == values[0] for v in values) else tuple(values)


class ImageFolder:
    """The images of a folder, as frames.

    Parameters
    ----------
    folder : str or path
        Its files are the frames, in natural order of their names. Hidden files and what
        operating systems leave in folders are passed over.
    expand : bool
        Turn palette and 1-bit images into the samples they mean (RGB, 0 and 255), as an error
        bound needs; otherwise frames hold palette indices and 0/1, and come back as they were.

    Attributes
    ----------
    filenames : list of str
    shape : (T, H, W) or (T, H, W, C)
    dtype : numpy dtype
    image_format : ImageFormat

    Raises
    ------
    InputError
        When the folder is missing or empty, or a file in it is no image, damaged, of another
        size or mode than the first, or would lose samples in Pillow's hands.
    """

    def __init__(self, folder, *, expand: bool):
        self.folder = Path(folder)
        self._paths = _image_paths(self.folder)
        self.filenames = [path.name for path in self._paths]
        first = None
        palettes, transparencies = [], []
        for path in self._paths:
            mode, size, palette, transparency = _describe(path, expand)
            first = first or (mode, size)
            if (mode, size) != first:
                raise InputError(
                    f"{path} is {mode} {size[0]}x{size[1]}, the images before it are {first[0]} "
                    f"{first[1][0]}x{first[1][1]}; a stack needs images of one mode and size"
                )
            palettes.append(palette)
            transparencies.append(transparency)
        mode, (width, height) = first
        self._mode = mode
        bands = Image.getmodebands(mode)
        self.shape = (len(self._paths), height, width) + ((bands,) if bands > 1 else ())
        self.dtype = np.dtype(_DTYPES[mode])
        self.image_format = ImageFormat(mode, _compact(palettes), _compact(transparencies))

    def __len__(self):
        return len(self._paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """Frame `index`: (H, W) or (H, W, C)."""
        path = self._paths[index]
        try:
            with Image.open(path) as image:
                frame = np.asarray(_in_mode(image, self._mode))
        except _DAMAGED as error:
            raise InputError(f"{path} cannot be read as an image: {error}") from None
        return frame.astype(self.dtype)

    def __iter__(self):
        return (self[i] for i in range(len(self)))


def _image_paths(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give a folder of images")
    paths = [p for p in folder.iterdir() if p.name[0] != "." and p.name.lower() not in _LITTER]
    inner = [p.name for p in paths if p.is_dir()]
    if inner:
        raise InputError(f"{folder} holds a folder, {inner[0]!r}; give a folder of images only")
    if not paths:
        raise InputError(f"{folder} holds no image; give a folder of images")
    return sorted(paths, key=lambda path: natural_key(path.name))


def _describe(path: Path, expand: bool):
    """Mode that frames will have, size, palette and transparency of one file."""
    try:
        with Image.open(path) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise InputError(
                    f"{path} holds {image.n_frames} images; split it into files of one image each"
                )
            mode = _mode_of(path, image, expand)
            palette = transparency = None
            if mode == "P":
                image.load()
                palette = base64.b64encode(bytes(image.getpalette("RGB"))).decode()
            if not expand:
                transparency = image.info.get("transparency")
                if isinstance(transparency, bytes):
                    transparency = base64.b64encode(transparency).decode()
                elif isinstance(transparency, tuple):
                    transparency = list(transparency)
            return mode, image.size, palette, transparency
    except UnidentifiedImageError:
        raise InputError(f"{path} is no image; remove it from the folder") from None
    except InputError:
        raise
    except _DAMAGED as error:
        raise InputError(f"{path} cannot be read as an image: {error}") from None


def _mode_of(path: Path, image: Image.Image, expand: bool) -> str:
    mode = image.mode
    raw = [str(tile[3][0] if isinstance(tile[3], tuple) else tile[3]) for tile in image.tile]
    deep = any(";16" in text for text in raw) or _png_depth(path) == 16
    if deep and mode in ("RGB", "RGBA", "LA"):
        raise InputError(
            f"{path} has 16 bits per channel, of which Pillow would read 8; read it with another "
            "library and pass the frames as an array"
        )
    if mode.startswith("I;16") or (mode == "I" and deep):
        return "I;16"
    if mode == "PA" or (expand and mode in _EXPANDED):
        return "RGBA" if mode == "P" and "transparency" in image.info else _EXPANDED[mode]
    if mode not in _DTYPES:
        raise InputError(f"{path} has the mode {mode}; convert the images to one of {[*_DTYPES]}")
    return mode


def _png_depth(path: Path) -> int | None:
    """Bits per sample of a PNG file (its IHDR chunk), None for others."""
    with open(path, "rb") as file:
        head = file.read(25)
    return head[24] if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) == 25 else None


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16" or image.mode == mode:
        return image
    return image.convert(mode)


def write_images(
    folder,
    frames: Iterable[np.ndarray],
    filenames: list[str] | None = None,
    image_format: ImageFormat | None = None,
    *,
    count: int | None = None,
    overwrite: bool = False,
) -> dict[str, str]:
    """Write frames as lossless image files.

    Parameters
    ----------
    folder : str or path
        Made when missing.
    frames : iterable of (H, W) or (H, W, C) arrays
    filenames : list of str, optional
        Default: frame_000000.png, …
    image_format : ImageFormat, optional
        Of the files the frames came from; default: what the dtype and shape suggest.
    count : int, optional
        Number of frames, when `filenames` is not given; only for the width of the numbers.
    overwrite : bool
        Replace files that are there.

    Returns
    -------
    dict
        Recorded names that had to change, and the names written.

    Raises
    ------
    InputError
        When a file is there already, or a recorded name would leave the folder. (Names are
        checked before anything is written.)
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder")
    folder.mkdir(parents=True, exist_ok=True)
    if filenames is None:
        digits = max(6, len(str(count or 0)))
        recorded = None
    else:
        recorded = [_safe_name(name) for name in filenames]
    taken: set[str] = {name.casefold() for name in recorded or ()}
    used: set[str] = set()
    renamed: dict[str, str] = {}
    for index, frame in enumerate(frames):
        name = recorded[index] if recorded else f"frame_{index:0{digits}}.png"
        mode = image_format.mode if image_format else _mode_for(frame)
        target = _target_name(name, mode, taken, used)
        written = _write_one(folder, target, frame, mode, image_format, index, overwrite, taken)
        used.add(written.casefold())
        taken.add(written.casefold())
        if written != name and (recorded or Path(written).suffix == ".npy"):
            renamed[name] = written
    return renamed


def _safe_name(name: str) -> str:
    parts = (PurePosixPath(name), PureWindowsPath(name))
    if not name or "\0" in name or any(part.name != name for part in parts) or name in (".", ".."):
        raise InputError(f"the recorded name {name!r} is no plain file name; it is not written")
    return name


def _mode_for(frame: np.ndarray) -> str | None:
    """Pillow's mode for a frame without a recorded one; None when it has none."""
    channels = frame.shape[2] if frame.ndim == 3 else 0
    by_channels = {0: "L", 1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
    plain = {"uint16": "I;16", "int32": "I", "float32": "F"}
    if frame.dtype == np.uint8:
        return by_channels[channels]
    return plain.get(frame.dtype.name) if channels in (0, 1) else None


def _target_name(name: str, mode: str | None, taken: set[str], used: set[str]) -> str:
    """The name to try first: the recorded one, if its format is lossless and it is free."""
    stem, suffix = os.path.splitext(name)
    if mode is None:
        suffix = ".npy"
    elif suffix.lower() not in _LOSSLESS or (suffix.lower() == ".gif" and mode not in ("P", "L")):
        suffix = _exact_suffix(mode)
    target = stem + suffix
    if target == name and name.casefold() not in used:
        return name
    return _free_name(target, taken)


def _exact_suffix(mode: str) -> str:
    return ".tif" if mode in ("CMYK", "F", "I") else ".png"


def _free_name(name: str, taken: set[str]) -> str:
    stem, suffix = os.path.splitext(name)
    number = 0
    while name.casefold() in taken:
        number += 1
        name = f"{stem}_{number}{suffix}"
    return name


def _write_one(folder, name, frame, mode, image_format, index, overwrite, taken) -> str:
    """Write one file; falls back to an exact format when the file does not read back."""
    if mode is None:
        _replace(folder / name, overwrite, lambda path: _save_array(path, frame))
        return name
    image = _image_of(frame, mode)
    if image_format:
        image_format.apply(image, index)
    try:
        _replace(folder / name, overwrite, lambda path: _save_image(image, path, name))
        return name
    except _Inexact:
        exact = _free_name(os.path.splitext(name)[0] + _exact_suffix(mode), taken)
        if exact == name:
            raise InputError(f"{name} does not read back as it was written") from None
        _replace(folder / exact, overwrite, lambda path: _save_image(image, path, exact))
        return exact


def _image_of(frame: np.ndarray, mode: str) -> Image.Image:
    frame = frame[..., 0] if frame.ndim == 3 and frame.shape[2] == 1 else frame
    if mode == "1":
        return Image.fromarray((frame != 0).astype(np.uint8) * 255).convert("1", dither=0)
    if mode == "P":
        image = Image.fromarray(np.ascontiguousarray(frame, np.uint8), "L")
        return Image.frombytes("P", image.size, image.tobytes())
    if mode in ("LA", "RGB", "RGBA", "CMYK"):
        height, width = frame.shape[:2]
        return Image.frombytes(mode, (width, height), np.ascontiguousarray(frame, "u1").tobytes())
    return Image.fromarray(np.ascontiguousarray(frame, _DTYPES[mode]))


class _Inexact(Exception):
    """A file did not read back as it was written."""


def _save_image(image: Image.Image, path: Path, name: str) -> None:
    """Save in the format that `name` asks for, and check that it reads back the same."""
    suffix = os.path.splitext(name)[1].lower()
    file_format = Image.registered_extensions().get(suffix)
    options = {"compress_level": 3} if file_format == "PNG" else {}
    if "transparency" in image.info:
        options["transparency"] = image.info["transparency"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.save(path, file_format, **options)
        with Image.open(path) as back:
            same = _same(image, back)
    except (ValueError, KeyError, SyntaxError) as error:
        raise _Inexact from error
    except OSError as error:
        if error.errno is not None:  # the disk, not the format
            raise
        raise _Inexact from error
    if not same:
        raise _Inexact


def _same(image: Image.Image, back: Image.Image) -> bool:
    modes = {image.mode, back.mode}
    if len(modes) > 1 and not all(mode.startswith("I") for mode in modes):
        return False
    if not np.array_equal(np.asarray(image), np.asarray(back), equal_nan=image.mode == "F"):
        return False
    if image.mode != "P":
        return True
    wanted, found = image.getpalette("RGB"), back.getpalette("RGB")
    used = 3 * (int(np.asarray(image).max()) + 1)
    return wanted[:used] == found[:used]


def _save_array(path: Path, frame: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, frame)


def _replace(path: Path, overwrite: bool, save) -> None:
    """Make `path` by way of a temporary file beside it, so that no half file stays."""
    if path.exists() and not overwrite:
        raise InputError(f"{path} is there already; give an empty folder, or overwrite=True")
    beside = path.with_name(f".{path.name}.tmp")
    try:
        save(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
