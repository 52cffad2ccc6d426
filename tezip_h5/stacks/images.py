"""Image files <-> frames, through Pillow.

Files come back with the same name, mode, samples and palette. If the format of a file name cannot
hold a frame without loss, the frame goes to a .png, .tif or .npy file instead, and that is
reported.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import re
from base64 import b64decode, b64encode
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from tezip_h5.errors import InputError
from tezip_h5.placing import place
from tezip_h5.stacks.misread import refuse_misread

__all__ = ["ImageFolder", "ImageFormat", "write_images"]

_BYTES = dict.fromkeys(("1", "L", "P", "LA", "RGB", "RGBA", "CMYK"), np.dtype("u1"))
_DTYPES = {**_BYTES, "I;16": np.dtype("u2"), "I": np.dtype("i4"), "F": np.dtype("f4")}
_LITTER = {"thumbs.db", "desktop.ini"}
_LOSSLESS = {"PNG", "TIFF", "BMP", "DIB", "GIF", "PPM", "TGA", "SGI", "PCX"}


@dataclass(frozen=True)
class ImageFormat:
    """The properties besides samples that are needed to write image files exactly.

    Attributes
    ----------
    mode : Pillow's mode of the frames ("1", "L", "P", "RGB", "I;16", …)
    palettes : RGB palettes (bytes, or None), one per file or one for all
    transparencies : transparent colour or palette's alphas (or None), one per file or one for all
    """

    mode: str
    palettes: tuple = (None,)
    transparencies: tuple = (None,)

    def to_json(self) -> str:
        """This, as text to store; bytes become base64."""
        values = {k: v for k, v in vars(self).items() if v != (None,)}
        return json.dumps(values, default=lambda data: b64encode(data).decode())

    @classmethod
    def from_json(cls, text: str) -> ImageFormat:
        """Inverse of `to_json`; InputError when the text is something else."""
        try:
            values = json.loads(text)
            mode = values.pop("mode")
            lists = {name: _from_json(value) for name, value in values.items()}
            if mode not in _DTYPES or not all(v and type(v) is tuple for v in lists.values()):
                raise ValueError(f"mode {mode!r}, {[*lists]}")
            return cls(mode, **lists)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InputError(f"the stored image format cannot be read: {error!r}") from error

    def extras(self, index: int) -> tuple:
        """Palette and transparency of file `index`."""
        both = (self.palettes, self.transparencies)
        if any(1 < len(values) <= index for values in both):
            raise InputError(f"the stored image format ends before frame {index}")
        return tuple(values[index if len(values) > 1 else 0] for values in both)


def _from_json(value):
    if isinstance(value, str):
        return b64decode(value, validate=True)
    return tuple(map(_from_json, value)) if isinstance(value, list) else value


class ImageFolder:
    """The images of a folder, as frames.

    Has `filenames`, `shape` (T, H, W) or (T, H, W, C), `dtype`, `image_format`; reads lazily.

    Parameters
    ----------
    folder : str or path
        Its files are the frames, in natural order of their names. Hidden files and what
        operating systems leave in folders are passed over.
    expand : bool
        Turn palette and 1-bit images into the samples they mean (RGB, 0 and 255), as an error
        bound needs; otherwise frames hold palette indices and 0/1, and come back as they were.

    Raises
    ------
    InputError
        When the folder is missing or empty; or when a file in it is no image, is damaged, has
        another size or mode than the first, or cannot be read exactly by Pillow.
    """

    def __init__(self, folder, *, expand: bool):
        self._paths, self._expand, self._first = _image_paths(Path(folder)), expand, None
        self.filenames = [path.name for path in self._paths]
        extras = [self._look(path) for path in self._paths]
        mode, (width, height) = self._first
        self.dtype, bands = _DTYPES[mode], Image.getmodebands(mode)
        self.shape = (len(extras), height, width) + ((bands,) if bands > 1 else ())
        lists = [v[:1] if len(set(v)) == 1 else v for v in zip(*extras, strict=True)]
        self.image_format = ImageFormat(mode, *lists)

    def _look(self, path: Path) -> tuple:
        """Palette and transparency of a file, whose mode and size must be those of the first."""
        with _opened(path) as image:
            refuse_misread(path, image)
            found = _mode_of(path, image, self._expand), image.size
            self._first = self._first or found
            if found != self._first:
                found, first = ("{} {}x{}".format(m, *size) for m, size in (found, self._first))
                raise InputError(
                    f"{path} is {found}, but {self.filenames[0]} {first}; give images of one kind"
                )
            return _extras_of(image, found[0])

    def __len__(self):
        return len(self._paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """Frame `index`: (H, W) or (H, W, C); IndexError behind the last, which ends a loop."""
        path = self._paths[index]
        with _opened(path) as image:
            if (_mode_of(path, image, self._expand), image.size) != self._first:
                raise InputError(f"{path} has changed since its folder was looked at; start anew")
            return _samples(image, self._first[0])


def natural_key(name: str):
    """Sort key that puts img_2 before img_10; plain order where numbers are zero-padded."""
    parts = re.findall("[0-9]+|[^0-9]", name)
    return [(48, int(p)) if "0" <= p[0] <= "9" else (ord(p), 0) for p in parts], name


def _image_paths(folder: Path) -> list[Path]:
    if not folder.is_dir():
        file, colon, _ = str(folder).rpartition(":")
        if colon and Path(file).is_file():
            raise InputError(
                f"{folder} names a dataset, but {file} is no HDF5 file; give one (of classic "
                "NetCDF, `nccopy -k nc4` makes one), a folder of images or a file of a stack"
            )
        found = "no folder" if folder.exists() else "not there"
        raise InputError(f"{folder} is {found}; give a folder of images or a file of a stack")
    paths = [p for p in folder.iterdir() if p.name[0] != "." and p.name.lower() not in _LITTER]
    for path in sorted(paths):
        if not path.is_file():
            found = "a folder or no plain file" if path.exists() else "a link to nothing"
            raise InputError(f"{path} is {found}; give a folder of images only")
    if not paths:
        raise InputError(f"{folder} holds no image; give a folder of images")
    return sorted(paths, key=lambda path: natural_key(path.name))


@contextmanager
def _opened(path, data: bytes | None = None):
    """The image of a file, or of its bytes; errors that Pillow raises become InputError."""
    try:
        with Image.open(path if data is None else io.BytesIO(data)) as image:
            yield image
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise InputError(f"{path} {_unidentified(path)}") from None
    except Exception as error:  # plugins raise whatever parsing damaged bytes raises
        bomb = isinstance(error, Image.DecompressionBombError)
        advice = "raise PIL.Image.MAX_IMAGE_PIXELS if you trust it" if bomb else "restore it"
        raise InputError(f"{path} cannot be read as an image: {error}; {advice}") from error


def _unidentified(path) -> str:
    """The reason why Pillow does not recognise a file, with advice."""
    samples = "uint8"
    with suppress(Exception), open(path, "rb") as file:  # it may be no TIFF, or a damaged one
        head = file.read(16)
        tags = TiffImagePlugin.ImageFileDirectory_v2(head[: 16 if 43 in head[2:4] else 8])
        file.seek(tags.next)
        tags.load(file)
        samples = np.dtype("_uif__c"[tags.get(339, (1,))[0]] + str(max(tags[258]) // 8)).name
    if samples in ("uint8", "uint16"):
        return "is no image, or its header is damaged; restore it, or move it out of the folder"
    return f"has {samples} samples, which Pillow cannot read so; compress the TIFF file itself"


def _mode_of(path, image: Image.Image, expand: bool) -> str:
    """Mode that the samples of an open file will have."""
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        return "I;16"
    if mode == "PA" or (expand and mode == "P"):
        return "RGBA" if image.has_transparency_data else "RGB"
    if mode not in _DTYPES:
        raise InputError(f"{path} has the mode {mode}; convert the images to one of {[*_DTYPES]}")
    return "L" if expand and mode == "1" else mode


def _extras_of(image: Image.Image, mode: str) -> tuple:
    """Palette (RGB) and transparency, unless they are in the samples of that mode."""
    transparency = image.info.get("transparency")
    if mode != "P":
        return None, None if image.mode == "P" else transparency
    image.load()
    if transparency is None and image.has_transparency_data:  # alphas within the palette
        transparency = bytes(image.getpalette("RGBA")[3::4])
    return bytes(image.getpalette("RGB") or ()) or None, transparency


def _samples(image: Image.Image, mode: str) -> np.ndarray:
    converted = image if mode in (image.mode, "I;16") else image.convert(mode)
    return np.asarray(converted).astype(_DTYPES[mode])


def write_images(
    folder, frames, filenames=None, image_format=None, *, count=None, overwrite=False
) -> dict[str, str]:
    """Write frames as image files; each is read back and compared before it is put in place.

    Parameters
    ----------
    folder : str or path; made when missing
    frames : iterable of arrays of one dtype, (H, W) or (H, W, C)
    filenames : list of str; default, and where one is None: frame_000000.png, …
    image_format : ImageFormat of the files the frames came from; default: as the first suggests
    count : int; number of frames, for the width of the numbers without `filenames`
    overwrite : bool; replace files that are there; or "equal": only what would be the same

    Returns
    -------
    dict of recorded names that had to change, and the (last) name written for each

    Raises
    ------
    InputError
        When a name is no plain file name or is there already (then nothing is written), or a
        frame does not fit the format.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_images(folder, np.zeros((2, 3, 4), np.uint8), ["a.png", "b.jpg"])
    {'b.jpg': 'b.png'}
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder")
    if filenames is not None:
        filenames = [name if name is None else _plain_name(name) for name in filenames]
    frames = map(np.asarray, frames)
    first = list(itertools.islice(frames, 1))
    modes = (image_format.mode,) if image_format else ("L", "LA", "RGB", "RGBA", "I;16", "I", "F")
    mode = next((m for m in modes if image_format or (first and _fits(*first, m))), None)
    digits, missing = max(6, len(str((count or 1) - 1))), object()
    numbered = f"frame_{{:0{digits}}}{_exact_suffix(mode)}".format
    if folder.is_dir() and any(folder.iterdir()):  # or a million names are looked for in vain
        for i, name in enumerate([None] * (count or 0) if filenames is None else filenames):
            _check_free(folder / _lossless_name(name or numbered(i), mode), overwrite)
    pairs = zip(itertools.chain(first, frames), itertools.repeat(None), strict=False)
    if filenames is not None:
        pairs = itertools.zip_longest(itertools.chain(first, frames), filenames, fillvalue=missing)
    folder.mkdir(parents=True, exist_ok=True)
    names, renamed = _Names(name for name in filenames or () if name is not None), {}
    for index, (frame, name) in enumerate(pairs):
        if frame is missing or name is missing:
            raise InputError(f"there are {len(filenames)} filenames, for another number of frames")
        extras = image_format.extras(index) if image_format else (None, None)
        target = names.free(numbered(index)) if name is None else names.target(name, mode)
        target, data = _encoded(frame, mode, extras, target, names)
        _check_free(folder / target, overwrite, data)
        place(folder / target, data)
        if name is not None and target != name:
            renamed[name] = target
    return renamed


