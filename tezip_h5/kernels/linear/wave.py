"""The wave: sixteen rows of a plane together, each two columns behind the one above it.

Then no sample of a step needs another one of the same step, and all are computed side by side,
even where a decoder or a closed loop must have one sample to go on to the next. One array holds
what a step needs, in fields of lines: a line for each step, in it a place for each row (a
*lane*), and before those a place for each of two rows above. A sample's neighbours then lie at
distances that are known when this is compiled, which is what a compiler vectorizes.
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

STEPS = 32  # of a block: what is computed between two copies
HISTORY = 5  # steps that a sample's neighbours lie back: up to two lanes and a column
LINE = 24  # places; of the eight before the lanes two are used, all of them keep lanes aligned
FIELD = (HISTORY + STEPS) * LINE
NOW = HISTORY * LINE + LINE - LANES  # the first lane's place in a block's first step

# Samples, the magnitudes of their symbols, samples of the frame before, what is known before of
# predictions and of energies; then what a step finds out; then what stays for a plane.
SAMPLES, SIZES, PAST, GUESS, ENERGY, FOUND = range(0, 6 * FIELD, FIELD)
PREDICTION, CONTEXT, ACTIVE = range(FOUND, FOUND + 3 * LANES, LANES)
COLUMN = FOUND + 3 * LANES  # how many columns a lane is behind; more than there are where no row is
WEIGHTS = COLUMN + LANES  # of W, WW, N, NW, NE, the median, and the three two rows above
END = WEIGHTS + 9 * LANES  # what uses a wave has its own fields behind


def _at(field, steps, rows):
    """The distance of a place so many steps and rows back."""
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
    """Predictions and contexts of a step, and which lanes have a sample in it."""
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
    """What lies beside a row, once the samples are there that it is taken from."""
    lane = (step + 1) >> 1
    if step & 1 and lane < LANES:  # this row begins with the next step
        first = wave[now + uint64(lane) + _NE]
        wave[now + uint64(lane)] = first
        wave[now + uint64(lane) + _W] = first
    lane = (step - width) >> 1
    if not (step - width) & 1 and 0 <= lane < LANES:  # this row has just ended
        wave[now + uint64(lane)] = wave[now + uint64(lane) + _W]


@inlined
def spread(kind, row, shift, wave, place, first, end):
    """Bring `row` to a lane: column `shift` to the line of step 0 of a block, and so on."""
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
    """Prepare for the rows from `top` on; fills a row of `guess` and `energy` for each of them."""
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
    # Left of the first lane, whose row begins with the first step.
    wave[SAMPLES + NOW - LINE] = kind(frame[channel, top + 1, 2])
    wave[SAMPLES + NOW - 2 * LINE] = kind(frame[channel, top + 1, 2])
    wave[SIZES + NOW - LINE] = kind(0)


@inlined
def fetch(kind, step, top, rows, width, own, plan, wave, guess, energy):
    """Bring what is known before to the lanes, for the block that begins with `step`."""
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
    """A lane's column in a block's first step, and the steps in which it has samples."""
    column = step - 2 * lane
    return column, max(0, -column), min(STEPS, width - column)


@inlined
def bring(kind, step, top, rows, width, samples, wave, field):
    """Bring rows of `samples`, from `top` on, to a field of the block that begins with `step`."""
    for lane in range(rows):
        column, first, end = extent(step, lane, width)
        spread(kind, samples[top + lane], column, wave, field + NOW + lane, first, end)


@inlined
def deliver(step, top, rows, width, wave, field, plane):
    """The inverse, to a plane with margins."""
    for lane in range(rows):
        column, first, end = extent(step, lane, width)
        gather(wave, field + NOW + lane, plane[top + lane + 2], column + 2, first, end)


@inlined
def go_on(wave):
    """What lies behind the next block is the end of this one."""
    for field in (SAMPLES, SIZES, PAST):
        for i in range(HISTORY * LINE):
            wave[uint64(field + i)] = wave[uint64(field + STEPS * LINE + i)]
