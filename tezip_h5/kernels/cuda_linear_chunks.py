"""The linear coder on the device: chunks that are under way, planes of which are coded together.

What `Gathering` gathers are planes: a channel of a frame of a chunk, to be decoded (`Decoding`) or
to be predicted and quantized (`Modelling`), and at the end of a chunk all its symbols, to be
coded (`Coding`). A lane of a `Slab` is what a chunk has on the device meanwhile.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field

import numpy as np

from tezip_h5.kernels import cuda_linear, cuda_linear_rans, cuda_linear_wave, cuda_memory
from tezip_h5.kernels.cuda_gather import Gathering
from tezip_h5.kernels.cuda_launch import SIMULATED, finish
from tezip_h5.kernels.cuda_linear_sample import MOST_TAPS, PLAN
from tezip_h5.kernels.linear import CONTEXTS, LANES, LOWEST, TOLERANCE

__all__ = ["Chunks", "Coding", "Decoding", "Lane", "Modelling", "Slab", "chunks"]

_SIDES = 3
_TABLES = 8  # tables that a slab has room for are a multiple of it
_THREADS = 8 if SIMULATED else 128


@dataclass(eq=False)
class Lane:
    """One chunk on the device.

    Attributes
    ----------
    slab, number : where it is
    shape : (C, h, w)
    turn : frames since the beginning
    """

    slab: Slab
    number: int
    shape: tuple[int, int, int]
    turn: int = -1


@dataclass(eq=False)
class _Plane:
    """A plane of a chunk, before and after it is coded.

    Attributes
    ----------
    lane : Lane
    plan, taps : as the processor's kernels want them
    prediction : int32 (h, w), optional
        Of a predicted frame; None where it is the last frame as it was reconstructed.
    samples : int32 (h, w)
        Levels when encoding; the reconstruction then.
    moved_on : whether it is coded
    """

    lane: Lane
    plan: np.ndarray
    taps: np.ndarray
    prediction: np.ndarray | None
    samples: np.ndarray | None = None
    moved_on: bool = False


@dataclass(eq=False)
class Decoding(_Plane):
    """A plane that is to be decoded.

    Attributes
    ----------
    streams : `residual.linear_streams.Streams`, whose places go on
    low_bits : how many a symbol may have
    """

    streams: object = None
    low_bits: int = 0

    group = ("decode",)

    def launch(self, works: list) -> None:
        """Decode it and others of the same slab."""
        self.lane.slab.decode(works)


@dataclass(eq=False)
class Modelling(_Plane):
    """A plane that is to be predicted and quantized.

    Attributes
    ----------
    wide : whether low bits need entries of 64 bits
    entries : (array, row): its symbols and contexts on the device, then
    """

    wide: bool = False
    entries: tuple | None = None

    @property
    def group(self) -> tuple:
        """Exact samples and others are different kernels'."""
        return bool(self.plan[TOLERANCE]), self.wide

    def launch(self, works: list) -> None:
        """Do it and others of the same slab and group."""
        self.lane.slab.model(works)