def _plain_name(name: str) -> str:
    parts = (PurePosixPath(name), PureWindowsPath(name))
    if name in ("", ".", "..") or "\0" in name or any(part.name != name for part in parts):
        raise InputError(f"the recorded name {name!r} is no plain file name; give other filenames")
    return name


class _Names:
    """Names to write under: the recorded ones where possible, and different on every system."""

    def __init__(self, recorded):
        self._taken = {name.casefold() for name in recorded}
        self._owned, self._numbers = set(self._taken), {}

    def target(self, name: str, mode: str | None) -> str:
        """The name to try for a frame: its own, the first time, if that can be lossless."""
        target = _lossless_name(name, mode)
        if target != name or name.casefold() not in self._owned:
            return self.free(target)
        self._owned.remove(name.casefold())
        return name

    def free(self, name: str) -> str:
        """`name`, with a number where it is taken; the result is taken from now on."""
        (stem, suffix), free = os.path.splitext(name), name
        numbers = self._numbers.setdefault(name.casefold(), itertools.count(1))
        while free.casefold() in self._taken:
            free = f"{stem}_{next(numbers)}{suffix}"
        self._taken.add(free.casefold())
        return free


def _exact_suffix(mode: str | None) -> str:
    """The suffix of a format that holds every frame of the mode."""
    return ".npy" if mode is None else ".tif" if mode in ("CMYK", "I", "F") else ".png"


