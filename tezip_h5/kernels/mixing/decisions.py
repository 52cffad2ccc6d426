"""The entropy coder of the context-mixing coder: binary decisions with mixed probabilities.

A symbol is coded as a series of *decisions*: is it zero, is it negative, and then the *ladder*, a
unary code of its magnitude. Each decision of the ladder is a *rung*. Encoder and decoder run the
same code, so they always agree. All arithmetic is in integers. `STRETCH` and `SQUASH`, which are
ln(p / (1 - p)) and its inverse in units of 1/256, are computed with integers only. Mixing is from
Mahoney, *Adaptive Weighing of Context Models for Lossless Data Compression*, Florida Tech.
CS-2005-16.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import int64, uint64

from tezip_h5.kernels.arithmetic import RATES, code_bit, code_raw, learned
from tezip_h5.kernels.compiling import inlined
from tezip_h5.kernels.mixing.curves import BETWEEN, CURVE, CURVE_BITS, FARTHER, NEARER, beyond

LADDER = 20
"""The number of rungs. The rest of a larger magnitude is coded in raw bits."""

MODELLED = 2
"""The number of low bits coded with probabilities from the distributions; others are raw bits."""

MATCH = 4
"""The context model of a rung that tells which neighbours a symbol on this rung would repeat."""

LIMIT = 3071
"""The largest magnitude of stretched probabilities, in units of 1/256."""


def _tables() -> tuple[np.ndarray, np.ndarray]:
    """The tables SQUASH[x + 3071] = 65536 / (1 + exp(-x / 256)) and STRETCH.

    STRETCH is the inverse of SQUASH, at 4096 probabilities.
    """
    one = 1 << 64
    ratio, term, n = 0, one, 0
    while term:  # the series of exp(-1/256)
        ratio += -term if n % 2 else term
        n += 1
        term //= 256 * n
    squash = np.zeros(2 * LIMIT + 1, np.uint16)
    power = one
    for x in range(LIMIT + 1):
        value = min((65536 * one) // (one + power), 65535)
        squash[LIMIT + x], squash[LIMIT - x] = value, max(65536 - value, 1)
        power = power * ratio >> 64
    stretch = np.zeros(4096, np.int16)
    x = -LIMIT
    for i in range(4096):
        while x < LIMIT and squash[LIMIT + x] < 16 * i + 8:
            x += 1
        stretch[i] = x
    return squash, stretch


SQUASH, STRETCH = _tables()

SHARE_OF = np.array([0, 65536, 32768, 21845], np.int64)
"""65536 divided by the number of mixers."""

MOST_SEEN = 961 << 6
"""The largest count of decisions of a row of mixer weights. Its learning slows down with them."""

FIRST_REFINED = SQUASH[np.clip(np.arange(33) * 128 - 2048, -2047, 2047) + LIMIT]
"""The initial content of a refining table, which leaves probabilities as they are."""

TABLES = (STRETCH, SQUASH, RATES, CURVE)
"""The argument `tables` of the functions below. For CUDA, a caller passes copies on the device."""


@inlined
def _pace(rates, weights, row, count):
    """The learning rate of a row of weights, in units of 2**-20; counts one more decision.

    The rate is 4 plus a number that falls from 40 to 2 with the decisions that the row has seen.
    Their count is stored after the weights.
    """
    seen = int64(weights[row, count])
    weights[row, count] = min(seen + 1, MOST_SEEN)
    return 4 + ((int64(rates[uint64((seen >> 6) + 62)]) * 5) >> 7)


@inlined
def _decide(
    decoding, bit, slot, sizes, tables, rows, inputs, counters, weights, refined, coder, stream
):  # fmt: skip
    """Estimate the probability of a decision by mixing, code it, and learn from it.

    Returns the decision.

    Parameters
    ----------
    slot : int
        Which decision about a symbol this is.
    sizes : tuple of int, constants
        The numbers of contexts, distributions, mixers, refining tables, slots, and neighbours
        that a symbol may repeat.
    tables : see `TABLES`
    rows : int64
        The rows of counters, mixer weights and refining tables that were selected for this pixel.
        A row has one place for each slot. Room for dot products follows.
    inputs : int32 (contexts + distributions + 1)
        The inputs of the mixers. Those of the distributions are set already.
    weights : int32 (rows, inputs + 1)
        The last number of a row is the number of decisions that it has seen.
    """
    contexts, curves, mixers, refiners, _, _ = sizes
    stretch, squash, rates, _ = tables
    count = contexts + curves + 1
    # There are one to three mixers. Their dot products are summed up while the inputs are made,
    # so no input needs to be read again.
    first = uint64(rows[contexts] + slot)
    second = uint64(rows[contexts + min(mixers, 2) - 1] + slot)
    third = uint64(rows[contexts + mixers - 1] + slot)
    a, b, c = int64(0), int64(0), int64(0)
    for i in range(contexts):
        value = int64(stretch[uint64(counters[uint64(rows[i] + slot)] >> 20)])
        inputs[i] = value
        a += int64(weights[first, i]) * value
        if mixers > 1:
            b += int64(weights[second, i]) * value
        if mixers > 2:
            c += int64(weights[third, i]) * value
    inputs[count - 1] = 256
    for i in range(contexts, count):
        value = int64(inputs[i])
        a += int64(weights[first, i]) * value
        if mixers > 1:
            b += int64(weights[second, i]) * value
        if mixers > 2:
            c += int64(weights[third, i]) * value
    a = min(max(a >> 16, -2047), 2047)
    b = min(max(b >> 16, -2047), 2047)
    c = min(max(c >> 16, -2047), 2047)
    mean = ((a + b + c) * SHARE_OF[mixers]) >> 16
    column, between = (mean + 2048) >> 7, (mean + 2048) & 127
    final = (4 - refiners) * int64(squash[uint64(mean + LIMIT)])
    for r in range(refiners):
        line = uint64(rows[contexts + mixers + r] + slot)
        final += (
            int64(refined[line, uint64(column)]) * (128 - between)
            + int64(refined[line, uint64(column + 1)]) * between
        ) >> 7
    final = min(max(final >> 2, 32), 65536 - 32)
    bit = code_bit(decoding, bit, final, coder, stream)
    target = int64(65535) if bit else int64(0)
    a = (target - int64(squash[uint64(a + LIMIT)])) * _pace(rates, weights, first, count)
    if mixers > 1:
        b = (target - int64(squash[uint64(b + LIMIT)])) * _pace(rates, weights, second, count)
    if mixers > 2:
        c = (target - int64(squash[uint64(c + LIMIT)])) * _pace(rates, weights, third, count)
    for i in range(count):
        value = int64(inputs[i])
        # Weights need no clipping: only hundreds of thousands of wrong decisions would overflow.
        weights[first, i] = int64(weights[first, i]) + ((value * a + (1 << 19)) >> 20)
        if mixers > 1:
            weights[second, i] = int64(weights[second, i]) + ((value * b + (1 << 19)) >> 20)
        if mixers > 2:
            weights[third, i] = int64(weights[third, i]) + ((value * c + (1 << 19)) >> 20)
    for i in range(contexts):
        place = uint64(rows[i] + slot)
        counters[place] = learned(int64(counters[place]), bit, rates)
    nearest = column + (1 if between >= 64 else 0)
    for r in range(refiners):
        line = uint64(rows[contexts + mixers + r] + slot)
        old = int64(refined[line, uint64(nearest)])
        refined[line, uint64(nearest)] = old + ((target - old) >> 6)
    return bit


@inlined
def _stretched(stretch, part, whole):
    """STRETCH of the probability part / whole."""
    return int64(stretch[min(uint64(part << 12) // uint64(whole + 1), uint64(4095))])


@numba.njit(nogil=True)
def _gamma(decoding, value, coder, stream):
    """Code a number of at least 1 with an Elias gamma code, in raw bits; returns the number.

    The unary part is coded bit by bit.
    """
    length = int64(0)
    if decoding:
        while length < 40 and code_raw(True, 0, 1, coder, stream) == 0:
            length += 1
        return (int64(1) << length) | code_raw(True, 0, length, coder, stream)
    while (value >> (length + 1)) > 0:
        length += 1
    for _ in range(length):
        code_raw(False, 0, 1, coder, stream)
    code_raw(False, 1, 1, coder, stream)
    code_raw(False, value & ((int64(1) << length) - 1), length, coder, stream)
    return value


@numba.njit(nogil=True)
def _low_bits(decoding, low, bits, inner, sign, tail, curves, coder, stream):
    """Code the low bits of a magnitude, which tell the symbols of one rung apart.

    The first `MODELLED` bits have probabilities from the distributions; the others are raw bits.
    `inner` / 2 is the inner edge of the rung, in symbols.
    """
    count = curves.shape[0]
    left, found = bits, int64(0)
    for m in range(count):
        curves[m, NEARER] = beyond(tail, curves[m], inner, sign)
        curves[m, FARTHER] = beyond(tail, curves[m], inner + (int64(2) << bits), sign)
    while left > 0 and bits - left < MODELLED:
        left -= 1
        chance = int64(0)
        for m in range(count):
            curves[m, BETWEEN] = beyond(tail, curves[m], inner + (int64(2) << left), sign)
            upper = curves[m, BETWEEN] - curves[m, FARTHER]
            chance += ((upper + 1) << 16) // (curves[m, NEARER] - curves[m, FARTHER] + 2)
        chance = min(max(chance // count, 64), 65536 - 64)
        bit = code_bit(decoding, (low >> left) & 1, chance, coder, stream)
        found = (found << 1) | bit
        if bit:
            inner += int64(2) << left
        for m in range(count):
            curves[m, NEARER if bit else FARTHER] = curves[m, BETWEEN]
    rest = code_raw(decoding, low & ((int64(1) << left) - 1), left, coder, stream)
    return (found << left) | rest


@inlined
def _packed(marks, count, flip, begin, scale):
    """The rungs of the symbols in `marks`, one byte each, in one integer.

    Symbols of the other sign, and those beyond the ladder, have 127.
    """
    rungs = uint64(0)
    for i in range(count):
        rung = ((marks[i] ^ flip) - begin) >> scale
        rungs |= min(uint64(rung), uint64(127)) << uint64(8 * i)
    for i in range(count, 8):
        rungs |= uint64(127) << uint64(8 * i)
    return rungs


@inlined
def _matching(rungs, height):
    """Compare all eight bytes of `rungs` with `height`; returns a bit for each, 1 if equal."""
    other = rungs ^ (uint64(height) * uint64(0x0101010101010101))
    equal = ~(other + uint64(0x7F7F7F7F7F7F7F7F)) & uint64(0x8080808080808080)
    return int64(((equal >> uint64(7)) * uint64(0x0102040810204080)) >> uint64(56))


@inlined
def code_symbol(
    decoding, symbol, scale, sizes, tables, rows, marks, first_match, inputs, curves, counters,
    weights, refined, coder, stream,
):  # fmt: skip
    """Code the symbol of one residual, and return it.

    The decisions are: whether it is zero, its sign, the rungs of the ladder; then come low bits.
    With a scale k > 0, a rung stands for 2**k symbols of one sign, there is no decision on zero,
    and zero counts as positive. `curves` (int64 (distributions, 5)) are distributions of the
    symbol; see the module `curves`. `marks` (int64) are the symbols that would repeat a neighbour.
    On the ladder, the context of `MATCH` tells which of them lie on the current rung. Its rows
    begin with `first_match`.
    """
    first, count, slots, mark_count = sizes[0], sizes[1], sizes[4], sizes[5]
    stretch, _, _, tail = tables
    one = int64(1) << CURVE_BITS
    for m in range(count):
        curves[m, NEARER] = beyond(tail, curves[m], int64(-1), int64(1))
        curves[m, FARTHER] = beyond(tail, curves[m], int64(1), int64(1))
    if scale == 0:
        for m in range(count):
            inside = curves[m, NEARER] - curves[m, FARTHER]
            inputs[first + m] = -int64(stretch[min(inside >> 28, 4095)])
        bit = int64(1) if symbol != 0 else int64(0)
        bit = _decide(
            decoding, bit, 0, sizes, tables, rows, inputs, counters, weights, refined, coder,
            stream,
        )  # fmt: skip
        if bit == 0:
            return int64(0)
        for m in range(count):
            below, above = (one - curves[m, NEARER]) >> 20, curves[m, FARTHER] >> 20
            inputs[first + m] = _stretched(stretch, below, below + above)
    else:
        for m in range(count):
            inputs[first + m] = -int64(stretch[min(curves[m, NEARER] >> 28, 4095)])
    negative = _decide(
        decoding, int64(1) if symbol < 0 else int64(0), 1, sizes, tables, rows, inputs, counters,
        weights, refined, coder, stream,
    )  # fmt: skip
    flip = int64(-1) if negative else int64(0)
    begin = int64(1) if scale == 0 and not negative else int64(0)  # magnitude on the first rung
    magnitude = (symbol ^ flip) - begin
    rung = magnitude >> scale
    rungs = _packed(marks, mark_count, flip, begin, scale)
    height = int64(0)
    side = 10 if negative and slots > 12 else 0
    sign = int64(-1) if negative else int64(1)
    # Twice the distance from the centre to the inner edge of the first rung, in symbols.
    edge = int64(1) if scale == 0 or negative else int64(-1)
    for m in range(count):
        curves[m, NEARER] = beyond(tail, curves[m], edge, sign)
    while height < LADDER:
        for m in range(count):
            curves[m, FARTHER] = beyond(
                tail, curves[m], (((height + 1) << scale) << 1) + edge, sign
            )
            inputs[first + m] = _stretched(stretch, curves[m, FARTHER], curves[m, NEARER])
        rows[MATCH] = (first_match + _matching(rungs, height)) * slots
        bit = _decide(
            decoding, int64(1) if rung > height else int64(0), 2 + min(height, 9) + side, sizes,
            tables, rows, inputs, counters, weights, refined, coder, stream,
        )  # fmt: skip
        if bit == 0:
            break
        height += 1
        for m in range(count):
            curves[m, NEARER] = curves[m, FARTHER]
    low = magnitude & ((int64(1) << scale) - 1)
    if height == LADDER:
        height += _gamma(decoding, rung - height + 1, coder, stream) - 1
        low = code_raw(decoding, low, scale, coder, stream)
    elif count > 0 and scale > 0:
        inner = ((height << scale) << 1) + edge
        low = _low_bits(decoding, low, scale, inner, sign, tail, curves, coder, stream)
    else:
        low = code_raw(decoding, low, scale, coder, stream)
    magnitude = (height << scale) | low
    return (magnitude + begin) ^ flip
