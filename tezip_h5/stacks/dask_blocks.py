"""Reading dask arrays in steps of frames: which blocks to compute together, where to cut them."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator

import numpy as np

__all__ = ["block_ranges", "cut_steps"]

_BLOCK_BYTES = 256 << 20  # larger blocks are not kept in memory, but computed for every step


def block_ranges(array, size: int) -> list[tuple[int, int]]:
    """The parts of a dask array (T, ...) to compute at once, for steps of `size` frames.

    Each part is (first frame, frame after the last). A part has the blocks that a step needs and
    no earlier part has, so each block is computed once. Blocks of more than 256 MiB are not kept:
    each step computes only its own frames.
    """
    count, frame_bytes = array.shape[0], array.dtype.itemsize * math.prod(array.shape[1:])
    stops = [min(start + size, count) for start in range(0, count, size)]
    ends = [int(end) for end in np.cumsum(array.chunks[0])]
    if max(array.chunks[0]) * frame_bytes > _BLOCK_BYTES:
        ends = stops
    ranges, done = [], 0
    for stop in stops:
        if stop > done:
            begin, done = done, ends[bisect_left(ends, stop)]
            ranges.append((begin, done))
    return ranges


def cut_steps(parts: Iterator, count: int, size: int) -> Iterator[list[tuple]]:
    """Cut parts of a stack into steps of `size` frames.

    `parts` yields (first frame, frame after the last, part) in order. A step is a list of
    (part, first, last), which says which frames of each part belong to it. Only the parts of the
    present step are kept.
    """
    kept: deque = deque()
    for start in range(0, count, size):
        stop = min(start + size, count)
        while kept and kept[0][1] <= start:
            kept.popleft()
        while not kept or kept[-1][1] < stop:
            kept.append(next(parts))
        yield [(part, max(start - begin, 0), min(stop, end) - begin) for begin, end, part in kept]