def _lossless_name(name: str, mode: str | None) -> str:
    """`name`, with an exact suffix unless its own format may hold the mode without loss."""
    (stem, suffix), exact = os.path.splitext(name), _exact_suffix(mode)
    kind = Image.registered_extensions().get(suffix.lower())
    may = kind in _LOSSLESS and mode and (kind != "GIF" or mode in ("P", "L"))
    return name if may or suffix.lower() == exact else (stem if kind else name) + exact


def _fits(frame: np.ndarray, mode: str) -> bool:
    shape = frame.ndim in (2, 3) and (frame.shape[2:] or (1,)) == (Image.getmodebands(mode),)
    dtype = frame.dtype.newbyteorder("=") == _DTYPES[mode]
    return shape and dtype and frame.size > 0 and (mode != "1" or frame.max() <= 1)


def _encoded(frame, mode, extras, target, names: _Names) -> tuple[str, bytes]:
    """A file's name and bytes that read back exactly; `target` if its format can hold them."""
    if mode is not None and not _fits(frame, mode):
        raise InputError(f"{frame.dtype} {frame.shape}, for {target}, is no image of mode {mode}")
    (stem, suffix), exact = os.path.splitext(target), _exact_suffix(mode)
    if suffix.lower() != exact:
        try:
            return target, _exact_bytes(frame, mode, extras, target)
        except InputError:
            target = names.free(stem + exact)
    return target, _exact_bytes(frame, mode, extras, target)


