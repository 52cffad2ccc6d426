"""Streams of the linear coder: of each lane one of words and one of bits, through a whole chunk.

FORMAT.md, 8.2: their sizes, the words of all, the bits of all, then the heads of planes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tezip_h5 import kernels
from tezip_h5.errors import FormatError

__all__ = ["Bits", "Coded", "Reader", "Streams", "parts", "signed", "varint"]

_MOST = 1 << 40  # words or bits of a stream


def varint(number: int) -> bytes:
    """LEB128: seven bits a byte, low ones first, the top bit where more follow."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def signed(number: int) -> bytes:
    """A number of 64 bits that may be negative."""
    return varint(number << 1 ^ number >> 63)


class Reader:
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
    def taken(self) -> int:
        """How many bytes have been taken."""
        return self._at

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


class Bits:
    """The low bits of every lane, as they are found.

    Attributes
    ----------
    words : uint32 (lanes, n), zero where no bits are yet
    filled : int64 (lanes,), how many bits there are
    """

    def __init__(self, lanes: int):
        self.words = np.zeros((lanes, 0), np.uint32)
        self.filled = np.zeros(lanes, np.int64)

    def make_room(self, count: int) -> None:
        """See to it that `count` bits more find a place in each lane."""
        needed = (int(self.filled.max()) + count >> 5) + 2
        held = self.words.shape[1]
        if needed > held:
            more = max(needed, held + held // 2) - held
            self.words = np.pad(self.words, ((0, 0), (0, more)))

    def streams(self) -> list[tuple[bytes, int]]:
        """What there is of each lane, and its number of bits."""
        stored = self.words.astype("<u4", copy=False)
        return [
            (row[: (count >> 5) + 1].tobytes()[: -(-count // 8)], count)
            for row, count in zip(stored, self.filled.tolist(), strict=True)
        ]


@dataclass
class Coded:
    """The streams of a chunk.

    Attributes
    ----------
    words : bytes of every lane
    states : int64 (lanes,), what rANS was left in, with which decoding begins
    bits : Bits
    taken, low : of every plane, how many words and how many low bits
    """

    words: list[bytes]
    states: np.ndarray
    bits: Bits
    taken: list[int]
    low: list[int]

    def pack(self) -> bytes:
        """As the section of residuals begins."""
        begins = [int(state).to_bytes(4, "little") for state in self.states]
        words = [begin + rest for begin, rest in zip(begins, self.words, strict=True)]
        low = self.bits.streams()
        sizes = [
            varint(len(lane) // 2) + varint(count)
            for lane, (_, count) in zip(words, low, strict=True)
        ]
        return b"".join([*sizes, *words, *(data for data, _ in low)])


def _streams(reader: Reader, lanes: int):
    """Of every lane: how many words and bits it has; its words; its bits. Heads are left."""
    numbers = [(reader.varint(_MOST), reader.varint(_MOST)) for _ in range(lanes)]
    words = [reader.take(2 * n) for n, _ in numbers]
    return numbers, words, [reader.take(-(-n // 8)) for _, n in numbers]


def parts(data: bytes, lanes: int) -> dict[str, int]:
    """What the bytes of the section of residuals are, by name.

    Raises
    ------
    FormatError
        When its streams do not lie in it.
    """
    reader = Reader(data)
    _, words, bits = _streams(reader, lanes)
    of_words, of_bits = sum(map(len, words)), sum(map(len, bits))
    return {
        "sizes of streams": reader.taken - of_words - of_bits,
        "symbols, rANS": of_words,
        "low bits of symbols": of_bits,
        "weights": len(data) - reader.taken,
    }


class Streams:
    """The streams of a chunk, to be decoded plane after plane; the inverse of `Coded.pack`.

    Parameters
    ----------
    reader : Reader
    lanes : int
    width : int
        Samples of a row: so many may be read behind a stream's end before it is noticed.

    Attributes
    ----------
    words, bits : uint16 and uint32 arrays, lane after lane
    places : int64 (3, lanes), the state of each lane, where its words and its bits go on
    limits : int64 (2, lanes), where its words and bits end
    """

    def __init__(self, reader: Reader, lanes: int, width: int):
        numbers, words, bits = _streams(reader, lanes)
        words = [_padded(lane, "<u2", width + 2) for lane in words]
        bits = [_padded(lane, "<u4", width + 3) for lane in bits]
        counts, low = np.array(numbers, np.int64).T
        if counts.min() < 2:
            raise FormatError("a residual stream is too short to begin")
        states = np.array([int(lane[0]) | int(lane[1]) << 16 for lane in words], np.int64)
        if states.min() < kernels.load("linear.plan").LOWEST:
            raise FormatError("a residual stream begins in a state that does not occur")
        of_words, of_bits = _starts(words), 32 * _starts(bits)
        self.words, self.bits = np.concatenate(words), np.concatenate(bits)
        self.places = np.stack([states, of_words + 2, of_bits])
        self.limits = np.stack([of_words + counts, of_bits + low])

    @property
    def ended(self) -> bool:
        """Whether all streams are where they end."""
        at_end = np.array_equal(self.places[1:], self.limits)
        return at_end and bool((self.places[0] == kernels.load("linear.plan").LOWEST).all())


def _starts(streams: list[np.ndarray]) -> np.ndarray:
    """Where each begins when they lie one behind the other."""
    sizes = [stream.size for stream in streams]
    return np.cumsum([0, *sizes[:-1]])


def _padded(data: bytes, dtype: str, more: int) -> np.ndarray:
    """The numbers in `data`, in native byte order, and `more` zeros (one at least)."""
    size = np.dtype(dtype).itemsize
    data += bytes(-len(data) % size + size * more)
    return np.frombuffer(data, dtype).astype(np.dtype(dtype).newbyteorder("="), copy=True)