@dataclass(eq=False)
class Coding:
    """The symbols of a chunk, to be coded.

    Attributes
    ----------
    lane : Lane
    planes : of every plane in order its entries' array and row, and the side of its contexts
    tables : uint8 (sides, contexts), slots : uint32 (tables, symbols)
    filled : int64 (LANES,), low bits of every stream
    words : uint16 arrays of every stream, then
    states : int64 (LANES,), then
    bits : uint32 (LANES, n), then
    left : int64 (planes, 2, LANES), then: words and low bits before each plane
    moved_on : whether it is coded
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
        """Code it and others."""
        _code(works)


class Slab:
    """Arrays for `lanes` chunks; made in one thread, used by any.

    Attributes
    ----------
    planes : int32 (lanes, 4, C, rows + 3, columns + 4)
        Two frames that take turns in being this one and the one that predicts it, and the
        magnitudes of symbols of this frame and the last one, which do so, too.
    guesses, energies, pasts, samples, sizes : see `cuda_linear.known`; none until they are needed
    counts : int32 (lanes, sides, contexts, symbols), of encoders
    filled : int64 (lanes, LANES), of encoders
    tables : uint8 (lanes, sides * contexts), of decoders
    slots : uint32 (lanes, tables * 4096), of decoders
    """

    def __init__(self, kind: tuple[str, int], channels: int, rows: int, columns: int, lanes: int):
        self._lock = threading.Lock()
        self.kind, self.channels, self.rows, self.columns = kind, channels, rows, columns
        self.free, self.lanes = list(range(lanes))[::-1], lanes
        empty, (what, size) = cuda_memory.empty, kind
        self.planes = empty((lanes, 4, channels, rows + 3, columns + 4), np.int32)
        self.guesses = None
        if what == "encode":
            self.counts = empty((lanes, _SIDES, CONTEXTS, size), np.int32)
            self.filled = empty((lanes, LANES), np.int64)
        else:
            self.tables = empty((lanes, _SIDES * CONTEXTS), np.uint8)
            self.slots = empty((lanes, size << 12), np.uint32)
            self._make_slots()
        finish()

    def fits(self, kind, shape) -> bool:
        """Whether a chunk can have a lane of it without wasting more than half."""
        channels, rows, columns = shape
        return (
            (kind, channels) == (self.kind, self.channels)
            and rows <= self.rows
            and columns <= self.columns
            and 2 * rows * columns >= self.rows * self.columns
        )

    def begin(self, lane: Lane, tables, slots) -> None:
        """Make a lane as it begins; a decoder's has tables: uint8 (sides, contexts), uint32."""
        _clear(self.planes, lane.number)
        if tables is None:
            _clear(self.counts, lane.number)
            self.filled[lane.number].copy_to_device(np.zeros(LANES, np.int64))
        else:
            self.tables[lane.number].copy_to_device(np.ascontiguousarray(tables).reshape(-1))
            self.slots[lane.number][: slots.size].copy_to_device(slots)
        finish()

    def counted(self, lane: Lane) -> tuple[np.ndarray, np.ndarray]:
        """An encoder's counts and low bits: int32 (sides, contexts, symbols), int64 (LANES,)."""
        return (
            cuda_memory.to_host(self.counts[lane.number]),
            cuda_memory.to_host(self.filled[lane.number]),
        )

    def decode(self, works: list[Decoding]) -> None:
        """Decode a plane of some lanes."""
        coders, words, bits, offsets = _streams(works)
        plan, taps, shape = self._send(works)
        coders, words, bits = map(cuda_memory.to_device, (coders, words, bits))
        out = cuda_memory.empty((len(works), *shape), np.int32)
        self._go_through(
            works, plan, taps, cuda_memory.empty((1, 1, 1), np.int32), out,
            cuda_linear_wave.decode_rows, coders, self.tables, self.slots, words, bits,
        )  # fmt: skip
        coders, out = cuda_memory.to_host(coders), cuda_memory.to_host(out)
        for work, coder, offset, samples in zip(works, coders, offsets, out, strict=True):
            _, height, width = work.lane.shape
            work.samples = samples[:height, :width]
            lanes = work.streams.places.shape[1]
            work.streams.places[:] = coder[:3, :lanes] + offset[:, :lanes]
            work.moved_on = True

    def model(self, works: list[Modelling]) -> None:
        """Predict and quantize a plane of some lanes, all exact or none."""
        exact = not works[0].plan[TOLERANCE]
        if not exact:
            self._make_slots()
        plan, taps, shape = self._send(works)
        levels = np.zeros((len(works), *shape), np.int32)
        for k, work in enumerate(works):
            levels[k, : work.samples.shape[0], : work.samples.shape[1]] = work.samples
        levels = cuda_memory.to_device(levels)
        dtype = np.int64 if works[0].wide else np.int32
        entries = cuda_memory.empty((len(works), _slots(*shape)), dtype)
        if exact:
            at = cuda_linear.blocks(len(works), (shape[0] + 3) * (shape[1] + 4))
            cuda_linear.surround(*at, plan, levels, 1, self.planes)
            cuda_linear.exact_symbols(*at, plan, taps, self.planes, entries)
            cuda_linear.exact_contexts(*at, plan, self.planes, entries, self.counts, self.filled)
            finish()
        else:
            out = cuda_memory.empty((len(works), *shape), np.int32)
            nothing = cuda_memory.empty((1,), np.uint16), cuda_memory.empty((1,), np.uint32)
            self._go_through(
                works, plan, taps, levels, out,
                cuda_linear_wave.model_rows, entries, self.counts, self.filled, *nothing,
            )  # fmt: skip
            out = cuda_memory.to_host(out)
            for work, samples in zip(works, out, strict=True):
                work.samples = samples[: work.lane.shape[1], : work.lane.shape[2]]
        for k, work in enumerate(works):
            work.entries, work.moved_on = (entries, k), True

    def _make_slots(self) -> None:
        """What waves need."""
        with self._lock:
            if self.guesses is not None:
                return
            empty, shape = cuda_memory.empty, (self.lanes, _slots(self.rows, self.columns))
            self.energies = empty(shape, np.int32)
            self.pasts = empty((self.lanes, 2, shape[1]), np.int32)
            self.samples = empty(shape, np.int32)
            self.sizes = empty(shape, np.uint16)
            guesses = empty(shape, np.int64)
            finish()
            self.guesses = guesses

    def _send(self, works):
        """Plans and taps on the device, and the size of the largest frame; predictions go along."""
        plan = np.zeros((len(works), PLAN), np.int64)
        taps = np.zeros((len(works), MOST_TAPS, 4), np.int64)
        shape = tuple(np.max([work.lane.shape[1:] for work in works], 0).tolist())
        brought = any(work.prediction is not None for work in works)
        predictions = np.zeros((len(works), *shape) if brought else (1, 1, 1), np.int32)
        for k, work in enumerate(works):
            lane, (_, height, width) = work.lane, work.lane.shape
            plan[k, : len(work.plan)] = work.plan
            taps[k, : len(work.taps)] = work.taps
            plan[k, len(work.plan) :] = (
                lane.number, height, width, lane.turn, len(work.taps), work.prediction is not None,
            )  # fmt: skip
            if work.prediction is not None:
                predictions[k, :height, :width] = work.prediction
        plan, taps = cuda_memory.to_device(plan), cuda_memory.to_device(taps)
        if brought:
            at = cuda_linear.blocks(len(works), (shape[0] + 3) * (shape[1] + 4))
            cuda_linear.surround(*at, plan, cuda_memory.to_device(predictions), 0, self.planes)
        return plan, taps, shape

    def _go_through(self, works, plan, taps, levels, out, rows, *arrays) -> None:
        """Send a wave of `rows` through planes: from `levels` when encoding, to `out`."""
        at = cuda_linear.blocks(len(works), (out.shape[1] + 3) * (out.shape[2] + 4))
        slots = self.guesses, self.energies, self.pasts, self.samples
        cuda_linear.known(*at, plan, taps, levels, self.planes, *slots)
        rows(*cuda_linear_wave.grid(len(works)), plan, taps, *slots, self.sizes, *arrays)
        cuda_linear.deliver(*at, plan, self.samples, self.sizes, self.planes, out)


