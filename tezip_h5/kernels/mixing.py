"""The entropy coder of the context-mixing coder: decisions, mixed and arithmetic-coded.

The model is the same code in both directions, so encoder and decoder cannot drift apart.
Everything is integer. Probabilities have 16 bits in the arithmetic coder
and 22 in the counters; `STRETCH` and `SQUASH` (ln(p / (1 - p)) and its inverse, in units of
1/256) are made from integers alone. Mixing: Mahoney, *Adaptive Weighing of Context Models for
Lossless Data Compression*, Florida Tech. CS-2005-16.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import int64

INPUTS = 24
"""Places for inputs of a mixer."""

LADDER = 20
"""A magnitude of so many steps up the ladder goes on as raw bits."""

COUNT, MEMORY, RATE, COARSE, SLOTS, MIXERS, REFINERS = range(7)
TAUGHT = 40
"""Places in a plan: contexts, the counters' longest memory, the mixers' rate, whether
contexts are coarse, slots per context, mixers, refining tables, use of learnt weights
(0 none, 1 as one more voter, 2 alone)."""

SOFTS = 7
OFFSETS = 8
"""From here a plan holds the first rows of contexts, mixers and refining tables."""

LIMIT = 3071


def _tables() -> tuple[np.ndarray, np.ndarray]:
    """SQUASH[x + 3071] = 65536 / (1 + exp(-x / 256)), and STRETCH, its inverse at 4096 points."""
    one = 1 << 64
    ratio, term, n = 0, one, 0
    while term:  # the series of exp(-1/256)
        ratio += -term if n % 2 else term
        n += 1
        term //= 256 * n
    squash = np.zeros(2 * LIMIT + 1, np.int32)
    power = one
    for x in range(LIMIT + 1):
        value = min((65536 * one) // (one + power), 65535)
        squash[LIMIT + x], squash[LIMIT - x] = value, max(65536 - value, 1)
        power = power * ratio >> 64
    stretch = np.zeros(4096, np.int32)
    x = -LIMIT
    for i in range(4096):
        while x < LIMIT and squash[LIMIT + x] < 16 * i + 8:
            x += 1
        stretch[i] = x
    return squash, stretch


SQUASH, STRETCH = _tables()
SHARE_OF = np.array([0, 65536, 32768, 21845], np.int64)
"""65536 over the number of mixers."""

TAIL_STEP = 64
TAIL_MOST = 20 * TAIL_STEP
TAIL_BITS = 40


def _tails():
    """TAILS[z + TAIL_MOST] = 2**40 / (1 + exp(z / 64))."""
    one = 1 << 96
    ratio, term, n = 0, one, 0
    while term:  # the series of exp(-1/64)
        ratio += -term if n % 2 else term
        n += 1
        term //= TAIL_STEP * n
    tails = np.zeros(2 * TAIL_MOST + 1, np.int64)
    power = one
    for z in range(TAIL_MOST + 1):
        value = (power << TAIL_BITS) // (one + power)
        tails[TAIL_MOST + z], tails[TAIL_MOST - z] = value, (1 << TAIL_BITS) - value
        power = power * ratio >> 96
    return tails


TAILS = _tails()
SOFT = 4
SOFT_BITS = 2
"""Most distributions."""


@numba.njit(nogil=True, inline="always")
def _tail(soft, m, edge, sign):
    """Chance (40 bits) of more than `edge` / 2 symbols from the centre, up (sign 1) or down."""
    z = ((edge * 32 - sign * soft[m, 0]) * soft[m, 1]) >> 16
    return TAILS[min(max(z, -TAIL_MOST), TAIL_MOST) + TAIL_MOST]


RATES = np.array([65536 // (n + 2) for n in range(1024)], np.int64)
"""How fast a counter that has seen n decisions goes on, in 1/65536."""


@numba.njit(nogil=True, inline="always")
def _code(decoding, bit, probability, coder, stream):
    """One decision through the binary arithmetic coder; `probability` of a 1, of 65536.

    `coder` is low, high, code, position. Past its end a stream reads as zeros, and is not
    written: the caller sees the position.
    """
    low, high = coder[0], coder[1]
    span = high - low
    middle = low + (span >> 16) * probability + (((span & 65535) * probability) >> 16)
    if decoding:
        bit = int64(1) if coder[2] <= middle else int64(0)
    if bit:
        high = middle
    else:
        low = middle + 1
    position, code = coder[3], coder[2]
    while (low ^ high) & 0xFF000000 == 0:
        if decoding:
            byte = int64(stream[position]) if position < stream.size else int64(0)
            code = ((code << 8) | byte) & 0xFFFFFFFF
        elif position < stream.size:
            stream[position] = high >> 24
        position += 1
        low = (low << 8) & 0xFFFFFFFF
        high = ((high << 8) & 0xFFFFFFFF) | 255
    coder[0], coder[1], coder[2], coder[3] = low, high, code, position
    return bit


@numba.njit(nogil=True, inline="always")
def _decide(
    decoding, bit, slot, contexts, counters, weights, refined, plan, scratch, coder, stream
):
    """Predict one decision by mixing, code it, learn from it; returns the bit.

    `contexts` holds rows: of the counters, then of the mixers' weights, then of the refining
    tables; a row has one place for every slot.
    """
    counters_used, mixers, refiners = plan[COUNT], plan[MIXERS], plan[REFINERS]
    slots = plan[SLOTS]
    count = counters_used + plan[SOFTS]
    for i in range(counters_used):
        place = contexts[i] * slots + slot
        scratch[INPUTS + i] = place
        scratch[i] = STRETCH[counters[place] >> 20]
    scratch[count] = 256
    total = int64(0)
    for m in range(mixers):
        row = weights[contexts[INPUTS + m] * slots + slot]
        dot = int64(0)
        for i in range(count + 1):
            dot += int64(row[i]) * scratch[i]
        dot = min(max(dot >> 16, -2047), 2047)
        scratch[2 * INPUTS + m] = dot
        total += dot
    mean = (total * SHARE_OF[mixers]) >> 16
    probability = int64(SQUASH[mean + LIMIT])
    column, between = (mean + 2048) >> 7, (mean + 2048) & 127
    final = (4 - refiners) * probability
    for r in range(refiners):
        line = refined[contexts[INPUTS + 3 + r] * slots + slot]
        final += (int64(line[column]) * (128 - between) + int64(line[column + 1]) * between) >> 7
    final = min(max(final >> 2, 32), 65536 - 32)
    bit = _code(decoding, bit, final, coder, stream)
    target = int64(65535) if bit else int64(0)
    for m in range(mixers):
        row = weights[contexts[INPUTS + m] * slots + slot]
        error = (target - SQUASH[scratch[2 * INPUTS + m] + LIMIT]) * plan[RATE]
        for i in range(count + 1):
            moved = int64(row[i]) + ((scratch[i] * error + (1 << 17)) >> 18)
            row[i] = min(max(moved, -(1 << 22)), 1 << 22)
    for i in range(counters_used):
        place = scratch[INPUTS + i]
        counter = int64(counters[place])
        seen = counter & 1023
        chance = counter >> 10
        if bit:
            chance += ((4194303 - chance) * RATES[seen]) >> 16
        else:
            chance -= (chance * RATES[seen]) >> 16
        counters[place] = (chance << 10) | min(seen + 1, plan[MEMORY])
    nearest = column + (1 if between >= 64 else 0)
    for r in range(refiners):
        line = refined[contexts[INPUTS + 3 + r] * slots + slot]
        line[nearest] = int64(line[nearest]) + ((target - int64(line[nearest])) >> 6)
    return bit


@numba.njit(nogil=True)
def _raw(decoding, value, bits, coder, stream):
    """`bits` bits of equal chance, the highest first."""
    result = int64(0)
    for b in range(bits - 1, -1, -1):
        bit = _code(decoding, (value >> b) & 1, int64(32768), coder, stream)
        result = (result << 1) | bit
    return result


@numba.njit(nogil=True, inline="always")
def code_symbol(
    decoding, symbol, scale, contexts, counters, weights, refined, plan, scratch, coder, stream,
    soft,
):
    """One residual symbol: zero?, sign, a ladder of magnitudes, low bits; returns it.

    With scale k > 0, symbols share a rung of the ladder with 2**k - 1 others of their sign, and
    zero counts as positive.
    """
    one = int64(1) << TAIL_BITS
    softs, first_soft = plan[SOFTS], plan[COUNT]
    for m in range(softs):
        soft[m, 2] = _tail(soft, m, int64(-1), int64(1))
        soft[m, 3] = _tail(soft, m, int64(1), int64(1))
    if scale == 0:
        for m in range(softs):
            inner = soft[m, 2] - soft[m, 3]
            scratch[first_soft + m] = -STRETCH[min(inner >> 28, 4095)]
        bit = int64(1) if symbol != 0 else int64(0)
        bit = _decide(
            decoding, bit, 0, contexts, counters, weights, refined, plan, scratch, coder, stream
        )
        if bit == 0:
            return int64(0)
        for m in range(softs):
            below, above = (one - soft[m, 2]) >> 20, soft[m, 3] >> 20
            scratch[first_soft + m] = STRETCH[min((below << 12) // (below + above + 1), 4095)]
    else:
        for m in range(softs):
            scratch[first_soft + m] = -STRETCH[min(soft[m, 2] >> 28, 4095)]
    negative = _decide(
        decoding, int64(1) if symbol < 0 else int64(0), 1, contexts, counters, weights, refined,
        plan, scratch, coder, stream,
    )  # fmt: skip
    if scale == 0:
        magnitude = abs(symbol) - 1
    else:
        magnitude = -1 - symbol if negative else symbol
    rung = magnitude >> scale
    height = int64(0)
    side = 10 if negative and plan[SLOTS] > 12 else 0
    sign = int64(-1) if negative else int64(1)
    # Twice the distance of a rung's inner edge from the centre, in symbols.
    edge = int64(1) if scale == 0 or negative else int64(-1)
    for m in range(softs):
        soft[m, 2] = _tail(soft, m, edge, sign)
    while height < LADDER:
        outer = (((height + 1) << scale) << 1) + edge
        for m in range(softs):
            soft[m, 3] = _tail(soft, m, outer, sign)
            scratch[first_soft + m] = STRETCH[min((soft[m, 3] << 12) // (soft[m, 2] + 1), 4095)]
        bit = _decide(
            decoding, int64(1) if rung > height else int64(0), 2 + min(height, 9) + side, contexts,
            counters, weights, refined, plan, scratch, coder, stream,
        )  # fmt: skip
        if bit == 0:
            break
        height += 1
        for m in range(softs):
            soft[m, 2] = soft[m, 3]
    if height == LADDER:  # Elias gamma code of what is left
        left = rung - height + 1
        length = int64(0)
        if decoding:
            while length < 40 and _raw(True, 0, 1, coder, stream) == 0:
                length += 1
            left = (int64(1) << length) | _raw(True, 0, length, coder, stream)
        else:
            while (left >> (length + 1)) > 0:
                length += 1
            _raw(False, 1, length + 1, coder, stream)
            _raw(False, left & ((int64(1) << length) - 1), length, coder, stream)
        height += left - 1
    low = magnitude & ((int64(1) << scale) - 1)
    left, found = scale, int64(0)
    if softs > 0 and height < LADDER:
        inner = ((height << scale) << 1) + edge
        for m in range(softs):
            soft[m, 2] = _tail(soft, m, inner, sign)
            soft[m, 3] = _tail(soft, m, inner + (int64(2) << scale), sign)
        while left > 0 and scale - left < SOFT_BITS:
            left -= 1
            chance = int64(0)
            for m in range(softs):
                soft[m, 4] = _tail(soft, m, inner + (int64(2) << left), sign)
                chance += ((soft[m, 4] - soft[m, 3] + 1) << 16) // (soft[m, 2] - soft[m, 3] + 2)
            chance = min(max(chance // softs, 64), 65536 - 64)
            bit = _code(decoding, (low >> left) & 1, chance, coder, stream)
            found = (found << 1) | bit
            if bit:
                inner += int64(2) << left
            for m in range(softs):
                soft[m, 3 - bit] = soft[m, 4]
    rest = _raw(decoding, low & ((int64(1) << left) - 1), left, coder, stream)
    low = (found << left) | rest
    magnitude = (height << scale) | low
    if scale == 0:
        return -1 - magnitude if negative else 1 + magnitude
    return -1 - magnitude if negative else magnitude
