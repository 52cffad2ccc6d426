"""Kernels with which the linear coder's encoder searches weights and tables.

They collect features of samples, their covariance, and the bits that candidates would take.
"""

from __future__ import annotations

import numpy as np
from numba import float32, float64, int32, int64, uint8, void

from tezip_h5.kernels.compiling import inlined, kernel
from tezip_h5.kernels.cpu import _cell, _median
from tezip_h5.kernels.linear.plan import (
    _OWN,
    _TAPS,
    CHANNEL,
    DIRECT,
    PREDICTED,
    TOLERANCE,
)

OWN_FEATURES = 7  # features from this plane: W, WW, N, NW, NE, median, drift
ACTIVITIES = 12  # number of activity classes in which symbols are counted
_SYMBOLS, _BLOCK = 64, 64  # number of symbols; samples whose products are summed up together


@inlined
def _seen(levels, past, y, x, predicted, tolerance):
    """Estimate the reconstruction of a sample.

    If lossless it is the sample. Otherwise, it is the sample quantised around the last frame, or
    the sample with noise as large as that of quantization.
    """
    level = int64(levels[y, x])
    if tolerance == 0:
        return level
    step = 2 * tolerance + 1
    if predicted:
        then = int64(past[y + 2, x + 2])
        return then + _cell(level - then, tolerance, step, int64(0)) * step
    noise = ((x * 73856093) ^ (y * 19349663)) * 2654435761 >> 16
    return level + (((noise & 0xFFFF) * step) >> 16) - tolerance


@kernel(int64(int32[:, ::1], _OWN, _TAPS, int64[::1], int64[::1], int64, float32[:, ::1]))
def sample(levels, own, taps, plan, lattice, mean, out):
    """Fill each row of `out` with the features of a sample, its value and its activity.

    Neighbours in this plane are original samples with the estimated effect of quantization.
    `lattice` is the first row, the first column, and the steps between samples. Values are
    differences from `mean`. Returns the number of rows.
    """
    frame, before, _, _ = own
    height, width = levels.shape
    channel, predicted, tolerance = plan[CHANNEL], plan[PREDICTED], plan[TOLERANCE]
    past = before[channel]
    count = 0
    for y in range(max(lattice[0], 2), height, lattice[2]):
        for x in range(max(lattice[1], 2), width - 1, lattice[3]):
            if count == len(out):
                return count
            row = out[count]
            left = _seen(levels, past, y, x - 1, predicted, tolerance)
            left2 = _seen(levels, past, y, x - 2, predicted, tolerance)
            above = _seen(levels, past, y - 1, x, predicted, tolerance)
            corner = _seen(levels, past, y - 1, x - 1, predicted, tolerance)
            right = _seen(levels, past, y - 1, x + 1, predicted, tolerance)
            row[0] = left - mean
            row[1] = left2 - mean
            row[2] = above - mean
            row[3] = corner - mean
            row[4] = right - mean
            row[5] = _median(left, above, corner) - mean
            row[6] = 0.0
            activity = abs(left - corner) + abs(above - corner) + abs(right - above)
            if predicted:
                now, now_above = past[y + 2], past[y + 1]
                left -= int64(now[x + 1])
                above -= int64(now_above[x + 2])
                corner -= int64(now_above[x + 1])
                right -= int64(now_above[x + 3])
                row[6] = int64(now[x + 2]) + _median(left, above, corner) - mean
                activity = min(activity, abs(left) + abs(above) + abs(right))
            for k in range(len(taps)):
                source = taps[k, 0]
                dy, dx = taps[k, 1], taps[k, 2]
                if source == 0:
                    value = _seen(levels, past, y + dy, x + dx, predicted, tolerance)
                elif source == 1:
                    value = int64(before[channel, y + 2 + dy, x + 2 + dx])
                else:
                    value = int64(frame[channel + 1 - source, y + 2 + dy, x + 2 + dx])
                row[OWN_FEATURES + k] = value - mean
            row[OWN_FEATURES + len(taps)] = int64(levels[y, x]) - mean
            row[OWN_FEATURES + len(taps) + 1] = activity
            count += 1
    return count