def _clear(array, lane: int) -> None:
    """Set to 0 what a lane has of an array of int32."""
    flat = array.reshape(array.shape[0], -1)
    if SIMULATED:  # which would take seconds
        flat[lane].copy_to_device(np.zeros(flat.shape[1], np.int32))
        return
    numbers = cuda_memory.to_device(np.array([lane], np.int64))
    cuda_linear.clear(*cuda_linear.blocks(1, flat.shape[1]), numbers, flat)


def _slots(rows: int, columns: int) -> int:
    """Slots of a plane."""
    return -(-rows // LANES) * (columns + 2 * LANES) * LANES


def _streams(works: list[Decoding]):
    """What a plane of each chunk may need of its streams, one behind the other.

    Returns
    -------
    coders : int64 (n, 5, LANES), see ``cuda_linear_wave.py``
    words, bits : uint16 and uint32
    offsets : int64 (n, 3, LANES), what is to be added to coders for places in the chunk's streams
    """
    coders = np.zeros((len(works), 5, LANES), np.int64)
    offsets = np.zeros((len(works), 3, LANES), np.int64)
    words, bits, of_words, of_bits = [], [], 0, 0
    for k, work in enumerate(works):
        streams, (_, height, width) = work.streams, work.lane.shape
        samples = -(-height // LANES) * width
        state, begins, bit_begins = streams.places
        ends = np.minimum(streams.limits[0], begins + samples)
        bit_ends = np.minimum(streams.limits[1], bit_begins + samples * work.low_bits)
        for lane in range(len(state)):
            words.append(streams.words[begins[lane] : ends[lane]])
            first = bit_begins[lane] >> 5
            bits.append(streams.bits[first : (bit_ends[lane] >> 5) + 2])
            offset = begins[lane] - of_words, 32 * (first - of_bits)
            coders[k, :, lane] = (
                state[lane], of_words, bit_begins[lane] - offset[1],
                ends[lane] - offset[0], bit_ends[lane] - offset[1],
            )  # fmt: skip
            offsets[k, 1:, lane] = offset
            of_words, of_bits = of_words + words[-1].size, of_bits + bits[-1].size
    words.append(np.zeros(1, np.uint16))
    return coders, np.concatenate(words), np.concatenate(bits), offsets


def _code(works: list[Coding]) -> None:
    """Code the symbols of some chunks, all planes from the last to the first."""
    count = len(works)
    plan = np.zeros((count, cuda_linear_rans.PLAN), np.int64)
    slots = np.zeros((count, max(work.slots.size for work in works)), np.uint32)
    coders = np.full((count, 3, LANES), LOWEST, np.int64)
    rooms = np.zeros((count, 1), np.int64)  # words of a stream
    for k, work in enumerate(works):
        _, height, width = work.lane.shape
        plan[k] = height, width, work.slots.shape[1]
        slots[k, : work.slots.size] = work.slots.reshape(-1)
        rooms[k] = len(work.planes) * -(-height // LANES) * width
        coders[k, 2] = work.filled
    room, most = int(rooms.max()), int(coders[:, 2].max())
    coders[:, 1] = room
    send, empty = cuda_memory.to_device, cuda_memory.empty
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
            at = cuda_linear_rans.grid(len(which))
            cuda_linear_rans.rans_encode(
                *at, send(np.array(which, np.int64)), plan, entries, tables, slots, words, bits,
                coders, left,
            )  # fmt: skip
            marks.append(([k for k, _, _ in which], back, left))
    coders = cuda_memory.to_host(coders)
    taken = room - coders[:, 1]
    for k, pieces in enumerate(_fetch(words, coders[:, 1], taken)):
        works[k].words, works[k].states = pieces, coders[k, 0]
        works[k].left = np.zeros((len(works[k].planes), 2, LANES), np.int64)
    bits = cuda_memory.to_host(bits)
    for numbers, back, left in marks:
        for k, marked in zip(numbers, cuda_memory.to_host(left), strict=True):
            works[k].left[-back] = marked
            works[k].left[-back, 0] -= coders[k, 1]
    for k, work in enumerate(works):
        work.bits, work.moved_on = bits[k], True


def _fetch(words, begins, taken) -> list[list[np.ndarray]]:
    """The words of every stream of every chunk, without what is between them."""
    count, lanes, room = words.shape
    ends = np.cumsum(taken)
    at = np.arange(count * lanes) * room + begins.reshape(-1)
    places = np.stack([at, ends - taken.reshape(-1), taken.reshape(-1)], 1)
    out = cuda_memory.empty((max(int(ends[-1]), 1),), np.uint16)
    places = cuda_memory.to_device(places)
    cuda_linear_rans.gather(count * lanes, _THREADS, words.reshape(-1), places, out)
    pieces = np.split(cuda_memory.to_host(out)[: ends[-1]], ends[:-1])
    return [pieces[k * lanes : (k + 1) * lanes] for k in range(count)]


class Chunks(Gathering):
    """Slabs of chunks; works are `Decoding`, `Modelling` and `Coding`."""

    def open(self, shape, symbols: int | None, tables=None, slots=None) -> Lane:
        """Begin a chunk.

        Parameters
        ----------
        shape : (C, h, w)
        symbols : int, optional
            How many there may be, of an encoder.
        tables, slots : uint8 (sides, contexts), uint32, of a decoder

        Returns
        -------
        Lane, to be given back to `close`

        Raises
        ------
        Exception
            Of the driver, when there is no memory for it.
        """
        if symbols is not None:
            kind = "encode", symbols
        else:
            kind = "decode", -(-(slots.size >> 12) // _TABLES) * _TABLES
        with self._changed:
            slab = self._slab(
                lambda slab: slab.fits(kind, shape), lambda lanes: Slab(kind, *shape, lanes), 1
            )
            lane = Lane(slab, slab.free.pop(), tuple(shape))
            try:
                slab.begin(lane, tables, slots)
            except BaseException:
                self._give_back([lane])
                raise
            self._open += 1
        return lane


_only = Chunks()


def chunks() -> Chunks:
    """Those of this process."""
    return _only


def _begin_anew() -> None:
    """A forked process has no device, and no threads that wait."""
    global _only
    _only = Chunks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
