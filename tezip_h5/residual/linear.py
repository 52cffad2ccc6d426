"""The linear coder, for acquisition: transmitted weights, static contexts, rANS.

Every sample is predicted by a weighted sum of its neighbours in this frame, in the frame
that the predictor expects, and in the channels before it; the weights come from the encoder.
The quantized residual is coded with a table chosen by how large the symbols around it were
and by how the neighbours compare with the prediction. Nothing adapts while decoding, so a
sample takes a few nanoseconds. FORMAT.md, section 8, has the details.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tezip_h5 import kernels
from tezip_h5.errors import FormatError
from tezip_h5.residual.linear_device import DeviceDecoder, DeviceEncoder
from tezip_h5.residual.linear_streams import Bits, Reader, Streams, pack, signed
from tezip_h5.residual.linear_tables import SIDES, Tables, build, symbols_for
from tezip_h5.residual.linear_weights import ONE, Fitter, Weights, taps_of

__all__ = ["LinearDecoder", "LinearEncoder"]

RESIDUALS, TABLES = "residuals", "tables"

_NEW, _DRIFT, _SIDE_SHIFT = 1, 2, 2  # of a plane's flags
_LOUD = 40  # mean magnitude of symbols that energies can hold
_LARGEST_MEAN = 1 << 33


class _Frames:
    """What encoder and decoder keep of the frames of a chunk, in the kernels' planes."""

    def __init__(self, shape, scale):
        self.shape = shape
        channels, height, width = shape
        self.linear = kernels.load("linear")
        self.lanes = min(self.linear.LANES, height)
        # Frame, frame before, magnitudes of the symbols of this frame and of the last one.
        self.planes = tuple(np.zeros((channels, height + 3, width + 4), np.int32) for _ in range(4))
        wraps = scale.top > 2**31 - 1
        self.low, self.high = (-(2**31), 2**31 - 1) if wraps else (0, scale.top)
        energies = np.arange(self.linear.WIDEST + 1)
        octaves = np.maximum(np.frexp(energies)[1] - 1, 1)
        halves = 2 * octaves + ((energies >> (octaves - 1)) & 1)
        classes = np.where(energies < 4, energies, halves)
        # The first context of the class of each activity.
        self.classes = (classes * (self.linear.PATTERNS * self.linear.FRACTIONS)).astype(np.uint16)
        self.energy_scale = 0

    def begin(self, prediction: np.ndarray | None) -> None:
        """Prepare for the next frame; `prediction` is that of a predicted one."""
        frame, before, magnitudes, earlier = self.planes
        self.planes = frame, before, earlier, magnitudes
        if prediction is not None:
            for plane, expected in zip(before, prediction, strict=True):
                self.linear.surround(np.ascontiguousarray(expected), plane)

    def plan(self, predicted: bool, channel: int, tolerance: int) -> np.ndarray:
        """The plan of a plane, but for what its weights say."""
        linear = self.linear
        plan = np.zeros(linear.PLAN, np.int64)
        plan[linear.CHANNEL], plan[linear.TOLERANCE] = channel, tolerance
        plan[linear.LOW], plan[linear.HIGH] = self.low, self.high
        plan[linear.PREDICTED] = predicted
        return plan

    def apply(self, weights: Weights, plan: np.ndarray) -> np.ndarray:
        """Complete a plan; returns the plane's taps with their weights, int64 (taps, 4)."""
        linear = self.linear
        predicted, channel = bool(plan[linear.PREDICTED]), int(plan[linear.CHANNEL])
        rest = weights.values[6:]
        plan[linear.BIAS] = weights.mean * (ONE - sum(weights.values))
        plan[linear.SIDE], plan[linear.DRIFT] = weights.side, weights.drift
        plan[linear.SCALE] = self.energy_scale
        most = max(-self.low, self.high)
        reach = most * sum(map(abs, rest))
        plan[linear.WIDE] = reach >= 2**31  # whether sums over taps overflow 32 bits
        # The same of whole predictions, with the median's difference from the frame before.
        reach += abs(int(plan[linear.BIAS])) + most * sum(map(abs, weights.values[:6]))
        reach = max(reach + most * abs(weights.values[5]), 3 * ONE * most)
        plan[linear.SMALL] = reach < 2**31 - ONE
        # Whether the fraction of a prediction says anything.
        whole = all(weight % ONE == 0 for weight in weights.values)
        plan[linear.FINE] = not (whole or plan[linear.TOLERANCE])
        plan[linear.OWN :] = weights.values[:6]
        taps = [
            (*tap, weight) for tap, weight in zip(taps_of(predicted, channel), rest, strict=True)
        ]
        return np.array(taps, np.int64)

    def frame(self) -> np.ndarray:
        """The frame: int32 (C, h, w)."""
        return self.planes[0][:, 2:-1, 2:-2].copy()