def _exact_bytes(frame, mode: str | None, extras: tuple, name: str) -> bytes:
    """A file in the format that `name` asks for; InputError if it reads back otherwise."""
    buffer = io.BytesIO()
    if mode is None:
        np.save(buffer, frame, allow_pickle=False)
        return buffer.getvalue()
    kind = Image.registered_extensions()[os.path.splitext(name)[1].lower()]
    options = {} if extras[1] is None else {"transparency": extras[1]}
    try:
        _image_of(frame, mode, extras[0]).save(buffer, kind, compress_level=3, **options)
    except Exception as error:  # whatever a plugin makes of a mode or of recorded extras
        raise InputError(f"Pillow cannot write {name} in mode {mode}: {error!r}") from error
    with _opened(name, buffer.getvalue()) as back:
        palette, transparency = _extras_of(back, mode)
        palette = palette[: len(extras[0])] if palette and extras[0] else None
        same = (palette, transparency) == extras and _mode_of(name, back, False) == mode
        if not same or _samples(back, mode).tobytes() != frame.astype(_DTYPES[mode]).tobytes():
            raise InputError(f"{name} would not read back as the frame of mode {mode} written")
    return buffer.getvalue()


def _image_of(frame: np.ndarray, mode: str, palette: bytes | None) -> Image.Image:
    height, width = frame.shape[:2]
    stored = frame.astype("<u2" if mode == "I;16" else _DTYPES[mode])
    if mode == "1":
        stored = np.packbits(stored.reshape(height, width), axis=1)
    image = Image.frombytes(mode, (width, height), stored.tobytes())
    if palette is not None:  # as long as the samples need, or a format would clip them
        image.putpalette(palette.ljust(3 * (int(frame.max()) + 1), b"\0"))
    return image


def _check_free(path: Path, overwrite: bool | str, data: bytes | None = None) -> None:
    if not overwrite and os.path.lexists(path):
        raise InputError(f"{path} is there already; give an empty folder, or overwrite=True")
    if overwrite == "equal" and data is not None and path.exists() and path.read_bytes() != data:
        raise InputError(f"{path} is there already, and differs; give an empty folder")
