"""The arithmetic coder for binary decisions and raw bits, and counters that estimate probabilities.

A *decision* is one binary symbol that is coded with a probability. Probabilities have 16 bits in
the coder. A counter has 32 bits: the upper 22 are a probability, and the lower 10 are the number
of decisions that it has seen. The coder is Mahoney's carryless one (lpaq), with a state of 32 bits
that is shifted out byte by byte. Functions that take `decoding` work in both directions.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import int64, uint32, uint64

from tezip_h5.kernels.compiling import inlined

AT_ONCE, ROOM = 12, 1 << 20
"""Up to `AT_ONCE` raw bits are coded at a time, if the coder's interval is at least `ROOM` wide.
Otherwise they are coded one by one."""

RATES = np.array([65536 // (n + 2) for n in range(1024)], np.uint16)
"""The rate at which a counter learns once it has seen n decisions, in units of 1/65536."""


@inlined
def _settle(decoding, low, high, coder, stream):
    """Set the interval of the coder to low..high, and shift out the leading bytes that are equal.

    `coder` holds low, high, code, position. Beyond its end a stream reads as zeros, and nothing is
    written; the caller must compare the position with the size of the stream.
    """
    position, code = coder[3], coder[2]
    while (low ^ high) & 0xFF000000 == 0:
        if decoding:
            byte = int64(stream[uint64(position)]) if position < stream.size else int64(0)
            code = ((code << 8) | byte) & 0xFFFFFFFF
        elif position < stream.size:
            stream[uint64(position)] = high >> 24
        position += 1
        low = (low << 8) & 0xFFFFFFFF
        high = ((high << 8) & 0xFFFFFFFF) | 255
    coder[0], coder[1], coder[2], coder[3] = low, high, code, position


@inlined
def code_bit(decoding, bit, probability, coder, stream):
    """Encode or decode a decision, and return it; `probability` is that of a 1, in 1/65536."""
    low, high = coder[0], coder[1]
    middle = low + (((high - low) * probability) >> 16)
    if decoding:
        bit = int64(1) if coder[2] <= middle else int64(0)
    if bit:
        high = middle
    else:
        low = middle + 1
    _settle(decoding, low, high, coder, stream)
    return bit


@numba.njit(nogil=True)
def code_raw(decoding, value, bits, coder, stream):
    """Encode or decode a number of `bits` raw bits, highest first, and return it.

    Raw bits have the probability 1/2. See `AT_ONCE`.
    """
    result, left = int64(0), bits
    while left > 0:
        low, high = coder[0], coder[1]
        count = min(left, AT_ONCE) if high - low >= ROOM else int64(1)
        unit, last = (high - low + 1) >> count, (int64(1) << count) - 1
        left -= count
        if decoding:
            part = min(int64(uint32(coder[2] - low) // uint32(unit)), last)
        else:
            part = (value >> left) & last
        low += unit * part
        if part < last:
            high = low + unit - 1
        _settle(decoding, low, high, coder, stream)
        result = (result << count) | part
    return result


@inlined
def learned(counter, bit, rates):
    """The new value of a counter, an int64, after its decision was `bit`."""
    seen, chance = counter & 1023, counter >> 10
    rate = int64(rates[uint64(seen)])
    if bit:
        counter += (((4194303 - chance) * rate) >> 16) << 10
    else:
        counter -= ((chance * rate) >> 16) << 10
    return counter + (1 if seen < 1023 else 0)
