"""A chunk of the linear coder on the GPU, plane by plane (a plane is one channel of a frame).

`linear_host` has the same classes for the CPU.
"""

from __future__ import annotations

import numpy as np

from tezip_h5 import kernels
from tezip_h5.residual.linear_host import no_planes
from tezip_h5.residual.linear_streams import Bits, Coded, Streams
from tezip_h5.residual.linear_tables import Tables, symbols_for

__all__ = ["DeviceDecoder", "DeviceEncoder"]


class _Chunk:
    """A chunk on the device; it takes memory there from its first frame on."""

    def __init__(self, shape, *begin):
        self._kernels = kernels.load("cuda.linear.chunks")
        self._lane = self._kernels.chunks().open(shape, *begin)
        self.close = self._kernels.chunks().closing(self, [self._lane])
        """Release the memory."""
        self._prediction: np.ndarray | None = None
        self._frame: np.ndarray | None = None

    def begin(self, prediction: np.ndarray | None) -> None:
        """Prepare for the next frame; `prediction` is that of a predicted one."""
        self._lane.turn += 1
        same = prediction is not None and self._frame is not None
        if same and np.array_equal(prediction, self._frame):
            prediction = None  # the device has it already
        self._prediction = prediction
        self._frame = np.empty(self._lane.shape, np.int32)

    def _send_prediction(self, channel: int) -> bool:
        """Send the prediction of a plane, unless the device has it; returns whether it was sent."""
        if self._prediction is None:
            return False
        self._lane.slab.send(self._lane, 1, self._prediction[channel])
        return True

    def frame(self) -> np.ndarray:
        """The frame: int32 (C, h, w)."""
        return self._frame.copy()


class DeviceEncoder(_Chunk):
    """The chunk of an encoder; symbols and contexts stay on the device.

    Parameters
    ----------
    shape : (C, h, w)
    top : largest level
    """

    def __init__(self, shape, top: int):
        super().__init__(shape, symbols_for(top, 0))
        self._known = no_planes(shape)
        self._symbols: list[tuple] = []  # where those of each plane are
        self._wide = (2 * top + 1).bit_length() - 3 > kernels.load("cuda.linear.sample").ENTRY_BITS

    def begin(self, prediction: np.ndarray | None) -> None:
        super().begin(prediction)
        self._expected = prediction

    def known(self, channel: int) -> tuple[np.ndarray, ...]:
        """The planes, as `HostEncoder` has them, from which weights of a channel are learned."""
        linear = kernels.load("linear.plan")
        if self._expected is not None:
            expected = np.ascontiguousarray(self._expected[channel])
            linear.surround(expected, self._known[1][channel])
        for other in range(max(channel - 2, 0), channel):
            linear.surround(self._frame[other], self._known[0][other])
        return self._known

    def model(self, levels: np.ndarray, plan: np.ndarray, taps: np.ndarray) -> None:
        """Predict and quantize a plane of levels, int32 (h, w), and count its symbols."""
        linear, slab = kernels.load("linear.plan"), self._lane.slab
        channel = int(plan[linear.CHANNEL])
        predicted = self._send_prediction(channel)
        slab.send(self._lane, 0, levels)
        work = self._kernels.Modelling(self._lane, plan, taps, predicted, wide=self._wide)
        self._kernels.chunks().code([work])
        self._frame[channel] = slab.fetch(self._lane) if plan[linear.CLOSED] else levels
        self._symbols.append(work.entries)

    def counts(self) -> np.ndarray:
        """How often each symbol was found: int32 (SIDES, contexts, symbols)."""
        return self._lane.slab.counts_of(self._lane)

    def code(self, sides: list[int], tables: Tables) -> Coded:
        """Code all symbols; `sides` are those of the planes. This releases the device's memory."""
        planes = [(*where, side) for where, side in zip(self._symbols, sides, strict=True)]
        bits = Bits(min(kernels.load("linear.plan").LANES, self._lane.shape[1]))
        lanes = len(bits.filled)
        filled = self._lane.slab.filled_of(self._lane)
        coder = tables.of_context, tables.encoder_slots()
        work = self._kernels.Coding(self._lane, planes, *coder, filled)
        self._kernels.chunks().code([work])
        self.close()
        self._symbols = []  # they take memory there as long as they are known here
        bits.words, bits.filled = work.bits[:lanes], filled[:lanes]
        words = [lane.astype("<u2", copy=False).tobytes() for lane in work.words[:lanes]]
        ends = [sum(map(len, words)) // 2, int(filled.sum())]
        before = [*work.left.sum(axis=2).tolist(), ends]
        taken, low = np.diff(before, axis=0).T.tolist()
        return Coded(words, work.states[:lanes], bits, taken, low)


class DeviceDecoder(_Chunk):
    """The chunk of a decoder.

    Parameters
    ----------
    shape : (C, h, w)
    tables : Tables
    streams : Streams, whose positions are advanced
    """

    def __init__(self, shape, tables: Tables, streams: Streams):
        super().__init__(shape, None, (tables.of_context, tables.decoder_slots(), streams))
        self._streams = streams

    def decode(self, plan: np.ndarray, taps: np.ndarray) -> bool:
        """Decode a plane; returns whether a stream ended before its samples did."""
        channel = int(plan[kernels.load("linear.plan").CHANNEL])
        work = self._kernels.Decoding(self._lane, plan, taps, self._send_prediction(channel))
        self._kernels.chunks().code([work])
        self._frame[channel] = self._lane.slab.fetch(self._lane)
        self._streams.places[:] = work.places
        return bool((work.places[1:] > self._streams.limits).any())
