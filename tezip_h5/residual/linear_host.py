"""A chunk of the linear coder on the CPU: its frames, symbols and streams.

`linear_device` has the same classes for the GPU.
"""

from __future__ import annotations

import numpy as np

from tezip_h5 import kernels
from tezip_h5.residual.linear_streams import Bits, Coded, Streams
from tezip_h5.residual.linear_tables import SIDES, Tables, symbols_for

__all__ = ["HostDecoder", "HostEncoder", "no_planes"]


def no_planes(shape) -> tuple[np.ndarray, ...]:
    """Empty planes for the start of a chunk, int32 (C, h + 3, w + 4): this frame, the frame before,
    and the magnitudes of the symbols of both."""
    channels, height, width = shape
    return tuple(np.zeros((channels, height + 3, width + 4), np.int32) for _ in range(4))


class _Chunk:
    """The planes of a chunk."""

    def __init__(self, shape):
        self._linear = kernels.load("linear.plan")
        self._planes = no_planes(shape)
        self._last: np.ndarray | None = None  # the last frame that was returned
        energies = np.arange(self._linear.WIDEST + 1)
        octaves = np.maximum(np.frexp(energies)[1] - 1, 1)
        halves = 2 * octaves + ((energies >> (octaves - 1)) & 1)
        classes = np.where(energies < 4, energies, halves)
        # For each value of the activity, the first context of its class.
        contexts = self._linear.PATTERNS * self._linear.FRACTIONS
        self._classes = (classes * contexts).astype(np.uint16)

    def begin(self, prediction: np.ndarray | None) -> None:
        """Prepare for the next frame; `prediction` is that of a predicted one."""
        frame, before, magnitudes, earlier = self._planes
        if prediction is not None and prediction is self._last:  # its planes exist already
            frame, before = before, frame
        elif prediction is not None:
            for plane, expected in zip(before, prediction, strict=True):
                self._linear.surround(np.ascontiguousarray(expected), plane)
        self._planes = frame, before, earlier, magnitudes

    def frame(self) -> np.ndarray:
        """The frame: int32 (C, h, w). It may be overwritten when a frame is coded that it does not
        predict."""
        self._last = self._planes[0][:, 2:-1, 2:-2]
        return self._last

    def close(self) -> None:
        """Do nothing: there is no memory of a device to release."""


class HostEncoder(_Chunk):
    """The chunk of an encoder.

    Parameters
    ----------
    shape : (C, h, w)
    top : largest level
    """

    def __init__(self, shape, top: int):
        super().__init__(shape)
        self._bits = Bits(min(self._linear.LANES, shape[1]))
        self._symbols: list[tuple[np.ndarray, np.ndarray]] = []  # and contexts, of each plane
        self._filled: list[int] = []  # low bits after each
        self._counts = np.zeros((SIDES, self._linear.CONTEXTS, symbols_for(top, 0)), np.int32)
        # The low bits of a sample are fewer than those of the largest symbol.
        self._most_bits = max((2 * top + 1).bit_length() - 3, 0)

    def frame(self) -> np.ndarray:
        """The frame: int32 (C, h, w), contiguous, for the comparison with the original."""
        self._last = super().frame().copy()
        return self._last

    def known(self, channel: int) -> tuple[np.ndarray, ...]:
        """The planes from which weights of a channel are learned."""
        return self._planes

    def model(self, levels: np.ndarray, plan: np.ndarray, taps: np.ndarray) -> None:
        """Predict and quantize a plane of levels, int32 (h, w), and count its symbols."""
        lanes, (height, width) = len(self._bits.filled), levels.shape
        symbols, contexts = np.empty(levels.shape, np.uint8), np.empty(levels.shape, np.uint16)
        self._bits.make_room(-(-height // lanes) * width * self._most_bits)
        found = symbols, contexts, self._counts[plan[self._linear.SIDE]]
        closed = plan[self._linear.CLOSED]
        kernels.load("linear.closed" if closed else "linear.exact").model(
            levels,
            self._planes,
            taps,
            plan,
            self._classes,
            found,
            self._bits.words,
            self._bits.filled,
        )
        self._symbols.append((symbols, contexts))
        self._filled.append(int(self._bits.filled.sum()))

    def counts(self) -> np.ndarray:
        """How often each symbol was found: int32 (SIDES, contexts, symbols)."""
        return self._counts

    def code(self, sides: list[int], tables: Tables) -> Coded:
        """Code all symbols; `sides` are those of the planes. It can be done once."""
        lanes = len(self._bits.filled)
        states = np.full(lanes, self._linear.LOWEST, np.int64)
        slots, pieces = tables.encoder_slots(), []
        for side in reversed(sides):
            # Coded symbols are dropped: those of a chunk take more memory than its samples.
            of_context = tables.of_context[side]
            pieces.append(_words(*self._symbols.pop(), of_context, slots, states))
        pieces.reverse()
        words = [b"".join(lane) for lane in zip(*pieces, strict=True)]
        taken = [sum(map(len, piece)) // 2 for piece in pieces]
        low = np.diff(self._filled, prepend=0).tolist()
        return Coded(words, states, self._bits, taken, low)


def _words(symbols, contexts, of_context, slots, states) -> list[bytes]:
    """The words of a plane, for each lane; `states` continue from the planes after it, because
    rANS encodes backwards."""
    (rows, width), lanes = symbols.shape, len(states)
    words = np.empty((lanes, -(-rows // lanes) * width + 1), np.uint16)
    places = np.full(lanes, words.shape[1], np.int64)
    coder = kernels.load("linear.rans")
    coder.rans_encode(symbols, contexts, of_context, slots, words, states, places)
    return [
        row[place:].astype("<u2", copy=False).tobytes()
        for row, place in zip(words, places, strict=True)
    ]


class HostDecoder(_Chunk):
    """The chunk of a decoder.

    Parameters
    ----------
    shape : (C, h, w)
    tables : Tables
    streams : Streams, whose positions are advanced
    """

    def __init__(self, shape, tables: Tables, streams: Streams):
        super().__init__(shape)
        self._kernels = kernels.load("linear.decode")
        self._of_context, self._slots = tables.of_context, tables.decoder_slots()
        self._streams = streams

    def decode(self, plan: np.ndarray, taps: np.ndarray) -> bool:
        """Decode a plane; returns whether a stream ended before its samples did."""
        streams = self._streams
        coder = self._of_context[plan[self._linear.SIDE]], self._slots
        return self._kernels.decode(
            self._planes,
            taps,
            plan,
            self._classes,
            coder,
            streams.words,
            streams.bits,
            streams.places,
            streams.limits,
        )
