"""Decisions and raw bits through an arithmetic coder, and the counters that say what is likely.

Chances have 16 bits in the coder and 22 in the counters, of which the lowest 10 bits are how often
they have been asked. The coder is Mahoney's carryless one (lpaq): 32 bits, shifted by bytes.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import int64, uint32, uint64

from tezip_h5.kernels.compiling import inlined

AT_ONCE, ROOM = 12, 1 << 20
"""Raw bits go so many at a time where the arithmetic coder has so much room, else one by one."""

RATES = np.array([65536 // (n + 2) for n in range(1024)], np.uint16)
"""How fast a counter that has seen n decisions goes on, in 1/65536."""


@inlined
def _settle(decoding, low, high, coder, stream):
    """Narrow the arithmetic coder to low..high, and shift out the bytes that these have in common.

    `coder` is low, high, code, position. Past its end a stream reads as zeros, and is not
    written: the caller sees the position.
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
    """One decision through the arithmetic coder; `probability` of a 1, of 65536."""
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
    """`bits` bits of equal chance, the highest first; many at once where the coder has room."""
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
    """What an int64 counter becomes once its decision is known to be `bit`."""
    seen, chance = counter & 1023, counter >> 10
    rate = int64(rates[uint64(seen)])
    if bit:
        counter += (((4194303 - chance) * rate) >> 16) << 10
    else:
        counter -= ((chance * rate) >> 16) << 10
    return counter + (1 if seen < 1023 else 0)
