"""`extract`: write the frames of a stack as image files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tezip_h5.errors import InputError
from tezip_h5.hdf5.contents import container
from tezip_h5.hdf5.contents.tables import attribute_of
from tezip_h5.hdf5.files import opening
from tezip_h5.hdf5.pipeline.options import panel_axes_of
from tezip_h5.hdf5.reading import reader

if TYPE_CHECKING:
    from tezip_h5.signatures import PathLike

__all__ = ["extract"]


def extract(
    path: PathLike,
    folder: PathLike,
    *,
    name: str | None = None,
    overwrite: bool | str = False,
    threads: int | None = None,
    device: str = "auto",
) -> dict[str, str]:
    """Write the frames of a stack as lossless image files.

    Parameters
    ----------
    path : str or path
        The HDF5 file.
    folder : str or path
        The folder for the images; it is made if missing.
    name : str, optional
        Name of the stack; needed if the file holds several.
    overwrite : bool or "equal"
        True replaces existing files. "equal" accepts existing files with the same content.
    threads : int, optional
        Default: all processors.
    device : "auto" | "cpu" | "cuda"
        The device that decodes; the images do not depend on it. See `write`.

    Returns
    -------
    dict
        New names of images whose recorded name had to change, by recorded name. A name whose
        format is lossy (.jpg) becomes .png or .tif.

    Raises
    ------
    InputError
        When the file is missing, holds no such stack, or has frames that are no images; or when
        images exist already.
    FormatError, ModelError
        When a chunk is damaged, or needs a model that is not found.

    Examples
    --------
    >>> import numpy as np, tempfile, os, tezip_h5
    >>> folder = tempfile.mkdtemp()
    >>> path, images = os.path.join(folder, "run.h5"), os.path.join(folder, "images")
    >>> _ = tezip_h5.write(np.zeros((2, 8, 8), "u2"), path)
    >>> extract(path, images)
    {}
    >>> len(os.listdir(images))
    2
    """
    from tezip_h5.stacks.images import ImageFormat, write_images

    with opening.open_existing(path) as file:
        data = reader.stack_named(file, name)
        if container.is_tezip(data) and panel_axes_of(data):
            raise InputError(
                f"{data.name} has panel axes, {data.shape}, and its frames are no images; read it, "
                "and write images of the panels you want"
            )
        if data.ndim not in (3, 4) or data.dtype.kind not in "biuf":
            raise InputError(
                f"{data.name} is {data.dtype} {data.shape}; frames are numbers in (T, H, W[, C])"
            )
        tables = container.tables_of(data)
        names = image_format = None
        if tables is not None and "filenames" in tables:
            names = container.read_filenames(tables)
            names = [name or None for name in names] if any(names) else None
            text = attribute_of(tables["filenames"], "image_format", str)
            image_format = ImageFormat.from_json(text) if text else None
        blocks = (block for _, block in reader.blocks(data, threads, device))
        if data.dtype == np.bool_ and data.shape[3:] in ((), (1,)):
            image_format = ImageFormat("1")
            blocks = (block.view(np.uint8) for block in blocks)
        frames = (frame for block in blocks for frame in block)
        return write_images(
            folder, frames, names, image_format, count=data.shape[0], overwrite=overwrite
        )
