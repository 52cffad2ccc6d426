"""Training data from the KITTI raw recordings: `kitti_train_data_create`.

Geiger, Lenz, Stiller, Urtasun, *Vision meets robotics: the KITTI dataset* (IJRR 2013). The choice
of recordings, their split and their preparation are PredNet's (Lotter, Kreiman, Cox, ICLR 2017).

    OUT/raw/<category>/<recording>.zip                       a downloaded recording
    OUT/raw/<category>/<recording>/<date>/<recording>/image_03/data/*.png   an unpacked or own one;
                                                             preferred to a zip
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from tezip_h5.errors import InputError
from tezip_h5.model import downloads, traindata
from tezip_h5.model.traindata import Source
from tezip_h5.progress import progress_bar
from tezip_h5.stacks.images import natural_key

__all__ = ["BASE_URL", "RECORDINGS", "TEST", "VALIDATION", "convert", "download"]

BASE_URL = "https://s3.eu-central-1.amazonaws.com/avg-kitti/raw_data"
"""The server of the recordings; the environment variable TEZIP_KITTI_URL names another one."""

_DRIVES = {
    "city": {
        "2011_09_26": "1 2 5 9 11 13 14 17 18 48 51 56 57 59 60 84 91 93 95 96 104 106 113 117",
        "2011_09_28": "1 2",
        "2011_09_29": "26 71",
    },
    "residential": {
        "2011_09_26": "19 20 22 23 35 36 39 46 61 64 79 86 87",
        "2011_09_30": "18 20 27 28 33 34",
        "2011_10_03": "27 34",
    },
    "road": {
        "2011_09_26": "15 27 28 29 32 52 70 101",
        "2011_09_29": "4",
        "2011_09_30": "16",
        "2011_10_03": "42 47",
    },
}
RECORDINGS = tuple(
    f"{category}/{date}_drive_{int(number):04}_sync"
    for category, days in _DRIVES.items()
    for date, numbers in days.items()
    for number in numbers.split()
)
VALIDATION = ("city/2011_09_26_drive_0005_sync",)
TEST = (  # kept from training and validation, as in PredNet
    "city/2011_09_26_drive_0104_sync",
    "residential/2011_09_26_drive_0079_sync",
    "road/2011_09_26_drive_0070_sync",
)
_SIZE = (128, 160)
_SPARE = 1 << 30  # bytes to leave free on the disk


def download(out, *, recordings=None, base_url=None, progress: bool | None = None, say=print):
    """Download recordings to ``out/raw``. Existing ones are kept, unfinished ones continued.

    Parameters
    ----------
    out : path
    recordings : names like those of `RECORDINGS`, optional
        Default: all of them, some 165 GB.
    base_url : str, optional
        Default: TEZIP_KITTI_URL of the environment, else `BASE_URL`.
    progress : bool, optional
        Show a bar; default: on a terminal.
    say : callable
        Called with a text that says how much is needed, before the download begins.

    Raises
    ------
    InputError
        When a recording is unknown, the disk too small, or the server does not deliver.
    """
    base_url = (base_url or os.environ.get("TEZIP_KITTI_URL") or BASE_URL).rstrip("/")
    raw = Path(out) / "raw"
    files = {_zip_of(raw, name): _url(base_url, name) for name in _known(recordings)}
    sizes = {path: downloads.remote_size(url) for path, url in files.items()}
    for path, size in sizes.items():
        if path.exists() and path.stat().st_size != size:
            raise InputError(
                f"{path} has {path.stat().st_size} bytes, the server's has {size}; remove it, "
                "and it is downloaded again"
            )
    missing = [path for path in files if not path.exists()]
    needed = sum(sizes[path] - _bytes_there(path) for path in missing)
    say(
        f"{len(files)} recordings of {sum(sizes.values()) / 1e9:.1f} GB from {base_url}: "
        f"{len(files) - len(missing)} are there, {needed / 1e9:.1f} GB are missing"
    )
    if not missing:
        return
    raw.mkdir(parents=True, exist_ok=True)
    traindata.check_space(raw, needed + _SPARE, "the recordings and 1 GB to spare")
    total = sum(sizes[path] for path in missing)
    bytes_of = {"unit": "B", "unit_scale": True, "unit_divisor": 1000, "delay": 0, "leave": True}
    with progress_bar(total=total, show=progress, **bytes_of) as bar:
        for path in missing:
            bar.set_postfix_str(path.stem)
            path.parent.mkdir(exist_ok=True)
            downloads.fetch(files[path], path, sizes[path], bar)


def _known(recordings) -> list[str]:
    if recordings is None:
        return list(RECORDINGS)
    for name in recordings:
        if name not in RECORDINGS:
            raise InputError(
                f"{name!r} is no recording of {', '.join(_DRIVES)}; they are called like "
                f"{VALIDATION[0]}"
            )
    return list(dict.fromkeys(recordings))


def _zip_of(raw: Path, name: str) -> Path:
    return raw / f"{name}.zip"


def _url(base_url: str, name: str) -> str:
    recording = name.partition("/")[2]
    return f"{base_url}/{recording.removesuffix('_sync')}/{recording}.zip"


def _bytes_there(path: Path) -> int:
    part = downloads.part_of(path)
    return part.stat().st_size if part.exists() else 0


def convert(out, *, size=_SIZE, progress: bool | None = None) -> dict:
    """Write training data of the recordings in ``out/raw``, straight from their zips.

    The frames of camera 3 are scaled to the height and cut to the width, about the middle.
    `VALIDATION` is for validation, `TEST` is left out, all else is for training.

    Parameters
    ----------
    out : path
        Folder with ``raw``; the four files are written beside it.
    size : (int, int)
        Height and width of frames in pixels.
    progress : bool, optional
        Show a bar; default: on a terminal.

    Returns
    -------
    dict
        Shape (N, H, W, 3) of what was written, for "train" and "val".

    Raises
    ------
    InputError
        When recordings are missing or damaged. Nothing is written then.
    """
    out = Path(out)
    if min(size) < 1:
        raise InputError(f"frames of {size[0]}x{size[1]} pixels; give at least 1x1")
    found = _found(out / "raw")
    for name in VALIDATION:
        if name not in found:
            raise InputError(
                f"{out / 'raw'} has no {name}, which is for validation; download it with -d"
            )
    parts = {"train": [], "val": []}
    for name, path in found.items():
        if name not in TEST:
            part = "val" if name in VALIDATION else "train"
            parts[part].append(_source(name, path, size))
    if not parts["train"]:
        raise InputError(f"{out / 'raw'} has no recording to train on; download some with -d")
    return traindata.save(out, parts, (*size, 3), progress=progress)


def _found(raw: Path) -> dict[str, Path]:
    """The existing recordings: names, and the path of a zip or a folder of images for each."""
    found = {}
    for category in _DRIVES:
        for path in sorted((raw / category).glob("*")):
            name = f"{category}/{path.name.removesuffix('.zip')}"
            if path.is_dir():
                found[name] = path / path.name[:10] / path.name / "image_03" / "data"
            elif path.suffix == ".zip":
                found.setdefault(name, path)
    return dict(sorted(found.items(), key=lambda item: natural_key(item[0])))


def _source(name: str, path: Path, size) -> Source:
    """A recording as a source of prepared frames."""
    with _frames_in(path) as (names, _):
        count = len(names)
    if count < 2:
        raise InputError(
            f"{path} holds {count} image(s) of camera 3 (image_03/data); a recording has at least "
            "2: restore or remove it"
        )

    def frames():
        with _frames_in(path) as (names, opener):
            for inner in names:
                with opener(inner) as file:
                    yield _prepared(_image(f"{path}:{inner}", file), size)

    return Source(name.replace("/", "-"), count, frames)


@contextmanager
def _frames_in(path: Path) -> Iterator[tuple[list[str], Callable]]:
    """Names of a recording's images, in order, and a function that opens one."""
    if path.suffix != ".zip":
        images = [p for p in path.glob("*") if p.name[0] != "." and p.is_file()]
        names = sorted((p.name for p in images), key=natural_key)
        yield names, lambda name: io.BytesIO((path / name).read_bytes())
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if "/image_03/data/" in n and n[-1] != "/"]
            yield sorted(names, key=natural_key), archive.open
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(
            f"{path} is no zip file, or is damaged ({error}); remove it and download it again"
        ) from error


def _image(name: str, file) -> Image.Image:
    try:
        return Image.open(file).convert("RGB")
    except zipfile.BadZipFile:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{name} is no image; remove or restore it") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{name} cannot be read: {error}; restore it") from error


def _prepared(image: Image.Image, size) -> np.ndarray:
    """Scale an image to the height of `size`, cut it to its width: uint8 (H, W, 3)."""
    height, width = size
    scaled = round(image.width * height / image.height)
    if scaled < width:
        raise InputError(
            f"an image of {image.height}x{image.width} pixels, scaled to a height of {height}, is "
            f"{scaled} pixels wide, but {width} are wanted; ask for narrower frames"
        )
    left = (scaled - width) // 2
    image = image.resize((scaled, height), Image.Resampling.BILINEAR)
    return np.asarray(image)[:, left : left + width]