@dataclass
class _Plane:
    """One coded plane, before its symbols are: these and their contexts, or where they are."""

    head: bytes
    side: int
    symbols: np.ndarray
    contexts: np.ndarray | int


class LinearEncoder:
    """Encode the frames of one chunk; parameters as for `StageEncoder`.

    With the device "cuda" samples are predicted, counted and coded there, together with those of
    other chunks; weights and tables are found here.
    """

    learns = False
    place = "cpu"
    device = "cpu"

    def __init__(self, shape, scale, settings, quantizer="uniform", guided=False):
        self._frames = _Frames(shape, scale)
        self._top = int(scale.top)
        self._kernels = kernels.load("linear_rans")
        self._fitter = Fitter()
        self._weights: dict[tuple[bool, int], Weights] = {}
        self._counts = None
        self._coded: list[list[_Plane]] = []
        self._bits = Bits(self._frames.lanes)
        self._filled: list[int] = []  # low bits after each frame
        self._there: DeviceEncoder | None = None
        self._prediction: np.ndarray | None = None  # there, to learn from

    def keyframe(self, levels: np.ndarray, tolerances: np.ndarray) -> np.ndarray:
        """Code a frame from itself; returns its reconstruction, int32 (C, h, w)."""
        return self._frame(levels, None, tolerances)

    def residual(self, levels, prediction, tolerances) -> np.ndarray:
        """Code a frame given its prediction; returns its reconstruction, int32 (C, h, w)."""
        return self._frame(levels, prediction, tolerances)

    def _frame(self, levels, prediction, tolerances):
        if self.device == "cuda":
            if self._there is None:
                symbols = symbols_for(self._top, 0)
                self._there = DeviceEncoder(self._frames.shape, self._top, symbols)
            self._there.begin(prediction)
            self._prediction = prediction
        else:
            self._frames.begin(prediction)
        planes = [
            self._plane(
                np.ascontiguousarray(plane), prediction is not None, channel, int(tolerance)
            )
            for channel, (plane, tolerance) in enumerate(zip(levels, tolerances, strict=True))
        ]
        self._coded.append(planes)
        self._filled.append(int(self._bits.filled.sum()))
        return (self._there or self._frames).frame()

    def _plane(self, levels, predicted, channel, tolerance):
        frames, linear = self._frames, self._frames.linear
        plan = frames.plan(predicted, channel, tolerance)
        key = predicted, channel
        last = self._weights.get(key)
        side = linear.SIDE_CHANNEL if channel else linear.SIDE_OWN
        weights, size = last, 0.0
        if self._fitter.due(levels.size, plan):
            if self._there is not None:
                self._there.bring(frames.planes, channel, self._prediction)
            weights, size = self._fitter.choose(levels, frames.planes, plan, last, side)
        if self._counts is None:
            frames.energy_scale = min(max(int(np.ceil(np.log2(max(size, 1) / _LOUD))), 0), 31)
            symbols = symbols_for(self._top, 0)
            self._counts = np.zeros((SIDES, linear.CONTEXTS, symbols), np.int32)
        taps = frames.apply(weights, plan)
        base = last or Weights.median(len(taps), False, 0)
        new = (weights.mean, weights.values) != (base.mean, base.values)
        head = _pack_head(weights, new)
        self._weights[key] = weights
        if self._there is not None:
            return _Plane(head, weights.side, *self._there.model(levels, plan, taps))
        symbols, contexts = np.empty(levels.shape, np.uint8), np.empty(levels.shape, np.uint16)
        # The low bits of a sample are fewer than those of the largest symbol.
        most = max((2 * self._top + 1).bit_length() - 3, 0)
        self._bits.make_room(-(-levels.shape[0] // frames.lanes) * levels.shape[1] * most)
        found = symbols, contexts, self._counts[weights.side]
        of_plane = kernels.load("linear_closed" if tolerance else "linear_exact")
        streams = self._bits.words, self._bits.filled
        of_plane.model(levels, frames.planes, taps, plan, frames.classes, found, *streams)
        return _Plane(head, weights.side, symbols, contexts)

    def finish(self) -> tuple[dict[str, bytes], list[int]]:
        """Return the sections, and the bytes each frame took, in order."""
        if self._there is not None:
            return self._finish_there()
        tables, sides = build(self._counts, self._frames.energy_scale)
        slots = tables.encoder_slots()
        lanes = self._frames.lanes
        states = np.full(lanes, self._frames.linear.LOWEST, np.int64)
        pieces, heads, sizes = [], [], []
        while self._coded:  # what is coded is not kept: a chunk's symbols take more room than it
            size = 0
            for plane in reversed(self._coded.pop()):
                pieces.append(self._code(plane, tables, slots, states))
                heads.append(plane.head)
                size += len(plane.head) + sum(map(len, pieces[-1]))
            sizes.append(size)
        sizes.reverse()
        section = b"".join([pack(pieces, states, self._bits), *reversed(heads)])
        return self._finished({TABLES: tables.pack(sides), RESIDUALS: section}, sizes)

    def _finish_there(self) -> tuple[dict[str, bytes], list[int]]:
        counts, filled = self._there.counted()
        tables, sides = build(counts, self._frames.energy_scale)
        planes = [plane for frame in self._coded for plane in frame]
        work = self._there.coded(
            [(plane.symbols, plane.contexts, plane.side) for plane in planes],
            tables.of_context,
            tables.encoder_slots(),
            filled,
        )
        lanes = self._frames.lanes
        self._bits.words, self._bits.filled = work.bits[:lanes], filled[:lanes]
        words = [[lane.astype("<u2", copy=False).tobytes() for lane in work.words[:lanes]]]
        section = b"".join(
            [pack(words, work.states[:lanes], self._bits), *(p.head for p in planes)]
        )
        # Words and low bits where each frame ends.
        ends = [work.left[k].sum(axis=1) for k in range(0, len(planes), self._frames.shape[0])]
        ends = [*ends[1:], (sum(map(len, words[0])) // 2, filled.sum())]
        self._filled = [int(low) for _, low in ends]
        passed = np.diff([2 * int(count) for count, _ in ends], prepend=0).tolist()
        sizes = [
            size + sum(len(plane.head) for plane in frame)
            for size, frame in zip(passed, self._coded, strict=True)
        ]
        self._coded = []  # symbols take memory there as long as they are known here
        return self._finished({TABLES: tables.pack(sides), RESIDUALS: section}, sizes)

    def _finished(self, sections, sizes) -> tuple[dict[str, bytes], list[int]]:
        passed = np.diff(np.array(self._filled) >> 3, prepend=0).tolist()
        sizes = [size + low for size, low in zip(sizes, passed, strict=True)]
        sizes[0] += sum(map(len, sections.values())) - sum(sizes)
        return sections, sizes

    def _code(self, plane: _Plane, tables: Tables, slots, states) -> list[bytes]:
        """Words of a plane, of each lane; `states` go on from the planes behind it."""
        rows, width = plane.symbols.shape
        lanes = len(states)
        words = np.empty((lanes, -(-rows // lanes) * width + 1), np.uint16)
        places = np.full(lanes, words.shape[1], np.int64)
        of_context = tables.of_context[plane.side]
        self._kernels.rans_encode(
            plane.symbols, plane.contexts, of_context, slots, words, states, places
        )
        return [
            row[place:].astype("<u2", copy=False).tobytes()
            for row, place in zip(words, places, strict=True)
        ]


def _pack_head(weights: Weights, new: bool) -> bytes:
    flags = _NEW * new | _DRIFT * weights.drift | weights.side << _SIDE_SHIFT
    head = bytes([flags])
    if new:
        for number in (weights.mean, *weights.values):
            head += signed(number)
    return head


class LinearDecoder:
    """Decode the frames of one chunk, in order; the inverse of `LinearEncoder`.

    Parameters
    ----------
    sections : the payload's sections
    shape, scale : as for the encoder
    """

    place = "cpu"
    device = "cpu"

    def __init__(self, sections: dict[str, bytes], shape, scale):
        self._frames = _Frames(shape, scale)
        if TABLES not in sections:
            raise FormatError("the section of tables is missing, but the linear coder needs it")
        tables = Tables.unpack(sections[TABLES])
        self._frames.energy_scale = tables.scale
        self._of_context, self._slots = tables.of_context, tables.decoder_slots()
        if tables.frequencies.shape[1] > symbols_for(int(scale.top), 0):
            raise FormatError(
                f"tables of {tables.frequencies.shape[1]} symbols, but levels up to {scale.top} "
                f"need at most {symbols_for(int(scale.top), 0)}"
            )
        if RESIDUALS not in sections:
            raise FormatError("the section of residuals is missing, but the linear coder needs it")
        self._kernels = kernels.load("linear_decode")
        self._reader = Reader(sections[RESIDUALS])
        self._streams = Streams(self._reader, self._frames.lanes, shape[2])
        self._weights: dict[tuple[bool, int], Weights] = {}
        self._there: DeviceDecoder | None = None

    def keyframe(self, tolerances: np.ndarray) -> np.ndarray:
        """Reconstruct a keyframe: int32 (C, h, w)."""
        return self._frame(None, tolerances)

    def residual(self, prediction: np.ndarray, tolerances: np.ndarray) -> np.ndarray:
        """Reconstruct a predicted frame from its prediction: int32 (C, h, w)."""
        return self._frame(prediction, tolerances)

    def _frame(self, prediction, tolerances):
        if self.device == "cuda":
            if self._there is None:
                coder = self._of_context, self._slots, self._streams
                self._there = DeviceDecoder(self._frames.shape, *coder)
            self._there.begin(prediction)
        else:
            self._frames.begin(prediction)
        for channel, tolerance in enumerate(tolerances):
            self._plane(prediction is not None, channel, int(tolerance))
        if self._reader.exhausted and self._there is not None:
            self._there.close()  # that was the last one
        if self._reader.exhausted and not self._streams.ended:
            raise FormatError("a residual stream does not end where it should")
        return (self._there or self._frames).frame()

    def _plane(self, predicted, channel, tolerance):
        frames = self._frames
        weights = self._weights[predicted, channel] = self._head(self._reader, predicted, channel)
        plan = frames.plan(predicted, channel, tolerance)
        taps = frames.apply(weights, plan)
        coder = self._of_context[weights.side], self._slots
        streams = self._streams
        if self._there is not None:
            ended = self._there.decode(plan, taps)
        else:
            ended = self._kernels.decode(
                frames.planes,
                taps,
                plan,
                frames.classes,
                coder,
                streams.words,
                streams.bits,
                streams.places,
                streams.limits,
            )
        if ended:
            raise FormatError("a residual stream ends before its samples do")

    def _head(self, reader, predicted, channel) -> Weights:
        (flags,) = reader.take(1)
        side = flags >> _SIDE_SHIFT
        linear = self._frames.linear
        if (
            side >= SIDES
            or (side == linear.SIDE_BEFORE and not predicted)
            or (side == linear.SIDE_CHANNEL and not channel)
            or (flags & _DRIFT and not predicted)
        ):
            raise FormatError(f"flags {flags:#x} do not fit a plane of channel {channel}")
        count = len(taps_of(predicted, channel))
        if flags & _NEW:
            mean = reader.signed(_LARGEST_MEAN)
            values = tuple(reader.signed(32767) for _ in range(6 + count))
        else:
            last = self._weights.get((predicted, channel)) or Weights.median(count, False, 0)
            mean, values = last.mean, last.values
        return Weights(values, mean, bool(flags & _DRIFT), side)
