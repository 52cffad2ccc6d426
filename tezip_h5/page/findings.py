"""Gathering the contents of a page about one stack from the file."""

from __future__ import annotations

import math
from dataclasses import dataclass

import h5py

from tezip_h5 import levels
from tezip_h5.hdf5.pipeline.options import options_of, panel_axes_of
from tezip_h5.hdf5.reading.chunks import ChunkReport, describe_chunks
from tezip_h5.hdf5.reading.report import StackReport, frame_rows
from tezip_h5.page.beside import Comparison, compare
from tezip_h5.page.pictures import Pictures, chosen_frames, take_pictures

__all__ = ["Findings", "FrameRow", "gather"]

_MOST_CHUNKS = 512  # at most so many chunks are examined


@dataclass(frozen=True)
class FrameRow:
    """One frame of a stack.

    `rms` is the root mean square error of its prediction, in the unit of the samples for integers,
    and relative to the chunk's range for floats. It is None for frames without a prediction.
    """

    number: int
    kind: str
    window: int
    nbytes: int
    rms: float | None
    max_error: float
    filename: str = ""


@dataclass(frozen=True)
class Findings:
    """The contents of a page about one stack."""

    report: StackReport
    bound_absolute: float | None
    frames: list[FrameRow]
    chunks: list[ChunkReport]
    pictures: Pictures | None
    comparison: Comparison | None


def gather(
    report: StackReport,
    data: h5py.Dataset,
    *,
    pictures: int | slice | None = 48,
    peers: bool = True,
    slow: bool = False,
    threads: int | None = None,
) -> Findings:
    """Gather the contents of a page about a stack; see `tezip_h5.page.report` for the options."""
    taken = comparison = None
    axes = data.ndim - panel_axes_of(data)
    drawable = axes == 3 or (axes == 4 and data.shape[-1] <= 4)
    runs = []
    if drawable and pictures != 0:
        runs = chosen_frames(data.shape[0], data.chunks[0], pictures)
    if runs:
        taken = take_pictures(data, runs, threads)
    if drawable and peers and data.size:
        comparison = compare(data, threads=threads, slow=slow)
    absolute = options_of(data).bound.absolute
    chunks = list(describe_chunks(data, _MOST_CHUNKS))
    return Findings(report, absolute, _rows(data), chunks, taken, comparison)


def _rows(data: h5py.Dataset) -> list[FrameRow]:
    """The table of frames, if the stack has one."""
    full = levels.full_scale(data.dtype) or 1.0
    return [
        FrameRow(
            row["frame"],
            row["kind"],
            row["window"],
            row["bytes"],
            math.sqrt(row["mse"]) * full if row["kind"] == "predicted" else None,
            row["max_error"],
            row.get("filename", ""),
        )
        for row in frame_rows(data)
    ]
