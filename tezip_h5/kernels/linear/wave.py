"""The wave: sixteen rows of a plane at a time, each two columns behind the row above it.

A step of the wave computes one sample of each row. These samples do not depend on each other, so a
step is vectorized, even in a decoder or a closed loop, where a sample depends on the one before. A
row of the wave is called a *lane*. One array holds everything that steps need. It consists of
fields, and a field of lines: a line for each step, with a place for each lane, and before those a
place for each of the two rows above. So the neighbours of a sample lie at distances that are
constants for the compiler.
"""

from __future__ import annotations

import numpy as np
from numba import uint64

from tezip_h5.kernels.compiling import inlined
from tezip_h5.kernels.linear.plan import (
    CHANNEL,
    HIGH,
    LANES,
    LOW,
    SHIFT,
    SIDE,
    SIDE_OWN,
    TOLERANCE,
    WIDEST,
    expect,
    surroundings,
    weights_of,
)
from tezip_h5.kernels.linear.sample import context_of, pattern_of, value_of, weighted

STEPS = 32  # steps of a block; samples are copied to and from the wave once per block
HISTORY = 5  # lines of earlier steps: neighbours lie up to two lanes and a column back
LINE = 24  # places of a line: eight before the lanes, of which two are used; this aligns lanes
FIELD = (HISTORY + STEPS) * LINE
NOW = HISTORY * LINE + LINE - LANES  # place of the first lane in the first step of a block

# Fields of lines: samples, magnitudes of symbols, samples of the last frame, and the known parts
# of predictions and of energies. Then come the results of one step, and numbers of each lane.
SAMPLES, SIZES, PAST, GUESS, ENERGY, FOUND = range(0, 6 * FIELD, FIELD)
PREDICTION, CONTEXT, ACTIVE = range(FOUND, FOUND + 3 * LANES, LANES)
COLUMN = FOUND + 3 * LANES  # columns that a lane is behind; huge for lanes without a row
WEIGHTS = COLUMN + LANES  # weights of W, WW, N, NW, NE, the median, and three two rows above
END = WEIGHTS + 9 * LANES  # a kernel that uses a wave has its own fields from here on


def _at(field, steps, rows):
    """The distance to the place in `field` that lies so many steps and rows back."""
    return np.uint64((field - steps * LINE - rows) % 2**64)


_W, _WW = _at(SAMPLES, 1, 0), _at(SAMPLES, 2, 0)
_N, _NW, _NE = _at(SAMPLES, 2, 1), _at(SAMPLES, 3, 1), _at(SAMPLES, 1, 1)
_NN, _NNW, _NNE = _at(SAMPLES, 4, 2), _at(SAMPLES, 5, 2), _at(SAMPLES, 3, 2)
_P, _PW, _PN, _PNW = _at(PAST, 0, 0), _at(PAST, 1, 0), _at(PAST, 2, 1), _at(PAST, 3, 1)
_SIZE_W, _SIZE_N, _SIZE_NW = _at(SIZES, 1, 0), _at(SIZES, 2, 1), _at(SIZES, 3, 1)
_SIZE_NE, _SIZE_NN = _at(SIZES, 1, 1), _at(SIZES, 4, 2)
_GUESS, _ENERGY = _at(GUESS, 0, 0), _at(ENERGY, 0, 0)


@inlined
def foretell(kind, wave, now, step, width, plan, rules):
    """Compute predictions and contexts of a step, and which lanes have a sample in it."""
    low, high, tolerance = kind(plan[LOW]), kind(plan[HIGH]), kind(plan[TOLERANCE])
    factor = kind(3 if plan[SIDE] == SIDE_OWN else 2)
    factor_above = kind(2 if plan[SIDE] == SIDE_OWN else 0)
    shift, two, zero, widest = kind(SHIFT), kind(2), kind(0), kind(WIDEST)
    for i in range(LANES):
        lane = uint64(i)
        at, of_lane = now + lane, uint64(WEIGHTS) + lane
        column = np.subtract(kind(step), wave[uint64(COLUMN) + lane])
        active = np.bitwise_and(kind(column >= zero), kind(column < kind(width)))
        wave[uint64(ACTIVE) + lane] = np.subtract(zero, active)
        near = wave[at + _W], wave[at + _WW], wave[at + _N], wave[at + _NW], wave[at + _NE]
        past = wave[at + _P], wave[at + _PW], wave[at + _PN], wave[at + _PNW]
        weights = (
            wave[of_lane],
            wave[of_lane + uint64(LANES)],
            wave[of_lane + uint64(2 * LANES)],
            wave[of_lane + uint64(3 * LANES)],
            wave[of_lane + uint64(4 * LANES)],
            wave[of_lane + uint64(5 * LANES)],
        )
        known = weighted(wave[at + _GUESS], wave[of_lane + uint64(6 * LANES)], wave[at + _NN])
        known = weighted(known, wave[of_lane + uint64(7 * LANES)], wave[at + _NNW])
        known = weighted(known, wave[of_lane + uint64(8 * LANES)], wave[at + _NNE])
        value = value_of(known, weights, near, past, rules)
        prediction = np.minimum(np.maximum(np.right_shift(value, shift), low), high)
        lowest, highest = np.subtract(prediction, tolerance), np.add(prediction, tolerance)
        pattern = pattern_of(kind, value, lowest, highest, near, past[0], rules)
        beside = np.add(wave[at + _SIZE_W], wave[at + _SIZE_N])
        corners = np.add(wave[at + _SIZE_NW], wave[at + _SIZE_NE])
        energy = weighted(wave[at + _ENERGY], factor, weighted(corners, two, beside))
        energy = weighted(energy, factor_above, wave[at + _SIZE_NN])
        wave[uint64(PREDICTION) + lane] = prediction
        activity = np.minimum(np.right_shift(energy, two), widest)
        wave[uint64(CONTEXT) + lane] = context_of(kind, activity, pattern)


