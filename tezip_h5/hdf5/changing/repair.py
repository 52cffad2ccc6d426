"""`repair`: make a file usable again after its writer was killed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h5py
import numpy as np

from tezip_h5 import bitstream
from tezip_h5.errors import FormatError, InputError, TezipError
from tezip_h5.hdf5.contents import container
from tezip_h5.hdf5.contents.direct import stored_chunk
from tezip_h5.hdf5.contents.keyframes import link_keyframes
from tezip_h5.hdf5.contents.layout import panels_joined
from tezip_h5.hdf5.contents.preview import Preview
from tezip_h5.hdf5.contents.tables import attribute_of, rows_of
from tezip_h5.hdf5.files import journal, opening, superblock
from tezip_h5.hdf5.pipeline.options import panel_axes_of
from tezip_h5.hdf5.reading import reader
from tezip_h5.hdf5.writing import live
from tezip_h5.hdf5.writing.past import past_of
from tezip_h5.windows import Kind

if TYPE_CHECKING:
    from tezip_h5.signatures import PathLike

_ROOM = 1 << 20  # about the most bytes that keyframes and preview take

__all__ = ["Repaired", "RepairedStack", "add_preview", "cut_to_whole_chunks", "repair"]


@dataclass(frozen=True)
class RepairedStack:
    """One repaired stack.

    Attributes
    ----------
    name : str
    frames, dropped : int
        Number of frames that it holds, and of those that were counted but had no data.
    """

    name: str
    frames: int
    dropped: int


@dataclass(frozen=True)
class Repaired:
    """The result of repairing a file. Printable.

    Attributes
    ----------
    path : str
    unlocked : bool
        Whether the file had HDF5's mark of an open writer, which was cleared.
    stacks : list of RepairedStack
        The stacks that were not complete.
    seconds : float
        Wall time.
    """

    path: str
    unlocked: bool
    stacks: list[RepairedStack]
    seconds: float

    def __str__(self):
        state = "HDF5's writer lock was cleared" if self.unlocked else "it was not locked"
        lines = [f"{self.path}: {state}, {self.seconds:.2f} s"]
        if not self.stacks:
            lines.append("  all its stacks are complete")
        for stack in self.stacks:
            lost = f", {stack.dropped} frames without data dropped" if stack.dropped else ""
            lines.append(f"  {stack.name}: {stack.frames} frames{lost}")
        return "\n".join(lines)


def repair(path: PathLike) -> Repaired:
    """Make a file usable again after its writer was killed.

    It finishes a change that `write` had begun, see `journal`. It clears HDF5's mark of an open
    writer, which keeps others from opening the file. And it completes the stacks that were not
    closed: unfinished chunks at their end are dropped, and tables, keyframes and preview are
    completed. Stacks that were closed stay as they are.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    Repaired

    Raises
    ------
    InputError
        When the file is missing, no HDF5, or still in use.
    FormatError
        When HDF5 cannot read its structure.

    Examples
    --------
    >>> import numpy as np, tempfile, os, tezip_h5
    >>> path = os.path.join(tempfile.mkdtemp(), "run.h5")
    >>> _ = tezip_h5.write(np.zeros((4, 32, 32), "u2"), path)
    >>> repair(path).stacks
    []
    """
    started = time.perf_counter()
    path = opening.check_is_hdf5(path)  # HDF5 may refuse to open it while it has marks
    if live.in_use(path):
        raise InputError(f"{path} is in use by another process; repair it when that has ended")
    journal.recover(path)
    stacks = []
    try:
        unlocked = superblock.take_off_marks(path)
        superblock.extend_to_end(path)
    except PermissionError:
        unlocked = False
        if superblock.is_marked(path):
            raise InputError(f"{path} may not be written here, and needs to be") from None
    try:
        with h5py.File(path) as file:
            sound = not _unsound(file)
        if not sound:
            with opening.changing(path, _ROOM) as file:
                stacks = [_complete(*stack) for stack in _unsound(file)]
                container.drop_staging(file)
    except (OSError, RuntimeError, KeyError) as error:
        raise FormatError(f"{path}: HDF5 cannot read its structure: {error}") from None
    return Repaired(str(path), unlocked, stacks, time.perf_counter() - started)


def _unsound(file: h5py.File) -> list[tuple[str, h5py.Group, h5py.Dataset]]:
    """The stacks that were not closed: name, tables and dataset of each."""
    found = []
    for name, data in container.find_stacks(file).items():
        group = container.tables_of(data)
        if group is not None and "frames" in group and not _sound(group, data):
            found.append((name, group, data))
    return found


def _sound(group: h5py.Group, data: h5py.Dataset) -> bool:
    if not attribute_of(group, "complete", bool, True) or len(rows_of(group)) != data.shape[0]:
        return False
    # A writer leaves these out if others were reading the file when it closed.
    return "preview" in group or "keyframes" in group or data.shape[0] == 0


def _complete(name: str, group: h5py.Group, data: h5py.Dataset) -> RepairedStack:
    counted, table = data.shape[0], group["frames"]
    kept = _readable(data, min(counted, len(table)))
    data.resize(kept, axis=0)
    table.resize(kept, axis=0)
    rows = table[()]
    totals = past_of(data, rows).with_tail
    for name_of in ("max_error", "raw_bytes", "payload_bytes", "fallback_chunks", "chunks"):
        container.note(group, name_of, getattr(totals, name_of))
    container.note(group, "network_chunks", totals.network_chunks)
    container.note(group, "ratio", totals.raw_bytes / max(totals.payload_bytes, 1))
    if "filenames" in group:
        if any(container.read_filenames(group)[:kept]):
            group["filenames"].resize(kept, axis=0)
        else:
            del group["filenames"]
    keyframes = np.flatnonzero(rows["kind"] == Kind.KEYFRAME)
    if "preview" not in group and kept:
        add_preview(group, data, keyframes)
    if kept:
        link_keyframes(group, data, keyframes)
    container.note(group, "complete", True)
    return RepairedStack(name, kept, counted - kept)


def _readable(data: h5py.Dataset, count: int) -> int:
    """Number of frames, of the first `count`, that remain without the last chunks that are missing
    or truncated."""
    depth = data.chunks[0]
    while count:
        start = (count - 1) // depth * depth
        try:
            valid = [_valid(data, offset) for offset in reader.offsets(data, slice(start, count))]
        except (TezipError, OSError):
            valid = [0]
        if min(valid) >= count - start:
            return count
        count = start + min(valid)
    return 0


def cut_to_whole_chunks(group: h5py.Group) -> None:
    """Cut a stack whose writer died to its whole chunks, so that the rest can be written again."""
    data, table = group["data"], group["frames"]
    kept = _readable(data, min(data.shape[0], len(table)))
    kept -= kept % data.chunks[0]
    data.resize(kept, axis=0)
    table.resize(kept, axis=0)


def _valid(data: h5py.Dataset, offset: tuple[int, ...]) -> int:
    """Number of frames in a chunk; 0 if it is missing. Raises FormatError if it is damaged."""
    stored = stored_chunk(data, offset)
    if stored is None:
        return 0
    reader.decode_payload(stored[1], data, offset, keep=False)
    return bitstream.peek(stored[1])[0].valid[0]


def add_preview(group: h5py.Group, data: h5py.Dataset, keyframes: np.ndarray) -> None:
    preview = Preview()
    panel_axes = panel_axes_of(data)
    for number in keyframes[:: max(1, len(keyframes) // 16)]:
        frames = reader.read(data, slice(int(number), int(number) + 1))
        preview.add(int(number), panels_joined(frames, panel_axes)[0])
    preview.write(group)
