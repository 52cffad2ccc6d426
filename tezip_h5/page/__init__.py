"""The report page: one self-contained HTML document about a file.

findings (file) -> pictures, chunks, comparison -> frames_part, bytes_part -> document
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tezip_h5.errors import InputError
from tezip_h5.hdf5.files import opening
from tezip_h5.hdf5.reading.report import inspect
from tezip_h5.page.document import is_page, page
from tezip_h5.page.findings import gather
from tezip_h5.page.pictures import MOST_FRAMES
from tezip_h5.placing import place

if TYPE_CHECKING:
    from tezip_h5.signatures import PathLike

__all__ = ["report"]


def report(
    path: PathLike,
    out: PathLike,
    *,
    name: str | None = None,
    pictures: int | slice | None = 48,
    peers: bool = True,
    slow: bool = False,
    threads: int | None = None,
) -> Path:
    """Write a page about the stacks of a file, for a browser. It loads nothing from elsewhere.

    It shows the keyframes, frame, prediction and residual of any frame, bytes and errors frame by
    frame, where the bytes of every chunk went, and what other lossless codecs would need.

    Parameters
    ----------
    path : str or path
        The HDF5 file.
    out : str or path
        The page. An existing page is replaced; a file of another kind never is.
    name : str, optional
        Only this stack; default all.
    pictures : int, slice or None
        Frames to show: at least this number of them (whole chunks, evenly spaced), or a slice;
        None for all, 0 for none. At most 1000; more frames make smaller pictures.
    peers : bool
        Compare with other codecs (seconds, and some 4 MiB of samples of each stack).
    slow : bool
        Also compare with slow codecs.
    threads : int, optional

    Returns
    -------
    Path of the page

    Raises
    ------
    InputError
        When the file is missing or holds no such stack, the options do not fit, or `out` is a
        file that is no page of ours.
    FormatError, ModelError
        When a chunk cannot be decoded.

    Examples
    --------
    >>> import numpy as np, tempfile, os, tezip_h5
    >>> folder = tempfile.mkdtemp()
    >>> _ = tezip_h5.write(np.zeros((4, 32, 32), "u2"), f"{folder}/run.h5")
    >>> page = tezip_h5.report(f"{folder}/run.h5", f"{folder}/run.html", peers=False)
    >>> "Where the bytes went" in page.read_text()
    True
    """
    out = Path(out)
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"{out} cannot be a file: its folder is missing, or it is a folder")
    if out.exists() and Path(path).exists() and out.samefile(path):
        raise InputError(f"{out} is the file to be reported on; give the page another name")
    if out.exists() and not is_page(out):
        raise InputError(
            f"{out} exists, and is no page that tezip_h5 made; give the page another name"
        )
    whole = inspect(path)
    chosen = [s for s in whole.stacks if name is None or name.strip("/") in (s.name, s.dataset)]
    if not chosen:
        known = ", ".join(stack.name for stack in whole.stacks)
        raise InputError(f"{path} holds no stack {name!r}; its stacks are: {known}")
    for stack in chosen:
        _check_pictures(pictures, stack.shape[0])
    with opening.open_existing(path) as file:
        findings = [
            gather(
                stack,
                file[stack.dataset],
                pictures=pictures,
                peers=peers,
                slow=slow,
                threads=threads,
            )
            for stack in chosen
        ]
    place(out, page(whole, findings).encode("utf-8", "replace"))
    return out


def _check_pictures(pictures, frames: int) -> None:
    """Raise InputError for a wrong choice of pictures, or for more than a page can show."""
    count = frames
    if isinstance(pictures, slice):
        if pictures.step not in (None, 1):
            raise InputError(f"pictures of {pictures}: give frames without a step")
        count = len(range(*pictures.indices(frames)))
        if not count:
            shown = ":".join("" if n is None else str(n) for n in (pictures.start, pictures.stop))
            raise InputError(f"pictures of {shown} are none of {frames} frames; give others")
    elif pictures is not None:
        if not isinstance(pictures, int) or pictures < 0:
            raise InputError(f"pictures of {pictures!r}: no number of frames; give one >= 0")
        count = min(pictures, frames)
    if count > MOST_FRAMES:
        raise InputError(
            f"pictures of {count} frames are more than a page can show; give at most {MOST_FRAMES}"
        )
