"""The linear coder, for acquisition: transmitted weights, static contexts, rANS.

Every sample is predicted by a weighted sum of its neighbours in this frame, in the frame
that the predictor expects, and in the channels before it; the weights come from the encoder.
The quantized residual is coded with a table chosen by how large the symbols around it were
and by how the neighbours compare with the prediction. Nothing adapts while decoding, so a
sample takes a few nanoseconds. FORMAT.md, chapter 8, has the details.
"""

from __future__ import annotations

import numpy as np

from tezip_h5 import kernels
from tezip_h5.errors import FormatError
from tezip_h5.kernels.sizes import LANES
from tezip_h5.residual import linear_streams
from tezip_h5.residual.linear_device import DeviceDecoder, DeviceEncoder
from tezip_h5.residual.linear_host import HostDecoder, HostEncoder
from tezip_h5.residual.linear_plan import Planner
from tezip_h5.residual.linear_streams import Reader, Streams, signed
from tezip_h5.residual.linear_tables import SIDES, Tables, build, symbols_for
from tezip_h5.residual.linear_weights import Fitter, Weights, taps_of

__all__ = ["LinearDecoder", "LinearEncoder"]

RESIDUALS, TABLES = "residuals", "tables"

_NEW, _DRIFT, _SIDE_SHIFT, _SIDE_MASK, _FLAT = 1, 2, 2, 3, 16  # flags in the head of a plane
_LOUD = 40  # symbols with a larger mean magnitude are scaled down for the contexts
_LARGEST_MEAN = 1 << 33


class LinearEncoder:
    """Encode the frames of one chunk; parameters as for `StageEncoder`.

    With `flat` no plane is predicted: cells are counted from the lowest level, and the neighbours
    of a sample only choose its table. That suits skewed noise, such as that of a photomultiplier,
    which has a sharp lower end and a long upper tail.

    With the device "cuda" samples are predicted, counted and coded there, together with those of
    other chunks; weights and tables are found here.
    """

    learns = False
    place = "cpu"
    device = "cpu"

    def __init__(self, shape, scale, settings, quantizer="uniform", guided=False, flat=False):
        self._shape, self._top, self._flat = shape, int(scale.top), flat
        self._linear = kernels.load("linear.plan")
        self._planner, self._fitter = Planner(scale), Fitter()
        self._weights: dict[tuple[bool, int], Weights] = {}
        self._heads: list[bytes] = []  # of planes
        self._sides: list[int] = []
        self._chunk: HostEncoder | DeviceEncoder | None = None

    def keyframe(self, levels: np.ndarray, tolerances: np.ndarray, free=None) -> np.ndarray:
        """Code a keyframe; returns its reconstruction, int32 (C, h, w).

        `free`, bool of that shape, marks holes, whose samples the coder may choose.
        """
        return self._frame(levels, None, tolerances, free)

    def residual(self, levels, prediction, tolerances, free=None) -> np.ndarray:
        """Code a frame given its prediction; returns its reconstruction, int32 (C, h, w)."""
        return self._frame(levels, prediction, tolerances, free)

    def _frame(self, levels, prediction, tolerances, free):
        if self._planner.low < 0:  # all numbers are levels, so none is left to mark a hole
            free = None
        if self._chunk is None:
            make = DeviceEncoder if self.device == "cuda" else HostEncoder
            self._chunk = make(self._shape, self._top)
        self._chunk.begin(prediction)
        for channel, (plane, tolerance) in enumerate(zip(levels, tolerances, strict=True)):
            plan = self._planner.begin(prediction is not None, channel, int(tolerance))
            of_plane = None if free is None or not free[channel].any() else free[channel]
            self._plane(np.ascontiguousarray(plane), plan, of_plane)
        return self._chunk.frame()

    def _plane(self, levels, plan, free):
        linear = self._linear
        key = predicted, channel = bool(plan[linear.PREDICTED]), int(plan[linear.CHANNEL])
        last = self._weights.get(key)
        weights, size = last, 0.0
        side = linear.SIDE_CHANNEL if channel else linear.SIDE_OWN
        if self._flat:
            side = linear.SIDE_BEFORE if predicted else side
            weights = Weights.none(len(taps_of(predicted, channel)), self._planner.low, side)
            size = levels.mean(dtype=np.float64) / (2 * plan[linear.TOLERANCE] + 1)
        elif self._fitter.due(levels.size, plan):
            known = self._chunk.known(channel)
            weights, size = self._fitter.choose(levels, known, plan, last, side)
        if not self._heads:
            wanted = int(np.ceil(np.log2(max(size, 1) / _LOUD)))
            self._planner.energy_scale = min(max(wanted, 0), 31)
        plan[linear.CLOSED] = plan[linear.TOLERANCE] > 0 or free is not None
        if free is not None:
            levels = np.where(free, np.int32(self._planner.low - 1), levels)
        self._chunk.model(levels, plan, self._planner.apply(weights, plan))
        base = last or Weights.median(len(taps_of(predicted, channel)), False, 0)
        new = not self._flat and (weights.mean, weights.values) != (base.mean, base.values)
        self._heads.append(_pack_head(weights, new))
        self._sides.append(weights.side)
        self._weights[key] = weights

    def finish(self) -> tuple[dict[str, bytes], list[int]]:
        """Return the sections, and the bytes each frame took, in order."""
        tables, used = build(self._chunk.counts(), self._planner.energy_scale)
        coded = self._chunk.code(self._sides, tables)
        sections = {
            TABLES: tables.pack(used),
            RESIDUALS: b"".join([coded.pack(), *self._heads]),
        }
        heads = [len(head) for head in self._heads]
        of_planes = np.stack([coded.taken, coded.low, heads]).reshape(3, -1, self._shape[0])
        words, low, heads = of_planes.sum(axis=2)
        low = np.diff(np.cumsum(low) >> 3, prepend=0)
        sizes = (2 * words + low + heads).tolist()
        sizes[0] += sum(map(len, sections.values())) - sum(sizes)
        return sections, sizes


