"""Memory of many streams of the context-mixing coder on the device.

A `Slab` has arrays for a number of streams, its lanes, of the same model and channels and of about
the same size. Streams are shorter or narrower than its lanes by a bit where chunks are cut at the
edge of a stack, or bands are not quite even; a launch codes one frame of those of its lanes that
are asked for. A lane of one channel takes 31 bytes per sample in the coarse model and 153 in the
fine one; 43 KB and 729 KB of them are what adapts. A launch takes 20 more while it runs, mostly
for bytes.

Slabs stay when their lanes are given back, for the next chunks, until memory is needed for others.
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
_THREADS = 8 if SIMULATED else 128  # of the kernel that begins streams


@dataclass(eq=False)
class Lane:
    """One stream on the device.

    Attributes
    ----------
    slab, number : where it is
    shape : (C, h, w)
    top, finer : its largest level, and the fraction bits of means
    alone, guided : see `Stream`
    taught : sets of learnt weights, 0 for none
    seen, turn : frames since the last keyframe, and since the beginning
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
    """One frame of one stream that is to be coded.

    Attributes
    ----------
    lane : Lane
    decoding : bool
    samples : int32 (C, h, w)
        Levels; when decoding, of any content. Then the reconstruction.
    guess : int32 (C, h, w), optional
        A network's prediction; looked at where the stream is guided and this is no keyframe.
    tolerances : C ints
    keyframe : bool
    brightness : int64 (C, (gain, offset)), optional
    vectors : int8 (blocks down, blocks across, 2), optional
    data : uint8
        The stream's bytes from here on, when decoding; then those of this frame, when encoding.
    coder : int64 (4)
        The arithmetic coder after this frame; its position counts from the beginning of `data`.
    room : int
        Bytes that a sample may take, when encoding.
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
        """What is coded in one launch has the same."""
        return self.decoding, self.room

    @property
    def moved_on(self) -> bool:
        """Whether the stream is behind this frame."""
        return self.coder is not None

    def launch(self, works: list[Work]) -> None:
        """Code it, and what else is in the same slab and group."""
        self.lane.slab.code(works, self.room)


class Slab:
    """Arrays for `lanes` streams; made in one thread, used by any.

    Attributes
    ----------
    planes : int32 (planes, rows + 6, columns + 8, lanes)
        Of every channel three frames, two frames' symbols, errors and, of fine models, two
        frames' misses, a mean and usual misses; behind them one for a network's prediction.
    moved : int32, like those
        What blocks that moved came from; none until the first of them.
    sums : int64 (2 C, USES, blocks down + 4, blocks across + 4, ENTRIES, lanes)
        `nearby.Sums.now` and `past` of every channel, of fine models; `fitted` are its weights:
        (C, USES, blocks across, MOST, lanes).
    voter_errors : int32 (2, columns + 8, VOTERS, lanes)
    filters : int32 (C, 3, TAPS, lanes)
    learned : int32 (C, KINDS + 1, TAPS, lanes)
    tones, bias, counters, weights, refined : those of the coder, (lanes, C, ...)
    coder : int64 (lanes, 4)
    totals, solving : where normal equations are solved, (ENTRIES, lanes) and
        (2, MOST + 1, MOST, lanes), by fine models; of what a model has not, 1 per lane
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
        """Bytes of device memory, without what a launch takes besides."""
        return sum(a.nbytes for a in vars(self).values() if hasattr(a, "copy_to_host"))

    def fits(self, model: int, shape: tuple[int, int, int]) -> bool:
        """Whether a stream can have a lane of it without wasting more than half."""
        channels, rows, columns = shape
        return (
            (model, channels) == (self.model, self.channels)
            and rows <= self.rows
            and columns <= self.columns
            and 2 * rows * columns >= self.rows * self.columns
        )

    def begin(self, lanes: list[Lane], learned: list, codes: np.ndarray) -> None:
        """Make streams as they begin.

        Parameters
        ----------
        lanes : of this slab
        learned : of every lane None, or int32 (kinds, TAPS) of every channel
        codes : int64 (lanes, 4), the arithmetic coders
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
        """Code one frame of some lanes, all encoding or all decoding, in one launch.

        Parameters
        ----------
        works : list of Work, of lanes of this slab; their results are filled in
        room : int
            Bytes that a sample may take, when encoding.
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
        """Give every piece of work its results; positions begin at 0 for the next frame."""
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