@kernel(float64(float32[:, ::1], float64, float64[:, ::1]), fastmath={"reassoc", "contract"})
def covariance(samples, floor, out):
    """Add the products of features and value, weighted by 1 / (activity + floor), to `out`.

    Returns the sum of weights. Blocks of samples are transposed, so that sums run along rows. The
    order of summation is free, so the compiler can vectorize them.
    """
    features = samples.shape[1] - 1
    turned = np.zeros((features, _BLOCK))
    weights, scaled = np.empty(_BLOCK), np.empty(_BLOCK)
    sums = np.zeros((features, features))
    total = 0.0
    for first in range(0, len(samples), _BLOCK):
        weights[:] = 0.0
        for i in range(min(_BLOCK, len(samples) - first)):
            row = samples[first + i]
            weights[i] = 1.0 / (float64(row[features]) + floor)
            total += weights[i]
            for j in range(features):
                turned[j, i] = row[j]
        for j in range(features):
            one = turned[j]
            for i in range(_BLOCK):
                scaled[i] = weights[i] * one[i]
            for k in range(j + 1):
                other = turned[k]
                product = 0.0
                for i in range(_BLOCK):
                    product += scaled[i] * other[i]
                sums[j, k] += product
    for j in range(features):
        for k in range(features):
            out[j, k] += sums[max(j, k), min(j, k)]
    return total


@kernel(void(float32[:, ::1], float32[:, ::1], float32[::1], int64[::1], float64[:, ::1]))
def costs(samples, weights, offsets, plan, found):
    """Estimate the bits of samples' symbols for several candidates for the weights.

    `weights` has a column for each candidate; `offsets` are added to predictions. `found` receives
    a row for each candidate: the bits with ideal tables for each activity class, and the mean
    magnitude of symbols.
    """
    features = weights.shape[0]
    step = float32(1.0) / float32(2 * plan[TOLERANCE] + 1)
    guesses = np.empty(offsets.size, np.float32)
    counts = np.zeros((len(found), ACTIVITIES, _SYMBOLS), np.int32)
    for i in range(len(samples)):
        row = samples[i]
        activity = int64(row[features + 1] * step)
        kind = 0
        while activity and kind < ACTIVITIES - 1:
            activity >>= 1
            kind += 1
        for c in range(guesses.size):
            guesses[c] = offsets[c]
        for k in range(features):
            for c in range(guesses.size):
                guesses[c] += weights[k, c] * row[k]
        for c in range(len(counts)):
            cell = int64(np.rint((row[features] - np.rint(guesses[c])) * step))
            symbol = (cell << 1) ^ (cell >> 63)
            if symbol >= DIRECT:
                octave = int64(5)
                while symbol >> (octave + 1) and octave < 36:
                    octave += 1
                symbol = DIRECT + octave - 5
            counts[c, kind, symbol] += 1
    for c in range(len(counts)):
        bits, size = 0.0, 0.0
        for kind in range(ACTIVITIES):
            total = 0
            for symbol in range(_SYMBOLS):
                count = counts[c, kind, symbol]
                if count:
                    total += count
                    bits -= count * np.log2(float64(count))
                    if symbol < DIRECT:
                        size += count * (0.5 * symbol)
                    else:  # an octave of symbols, which have low bits
                        low = symbol - DIRECT + 5
                        bits += count * low
                        size += count * float64(int64(1) << (low - 1))
            if total:
                bits += total * np.log2(float64(total))
        found[c, 0], found[c, 1] = bits, size / len(samples)


@kernel(int64(int32[:, ::1], int64[::1]))
def totals(counts, found):
    """Write the sum of each row of counts to `found`.

    Returns the last column that is not all zero, or -1.
    """
    last = int64(-1)
    for i in range(len(counts)):
        total = int64(0)
        for s in range(counts.shape[1]):
            total += counts[i, s]
        found[i] = total
        if total:
            for s in range(last + 1, counts.shape[1]):
                if counts[i, s]:
                    last = s
    return last


@kernel(void(int32[:, ::1], float32[:, ::1], float32, uint8[::1], int64[:, ::1]))
def assign(counts, lengths, slack, tables, totals):
    """Assign to each context (row of counts) the table that takes the fewest bits.

    `lengths` is the bits of each symbol (row) in each table (column). A context gets the table of
    the context before it, unless that takes more than `slack` bits in excess. The counts of each
    table are added to `totals` (table, symbol).
    """
    sums = np.empty(lengths.shape[1], np.float32)
    last = 0
    for i in range(len(counts)):
        sums[:] = 0
        seen = 0
        for s in range(counts.shape[1]):
            count = counts[i, s]
            if count:
                seen += count
                for t in range(sums.size):
                    sums[t] += np.float32(count) * lengths[s, t]
        if seen:
            best = np.argmin(sums)
            if sums[last] > sums[best] + slack:
                last = best
            for s in range(counts.shape[1]):
                totals[last, s] += counts[i, s]
        tables[i] = last
