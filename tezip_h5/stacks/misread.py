"""Refusing image files of which Pillow would silently return other samples than they hold."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image, ImageFile

from tezip_h5.errors import InputError

__all__ = ["refuse_misread"]

_BYTES = {"1", "L", "P", "LA", "RGB", "RGBA", "CMYK"}
# Formats whose samples Pillow changes: it reduces their depth, renders them, or reads only one of
# several pictures.
_REFUSED = {"FITS", "ICO", "CUR", "ICNS", "AVIF", "EPS", "WMF", "PSD", "MIC", "FPX"}


def refuse_misread(path, image: Image.Image) -> None:
    """Raise InputError if Pillow would silently return other samples than the file holds."""
    if image.format in _REFUSED:
        raise InputError(f"{path} is {image.format}, which Pillow may not read in full; convert it")
    if isinstance(image, ImageFile.StubImageFile):  # a header without samples
        raise InputError(f"{path} is {image.format}, no image; move it out of the folder")
    count = getattr(image, "n_frames", 1)
    if count > 1:
        itself = ", or compress this file itself" * (image.format == "TIFF")
        raise InputError(f"{path} holds {count} images; split it into files of one each{itself}")
    bits, loss = _bits_of(path, image), None
    if image.mode in _BYTES and bits > 8:
        loss = f"{bits} bits per channel, and Pillow would read it with 8 bits per channel"
    elif image.format == "TIFF":
        tags, bands = image.tag_v2, len(image.getbands())
        kind = {1: "unsigned", 2: "signed", 3: "floating"}[tags.get(339, (1,))[0]]
        if kind != {"I": "signed", "F": "floating"}.get(image.mode, "unsigned"):
            loss = f"{kind} samples of {bits} bits, of which Pillow would change the sign"
        elif tags.get(277, 1) > bands or 1 in tags.get(338, ()):
            loss = f"channels beside the {bands} that Pillow would keep, or multiplied by alpha"
        elif tags.get(274, 1) in range(2, 9):
            loss = f"the orientation {tags[274]}, by which Pillow would turn its rows and columns"
        elif re.search(";[24]?I", _raw_mode(image)) and image.mode != "1":  # bits are colours
            loss = "samples of which 0 is white, which Pillow would invert"
    elif (largest := _largest_of(image)) not in (None, 255, 65535):
        widest = 255 if bits < 9 else 65535
        loss = f"samples of 0 to {largest}, which Pillow would stretch to {widest}"
    if loss:
        itself = "compress the TIFF file itself, or " * (image.format == "TIFF")
        raise InputError(
            f"{path} has {loss}; {itself}read it otherwise and pass the frames as an array"
        )


def _bits_of(path, image: Image.Image) -> int:
    """Bits per channel in the file, if Pillow may read fewer; in other cases any number."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (1,)))
    if image.format == "JPEG2000":  # Ssiz of the SIZ marker
        return (Path(path).read_bytes().partition(b"\xff\x4f\xff\x51")[2][38] & 127) + 1
    if (largest := _largest_of(image)) is not None:
        return largest.bit_length()
    sixteen = re.match("(L|LA|RGB|RGBA);16", _raw_mode(image))
    return 16 if sixteen or (image.tile and image.tile[0][0] == "SGI16") else 8


def _raw_mode(image: Image.Image) -> str:
    """Pillow's raw mode: the layout of the samples in the file."""
    raw = image.tile[0][3] if image.tile else ""
    return str(raw[0] if isinstance(raw, tuple) else raw)


def _largest_of(image: Image.Image) -> int | None:
    """The maximum sample value that a PGM or PPM file declares, as far as Pillow reads it."""
    codec, _, _, raw = (*image.tile, ("", None, None, ""))[0]
    return raw[1] if codec.startswith("ppm") and isinstance(raw, tuple) else None
