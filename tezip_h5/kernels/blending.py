"""Kernel of the context-mixing coder (numba, no GIL, compiled once and cached).

`code_plane` encodes or decodes one plane of one frame. Everything is integer; predictions have
`FRACTION` fraction bits. FORMAT.md specifies it.

Blending predictors by their recent errors: Meyer, Tischer, *TMW*, 1997. Gradient-adjusted
prediction and bias cancellation: Wu, Memon, *CALIC*, IEEE Trans. Communications 45, 1997.
Median prediction: Weinberger, Seroussi, Sapiro, *LOCO-I*, IEEE Trans. Image Processing 9, 2000.
Normalised least mean squares: Nagumo, Noda, IEEE Trans. Automatic Control 12, 1967.
"""

from __future__ import annotations

import numpy as np
import os
STACK=int(os.environ.get('STACK','1'))
SRIDGE=int(os.environ.get('SRIDGE','5'))
SFLOOR=int(os.environ.get('SFLOOR','32'))
from numba import boolean, int32, int64, uint8, uint16, uint32

from tezip_h5.kernels.compiling import kernel
from tezip_h5.kernels import nearby
from tezip_h5.kernels.mixing import SOFT, SOFTS, COARSE, INPUTS, OFFSETS, TAUGHT, code_symbol
from tezip_h5.kernels.pixels import (
    ACTIVITIES,
    BOTTOM,
    FRACTION,
    HAS_BEFORE,
    HAS_GUESS,
    HAS_OTHER,
    HAS_PREVIOUS,
    KINDS,
    LEFT,
    NEAR_X,
    NEAR_Y,
    PAST_X,
    PAST_Y,
    RIGHT,
    SHARES,
    TAPS,
    TOP,
    VOTERS,
    begin_row,
    class_of,
    clipped,
    gradient_adjusted,
    log_class,
    median,
    pad,
    quantized,
    surroundings,
    vote,
)