def _pack_head(weights: Weights, new: bool) -> bytes:
    flags = _NEW * new | _DRIFT * weights.drift | weights.side << _SIDE_SHIFT
    flags |= _FLAT * weights.flat
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
        self._shape, self._planner = shape, Planner(scale)
        self._linear = kernels.load("linear.plan")
        if TABLES not in sections:
            raise FormatError("the section of tables is missing, but the linear coder needs it")
        self._tables = Tables.unpack(sections[TABLES])
        self._planner.energy_scale = self._tables.scale
        if self._tables.frequencies.shape[1] > symbols_for(int(scale.top), 0):
            raise FormatError(
                f"tables of {self._tables.frequencies.shape[1]} symbols, but levels up to "
                f"{scale.top} need at most {symbols_for(int(scale.top), 0)}"
            )
        if RESIDUALS not in sections:
            raise FormatError("the section of residuals is missing, but the linear coder needs it")
        self._reader = Reader(sections[RESIDUALS])
        self._streams = Streams(self._reader, min(LANES, shape[1]), shape[2])
        self._weights: dict[tuple[bool, int], Weights] = {}
        self._chunk: HostDecoder | DeviceDecoder | None = None

    @staticmethod
    def parts(name: str, data: bytes, shape) -> dict[str, int]:
        """Number of bytes of each part of the section `name`; FormatError if it is not valid."""
        if name == TABLES:
            return {"contexts and frequencies": len(data)}
        if name != RESIDUALS:
            raise FormatError(f"the linear coder has no section of {name}")
        return linear_streams.parts(data, min(LANES, shape[1]))

    def keyframe(self, tolerances: np.ndarray) -> np.ndarray:
        """Reconstruct a keyframe: int32 (C, h, w)."""
        return self._frame(None, tolerances)

    def residual(self, prediction: np.ndarray, tolerances: np.ndarray) -> np.ndarray:
        """Reconstruct a predicted frame from its prediction: int32 (C, h, w)."""
        return self._frame(prediction, tolerances)

    def _frame(self, prediction, tolerances):
        if self._chunk is None:
            make = DeviceDecoder if self.device == "cuda" else HostDecoder
            self._chunk = make(self._shape, self._tables, self._streams)
        self._chunk.begin(prediction)
        for channel, tolerance in enumerate(tolerances):
            predicted = prediction is not None
            weights = self._head(predicted, channel)
            if not weights.flat:
                self._weights[predicted, channel] = weights
            plan = self._planner.begin(predicted, channel, int(tolerance))
            if self._chunk.decode(plan, self._planner.apply(weights, plan)):
                raise FormatError("a residual stream ends before its samples do")
        frame = self._chunk.frame()
        if self._reader.exhausted:  # that was the last one
            self._chunk.close()
        return frame

    def finish(self) -> None:
        """FormatError unless all streams ended with the last frame."""
        if not self._reader.exhausted or not self._streams.ended:
            raise FormatError("a residual stream does not end where it should")

    def _head(self, predicted, channel) -> Weights:
        reader, linear = self._reader, self._linear
        (flags,) = reader.take(1)
        side = flags >> _SIDE_SHIFT & _SIDE_MASK
        if (
            flags >= 2 * _FLAT
            or side >= SIDES
            or (side == linear.SIDE_BEFORE and not predicted)
            or (side == linear.SIDE_CHANNEL and not channel)
            or (flags & _DRIFT and not predicted)
            or (flags & _FLAT and flags & (_NEW | _DRIFT))
        ):
            raise FormatError(f"flags {flags:#x} do not fit a plane of channel {channel}")
        count = len(taps_of(predicted, channel))
        if flags & _FLAT:
            return Weights.none(count, self._planner.low, side)
        if flags & _NEW:
            mean = reader.signed(_LARGEST_MEAN)
            values = tuple(reader.signed(32767) for _ in range(6 + count))
        else:
            last = self._weights.get((predicted, channel)) or Weights.median(count, False, 0)
            mean, values = last.mean, last.values
        return Weights(values, mean, bool(flags & _DRIFT), side)
