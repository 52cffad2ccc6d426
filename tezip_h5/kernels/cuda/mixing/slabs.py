"""Memory on the device for many streams of the context-mixing coder.

A `Slab` has arrays for a number of streams, which are its lanes. They have the same model (the
coarse or the fine sizes), the same number of channels and about the same shape. A stream may be a
little smaller than its lane, at the edge of a stack or if bands are uneven. A launch codes one
frame of some of the lanes. A lane of one channel takes 31 bytes per sample with the coarse model,
and 153 with the fine one. This includes the adaptive state, of 43 KB or 729 KB. A launch takes 20
more bytes per sample while it runs, mostly for coded bytes.

When lanes are returned, slabs are kept for the next chunks, until memory is needed for others.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np

from tezip_h5.kernels.cuda import memory
from tezip_h5.kernels.cuda.launch import SIMULATED, finish
from tezip_h5.kernels.cuda.mixing import coding
from tezip_h5.kernels.mixing import decisions, nearby
from tezip_h5.kernels.mixing.pixels import BOTTOM, KINDS, LEFT, RIGHT, TAPS, TOP, VOTERS
from tezip_h5.kernels.sizes import COARSE, FINE, TONES

__all__ = ["Lane", "Slab", "Work"]

_SIZES = (COARSE, FINE)
_THREADS = 8 if SIMULATED else 128  # threads of a block of the kernel `begin`


@dataclass(eq=False)
class Lane:
    """The lane of one stream on the device.

    Attributes
    ----------
    slab, number : its slab, and its number there
    shape : (C, h, w)
    top, finer : the largest level, and the number of fraction bits of means
    alone, guided : see `Stream`
    taught : the number of sets of transmitted weights
    seen, turn : the numbers of frames since the last keyframe, and since the start
    """

    slab: Slab
    number: int
    shape: tuple[int, int, int]
    top: int
    finer: int
    alone: bool
    guided: bool
    taught: int
    seen: int = 0
    turn: int = 0


@dataclass
class Work:
    """A piece of work: encode or decode one frame of one stream.

    Attributes
    ----------
    lane : Lane
    decoding : bool
    samples : int32 (C, h, w)
        The levels, when encoding. Afterwards, the reconstruction.
    guess : int32 (C, h, w), optional
        A network's prediction. It is used if the stream is guided and this is no keyframe.
    tolerances : C ints
    keyframe : bool
    brightness : int64 (C, (gain, offset)), optional
    vectors : int8 (blocks down, blocks across, 2), optional
    data : uint8
        For decoding, the bytes of the stream from this frame on. After encoding, the bytes of
        this frame.
    coder : int64 (4)
        Result: the arithmetic coder after this frame. Its position counts from the start of `data`.
    room : int
        The number of bytes reserved for a sample, when encoding.
    """

    lane: Lane
    decoding: bool
    samples: np.ndarray
    guess: np.ndarray | None
    tolerances: list[int]
    keyframe: bool
    brightness: np.ndarray | None = None
    vectors: np.ndarray | None = None
    data: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))
    coder: np.ndarray | None = None
    room: int = 0

    @property
    def group(self) -> tuple:
        """The properties that all works of one launch have in common."""
        return self.decoding, self.room

    @property
    def moved_on(self) -> bool:
        """Whether the frame is coded."""
        return self.coder is not None

    def launch(self, works: list[Work]) -> None:
        """Do this work and others of the same slab and group."""
        self.lane.slab.code(works, self.room)


class Slab:
    """Device memory for `lanes` streams. It is made in one thread, and any thread may use it.

    Attributes
    ----------
    planes : int32 (planes, rows + 6, columns + 8, lanes)
        For each channel: three frames, symbols of two frames, errors, and, with the fine model,
        misses of two frames, a mean frame and mean misses. The last plane is for a network's
        prediction.
    moved : int32, like `planes`
        Planes after motion; made when blocks move for the first time.
    sums : int64 (2 C, USES, blocks down + 4, blocks across + 4, ENTRIES, lanes)
        `nearby.Sums.now` and `past` of each channel, with the fine model. `fitted` are its
        weights: (C, USES, blocks across, MOST, lanes).
    voter_errors : int32 (2, columns + 8, VOTERS, lanes)
    filters : int32 (C, 3, TAPS, lanes)
    learned : int32 (C, KINDS + 1, TAPS, lanes)
    tones, bias, counters, weights, refined : the adaptive state of the coder, (lanes, C, ...)
    coder : int64 (lanes, 4)
    totals, solving : (ENTRIES, lanes) and (2, MOST + 1, MOST, lanes)
        Working memory for normal equations, with the fine model. Arrays that a model does not
        need have one number per lane.
    """

    def __init__(self, model: int, channels: int, rows: int, columns: int, lanes: int):
        sizes = _SIZES[model]
        self._lock = threading.Lock()
        self.model, self.channels, self.rows, self.columns = model, channels, rows, columns
        self.free = list(range(lanes))[::-1]
        self.lanes = lanes
        empty = memory.empty
        padded = (rows + TOP + BOTTOM, columns + LEFT + RIGHT)
        planes = channels * coding.planes_of(sizes) + 1
        self.planes = empty((planes, *padded, lanes), np.int32)
        self.moved = empty((1, 1, 1, 1), np.int32)
        down, across = -(-rows // nearby.ROWS), -(-columns // nearby.COLUMNS)
        shape = (2 * channels, nearby.USES, down + 2 * nearby.MARGIN, across + 2 * nearby.MARGIN)
        uses = (channels, nearby.USES, across, nearby.MOST, lanes)
        entries = (*shape, nearby.ENTRIES, lanes)
        self.sums = empty(entries if sizes.fine else (*(1,) * 5, lanes), np.int64)
        self.fitted = empty(uses if sizes.fine else (*(1,) * 4, lanes), np.int64)
        self.voter_errors = empty((2, padded[1], VOTERS, lanes), np.int32)
        self.filters = empty((channels, 3, TAPS, lanes), np.int32)
        self.learned = empty((channels, KINDS + 1, TAPS, lanes), np.int32)
        each = (lanes, channels)
        self.tones = empty((*each, 2, TONES), np.int32)
        self.bias = empty((*each, coding.CELLS, 2), np.int64)
        self.counters = empty((*each, sum(sizes.contexts) * sizes.slots), np.uint32)
        rows_of_weights = sum(sizes.mixers) * sizes.slots
        self.weights = empty((*each, rows_of_weights, sizes.weight_columns), np.int32)
        self.refined = empty((*each, sum(sizes.refiners) * sizes.slots, 33), np.uint16)
        self.coder = empty((lanes, 4), np.int64)
        solved = (nearby.MOST + 1, nearby.MOST) if sizes.fine else (1, 1)
        self.totals = empty((nearby.ENTRIES if sizes.fine else 1, lanes), np.int64)
        self.solving = empty((2, *solved, lanes), np.int64)
        self._tables = [memory.to_device(table) for table in coding.TABLES]
        self._first = memory.to_device(decisions.FIRST_REFINED)
        self._sizes = sizes
        self._kernel = coding.code_fine if sizes.fine else coding.code_coarse
        finish()

    @property
    def nbytes(self) -> int:
        """The bytes of device memory, not counting those that a launch takes while it runs."""
        return sum(a.nbytes for a in vars(self).values() if hasattr(a, "copy_to_host"))

    def fits(self, model: int, shape: tuple[int, int, int]) -> bool:
        """Whether a stream fits in a lane of this slab, and needs at least half of it."""
        channels, rows, columns = shape
        return (
            (model, channels) == (self.model, self.channels)
            and rows <= self.rows
            and columns <= self.columns
            and 2 * rows * columns >= self.rows * self.columns
        )

    def begin(self, lanes: list[Lane], learned: list, codes: np.ndarray) -> None:
        """Set streams to their initial state.

        Parameters
        ----------
        lanes : list of Lane, of this slab
        learned : list
            For each lane None, or transmitted weights, int32 (kinds, TAPS) for each channel.
        codes : int64 (lanes, 4), the initial states of arithmetic coders
        """
        lessons = np.zeros((len(lanes), self.channels, KINDS + 1, TAPS), np.int32)
        for k, weights in enumerate(learned):
            for c, rows in enumerate(weights or ()):
                lessons[k, c, : len(rows)] = rows
        send = memory.to_device
        numbers = send(np.array([lane.number for lane in lanes], np.int64))
        coding.begin(
            len(lanes), _THREADS, numbers, self.planes, self.sums, self.filters, self.learned,
            send(lessons), self.tones, self.bias, self.counters, self.weights, self.refined,
            self.coder, send(np.ascontiguousarray(codes, np.int64)), self._sizes.first_weight,
            self._first,
        )  # fmt: skip
        finish()

    def code(self, works: list[Work], room: int) -> None:
        """Encode or decode one frame of some lanes in one launch.

        Parameters
        ----------
        works : list of Work
            Their lanes are of this slab. Their attributes receive the results.
        room : int
            The number of bytes reserved for a sample, when encoding.
        """
        count, channels = len(works), self.channels
        decoding = works[0].decoding
        rows = max(work.lane.shape[1] for work in works)
        columns = max(work.lane.shape[2] for work in works)
        plan = np.zeros((count, coding.PLAN), np.int64)
        shape = (count, channels, rows, columns)
        samples, guesses = np.zeros(shape, np.int32), np.zeros((1,) * 4, np.int32)
        if any(work.lane.guided and not work.keyframe for work in works):
            guesses = np.zeros(shape, np.int32)
        brightness = np.zeros((count, channels, 2), np.int64)
        fields = [work.vectors for work in works if work.vectors is not None]
        most = np.max([field.shape[:2] for field in fields], 0) if fields else (1, 1)
        vectors = np.zeros((count if fields else 1, *most, 2), np.int8)
        if fields:
            self._make_moved()
        start = 0
        for k, work in enumerate(works):
            lane, (_, h, w) = work.lane, work.lane.shape
            if work.keyframe:
                lane.seen = 0
            size = work.data.size if decoding else channels * h * w * room + 64
            plan[k] = (
                lane.number, h, w, lane.top, lane.finer, lane.alone, lane.guided, work.keyframe,
                lane.seen, lane.turn, lane.taught, work.brightness is not None,
                work.vectors is not None, start, size,
            )  # fmt: skip
            start += size
            if not decoding:
                samples[k, :, :h, :w] = work.samples
            if lane.guided and not work.keyframe:
                guesses[k, :, :h, :w] = work.guess
            if work.brightness is not None:
                brightness[k] = work.brightness
            if work.vectors is not None:
                high, wide = work.vectors.shape[:2]
                vectors[k, :high, :wide] = work.vectors
        send = memory.to_device
        if decoding:
            data = send(np.concatenate([*(work.data for work in works), np.zeros(1, np.uint8)]))
        else:
            data = memory.empty((start,), np.uint8)
        samples = send(samples)
        self._kernel(
            -(-count // coding.THREADS), coding.THREADS,
            decoding, send(plan), send(np.array([work.tolerances for work in works], np.int64)),
            send(brightness), send(vectors), samples, send(guesses), data,
            self.planes, self.moved, self.sums, self.fitted, self.voter_errors, self.filters,
            self.learned, self.tones, self.bias, self.counters, self.weights, self.refined,
            self.coder, self.totals, self.solving, *self._tables,
        )  # fmt: skip
        coders = memory.to_host(self.coder)
        self._fetch(works, plan, data, coders, memory.to_host(samples))

    def _make_moved(self) -> None:
        with self._lock:
            if self.moved.shape[0] == 1:
                planes = coding.MOVED if self._sizes.fine else 3
                self.moved = memory.empty((planes, *self.planes.shape[1:]), np.int32)

    def _fetch(self, works, plan, data, coders, samples) -> None:
        """Copy results to the works. For the next frame, positions in streams begin at 0."""
        begins, sizes = plan[:, coding.START], plan[:, coding.SIZE]
        for k, work in enumerate(works):
            lane, (_, h, w) = work.lane, work.lane.shape
            lane.seen, lane.turn = lane.seen + 1, lane.turn + 1
            work.samples = samples[k, :, :h, :w]
            work.coder = coders[lane.number].copy()
        if works[0].decoding:
            return
        taken = np.array([work.coder[3] for work in works])
        if (taken > sizes).any():
            raise RuntimeError(
                f"a frame took {taken.max()} bytes of a stream on the device, "
                f"at most {sizes.max()} were expected"
            )
        ends = np.cumsum(taken)
        out = memory.empty((max(int(ends[-1]), 1),), np.uint8)
        places = np.stack([begins, ends - taken, taken], 1)
        coding.gather(len(works), _THREADS, data, memory.to_device(places), out)
        pieces = np.split(memory.to_host(out)[: ends[-1]], ends[:-1])
        for work, piece in zip(works, pieces, strict=True):
            work.data = piece