@inlined
def mend(wave, now, step, width):
    """Fill the margins left and right of rows that begin or end with this step."""
    lane = (step + 1) >> 1
    if step & 1 and lane < LANES:  # the row of this lane begins with the next step
        first = wave[now + uint64(lane) + _NE]
        wave[now + uint64(lane)] = first
        wave[now + uint64(lane) + _W] = first
    lane = (step - width) >> 1
    if not (step - width) & 1 and 0 <= lane < LANES:  # the row of this lane has just ended
        wave[now + uint64(lane)] = wave[now + uint64(lane) + _W]


@inlined
def spread(kind, row, shift, wave, place, first, end):
    """Copy `row` to a lane: column `shift` to the first line of a block, and so on."""
    if first == 0 and end == STEPS:
        for j in range(STEPS):
            wave[uint64(place) + uint64(j * LINE)] = kind(row[uint64(j + shift)])
    else:
        for j in range(first, end):
            wave[uint64(place + j * LINE)] = kind(row[uint64(j + shift)])


@inlined
def gather(wave, place, row, shift, first, end):
    """The inverse of `spread`."""
    if first == 0 and end == STEPS:
        for j in range(STEPS):
            row[uint64(j + shift)] = wave[uint64(place) + uint64(j * LINE)]
    else:
        for j in range(first, end):
            row[uint64(j + shift)] = wave[uint64(place + j * LINE)]


@inlined
def begin(kind, top, rows, own, taps, plan, wave, guess, energy, sums):
    """Prepare the wave for the rows from `top` on, and compute `guess` and `energy` of each row."""
    frame, channel = own[0], plan[CHANNEL]
    for lane in range(LANES):
        wave[COLUMN + lane] = kind(2 * lane if lane < rows else 1 << 30)
    for lane in range(rows):
        y = top + lane
        weights = weights_of(plan, y)
        for k in range(6):
            wave[WEIGHTS + k * LANES + lane] = kind(weights[k])
        for k in range(3):
            wave[WEIGHTS + (6 + k) * LANES + lane] = kind(taps[k, 3] if y > 1 else 0)
        expect(y, own, plan, taps[3:], sums, guess[lane])
        if plan[SIDE] != SIDE_OWN:
            surroundings(y, own, plan, energy[lane])
    # The margin left of the first lane, whose row begins with the first step.
    wave[SAMPLES + NOW - LINE] = kind(frame[channel, top + 1, 2])
    wave[SAMPLES + NOW - 2 * LINE] = kind(frame[channel, top + 1, 2])
    wave[SIZES + NOW - LINE] = kind(0)


@inlined
def fetch(kind, step, top, rows, width, own, plan, wave, guess, energy):
    """Copy everything that is known to the lanes, for the block that begins with `step`."""
    frame, before, magnitudes, _ = own
    channel = plan[CHANNEL]
    earliest = -HISTORY if step == 0 else 0
    for lane in range(-2, rows):
        column = step - 2 * lane
        y, place = top + lane + 2, NOW + lane
        first, end = max(earliest, -1 - column), min(STEPS, width + 1 - column)
        spread(kind, before[channel, y], column + 2, wave, PAST + place, first, end)
        if lane < 0:
            spread(kind, frame[channel, y], column + 2, wave, SAMPLES + place, first, end)
            spread(kind, magnitudes[channel, y], column + 2, wave, SIZES + place, first, end)
    bring(kind, step, 0, rows, width, guess, wave, GUESS)
    if plan[SIDE] != SIDE_OWN:
        bring(kind, step, 0, rows, width, energy, wave, ENERGY)


@inlined
def extent(step, lane, width):
    """The column of a lane in the first step of a block, and the steps in which it has samples."""
    column = step - 2 * lane
    return column, max(0, -column), min(STEPS, width - column)


@inlined
def bring(kind, step, top, rows, width, samples, wave, field):
    """Copy rows of `samples`, from `top` on, to a field, for the block that begins with `step`."""
    for lane in range(rows):
        column, first, end = extent(step, lane, width)
        spread(kind, samples[top + lane], column, wave, field + NOW + lane, first, end)


@inlined
def deliver(step, top, rows, width, wave, field, plane):
    """The inverse of `bring`: copy a field to rows of a plane with margins."""
    for lane in range(rows):
        column, first, end = extent(step, lane, width)
        gather(wave, field + NOW + lane, plane[top + lane + 2], column + 2, first, end)


@inlined
def go_on(wave):
    """Prepare the next block: the last lines of this block become the history of the next."""
    for field in (SAMPLES, SIZES, PAST):
        for i in range(HISTORY * LINE):
            wave[uint64(field + i)] = wave[uint64(field + STEPS * LINE + i)]
