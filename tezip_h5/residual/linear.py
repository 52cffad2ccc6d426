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
from tezip_h5.residual.linear_tables import SIDES, Tables, build, symbols_for
from tezip_h5.residual.linear_weights import ONE, Fitter, Weights, taps_of

__all__ = ["LinearDecoder", "LinearEncoder"]

RESIDUALS, TABLES = "residuals", "tables"

_NEW, _DRIFT, _SIDE_SHIFT = 1, 2, 2  # of a plane's flags
_LOUD = 40  # mean magnitude of symbols that energies can hold
# Samples that weights serve before others are learned, by whether samples are exact. Then weights
# need only follow the scene; in a closed loop they follow what it does to its own predictions.
_RELEARNED = {True: 1 << 19, False: 1 << 16}
_LARGEST_MEAN = 1 << 33
_MOST = 1 << 40  # words or bits of a stream


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
    """One coded plane, before its symbols are."""

    head: bytes
    side: int
    symbols: np.ndarray
    contexts: np.ndarray


class LinearEncoder:
    """Encode the frames of one chunk; parameters as for `StageEncoder`."""

    learns = False
    place = "cpu"

    def __init__(self, shape, scale, settings, quantizer="uniform", guided=False):
        self._frames = _Frames(shape, scale)
        self._top = int(scale.top)
        self._kernels = kernels.load("linear_encode")
        self._fitter = Fitter()
        self._weights: dict[tuple[bool, int], Weights] = {}
        self._passed: dict[tuple[bool, int], int] = {}  # samples since they were learned
        self._counts = None
        self._coded: list[list[_Plane]] = []
        # The low bits of every lane, in words; how many there are, and were after each frame.
        self._bits = np.zeros((self._frames.lanes, 0), np.uint32)
        self._filled = np.zeros(self._frames.lanes, np.int64)
        self._filled_by: list[int] = []

    def keyframe(self, levels: np.ndarray, tolerances: np.ndarray) -> np.ndarray:
        """Code a frame from itself; returns its reconstruction, int32 (C, h, w)."""
        return self._frame(levels, None, tolerances)

    def residual(self, levels, prediction, tolerances) -> np.ndarray:
        """Code a frame given its prediction; returns its reconstruction, int32 (C, h, w)."""
        return self._frame(levels, prediction, tolerances)

    def _frame(self, levels, prediction, tolerances):
        self._frames.begin(prediction)
        planes = [
            self._plane(
                np.ascontiguousarray(plane), prediction is not None, channel, int(tolerance)
            )
            for channel, (plane, tolerance) in enumerate(zip(levels, tolerances, strict=True))
        ]
        self._coded.append(planes)
        self._filled_by.append(int(self._filled.sum()))
        return self._frames.frame()

    def _plane(self, levels, predicted, channel, tolerance):
        frames, linear = self._frames, self._frames.linear
        plan = frames.plan(predicted, channel, tolerance)
        key = predicted, channel
        last = self._weights.get(key)
        side = linear.SIDE_CHANNEL if channel else linear.SIDE_OWN
        weights, size = last, 0.0
        self._passed[key] = self._passed.get(key, 0) + levels.size
        enough = _RELEARNED[tolerance == 0]
        if last is None or self._passed[key] >= enough:
            weights, size = self._fitter.choose(levels, frames.planes, plan, last, side)
            # The first weights of a chunk come from few samples: others follow at once.
            self._passed[key] = 0 if last is not None else enough
        if self._counts is None:
            frames.energy_scale = min(max(int(np.ceil(np.log2(max(size, 1) / _LOUD))), 0), 31)
            symbols = symbols_for(self._top, 0)
            self._counts = np.zeros((SIDES, linear.CONTEXTS, symbols), np.int32)
        taps = frames.apply(weights, plan)
        base = last or Weights.median(len(taps), False, 0)
        new = (weights.mean, weights.values) != (base.mean, base.values)
        head = _pack_head(weights, new)
        self._weights[key] = weights
        symbols, contexts = np.empty(levels.shape, np.uint8), np.empty(levels.shape, np.uint16)
        self._make_room(levels.shape)
        found = symbols, contexts, self._counts[weights.side]
        of_plane = kernels.load("linear_closed" if tolerance else "linear_exact")
        of_plane.model(
            levels, frames.planes, taps, plan, frames.classes, found, self._bits, self._filled
        )
        return _Plane(head, weights.side, symbols, contexts)

    def _make_room(self, shape: tuple[int, int]) -> None:
        """See to it that the low bits of another plane find a place."""
        height, width = shape
        # The low bits of a sample are fewer than those of the largest symbol.
        most = max((2 * self._top + 1).bit_length() - 3, 0)
        rows = -(-height // self._frames.lanes)
        needed = (int(self._filled.max()) + rows * width * most >> 5) + 2
        held = self._bits.shape[1]
        if needed > held:
            more = max(needed, held + held // 2) - held
            self._bits = np.pad(self._bits, ((0, 0), (0, more)))

    def finish(self) -> tuple[dict[str, bytes], list[int]]:
        """Return the sections, and the bytes each frame took, in order."""
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
        # A stream begins with the state that is left.
        pieces.append([int(state).to_bytes(4, "little") for state in states])
        words = [b"".join(parts) for parts in zip(*reversed(pieces), strict=True)]
        stored = self._bits.astype("<u4", copy=False)
        bits = [
            row[: (count >> 5) + 1].tobytes()[: -(-count // 8)]
            for row, count in zip(stored, self._filled.tolist(), strict=True)
        ]
        numbers = b"".join(
            _varint(len(lane) // 2) + _varint(count)
            for lane, count in zip(words, self._filled.tolist(), strict=True)
        )
        section = b"".join([numbers, *words, *bits, *reversed(heads)])
        sections = {TABLES: tables.pack(sides), RESIDUALS: section}
        passed = np.diff(np.array(self._filled_by) >> 3, prepend=0).tolist()
        sizes = [size + low for size, low in zip(sizes, passed, strict=True)]
        sizes[0] += len(sections[TABLES]) + len(section) - sum(sizes)
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


def _varint(number: int) -> bytes:
    """LEB128: seven bits a byte, low ones first, the top bit where more follow."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _pack_head(weights: Weights, new: bool) -> bytes:
    flags = _NEW * new | _DRIFT * weights.drift | weights.side << _SIDE_SHIFT
    head = bytes([flags])
    if new:
        for number in (weights.mean, *weights.values):
            head += _varint(number << 1 ^ number >> 63)
    return head


class _Reader:
    """Bytes of a section, taken from its front."""

    def __init__(self, data: bytes):
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        if len(piece) != count:
            raise FormatError(f"a residual stream ends {count - len(piece)} bytes too early")
        self._at += count
        return piece

    @property
    def exhausted(self) -> bool:
        """Whether all has been taken."""
        return self._at == len(self._data)

    def varint(self, limit: int) -> int:
        """A number up to `limit`."""
        number = shift = 0
        while True:
            (byte,) = self.take(1)
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
            if shift > 63:
                raise FormatError("a number of a residual stream has more than 10 bytes")
        if number > limit:
            raise FormatError(f"a number of a residual stream is {number}; at most {limit}")
        return number

    def signed(self, limit: int) -> int:
        """A number from -limit to limit."""
        folded = self.varint(2 * limit)
        return folded >> 1 ^ -(folded & 1)


class LinearDecoder:
    """Decode the frames of one chunk, in order; the inverse of `LinearEncoder`.

    Parameters
    ----------
    sections : the payload's sections
    shape, scale : as for the encoder
    """

    place = "cpu"

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
        self._reader = _Reader(sections[RESIDUALS])
        self._open()
        self._weights: dict[tuple[bool, int], Weights] = {}
        self._passed: dict[tuple[bool, int], int] = {}  # samples since they were learned

    def _open(self) -> None:
        """Read the streams, one of each lane."""
        reader, (_, _, width) = self._reader, self._frames.shape
        words, bits = [], []
        numbers = [(reader.varint(_MOST), reader.varint(_MOST)) for _ in range(self._frames.lanes)]
        # A row may be read behind the end of a stream before it is noticed.
        for count, _ in numbers:
            words.append(_padded(reader.take(2 * count), "<u2", width + 2))
        for _, count in numbers:
            bits.append(_padded(reader.take(-(-count // 8)), "<u4", width + 3))
        counts, low = np.array(numbers, np.int64).T
        if counts.min() < 2:
            raise FormatError("a residual stream is too short to begin")
        first = np.array([int(lane[0]) | int(lane[1]) << 16 for lane in words], np.int64)
        if first.min() < self._frames.linear.LOWEST:
            raise FormatError("a residual stream begins in a state that does not occur")
        places, bit_places = (_starts(streams) for streams in (words, bits))
        # The state of every lane, and where it reads on.
        self._lanes = np.stack([first, places + 2, 32 * bit_places])
        self._limits = np.stack([places + counts, 32 * bit_places + low])
        self._words, self._bits = np.concatenate(words), np.concatenate(bits)

    def keyframe(self, tolerances: np.ndarray) -> np.ndarray:
        """Reconstruct a keyframe: int32 (C, h, w)."""
        return self._frame(None, tolerances)

    def residual(self, prediction: np.ndarray, tolerances: np.ndarray) -> np.ndarray:
        """Reconstruct a predicted frame from its prediction: int32 (C, h, w)."""
        return self._frame(prediction, tolerances)

    def _frame(self, prediction, tolerances):
        self._frames.begin(prediction)
        for channel, tolerance in enumerate(tolerances):
            self._plane(prediction is not None, channel, int(tolerance))
        if self._reader.exhausted:
            whole = (self._lanes[1:] == self._limits).all()
            if not whole or (self._lanes[0] != self._frames.linear.LOWEST).any():
                raise FormatError("a residual stream does not end where it should")
        return self._frames.frame()

    def _plane(self, predicted, channel, tolerance):
        frames = self._frames
        weights = self._weights[predicted, channel] = self._head(self._reader, predicted, channel)
        plan = frames.plan(predicted, channel, tolerance)
        taps = frames.apply(weights, plan)
        coder = self._of_context[weights.side], self._slots
        streams = self._words, self._bits, self._lanes, self._limits
        if self._kernels.decode(frames.planes, taps, plan, frames.classes, coder, *streams):
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


def _starts(streams: list[np.ndarray]) -> np.ndarray:
    """Where each begins when they lie one behind the other."""
    sizes = [stream.size for stream in streams]
    return np.cumsum([0, *sizes[:-1]])


def _padded(data: bytes, dtype: str, more: int) -> np.ndarray:
    """The numbers in `data`, in native byte order, and `more` zeros (one at least)."""
    size = np.dtype(dtype).itemsize
    data += bytes(-len(data) % size + size * more)
    return np.frombuffer(data, dtype).astype(np.dtype(dtype).newbyteorder("="), copy=True)
