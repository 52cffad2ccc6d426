"""The context-mixing coder on the device: each thread codes one frame of one stream.

`Slab` in ``slabs.py`` describes the arrays. Arrays that all threads of a warp read at the same time
(samples, taps, sums) have the stream as their last axis, so that the threads read adjacent memory.
Tables of which each thread reads a different place have it as their first axis. Constant tables
are copied to shared memory. `blending.build` makes the function that codes a plane. The kernel
does for a frame what ``residual/streams.py`` does on the CPU.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, cuda, int8, int16, int32, int64, uint8, uint16, uint32, void

from tezip_h5 import kernels
from tezip_h5.kernels import arithmetic
from tezip_h5.kernels.cuda.launch import device, kernel
from tezip_h5.kernels.cuda.typed import shared
from tezip_h5.kernels.mixing import blending, curves, decisions, mean, motion, nearby, pixels
from tezip_h5.kernels.mixing.pixels import (
    BOTTOM,
    HAS_BEFORE,
    HAS_GUESS,
    HAS_MEAN,
    HAS_OTHER,
    HAS_PREVIOUS,
    LEFT,
    RIGHT,
    TAPS,
    TOP,
    VOTERS,
)
from tezip_h5.kernels.sizes import COARSE, FINE, FIRST_COUNTER, MISSED_MOST, TONES, Sizes

__all__ = ["CELLS", "MOVED", "PLAN", "TABLES", "THREADS", "begin", "gather", "planes_of"]

(
    LANE, ROWS, COLUMNS, LEVELS, FINER, ALONE, GUIDED, KEYFRAME, SEEN, TURN, TAUGHT, BRIGHTENED,
    FOLLOWED, START, SIZE,
) = range(15)  # fmt: skip
"""Indices of the plan of one frame of a stream. LEVELS is the largest level. SEEN is the number of
frames since the keyframe, TURN since the start. TAUGHT is the number of sets of transmitted
weights. FOLLOWED is whether blocks move. START and SIZE say where the bytes of the stream are."""
PLAN = 15

THREADS = 32
"""The threads of a block. It is only one warp, so that few streams use many multiprocessors."""
CELLS = 16 * 8 + 1  # cells of bias cancellation
MOVED = 6
"""The number of planes after motion: two frames, symbols, misses, mean misses, mean frame."""
TABLES = (decisions.STRETCH, decisions.SQUASH, arithmetic.RATES, pixels.SHARES, curves.CURVE)

_FITTED = nearby.MOST + 1
_SEEN = (_FITTED, nearby.COLUMNS)
_STRETCHES, _SQUASHES = decisions.STRETCH.size, decisions.SQUASH.size
_RATES, _SHARES = arithmetic.RATES.size, pixels.SHARES.size

_pad = shared(pixels.pad.py_func, pixels.pad)
_follow = shared(motion.follow.py_func, motion.follow)
_brighten = shared(motion.brighten.py_func, motion.brighten)
_remember = shared(mean.remember.py_func, mean.remember)


def planes_of(sizes: Sizes) -> int:
    """The number of padded planes of a channel: three frames, two of symbols, and errors; for fine
    sizes also two of misses, the mean frame, and mean misses."""
    return 10 if sizes.fine else 6


@device
def _clear(plane):
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            plane[y, x] = 0


@device
def _copy(plane, out):
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            out[y, x] = plane[y, x]


@device
def _insert(samples, rows, columns, plane):
    """Copy samples to a plane with margins."""
    for y in range(rows):
        for x in range(columns):
            plane[TOP + y, LEFT + x] = samples[y, x]


@device
def _extract(plane, rows, columns, samples):
    for y in range(rows):
        for x in range(columns):
            samples[y, x] = plane[TOP + y, LEFT + x]


@device
def _forget(now, past, fitted):
    """The same as `nearby.Sums.forget`."""
    for use in range(now.shape[0]):
        for y in range(now.shape[1]):
            for x in range(now.shape[2]):
                for e in range(now.shape[3]):
                    now[use, y, x, e] = 0
                    past[use, y, x, e] = 0
        for x in range(fitted.shape[1]):
            for i in range(fitted.shape[2]):
                fitted[use, x, i] = nearby.FIRST_WEIGHT if use == nearby.FIT and i < 2 else 0


@device
def _turn(now, past):
    """The same as `nearby.Sums.turn`."""
    for use in range(now.shape[0]):
        for y in range(now.shape[1]):
            for x in range(now.shape[2]):
                for e in range(now.shape[3]):
                    past[use, y, x, e] = (past[use, y, x, e] >> 1) + now[use, y, x, e]
                    now[use, y, x, e] = 0


_volume, _space = int32[:, :, :, ::1], int64[:, :, :, :, :, ::1]
_SIGNATURE = void(
    boolean, int64[:, ::1], int64[:, ::1], int64[:, :, ::1], int8[:, :, :, ::1],
    _volume, _volume, uint8[::1],
    _volume, _volume, _space, int64[:, :, :, :, ::1], _volume, _volume, _volume,
    _volume, int64[:, :, :, ::1], uint32[:, :, ::1], int32[:, :, :, ::1], uint16[:, :, :, ::1],
    int64[:, ::1], int64[:, ::1], int64[:, :, :, ::1],
    int16[::1], uint16[::1], uint16[::1], int32[::1], int64[::1],
)  # fmt: skip


def _coder(sizes: Sizes):
    """`code_plane`, compiled for the device."""
    plane, fine, nothing = blending.build(sizes), sizes.fine, np.zeros((0, 0), np.int32)

    def compiled(
        decoding, levels, tolerance, top, flags, alone, planes, finer, traces, squares,
        voter_errors, filters, learned, tones, bias,
        counters, weights, refined, tables, shares, scratch, solving, coder, stream,
    ):  # fmt: skip
        current, previous, before, average, guess, other, other_errors = planes
        symbols, past_symbols, errors, misses, past_misses, usual = traces
        if not fine:
            average = misses = past_misses = usual = nothing
        return kernels.load("mixing.fine" if fine else "mixing.coarse").code_plane(
            decoding, levels, tolerance, top, flags, alone,
            current, previous, before, average, finer, guess, other, other_errors,
            symbols, past_symbols, errors, misses, past_misses, usual, *squares,
            voter_errors, filters, learned, tones, bias,
            counters, weights, refined, coder, stream,
        )  # fmt: skip

    return shared(plane, compiled)


def _build(sizes: Sizes, name: str):
    """Make the kernel for one set of sizes."""
    code_plane = _coder(sizes)
    fine, per = sizes.fine, planes_of(sizes)
    places, inputs, mark_count = sizes.places, sizes.inputs + 1, sizes.marks
    curve_shape = (max(sizes.curves, 1), 5)

    def code_frame(
        decoding, plan, tolerances, brightness, vectors, samples, guesses, data,
        planes, moved, sums, fitted, voter_errors, filters, learned,
        tones, bias, counters, weights, refined, coder, totals, solving,
        stretches, squashes, all_rates, all_shares, curve,
    ):  # fmt: skip
        """Encode or decode one frame of each stream in `plan`.

        Parameters
        ----------
        decoding : bool
        plan : int64 (n, PLAN)
        tolerances : int64 (n, C)
        brightness : int64 (n, C, (gain, offset))
        vectors : int8 (n, blocks down, blocks across, (dy, dx))
        samples : int32 (n, C, rows, columns)
            The levels, when encoding. They are replaced by the reconstruction.
        guesses : int32, same shape
            The network's prediction.
        data : uint8 (bytes of all streams)
        planes, ..., solving : see `Slab`
        stretches, ... : `TABLES`
        """
        stretch = cuda.shared.array(_STRETCHES, int16)
        squash = cuda.shared.array(_SQUASHES, uint16)
        rates = cuda.shared.array(_RATES, uint16)
        shares = cuda.shared.array(_SHARES, int32)
        for k in range(cuda.threadIdx.x, _STRETCHES, cuda.blockDim.x):
            stretch[k] = stretches[k]
        for k in range(cuda.threadIdx.x, _SQUASHES, cuda.blockDim.x):
            squash[k] = squashes[k]
        for k in range(cuda.threadIdx.x, _RATES, cuda.blockDim.x):
            rates[k] = all_rates[k]
        for k in range(cuda.threadIdx.x, _SHARES, cuda.blockDim.x):
            shares[k] = all_shares[k]
        cuda.syncthreads()
        i = cuda.grid(1)
        if i >= plan.shape[0]:
            return
        scratch = (
            cuda.local.array(VOTERS, int64),
            cuda.local.array(VOTERS, int32),
            cuda.local.array(TAPS, int32),
            cuda.local.array(_FITTED, int32),
            cuda.local.array(_FITTED, int32),
            cuda.local.array(places, int64),
            cuda.local.array(inputs, int32),
            cuda.local.array(curve_shape, int64),
            cuda.local.array(mark_count, int64),
            cuda.local.array(_SEEN, int32),
            cuda.local.array(_SEEN, int32),
        )
        lane, rows, columns, top = plan[i, LANE], plan[i, ROWS], plan[i, COLUMNS], plan[i, LEVELS]
        seen, turn, finer = plan[i, SEEN], plan[i, TURN], plan[i, FINER]
        keyframe, followed = plan[i, KEYFRAME] != 0, plan[i, FOLLOWED] != 0 and seen > 0
        channels = samples.shape[1]
        high, wide = rows + TOP + BOTTOM, columns + LEFT + RIGHT
        now, then = turn & 1, 1 - (turn & 1)
        newest, last, oldest = turn % 3, (turn + 2) % 3, (turn + 1) % 3
        down = (rows + nearby.ROWS - 1) // nearby.ROWS + 2 * nearby.MARGIN
        across = (columns + nearby.COLUMNS - 1) // nearby.COLUMNS
        stream = data[plan[i, START] : plan[i, START] + plan[i, SIZE]]
        coder[lane, 3] = 0  # positions count from the start of the bytes of this frame
        guess = planes[channels * per, :high, :wide, lane]
        for c in range(channels):
            own = c * per
            current = planes[own + newest, :high, :wide, lane]
            previous = planes[own + last, :high, :wide, lane]
            before = planes[own + oldest, :high, :wide, lane]
            symbols = planes[own + 3 + now, :high, :wide, lane]
            past_symbols = planes[own + 3 + then, :high, :wide, lane]
            errors = planes[own + 5, :high, :wide, lane]
            # Arrays that the coarse sizes do not have are never read.
            misses = planes[own + 6 + now if fine else own, :high, :wide, lane]
            past_misses = planes[own + 6 + then if fine else own, :high, :wide, lane]
            average = planes[own + 8 if fine else own, :high, :wide, lane]
            usual = planes[own + 9 if fine else own, :high, :wide, lane]
            # The first channel has no previous channel.
            other = planes[own - per + newest if c else own, :high, :wide, lane]
            other_errors = planes[own - per + 5 if c else own, :high, :wide, lane]
            at = 2 * c if fine else 0
            known = sums[at, :, :down, : across + 2 * nearby.MARGIN, :, lane]
            past_known = sums[
                at + 1 if fine else 0, :, :down, : across + 2 * nearby.MARGIN, :, lane
            ]
            weights_here = fitted[c if fine else 0, :, :across, :, lane]

            if keyframe:
                _clear(past_symbols)
            _clear(symbols)
            if fine:
                _clear(misses)
                if seen <= 1:
                    _forget(known, past_known, weights_here)
            flags = 0
            if seen > 0:
                flags |= HAS_PREVIOUS
            if seen > 1:
                flags |= HAS_BEFORE
                if fine:
                    flags |= HAS_MEAN
            if c > 0:
                flags |= HAS_OTHER
            if plan[i, GUIDED] != 0 and not keyframe:
                flags |= HAS_GUESS
                _insert(guesses[i, c], rows, columns, guess)
                _pad(guess, rows, columns)
            if plan[i, BRIGHTENED] != 0 and seen > 0:
                gain, offset = brightness[i, c, 0], brightness[i, c, 1]
                _brighten(previous, gain, offset, top)
                _brighten(before, gain, offset, top)
                if fine:
                    _brighten(average, gain, offset << finer, top << finer)
            if followed:
                field = vectors[i]
                for m in range(MOVED):
                    if m > 2 and not fine:
                        continue
                    source = previous
                    if m == 1:
                        source = before
                    elif m == 2:
                        source = past_symbols
                    elif m == 3:
                        source = past_misses
                    elif m == 4:
                        source = usual
                    elif m == 5:
                        source = average
                    target = moved[m, :high, :wide, lane]
                    _clear(target)
                    _follow(source, TOP, LEFT, rows, columns, field, target)
                    if m < 2 or m == 5:
                        _pad(target, rows, columns)
                if fine:
                    _copy(moved[4, :high, :wide, lane], usual)
                    _copy(moved[5, :high, :wide, lane], average)
                    past_misses = moved[3, :high, :wide, lane]
                previous = moved[0, :high, :wide, lane]
                before = moved[1, :high, :wide, lane]
                past_symbols = moved[2, :high, :wide, lane]

            code_plane(
                decoding, samples[i, c], tolerances[i, c], top, flags, plan[i, ALONE] != 0,
                (current, previous, before, average, guess, other, other_errors), finer,
                (symbols, past_symbols, errors, misses, past_misses, usual),
                (known, past_known, weights_here),
                voter_errors[:, :wide, :, lane], filters[c, :, :, lane],
                learned[c, : plan[i, TAUGHT], :, lane], tones[lane, c], bias[lane, c],
                counters[lane, c], weights[lane, c], refined[lane, c],
                (stretch, squash, rates, curve), shares, scratch,
                (totals[:, lane], solving[0, :, :, lane], solving[1, :, :, lane]),
                coder[lane], stream,
            )  # fmt: skip
            _extract(current, rows, columns, samples[i, c])
        for c in range(channels):
            if fine:
                _remember(
                    planes[c * per + newest, :high, :wide, lane], seen, top,
                    planes[c * per + 8, :high, :wide, lane],
                )  # fmt: skip
                _remember(
                    planes[c * per + 6 + now, :high, :wide, lane], seen, MISSED_MOST,
                    planes[c * per + 9, :high, :wide, lane],
                )  # fmt: skip
                _turn(
                    sums[2 * c, :, :down, : across + 2 * nearby.MARGIN, :, lane],
                    sums[2 * c + 1, :, :down, : across + 2 * nearby.MARGIN, :, lane],
                )

    code_frame.__name__ = name
    return kernel(_SIGNATURE)(code_frame)


code_coarse, code_fine = _build(COARSE, "code_coarse"), _build(FINE, "code_fine")
"""The kernels of the fast and of the thorough sizes."""


@kernel(
    void(
        int64[::1], _volume, _space, _volume, _volume, _volume, _volume, int64[:, :, :, ::1],
        uint32[:, :, ::1], int32[:, :, :, ::1], uint16[:, :, :, ::1], int64[:, ::1],
        int64[:, ::1], int64, uint16[::1],
    )
)  # fmt: skip
def begin(
    lanes, planes, sums, filters, learned, lessons, tones, bias, counters, weights, refined, coder,
    codes, first_weight, first_refined,
):  # fmt: skip
    """Set streams to their initial state, with one block for each stream.

    Parameters
    ----------
    lanes : int64 (n), the lanes of the streams
    lessons : int32 (n, C, kinds, TAPS), their transmitted weights
    codes : int64 (n, 4), the initial states of their arithmetic coders
    first_weight, first_refined : initial values of mixer weights and refining tables
    planes, ... : see `Slab`
    """
    lane, first, step = lanes[cuda.blockIdx.x], cuda.threadIdx.x, cuda.blockDim.x
    for p in range(planes.shape[0]):
        for y in range(first, planes.shape[1], step):
            for x in range(planes.shape[2]):
                planes[p, y, x, lane] = 0
    for p in range(sums.shape[0]):
        for use in range(sums.shape[1]):
            for y in range(sums.shape[2]):
                for x in range(sums.shape[3]):
                    for e in range(first, sums.shape[4], step):
                        sums[p, use, y, x, e, lane] = 0
    for c in range(filters.shape[0]):
        for f in range(3):
            for t in range(first, TAPS, step):
                value = 0
                if f == 0 and t < 2:
                    value = 1 << 15
                elif f > 0 and t == 12:
                    value = 1 << 16
                filters[c, f, t, lane] = value
        for k in range(learned.shape[1]):
            for t in range(first, TAPS, step):
                learned[c, k, t, lane] = lessons[cuda.blockIdx.x, c, k, t]
        for k in range(first, TONES, step):
            tones[lane, c, 0, k] = 0
            tones[lane, c, 1, k] = 0
        for k in range(first, bias.shape[2], step):
            bias[lane, c, k, 0] = 0
            bias[lane, c, k, 1] = 0
        for k in range(first, counters.shape[2], step):
            counters[lane, c, k] = FIRST_COUNTER
        for k in range(first, weights.shape[2], step):
            for t in range(weights.shape[3]):
                weights[lane, c, k, t] = first_weight if t < weights.shape[3] - 2 else 0
        for k in range(first, refined.shape[2], step):
            for t in range(refined.shape[3]):
                refined[lane, c, k, t] = first_refined[t]
    for k in range(first, 4, step):
        coder[lane, k] = codes[cuda.blockIdx.x, k]


@kernel(void(uint8[::1], int64[:, ::1], uint8[::1]))
def gather(data, places, out):
    """Copy pieces of `data`, one block each; `places` has source, target and length of each."""
    source, target, size = (
        places[cuda.blockIdx.x, 0], places[cuda.blockIdx.x, 1], places[cuda.blockIdx.x, 2],
    )  # fmt: skip
    for k in range(cuda.threadIdx.x, size, cuda.blockDim.x):
        out[target + k] = data[source + k]
