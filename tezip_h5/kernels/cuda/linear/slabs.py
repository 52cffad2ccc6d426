"""Memory on the device for many chunks of the linear coder, and the coding of their planes.

A chunk has a lane of a `Slab` while it is coded. A launch works on one plane, which is a channel
of a frame, of some of the lanes: it decodes the plane (`Decoding`), or predicts and quantises it
(`Modelling`). A lane takes 16 bytes per sample of a frame, and 8 more per sample of a plane.
Decoders, and encoders with a tolerance, need 26 more bytes per sample of a plane for waves. An
encoder needs 93 KB for the counts of each possible symbol, and 4 or 8 bytes per sample of the
whole chunk for its symbols. A decoder needs 16 KB for each of its tables.

Each host thread sends the data of its plane to the device, and fetches the results, on its own.
Only launches are gathered.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from tezip_h5.kernels.cuda import memory
from tezip_h5.kernels.cuda.launch import SIMULATED, finish, stream
from tezip_h5.kernels.cuda.linear import parallel, wave
from tezip_h5.kernels.cuda.linear.sample import MOST_TAPS, PLAN
from tezip_h5.kernels.linear.plan import CLOSED, CONTEXTS, LANES

__all__ = ["Decoding", "Lane", "Modelling", "Slab", "lanes_for", "rounded"]

_SIDES = 3  # sets of contexts, one for each value of SIDE in a plan
_COLUMNS = 32  # the columns of a slab are a multiple of this
_MOST_LANES, _MOST_BYTES = 4 if SIMULATED else 64, 4 << 30  # limits of a new slab


@dataclass(eq=False)
class Lane:
    """The lane of one chunk on the device.

    Attributes
    ----------
    slab, number : its slab, and its number there
    shape : (C, h, w)
    turn : the number of frames so far
    behind : the position where words begin; for a decoder only
    """

    slab: Slab
    number: int
    shape: tuple[int, int, int]
    turn: int = -1
    behind: int = 0


@dataclass(eq=False)
class _Plane:
    """A piece of work on one plane of a chunk.

    Attributes
    ----------
    lane : Lane
    plan, taps : as for the CPU kernels
    predicted : bool
        Whether a prediction was sent. Otherwise the reconstruction of the last frame predicts.
    moved_on : bool
        Whether the work is done.
    """

    lane: Lane
    plan: np.ndarray
    taps: np.ndarray
    predicted: bool = False
    moved_on: bool = False


@dataclass(eq=False)
class Decoding(_Plane):
    """Decode a plane. Afterwards `Slab.fetch` returns its samples.

    Attributes
    ----------
    places : int64 (3, streams)
        Result: the state of each stream, and its positions in words and bits.
    """

    places: np.ndarray | None = None

    group = ("decode",)

    def launch(self, works: list) -> None:
        """Do this work and others of the same slab."""
        self.lane.slab.decode(works)


@dataclass(eq=False)
class Modelling(_Plane):
    """Predict and quantise a plane of levels, which were sent to the device before.

    Afterwards `Slab.fetch` returns its reconstruction.

    Attributes
    ----------
    wide : bool
        Whether low bits need entries of 64 bits.
    entries : (array, row)
        Result: where its symbols and contexts are on the device.
    """

    wide: bool = False
    entries: tuple | None = None

    @property
    def group(self) -> tuple:
        """Planes of one launch agree in whether they need a closed loop, and in size of entries."""
        return bool(self.plan[CLOSED]), self.wide

    def launch(self, works: list) -> None:
        """Do this work and others of the same slab and group."""
        self.lane.slab.model(works)


class Slab:
    """Device memory for `lanes` chunks. It is made in one thread, and any thread may use it.

    Attributes
    ----------
    planes : int32 (lanes, 4, C, rows + 3, columns + 4)
        This frame and the frame that predicts it, which swap places after each frame, and the
        magnitudes of symbols of this frame and of the last one, which do the same.
    sent : int32 (lanes, 2, rows * columns)
        Levels, which the reconstruction replaces, and a prediction.
    guesses, energies, pasts, samples, sizes : see `parallel.known`; made when first needed
    counts : int32 (lanes, sides, contexts, symbols), for encoders
    filled : int64 (lanes, LANES), for encoders
    tables : uint8 (lanes, sides * contexts), for decoders
    slots : uint32 (lanes, tables * 4096), for decoders
    bits, words : uint32 (lanes, n) and uint16 (lanes, 2 n), for decoders
        Both share memory: the low bits of all streams come first, then the words.
    coders : int64 (lanes, 5, LANES), for decoders
        States, positions in words and bits, ends of words and bits.
    """

    def __init__(
        self, kind: tuple[str, int, int], channels: int, rows: int, columns: int, lanes: int
    ):
        self._lock = threading.Lock()
        self.kind, self.channels, self.rows, self.columns = kind, channels, rows, columns
        self.free, self.lanes = list(range(lanes))[::-1], lanes
        empty, (what, size, capacity) = memory.empty, kind
        self.planes = empty((lanes, 4, channels, rows + 3, columns + 4), np.int32)
        self.sent = empty((lanes, 2, rows * columns), np.int32)
        self.guesses = None
        if what == "encode":
            self.counts = empty((lanes, _SIDES, CONTEXTS, size), np.int32)
            self.filled = empty((lanes, LANES), np.int64)
        else:
            self.tables = empty((lanes, _SIDES * CONTEXTS), np.uint8)
            self.slots = empty((lanes, size << 12), np.uint32)
            self.bits = empty((lanes, capacity), np.uint32)
            self.words = self.bits.view(np.uint16)
            self.coders = empty((lanes, 5, LANES), np.int64)
            self._make_slots()
        finish()

    def fits(self, kind, shape) -> bool:
        """Whether a chunk fits in a lane of this slab, and needs at least half of it."""
        channels, rows, columns = rounded(shape)
        return (
            (*kind[:2], channels) == (*self.kind[:2], self.channels)
            and kind[2] <= self.kind[2] <= 4 * kind[2]
            and rows <= self.rows
            and columns <= self.columns
            and 2 * rows * columns >= self.rows * self.columns
        )

    def begin(self, lane: Lane, coder: tuple | None) -> None:
        """Set a lane to its initial state; `coder` is for a decoder (see `Chunks.open`)."""
        number = lane.number
        _clear(self.planes, number)
        if coder is None:
            _clear(self.counts, number)
            _put(np.zeros(LANES, np.int64), self.filled[number])
        else:
            tables, slots, streams = coder
            coders = np.zeros((5, LANES), np.int64)
            coders[:, : streams.places.shape[1]] = np.vstack([streams.places, streams.limits])
            behind = 2 * streams.bits.size
            coders[1::2] += behind
            _put(tables.reshape(-1), self.tables[number])
            _put(slots, self.slots[number])
            _put(streams.bits, self.bits[number])
            _put(streams.words, self.words[number][behind:])
            _put(coders.reshape(-1), self.coders.reshape(self.lanes, -1)[number])
            lane.behind = behind
        finish()

    def counts_of(self, lane: Lane) -> np.ndarray:
        """The counts of an encoder: int32 (sides, contexts, symbols)."""
        return memory.to_host(self.counts[lane.number])

    def filled_of(self, lane: Lane) -> np.ndarray:
        """The number of low bits of each stream of an encoder: int64 (LANES,)."""
        return memory.to_host(self.filled[lane.number])

    def send(self, lane: Lane, which: int, samples: np.ndarray) -> None:
        """Send levels (`which` is 0) or a prediction (1), int32 (h, w), for the next plane."""
        flat = np.ascontiguousarray(samples, np.int32).reshape(-1)
        _put(flat, self.sent[lane.number, which])
        finish()

    def fetch(self, lane: Lane) -> np.ndarray:
        """The reconstruction of the last plane: int32 (h, w)."""
        _, height, width = lane.shape
        found = memory.to_host(self.sent[lane.number, 0][: height * width])
        return found.reshape(height, width)

    def decode(self, works: list[Decoding]) -> None:
        """Decode a plane of some lanes."""
        plan, taps, at = self._plans(works)
        arrays = self.coders, self.tables, self.slots, self.words, self.bits
        self._go_through(at, plan, taps, False, wave.decode_rows, arrays)
        coders = memory.to_host(self.coders)
        for work in works:
            work.places = coders[work.lane.number, :3, : min(work.lane.shape[1], LANES)]
            work.places[1] -= work.lane.behind
            work.moved_on = True

    def model(self, works: list[Modelling]) -> None:
        """Predict and quantise a plane of some lanes; all are lossless, or none is."""
        exact = not works[0].plan[CLOSED]
        if not exact:
            self._make_slots()
        slots = max(_slots(*work.lane.shape[1:]) for work in works)
        dtype = np.int64 if works[0].wide else np.int32
        entries = memory.empty((len(works), slots), dtype)
        plan, taps, at = self._plans(works)
        if exact:
            parallel.surround(*at, plan, self.sent, 0, self.planes)
            parallel.exact_symbols(*at, plan, taps, self.planes, entries)
            parallel.exact_contexts(*at, plan, self.planes, entries, self.counts, self.filled)
        else:
            nothing = memory.empty((1, 1), np.uint16), memory.empty((1, 1), np.uint32)
            arrays = entries, self.counts, self.filled, *nothing
            self._go_through(at, plan, taps, True, wave.model_rows, arrays)
        finish()
        for k, work in enumerate(works):
            work.entries, work.moved_on = (entries, k), True

    def _make_slots(self) -> None:
        """Make the arrays for waves."""
        with self._lock:
            if self.guesses is not None:
                return
            empty, shape = memory.empty, (self.lanes, _slots(self.rows, self.columns))
            # Either all arrays are made or none: without memory for one, the others are freed.
            energies, samples = empty(shape, np.int32), empty(shape, np.int32)
            pasts, sizes = empty((self.lanes, 2, shape[1]), np.int32), empty(shape, np.uint16)
            guesses = empty(shape, np.int64)
            finish()
            self.energies, self.samples, self.pasts, self.sizes = energies, samples, pasts, sizes
            self.guesses = guesses

    def _plans(self, works):
        """Send plans and taps to the device, and copy predictions that were sent to their planes.

        Returns plans, taps, and the blocks and threads for all samples.
        """
        plan = np.zeros((len(works), PLAN), np.int64)
        taps = np.zeros((len(works), MOST_TAPS, 4), np.int64)
        for k, work in enumerate(works):
            lane, (_, height, width) = work.lane, work.lane.shape
            taps[k, : len(work.taps)] = work.taps
            more = lane.number, height, width, lane.turn, len(work.taps), work.predicted
            plan[k] = (*work.plan, *more)
        plan, taps = memory.to_device(plan), memory.to_device(taps)
        most = max((work.lane.shape[1] + 3) * (work.lane.shape[2] + 4) for work in works)
        at = parallel.blocks(len(works), most)
        if any(work.predicted for work in works):
            parallel.surround(*at, plan, self.sent, 1, self.planes)
        return plan, taps, at

    def _go_through(self, at, plan, taps, encoding: bool, rows, arrays) -> None:
        """Run a wave through planes with the kernel `rows`; levels were sent, when encoding."""
        slots = self.guesses, self.energies, self.pasts, self.samples
        parallel.known(*at, plan, taps, self.sent, encoding, self.planes, *slots)
        rows(*wave.grid(plan.shape[0]), plan, taps, *slots, self.sizes, *arrays)
        parallel.deliver(*at, plan, self.samples, self.sizes, self.planes, self.sent)


def rounded(shape) -> tuple[int, int, int]:
    """The size of a slab for chunks of about `shape`; chunks at the edge of a stack fit in, too."""
    channels, rows, columns = shape
    return channels, -(-rows // LANES) * LANES, -(-columns // _COLUMNS) * _COLUMNS


def lanes_for(kind: tuple[str, int, int], shape) -> int:
    """The largest number of lanes of a new slab.

    Unless frames are large, it is enough for all chunks that are coded at a time, so that one
    launch serves them.
    """
    channels, rows, columns = rounded(shape)
    what, size, capacity = kind
    taken = (16 * channels + 8 + 26) * rows * columns
    taken += 4 * _SIDES * CONTEXTS * size if what == "encode" else (size << 14) + 4 * capacity
    return max(1, min(_MOST_BYTES // taken, _MOST_LANES))


def _clear(array, lane: int) -> None:
    """Set the part of an int32 array that belongs to a lane to 0."""
    flat = array.reshape(array.shape[0], -1)
    if SIMULATED:  # a kernel would take seconds there
        flat[lane].copy_to_device(np.zeros(flat.shape[1], np.int32))
        return
    numbers = memory.to_device(np.array([lane], np.int64))
    parallel.clear(*parallel.blocks(1, flat.shape[1]), numbers, flat)


def _put(array: np.ndarray, there) -> None:
    """Copy a flat array to the front of a device array."""
    there[: array.size].copy_to_device(np.ascontiguousarray(array), stream=stream())


def _slots(rows: int, columns: int) -> int:
    """The number of slots of a plane."""
    return -(-rows // LANES) * (columns + 2 * LANES) * LANES
