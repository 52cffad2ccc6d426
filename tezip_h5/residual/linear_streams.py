"""Streams of the linear coder: a stream of words and a stream of bits for each lane of a chunk.

Layout (FORMAT.md, 8.2): the sizes of the streams, the words of all lanes, the bits of all lanes,
then the heads of the planes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tezip_h5 import kernels
from tezip_h5.errors import FormatError

__all__ = ["Bits", "Coded", "Reader", "Streams", "parts", "signed", "varint"]

_MOST = 1 << 40  # largest number of words or bits of a stream


def varint(number: int) -> bytes:
    """A number in LEB128: seven bits per byte, low bits first; the top bit means more bytes."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def signed(number: int) -> bytes:
    """A signed number of 64 bits."""
    return varint(number << 1 ^ number >> 63)


class Reader:
    """Reads the bytes of a section from its start."""

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
        """Number of bytes that have been read."""
        return self._at

    @property
    def exhausted(self) -> bool:
        """Whether all bytes have been read."""
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
    """The low bits of every lane, collected while encoding.

    Attributes
    ----------
    words : uint32 (lanes, n), zero where there are no bits yet
    filled : int64 (lanes,), the number of bits
    """

    def __init__(self, lanes: int):
        self.words = np.zeros((lanes, 0), np.uint32)
        self.filled = np.zeros(lanes, np.int64)

    def make_room(self, count: int) -> None:
        """Make room for `count` more bits in each lane."""
        needed = (int(self.filled.max()) + count >> 5) + 2
        held = self.words.shape[1]
        if needed > held:
            more = max(needed, held + held // 2) - held
            self.words = np.pad(self.words, ((0, 0), (0, more)))

    def streams(self) -> list[tuple[bytes, int]]:
        """The words of each lane, and its number of bits."""
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
    states : int64 (lanes,), the final states of rANS, with which decoding begins
    bits : Bits
    taken, low : the numbers of words and of low bits of every plane
    """

    words: list[bytes]
    states: np.ndarray
    bits: Bits
    taken: list[int]
    low: list[int]

    def pack(self) -> bytes:
        """The first part of the residuals section."""
        begins = [int(state).to_bytes(4, "little") for state in self.states]
        words = [begin + rest for begin, rest in zip(begins, self.words, strict=True)]
        low = self.bits.streams()
        sizes = [
            varint(len(lane) // 2) + varint(count)
            for lane, (_, count) in zip(words, low, strict=True)
        ]
        return b"".join([*sizes, *words, *(data for data, _ in low)])


def _streams(reader: Reader, lanes: int):
    """Read, for every lane, the numbers of words and bits, the words, and the bits. The heads of
    the planes remain to be read."""
    numbers = [(reader.varint(_MOST), reader.varint(_MOST)) for _ in range(lanes)]
    words = [reader.take(2 * n) for n, _ in numbers]
    return numbers, words, [reader.take(-(-n // 8)) for _, n in numbers]


def parts(data: bytes, lanes: int) -> dict[str, int]:
    """Number of bytes of each part of the residuals section.

    Raises
    ------
    FormatError
        When its streams do not fit into it.
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
        Samples per row. The end of a stream is checked once per row, so up to this many may be read
        behind it.

    Attributes
    ----------
    words, bits : uint16 and uint32 arrays, lane after lane
    places : int64 (3, lanes), of each lane the state, and the positions in its words and bits
    limits : int64 (2, lanes), the ends of its words and bits
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
        """Whether all streams have been read to their ends."""
        at_end = np.array_equal(self.places[1:], self.limits)
        return at_end and bool((self.places[0] == kernels.load("linear.plan").LOWEST).all())


def _starts(streams: list[np.ndarray]) -> np.ndarray:
    """The start of each stream in an array that holds them one after the other."""
    sizes = [stream.size for stream in streams]
    return np.cumsum([0, *sizes[:-1]])


def _padded(data: bytes, dtype: str, more: int) -> np.ndarray:
    """The numbers in `data`, in native byte order, and `more` zeros (one at least)."""
    size = np.dtype(dtype).itemsize
    data += bytes(-len(data) % size + size * more)
    return np.frombuffer(data, dtype).astype(np.dtype(dtype).newbyteorder("="), copy=True)
