"""A chunk of the linear coder on the device: what its coders give the device to do, by planes."""

from __future__ import annotations

import numpy as np

from tezip_h5 import kernels

__all__ = ["DeviceDecoder", "DeviceEncoder"]


class _Chunk:
    """A chunk's place on the device, from its first frame on."""

    def __init__(self, shape, *begin):
        self._kernels = kernels.load("cuda_linear_chunks")
        self._lane = self._kernels.chunks().open(shape, *begin)
        self.close = self._kernels.chunks().closing(self, [self._lane])
        """Give the place back."""
        self._prediction: np.ndarray | None = None
        self._frame: np.ndarray | None = None

    def begin(self, prediction: np.ndarray | None) -> None:
        """Prepare for the next frame; `prediction` is that of a predicted one."""
        self._lane.turn += 1
        same = prediction is not None and self._frame is not None
        if same and np.array_equal(prediction, self._frame):
            prediction = None  # the device has it
        self._prediction = prediction
        self._frame = np.empty(self._lane.shape, np.int32)

    def _send_prediction(self, channel: int) -> bool:
        """Send the prediction of a plane, if the device lacks it; returns whether it did."""
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
    symbols : how many there may be
    """

    def __init__(self, shape, top: int, symbols: int):
        super().__init__(shape, symbols)
        self._wide = (2 * top + 1).bit_length() - 3 > kernels.load("cuda_linear_sample").ENTRY_BITS

    def bring(self, planes, channel: int, prediction: np.ndarray | None) -> None:
        """Bring to the host's planes what weights of a channel are learned from."""
        linear = kernels.load("linear")
        if prediction is not None:
            linear.surround(np.ascontiguousarray(prediction[channel]), planes[1][channel])
        for other in range(max(channel - 2, 0), channel):
            linear.surround(self._frame[other], planes[0][other])

    def model(self, levels: np.ndarray, plan: np.ndarray, taps: np.ndarray) -> tuple:
        """Predict and quantize a plane of levels, int32 (h, w); returns where its symbols are."""
        linear, slab = kernels.load("linear"), self._lane.slab
        channel = int(plan[linear.CHANNEL])
        predicted = self._send_prediction(channel)
        slab.send(self._lane, 0, levels)
        work = self._kernels.Modelling(self._lane, plan, taps, predicted, wide=self._wide)
        self._kernels.chunks().code([work])
        exact = not plan[linear.TOLERANCE]
        self._frame[channel] = levels if exact else slab.fetch(self._lane)
        return work.entries

    def counted(self) -> tuple[np.ndarray, np.ndarray]:
        """How often each symbol was found, int32 (sides, contexts, symbols), and how many low bits
        each stream has, int64 (streams,)."""
        return self._lane.slab.counted(self._lane)

    def coded(self, planes: list, tables: np.ndarray, slots: np.ndarray, filled: np.ndarray):
        """Code all symbols, see `cuda_linear_chunks.Coding`; the chunk is done with the device."""
        work = self._kernels.Coding(self._lane, planes, tables, slots, filled)
        self._kernels.chunks().code([work])
        self.close()
        return work


class DeviceDecoder(_Chunk):
    """The chunk of a decoder.

    Parameters
    ----------
    shape : (C, h, w)
    tables : uint8 (sides, contexts)
    slots : uint32, see `Tables.decoder_slots`
    streams : Streams, whose places go on
    """

    def __init__(self, shape, tables: np.ndarray, slots: np.ndarray, streams):
        super().__init__(shape, None, (tables, slots, streams))
        self._streams = streams

    def decode(self, plan: np.ndarray, taps: np.ndarray) -> bool:
        """Decode a plane; returns whether a stream ended before its samples did."""
        channel = int(plan[kernels.load("linear").CHANNEL])
        work = self._kernels.Decoding(self._lane, plan, taps, self._send_prediction(channel))
        self._kernels.chunks().code([work])
        self._frame[channel] = self._lane.slab.fetch(self._lane)
        self._streams.places[:] = work.places
        return bool((work.places[1:] > self._streams.limits).any())