@kernel(
    int64(
        boolean, int32[:, :], int64, int64, int64,
        int32[:, ::1], int32[:, ::1], int32[:, ::1], int32[:, ::1], int32[:, ::1], int32[:, ::1],
        int32[:, ::1], int32[:, ::1], int32[:, ::1], int32[:, ::1], int32[:, ::1],
        int64[:, :, ::1], int64[:, :, ::1], int64[:, ::1],
        int64[:, :, ::1], int64[:, :, ::1], int64[:, ::1],
        int32[:, :, ::1], int64[:, ::1], int32[:, ::1], int64[:, ::1],
        uint32[::1], int32[:, ::1], uint16[:, ::1], int64[::1], int64[::1], uint8[::1],
    )
)  # fmt: skip
def code_plane(
    decoding, levels, tolerance, top, flags,
    current, previous, before, guess, other, other_errors,
    symbols, past_symbols, errors, misses, past_misses,
    sums, past_sums, fitted, tops, past_tops, stacked,
    voter_errors, filters, learned, bias,
    counters, weights, refined, plan, coder, stream,
):  # fmt: skip
    """Encode or decode one plane of one frame.

    Parameters
    ----------
    decoding : bool
    levels : int32 (rows, columns); read when encoding only
    tolerance, top, flags : int
        `flags` says which of the planes below hold something (HAS_...).
    current, previous, before, guess, other, other_errors : int32 (rows + 6, columns + 8)
        Padded reconstructions: of this frame (written), the last, the one before, the network's
        prediction, this frame's channel before this one, and that one's prediction errors.
    symbols, past_symbols, errors : padded like those
        This frame's symbols and errors (written), and the last frame's symbols.
    voter_errors : int32 (VOTERS, 2, columns + 8), scratch
    filters : int64 (3, TAPS)
    learned : int32 (classes, TAPS)
        Weights that the encoder learnt, with 16 fraction bits, for every kind of surroundings
        and last for keyframes; may be empty.
    bias : int64 (n, 2), counters, weights, refined : the adaptive state
    plan : int64, see `mixing`
    coder, stream : the arithmetic coder

    Returns
    -------
    Bytes of the stream so far.
    """
    rows, columns = current.shape[0] - TOP - BOTTOM, current.shape[1] - LEFT - RIGHT
    has_previous, has_before = flags & HAS_PREVIOUS != 0, flags & HAS_BEFORE != 0
    has_guess, has_other = flags & HAS_GUESS != 0, flags & HAS_OTHER != 0
    step = 2 * tolerance + 1
    per_step = (int64(1) << 24) // step
    votes = np.zeros(VOTERS, np.int64)
    recent = np.zeros(VOTERS, np.int64)
    taps = np.zeros(TAPS, np.int64)
    soft = np.zeros((SOFT, 5), np.int64)
    contexts = np.zeros(INPUTS + 5, np.int64)
    scratch = np.zeros(2 * INPUTS + 8, np.int64)
    blocks = (columns + nearby.COLUMNS - 1) // nearby.COLUMNS
    taught = plan[TAUGHT] if learned.shape[0] > 0 else int64(0)
    wide = 15 if plan[COARSE] == 0 else 9
    most = 7 if plan[COARSE] == 0 else 4
    voter_errors[:] = 0
    local = np.zeros(nearby.MOST + 1, np.int32)
    sum_of = np.zeros(nearby.ENTRIES, np.int64)
    lower = np.zeros((nearby.MOST + 1, nearby.MOST + 1), np.int64)
    scaled = np.zeros((nearby.MOST + 1, nearby.MOST + 1), np.int64)
    locals_used = 8 + (10 if has_previous else 0) + (1 if has_guess else 0) + (3 if has_other else 0)
    stack = np.zeros(nearby.MOST + 1, np.int32)
    nstack = 8 + (4 if has_previous else 0) + (1 if has_guess else 0) + (1 if has_other else 0) + (1 if taught else 0)
    nstack = 3 + (4 if has_previous else 0) + (1 if has_guess else 0) + (1 if has_other else 0) + (1 if taught else 0) + 4
    # Filters see numbers of at most 20 bits, so that their sums fit.
    narrow = int64(0)
    while (top >> narrow) > 1 << 20:
        narrow += 1
    for row in range(rows):
        y = row + TOP
        now, then = row & 1, 1 - (row & 1)
        begin_row(y, columns, flags, top, current, previous, other)
        if row % nearby.ROWS == 0 and row + (1 if has_previous else 0) > 0:
            nearby.fit_row(
                sums, past_sums, row // nearby.ROWS, blocks, locals_used, 8*step * step, nearby.RIDGE, sum_of, lower,
                scaled, fitted,
            )
            if STACK:
                nearby.fit_row(
                    tops, past_tops, row // nearby.ROWS, blocks, nstack, SFLOOR*step * step << (2*FRACTION), SRIDGE, sum_of, lower,
                    scaled, stacked,
                )
        for column in range(columns):
            x = column + LEFT
            w, n = int64(current[y, x - 1]), int64(current[y - 1, x])
            nw, ne = int64(current[y - 1, x - 1]), int64(current[y - 1, x + 1])
            ww, nn = int64(current[y, x - 2]), int64(current[y - 2, x])
            p, pw, pn = int64(previous[y, x]), int64(previous[y, x - 1]), int64(previous[y - 1, x])
            pnw, pne = int64(previous[y - 1, x - 1]), int64(previous[y - 1, x + 1])
            o = int64(other[y, x])

            # --- the voters
            votes[0] = gradient_adjusted(w, n, nw, ne, ww, nn, int64(current[y - 2, x + 1]), step)
            votes[1] = median(w, n, nw) << FRACTION
            votes[2] = ((3 * w + n + ne - ww) << FRACTION) >> 2
            count = 3
            base = (w + n + 1) >> 1
            if has_previous:
                votes[3] = p << FRACTION
                votes[4] = (p << FRACTION) + ((w - pw + n - pn) << (FRACTION - 1))
                middle = ((w + n - pw - pn) >> 1) + p
                votes[5] = median(w + p - pw, n + p - pn, middle) << FRACTION
                around = (w - pw) + (n - pn) + (ne - pne) + (nw - pnw)
                votes[6] = (p << FRACTION) + (around << (FRACTION - 2))
                count = 7
                base = (2 * p + w + n + 2) >> 2
            if has_guess:
                votes[count] = int64(guess[y, x]) << FRACTION
                count += 1
            if has_other:
                moved = (w - int64(other[y, x - 1])) + (n - int64(other[y - 1, x]))
                votes[count] = (o << FRACTION) + (moved << (FRACTION - 1))
                count += 1
            for i in range(12):
                taps[i] = (int64(current[y + NEAR_Y[i], x + NEAR_X[i]]) - base) >> narrow
            used = 12
            if has_previous:
                for i in range(13):
                    taps[12 + i] = (int64(previous[y + PAST_Y[i], x + PAST_X[i]]) - base) >> narrow
                used = 25
            if has_before:
                taps[used] = (int64(before[y, x]) - base) >> narrow
                taps[used + 1] = (int64(before[y, x + 1]) - base) >> narrow
                taps[used + 2] = (int64(before[y + 1, x]) - base) >> narrow
                used += 3
            if has_guess:
                taps[used] = (int64(guess[y, x]) - base) >> narrow
                taps[used + 1] = (int64(guess[y, x + 1]) - base) >> narrow
                taps[used + 2] = (int64(guess[y + 1, x]) - base) >> narrow
                used += 3
            if has_other:
                taps[used] = int64(other_errors[y, x]) >> narrow
                taps[used + 1] = (o - int64(other[y, x - 1])) >> narrow
                taps[used + 2] = (o - int64(other[y - 1, x])) >> narrow
                taps[used + 3] = (o - int64(other[y, x + 1])) >> narrow
                taps[used + 4] = (o - int64(other[y + 1, x])) >> narrow
                used += 5
            small, quick, slow = int64(0), int64(0), int64(0)
            energy = int64(0)
            for i in range(6):
                small += filters[0, i] * taps[i]
                energy += taps[i] * taps[i]
            small_energy = energy
            energy = int64(0)
            for i in range(used):
                quick += filters[1, i] * taps[i]
                slow += filters[2, i] * taps[i]
                energy += taps[i] * taps[i]
            if taught:
                kind = int64(KINDS)
                if has_previous:
                    kind = surroundings(w - nw, n - nw, n - ne, w - pw, n - pn, ne - pne)
                lesson = int64(0)
                for i in range(used):
                    lesson += learned[kind, i] * taps[i]
                votes[count] = vote(base, lesson, narrow, top)
                count += 1
            block = column // nearby.COLUMNS
            fit = int64(0)
            nl = 8
            for i in range(8):
                local[i] = taps[i]
            if has_previous:
                for i in range(9):
                    local[8 + i] = taps[12 + i]
                local[17] = taps[25] if has_before else 0
                nl = 18
            if has_guess:
                local[nl] = taps[28 if has_before else 25]
                nl += 1
            if has_other:
                local[nl] = taps[used - 5]
                local[nl + 1] = taps[used - 4]
                local[nl + 2] = taps[used - 3]
                nl += 3
            for i in range(nl):
                fit += fitted[block, i] * int64(local[i])
            votes[count] = vote(base, fit, narrow, top)
            count += 1
            first = count
            votes[first] = vote(base, small, narrow, top)
            votes[first + 1] = vote(base, quick, narrow, top)
            votes[first + 2] = vote(base, slow, narrow, top)
            count += 3

            # --- blended by how well they did nearby
            least = int64(1) << 60
            for v in range(count):
                total = 2 * (int64(voter_errors[v, now, x - 1]) + voter_errors[v, then, x])
                total += int64(voter_errors[v, then, x - 1]) + voter_errors[v, then, x + 1]
                total += voter_errors[v, now, x - 2]
                recent[v] = total
                least = min(least, total)
            down = int64(0)
            while (least >> down) >= 64:
                down += 1
            over, under = int64(0), int64(0)
            low, high = votes[0], votes[0]
            for v in range(count):
                share = SHARES[min(recent[v] >> down, 4095)]
                over += share * (votes[v] - votes[0])
                under += share
                low, high = min(low, votes[v]), max(high, votes[v])
            predicted = votes[0] + over // under
            if taught > 1:
                predicted = votes[first - 2]
            if STACK:
                fit = int64(0)
                for v in range(count):
                    stack[v] = min(max((votes[v] - predicted) >> narrow, -(1<<25)), 1<<25)
                    fit += stacked[block, v] * int64(stack[v])
                unstacked = predicted
                predicted += (fit >> 16) << narrow
            apart = min(log_class((((high - low) >> FRACTION) * per_step * 4) >> 24), 15)

            # --- activity
            qw, qn = int64(symbols[y, x - 1]), int64(symbols[y - 1, x])
            qp = int64(past_symbols[y, x])
            here = 3 * (abs(qw) + abs(qn))
            here += 2 * (abs(int64(symbols[y - 1, x - 1])) + abs(int64(symbols[y - 1, x + 1])))
            here += abs(int64(symbols[y, x - 2])) + abs(int64(symbols[y - 2, x]))
            around = abs(int64(past_symbols[y, x + 1])) + abs(int64(past_symbols[y + 1, x]))
            around += abs(int64(past_symbols[y, x - 1])) + abs(int64(past_symbols[y - 1, x]))
            there = 2 * abs(qp) + around
            activity = 2 * here + 4 * there if has_previous else 4 * here
            activity = (activity * 21845) >> 16  # a third
            scale = int64(0)
            while (activity >> (scale + 5)) > 0:
                scale += 1
            level = min(log_class(activity), ACTIVITIES - 1)

            # --- bias cancellation
            cell = min(level, 15) * 8 + (1 if w << FRACTION > predicted else 0)
            cell += 2 if n << FRACTION > predicted else 0
            cell += 4 if has_previous and p << FRACTION > predicted else 0
            if bias[cell, 1] > 0:
                predicted += bias[cell, 0] // bias[cell, 1]
            predicted = min(max(predicted, int64(0)), top << FRACTION)
            centre = (predicted + (1 << (FRACTION - 1))) >> FRACTION
            part = (predicted - (centre << FRACTION) + (1 << (FRACTION - 1))) >> (FRACTION - 2)

            # --- contexts
            dw = class_of(w - centre, per_step, scale, most)
            dn = class_of(n - centre, per_step, scale, most)
            dp = class_of(p - centre, per_step, scale, most) if has_previous else int64(most)
            qws, qns = qw >> scale, qn >> scale
            half = min(level >> 1, 9)
            contexts[0] = level * 4 + part
            contexts[1] = dp * wide + dw
            contexts[2] = dw * wide + dn
            contexts[3] = dp * wide + dn
            contexts[4] = class_of(
                (votes[first + 1] - predicted) >> (FRACTION - 2), per_step, scale, most
            ) * wide + class_of(
                (votes[first + 2] - predicted) >> (FRACTION - 2), per_step, scale, most
            )
            contexts[5] = class_of(ne - centre, per_step, scale, most) * wide + class_of(
                nw - centre, per_step, scale, most
            )
            equal = (1 if n == w else 0) + (2 if w == nw else 0) + (4 if centre == w else 0)
            equal += (8 if centre == p else 0) + (16 if p == w else 0) + (32 if ne == n else 0)
            equal += (64 if n == nw else 0) + (128 if p == n else 0)
            contexts[6] = equal if plan[COARSE] == 0 else equal & 63
            if plan[COARSE] == 0:
                past = int64(past_symbols[y, x + 1]) + int64(past_symbols[y + 1, x])
                contexts[7] = dp * 10 + half
                contexts[8] = (clipped(qp >> scale, 4) * 9 + clipped(past >> (scale + 1), 4)) * 4
                contexts[8] += part
                contexts[9] = apart * ACTIVITIES + level
                contexts[10] = (clipped(qws, 4) * 9 + clipped(qns, 4)) * 5 + clipped(qp >> scale, 2)
                contexts[11] = class_of(nn - centre, per_step, scale, most) * wide + class_of(
                    ww - centre, per_step, scale, most
                )
                contexts[12] = min(log_class(there), 15) * 16 + min(log_class(here), 15)
                if has_guess:
                    last = class_of(int64(guess[y, x]) - centre, per_step, scale, most)
                    contexts[13] = last * wide + half
                elif has_other:
                    last = class_of(int64(other_errors[y, x]), per_step, scale, most)
                    contexts[13] = last * wide + half
                else:
                    last = (votes[first] - predicted) >> (FRACTION - 2)
                    contexts[13] = class_of(last, per_step, scale, most) * wide + dp
            elif has_other:
                last = class_of(int64(other_errors[y, x]), per_step, scale, most)
                contexts[5] = last * wide + min(half, wide - 1)
            elif has_guess:
                last = class_of(int64(guess[y, x]) - centre, per_step, scale, most)
                contexts[5] = last * wide + min(half, wide - 1)
            if plan[COARSE] == 0:
                fine = 2 * (int64(misses[y, x - 1]) + misses[y - 1, x])
                fine += int64(misses[y - 1, x - 1]) + misses[y - 1, x + 1]
                if has_previous:
                    fine += 2 * int64(past_misses[y, x]) + past_misses[y, x + 1] + past_misses[y + 1, x]
                else:
                    fine += (fine * 43691) >> 16
                # recent mean |error| of the prediction, in 1/64 of a step: fine / 10
                soft[0, 0] = ((predicted - (centre << FRACTION)) * per_step) >> 24
                soft[0, 1] = (int64(64) << 16) * 14 // (fine + 40)
                v = first - 1
                soft[1, 0] = ((votes[v] - (centre << FRACTION)) * per_step) >> 24
                soft[1, 1] = (int64(64) << 16) * 11 // (recent[v] + 40)
                if has_previous:
                    fine2 = 2 * (int64(misses[y, x - 1]) + misses[y - 1, x])
                    fine2 += int64(misses[y - 1, x - 1]) + misses[y - 1, x + 1] + misses[y, x - 2] + misses[y - 2, x]
                    soft[2, 0] = ((unstacked - (centre << FRACTION)) * per_step) >> 24
                    soft[2, 1] = (int64(64) << 16) * 11 // (fine2 + 40)
                else:
                    soft[2, 0], soft[2, 1] = soft[1, 0], soft[1, 1]
                fine = min(log_class(fine >> 1), 31)
                contexts[14] = fine * 8 + ((predicted - (centre << FRACTION) + (1 << (FRACTION - 1))) >> (FRACTION - 3))
                contexts[15] = class_of(
                    (votes[first - 1] - predicted) >> (FRACTION - 2), per_step, scale, most
                ) * wide + class_of(
                    (votes[first - 2] - predicted) >> (FRACTION - 2), per_step, scale, most
                )
            contexts[INPUTS] = level
            contexts[INPUTS + 1] = dp
            contexts[INPUTS + 2] = apart
            contexts[INPUTS + 3] = level if plan[COARSE] == 0 else half
            contexts[INPUTS + 4] = clipped(qws, 2) * 5 + clipped(qns, 2)
            for i in range(INPUTS + 5):
                contexts[i] += plan[OFFSETS + i]

            # --- the symbol
            symbol = int64(0)
            if not decoding:
                symbol = quantized(int64(levels[row, column]) - centre, tolerance, step)
            symbol = code_symbol(
                decoding, symbol, scale, contexts, counters, weights, refined, plan, scratch,
                coder, stream, soft,
            )  # fmt: skip
            value = min(max(centre + symbol * step, int64(0)), top)
            current[y, x] = value
            symbols[y, x] = min(max(symbol, -(int64(1) << 30)), int64(1) << 30)
            errors[y, x] = value - centre
            misses[y, x] = min((abs((value << FRACTION) - predicted) * per_step) >> 24, int64(1) << 24)

            # --- what it taught
            exact = value << FRACTION
            if STACK:
                stack[count] = min(max((exact - unstacked) >> narrow, -(1<<25)), 1<<25)
                nearby.observe(
                    tops[row // nearby.ROWS + nearby.MARGIN, block + nearby.MARGIN], stack, count
                )
            local[nl] = (value - base) >> narrow
            nearby.observe(
                sums[row // nearby.ROWS + nearby.MARGIN, block + nearby.MARGIN], local, nl
            )
            bias[cell, 0] += exact - predicted
            bias[cell, 1] += 1
            if bias[cell, 1] >= 512:
                bias[cell, 0] >>= 1
                bias[cell, 1] >>= 1
            for v in range(count):
                missed = (abs(exact - votes[v]) * per_step) >> 24
                voter_errors[v, now, x] = min(missed, int64(1) << 27)
            floor = 16 * step * step + 1
            small = ((exact - votes[first]) >> narrow) * (
                (int64(1) << 33) // (small_energy + floor)
            )
            inverse = (int64(1) << 33) // (energy + floor)
            quick = ((exact - votes[first + 1]) >> narrow) * inverse
            slow = ((exact - votes[first + 2]) >> narrow) * inverse
            small, quick, slow = small >> 20, quick >> 25, slow >> 23
            for i in range(6):
                filters[0, i] += (small * taps[i]) >> 9
            for i in range(used):
                filters[1, i] += (quick * taps[i]) >> 6
                filters[2, i] += (slow * taps[i]) >> 6
    pad(current, rows, columns)
    return coder[3]
