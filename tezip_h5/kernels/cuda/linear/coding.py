"""The linear coder on the device: code the symbols of whole chunks to words."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tezip_h5.kernels.cuda import memory
from tezip_h5.kernels.cuda.launch import SIMULATED
from tezip_h5.kernels.cuda.linear import rans
from tezip_h5.kernels.cuda.linear.slabs import Lane
from tezip_h5.kernels.linear.plan import LANES, LOWEST

__all__ = ["Coding"]

_THREADS = 8 if SIMULATED else 128


@dataclass(eq=False)
class Coding:
    """A piece of work: code the symbols of a chunk.

    Attributes
    ----------
    lane : Lane
    planes : list
        For each plane in order: the array and the row of its entries, and the side of its
        contexts.
    tables : uint8 (sides, contexts), slots : uint32 (tables, symbols)
    filled : int64 (LANES,)
        The number of low bits of each stream.
    words : list of uint16 arrays
        Result: the words of each stream.
    states : int64 (LANES,)
        Result.
    bits : uint32 (LANES, n)
        Result: the low bits.
    left : int64 (planes, 2, LANES)
        Result: the numbers of words and of low bits before each plane.
    moved_on : bool
        Whether the work is done.
    """

    lane: Lane
    planes: list
    tables: np.ndarray
    slots: np.ndarray
    filled: np.ndarray
    words: list = field(default_factory=list)
    states: np.ndarray | None = None
    bits: np.ndarray | None = None
    left: np.ndarray | None = None
    moved_on: bool = False

    group = ("words",)

    def launch(self, works: list) -> None:
        """Do this work and others in one launch."""
        _code(works)


def _code(works: list[Coding]) -> None:
    """Code the symbols of some chunks, from the last plane to the first."""
    count = len(works)
    plan = np.zeros((count, rans.PLAN), np.int64)
    slots = np.zeros((count, max(work.slots.size for work in works)), np.uint32)
    coders = np.full((count, 3, LANES), LOWEST, np.int64)
    rooms = np.zeros((count, 1), np.int64)  # memory for the words of a stream
    for k, work in enumerate(works):
        _, height, width = work.lane.shape
        plan[k] = height, width, work.slots.shape[1]
        slots[k, : work.slots.size] = work.slots.reshape(-1)
        rooms[k] = len(work.planes) * -(-height // LANES) * width
        coders[k, 2] = work.filled
    room, most = int(rooms.max()), int(coders[:, 2].max())
    coders[:, 1] = room
    send, empty = memory.to_device, memory.empty
    tables = send(np.stack([work.tables.reshape(-1) for work in works]))
    words = empty((count, LANES, room), np.uint16)
    bits = send(np.zeros((count, LANES, (most >> 5) + 2), np.uint32))
    plan, slots, coders = send(plan), send(slots), send(coders)
    marks = []
    for back in range(1, max(len(work.planes) for work in works) + 1):
        groups: dict = {}
        for k, work in enumerate(works):
            if back <= len(work.planes):
                entries, row, side = work.planes[-back]
                groups.setdefault(id(entries), (entries, []))[1].append((k, row, side))
        for entries, which in groups.values():
            left = empty((len(which), 2, LANES), np.int64)
            at = rans.grid(len(which))
            rans.rans_encode(
                *at, send(np.array(which, np.int64)), plan, entries, tables, slots, words, bits,
                coders, left,
            )  # fmt: skip
            marks.append(([k for k, _, _ in which], back, left))
    coders = memory.to_host(coders)
    taken = room - coders[:, 1]
    for k, pieces in enumerate(_fetch(words, coders[:, 1], taken)):
        works[k].words, works[k].states = pieces, coders[k, 0]
        works[k].left = np.zeros((len(works[k].planes), 2, LANES), np.int64)
    bits = memory.to_host(bits)
    for numbers, back, left in marks:
        for k, marked in zip(numbers, memory.to_host(left), strict=True):
            works[k].left[-back] = marked
            works[k].left[-back, 0] -= coders[k, 1]
    for k, work in enumerate(works):
        work.bits, work.moved_on = bits[k], True


def _fetch(words, begins, taken) -> list[list[np.ndarray]]:
    """Fetch the words of all streams of all chunks, without the unused memory between them."""
    count, lanes, room = words.shape
    ends = np.cumsum(taken)
    at = np.arange(count * lanes) * room + begins.reshape(-1)
    places = np.stack([at, ends - taken.reshape(-1), taken.reshape(-1)], 1)
    out = memory.empty((max(int(ends[-1]), 1),), np.uint16)
    places = memory.to_device(places)
    rans.gather(count * lanes, _THREADS, words.reshape(-1), places, out)
    pieces = np.split(memory.to_host(out)[: ends[-1]], ends[:-1])
    return [pieces[k * lanes : (k + 1) * lanes] for k in range(count)]
