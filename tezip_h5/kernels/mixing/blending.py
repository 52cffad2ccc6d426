"""The context-mixing coder for one plane, as a plain function that numba compiles.

`build` makes `code_plane`, which encodes or decodes one plane of one frame. `planes` compiles it
for the CPU, `kernels.cuda.mixing.coding` for CUDA. All arithmetic is in integers. Predictions have
`FRACTION` fraction bits. FORMAT.md, chapter 9, specifies the results.

Blending predictors by their recent errors: Meyer, Tischer, *TMW*, 1997. Gradient-adjusted
prediction and bias cancellation: Wu, Memon, *CALIC*, IEEE Trans. Communications 45, 1997.
Median prediction: Weinberger, Seroussi, Sapiro, *LOCO-I*, IEEE Trans. Image Processing 9, 2000.
Normalised least mean squares: Nagumo, Noda, IEEE Trans. Automatic Control 12, 1967.
"""

from __future__ import annotations

from numba import int64

from tezip_h5.kernels.mixing import nearby
from tezip_h5.kernels.mixing.curves import place_curve, repeat_curve
from tezip_h5.kernels.mixing.decisions import MATCH, code_symbol
from tezip_h5.kernels.mixing.pixels import (
    ACTIVITIES,
    BOTTOM,
    FRACTION,
    HAS_GUESS,
    HAS_OTHER,
    HAS_PREVIOUS,
    LEFT,
    RIGHT,
    TOP,
    UNUSED,
    adapt,
    add_up,
    begin_row,
    bit_length,
    blended,
    class_of,
    clipped,
    equalities,
    gather,
    gradient_adjusted,
    log_class,
    median,
    moving,
    narrowed,
    note,
    pad,
    quantized,
    smoothed,
    surroundings,
    vote,
)
from tezip_h5.kernels.sizes import BEYOND, MISSED_MOST, Sizes

_REPEATS = 16 * 8  # cell of `bias` with the share of lively samples that repeat a neighbour
_REPEATING = 1 << 14  # that share, in 1/65536, from which scales are lowered
_TONED, _USUAL = 4, 5  # additional fraction bits of mean misses: of each tone, of each pixel
_FAR = 1 << 25  # limit of the difference of a vote from the blend, so that sums of squares fit


def build(sizes: Sizes):
    """Make `code_plane` for one set of sizes. It is a plain function that is not compiled yet."""
    fine = sizes.fine
    most = 7 if fine else 4  # number of classes of differences on either side of 0
    wide = 2 * most + 1
    curve_count = sizes.curves
    mixer = len(sizes.contexts)  # index in `chosen` of the first mixer, after the contexts
    refiner = mixer + len(sizes.mixers)
    choices = refiner + len(sizes.refiners)
    offsets, slots, mark_count = sizes.offsets, sizes.slots, sizes.marks
    counts = (mixer, curve_count, len(sizes.mixers), len(sizes.refiners), slots, mark_count)

    def code_plane(
        decoding, levels, tolerance, top, flags, alone, planes, finer, traces, squares,
        voter_errors, filters, learned, tones, bias,
        counters, weights, refined, tables, shares, scratch, solving, coder, stream,
    ):  # fmt: skip
        """Encode or decode one plane of one frame.

        Parameters
        ----------
        decoding : bool
        levels : int32 (rows, columns); for encoding only; below 0 where any level is allowed
        tolerance, top, flags : int
            `flags` says which of the planes below are in use (HAS_...).
        alone : bool
            Whether the prediction is that of the transmitted weights alone, not a blend.
        planes : seven int32 arrays (rows + 6, columns + 8), with margins
            Reconstructions of this frame (written), the last one, and the one before it; the
            running mean of recent frames (with `finer` fraction bits); the network's prediction;
            the previous channel of this frame, and the errors of its predictions.
        traces : six arrays with the same margins
            Symbols of this frame (written) and of the last one, errors of this frame (written).
            For fine sizes also misses, in 1/64 symbols: of this frame (written), of the last
            frame, and their running mean (with `_USUAL` more bits). A miss is a prediction's error.
        squares : sums, past sums and weights (see `nearby.Sums`); for fine sizes only
        voter_errors : int32 (2, columns + 8, VOTERS), scratch
        filters : int32 (3, TAPS)
        learned : int32 (classes, TAPS)
            Weights that the encoder learned and transmits, with 16 fraction bits: for each kind
            of surroundings, then for frames without a last frame. May be empty.
        tones : int32 (2, TONES)
            The mean miss of each class of predicted levels, with `_TONED` more bits, and the
            number of predictions in it; for fine sizes only.
        bias : int64 (n, 2), counters, weights, refined : the adaptive state
        tables, shares : `decisions.TABLES`, `pixels.SHARES`
        scratch, solving : tuples of working arrays with undefined content; see ``planes.py``
        coder, stream : the arithmetic coder

        Returns
        -------
        The number of bytes of the stream so far.
        """
        current, previous, before, mean, guess, other, other_errors = planes
        symbols, past_symbols, errors, misses, past_misses, usual = traces
        sums, past_sums, fitted = squares
        rows, columns = current.shape[0] - TOP - BOTTOM, current.shape[1] - LEFT - RIGHT
        has_previous = flags & HAS_PREVIOUS != 0
        has_guess, has_other = flags & HAS_GUESS != 0, flags & HAS_OTHER != 0
        taught, step = learned.shape[0] > 0, 2 * tolerance + 1
        per_step = (int64(1) << 24) // step
        votes, recent, taps, near_taps, off_votes, chosen, inputs, curves, marks = scratch[:9]
        taps_seen, votes_seen = scratch[9:]
        voter_errors[:] = 0
        narrow = narrowed(top)
        darker = max(bit_length(top), int64(FRACTION))
        shaded = max(bit_length(top) - 4, int64(FRACTION))
        square = min(step >> narrow, int64(1) << 20) ** 2
        floor = 16 * min(step, int64(1) << 20) ** 2 + 1  # with larger steps filters hardly adapt
        near_count = 8 + (11 if has_previous else 0) + (1 if has_guess else 0)
        near_count += 3 if has_other else 0
        voters = (7 if fine else 4) + (1 if has_guess else 0) + (1 if has_other else 0)
        voters += (1 if taught else 0) + ((4 if fine else 2) if has_previous else 0)
        voter_errors[:, :, voters:] = UNUSED
        for row in range(rows):
            if decoding and coder[3] > stream.size + BEYOND:
                break  # the stream is damaged; going on would decode the longest codes
            y, now = row + TOP, row & 1
            begin_row(y, columns, flags, top, current, previous, other)
            block_row = row // nearby.ROWS
            if fine and row % nearby.ROWS == 0 and (row > 0 or has_previous):
                nearby.fit_row(
                    sums[nearby.FIT], past_sums[nearby.FIT], nearby.FIT, block_row, near_count,
                    8 * square, solving, fitted[nearby.FIT],
                )  # fmt: skip
                nearby.fit_row(
                    sums[nearby.CORRECTION], past_sums[nearby.CORRECTION], nearby.CORRECTION,
                    block_row, voters, (32 * square) << (2 * FRACTION), solving,
                    fitted[nearby.CORRECTION],
                )  # fmt: skip
            for column in range(columns):
                x = column + LEFT
                w, n = int64(current[y, x - 1]), int64(current[y - 1, x])
                nw, ne = int64(current[y - 1, x - 1]), int64(current[y - 1, x + 1])
                ww, nn = int64(current[y, x - 2]), int64(current[y - 2, x])
                nne = int64(current[y - 2, x + 1])
                p, pw = int64(previous[y, x]), int64(previous[y, x - 1])
                pn = int64(previous[y - 1, x])
                pnw, pne = int64(previous[y - 1, x - 1]), int64(previous[y - 1, x + 1])
                o = int64(other[y, x])

                # --- the voters
                votes[0] = gradient_adjusted(w, n, nw, ne, ww, nn, nne, step)
                votes[1] = median(w, n, nw) << FRACTION
                votes[2] = ((3 * w + n + ne - ww) << FRACTION) >> 2
                count = 3
                base = (w + n + 1) >> 1
                if has_previous:
                    votes[3] = p << FRACTION
                    count = 4
                    if fine:
                        votes[4] = (p << FRACTION) + ((w - pw + n - pn) << (FRACTION - 1))
                        middle = ((w + n - pw - pn) >> 1) + p
                        votes[5] = median(w + p - pw, n + p - pn, middle) << FRACTION
                        count = 6
                    around = (w - pw) + (n - pn) + (ne - pne) + (nw - pnw)
                    votes[count] = (p << FRACTION) + (around << (FRACTION - 2))
                    count += 1
                    base = (2 * p + w + n + 2) >> 2
                if has_guess:
                    votes[count] = int64(guess[y, x]) << FRACTION
                    count += 1
                if has_other:
                    moved = (w - int64(other[y, x - 1])) + (n - int64(other[y - 1, x]))
                    votes[count] = (o << FRACTION) + (moved << (FRACTION - 1))
                    count += 1
                used = gather(
                    taps, y, x, base, narrow, flags, current, previous, before, mean, finer, guess,
                    other, other_errors,
                )  # fmt: skip
                small, quick, slow = int64(0), int64(0), int64(0)
                energy, small_energy = int64(0), int64(0)
                if fine:
                    for i in range(6):
                        small += int64(filters[0, i]) * int64(taps[i])
                        small_energy += int64(taps[i]) * int64(taps[i])
                lesson = int64(0)
                if taught:  # one loop for all sums saves a hundredth of the time
                    kind = surroundings(y, x, flags, current, previous)
                    for i in range(used):
                        tap = int64(taps[i])
                        if fine:
                            quick += int64(filters[1, i]) * tap
                        slow += int64(filters[2, i]) * tap
                        lesson += int64(learned[kind, i]) * tap
                        energy += tap * tap
                    votes[count] = vote(base, lesson, narrow, top)
                    count += 1
                else:
                    for i in range(used):
                        tap = int64(taps[i])
                        if fine:
                            quick += int64(filters[1, i]) * tap
                        slow += int64(filters[2, i]) * tap
                        energy += tap * tap
                block = column // nearby.COLUMNS
                if fine:
                    nearby.choose(near_taps, taps, used, flags)
                    fit = int64(0)
                    for i in range(near_count):
                        fit += fitted[nearby.FIT, block, i] * int64(near_taps[i])
                    votes[count] = vote(base, fit, narrow, top)
                    count += 1
                first = count
                if fine:
                    votes[first] = vote(base, small, narrow, top)
                    votes[first + 1] = vote(base, quick, narrow, top)
                    count += 2
                at_slow = count
                votes[at_slow] = vote(base, slow, narrow, top)
                count += 1

                predicted, spread = blended(votes, count, voter_errors, now, x, shares, recent)
                if alone and taught:
                    predicted = votes[first - (2 if fine else 1)]
                apart = min(log_class(((spread >> FRACTION) * per_step * 4) >> 24), 15)
                blend = predicted
                if fine:
                    fit = int64(0)
                    for v in range(count):
                        off = (votes[v] - blend) >> narrow
                        off_votes[v] = min(max(off, -_FAR), _FAR)
                        fit += fitted[nearby.CORRECTION, block, v] * int64(off_votes[v])
                    predicted += (fit >> 16) << narrow

                # --- activity
                qw, qn = int64(symbols[y, x - 1]), int64(symbols[y - 1, x])
                qp = int64(past_symbols[y, x])
                here, there = moving(symbols, past_symbols, y, x)
                activity = 2 * here + 4 * there if has_previous else 4 * here
                activity = (activity * 21845) >> 16  # a third
                scale = max(bit_length(activity) - 5, int64(0))
                lively = scale > 0
                if bias[_REPEATS, 0] > _REPEATING:  # samples often repeat: exact values matter
                    scale = max(scale - 2, int64(0))
                level = min(log_class(activity), ACTIVITIES - 1)

                # --- bias cancellation
                cell = min(level, 15) * 8 + (1 if w << FRACTION > predicted else 0)
                cell += 2 if n << FRACTION > predicted else 0
                cell += 4 if has_previous and p << FRACTION > predicted else 0
                if bias[cell, 1] > 0:
                    predicted += bias[cell, 0] // bias[cell, 1]
                predicted = min(max(predicted, int64(0)), top << FRACTION)
                centre = (predicted + (1 << (FRACTION - 1))) >> FRACTION
                offset = predicted - (centre << FRACTION)  # -32..31
                part = (offset + (1 << (FRACTION - 1))) >> (FRACTION - 2)
                tone = predicted >> darker

                # --- contexts
                dw = class_of(w - centre, per_step, scale, most)
                dn = class_of(n - centre, per_step, scale, most)
                dp = class_of(p - centre, per_step, scale, most) if has_previous else int64(most)
                qws, qns = qw >> scale, qn >> scale
                half = min(level >> 1, 9)
                chosen[0] = (level if fine else tone) * 4 + part
                chosen[1] = dw * wide + dn
                filtered = votes[first + 1 if fine else first - 1]
                chosen[2] = class_of(
                    (filtered - predicted) >> (FRACTION - 2), per_step, scale, most
                ) * wide + class_of(
                    (votes[at_slow] - predicted) >> (FRACTION - 2), per_step, scale, most
                )
                chosen[3] = class_of(ne - centre, per_step, scale, most) * wide + class_of(
                    nw - centre, per_step, scale, most
                )
                equal = equalities(w, n, nw, ne, p, centre)
                chosen[MATCH] = equal if fine else equal & 63
                if fine:
                    chosen[5] = dp * wide + dw
                    chosen[6] = dp * wide + dn
                    past = int64(past_symbols[y, x + 1]) + int64(past_symbols[y + 1, x])
                    chosen[7] = dp * 10 + half
                    chosen[8] = clipped(qp >> scale, 4) * 9 + clipped(past >> (scale + 1), 4)
                    chosen[8] = chosen[8] * 4 + part
                    chosen[9] = apart * ACTIVITIES + level
                    chosen[10] = (clipped(qws, 4) * 9 + clipped(qns, 4)) * 5
                    chosen[10] += clipped(qp >> scale, 2)
                    chosen[11] = class_of(nn - centre, per_step, scale, most) * wide + class_of(
                        ww - centre, per_step, scale, most
                    )
                    chosen[12] = min(log_class(there), 15) * 16 + min(log_class(here), 15)
                    if has_guess:
                        last = class_of(int64(guess[y, x]) - centre, per_step, scale, most)
                        chosen[13] = last * wide + half
                    elif has_other:
                        last = class_of(int64(other_errors[y, x]), per_step, scale, most)
                        chosen[13] = last * wide + half
                    else:
                        last = (votes[first] - predicted) >> (FRACTION - 2)
                        chosen[13] = class_of(last, per_step, scale, most) * wide + dp
                    close = 2 * (int64(misses[y, x - 1]) + misses[y - 1, x])
                    close += int64(misses[y - 1, x - 1]) + misses[y - 1, x + 1]
                    wider = close + misses[y, x - 2] + misses[y - 2, x]
                    if has_previous:
                        close += 2 * int64(past_misses[y, x])
                        close += int64(past_misses[y, x + 1]) + past_misses[y + 1, x]
                    else:
                        close += (close * 43691) >> 16  # two thirds
                    long = smoothed(usual, y, x)
                    far = (10 * long) >> _USUAL if has_previous else close
                    fit = votes[first - 1] - (centre << FRACTION)
                    # `close` is a sum of misses whose weights add up to ten; `wider`, to eight.
                    place_curve(curves, 0, offset, per_step, 14, close, 0)
                    place_curve(curves, 1, fit, per_step, 11, int64(recent[first - 1]), 0)
                    repeat_curve(curves, 2, 1)
                    repeat_curve(curves, 3, 0)
                    repeat_curve(curves, 4, 0)
                    if has_previous:
                        place_curve(curves, 2, blend - (centre << FRACTION), per_step, 11, wider, 0)
                        place_curve(curves, 3, offset, per_step, 14, 10 * long, _USUAL)
                    if tones[1, tone] > 0:
                        place_curve(
                            curves, 4, offset, per_step, 14, 10 * int64(tones[0, tone]), _TONED
                        )
                    chosen[14] = min(log_class(close >> 1), 31) * 8
                    chosen[14] += (offset + (1 << (FRACTION - 1))) >> (FRACTION - 3)
                    chosen[15] = class_of(
                        (votes[first - 1] - predicted) >> (FRACTION - 2), per_step, scale, most
                    ) * wide + class_of(
                        (votes[first - 2] - predicted) >> (FRACTION - 2), per_step, scale, most
                    )
                    chosen[16] = predicted >> shaded
                elif has_other:
                    last = class_of(int64(other_errors[y, x]), per_step, scale, most)
                    chosen[3] = last * wide + min(half, wide - 1)
                elif has_guess:
                    last = class_of(int64(guess[y, x]) - centre, per_step, scale, most)
                    chosen[3] = last * wide + min(half, wide - 1)
                chosen[mixer] = level
                if fine:
                    chosen[mixer + 1] = dp
                    chosen[mixer + 2] = min(log_class(far >> 1), 31)
                    chosen[refiner] = level
                    chosen[refiner + 1] = clipped(qws, 2) * 5 + clipped(qns, 2)
                    chosen[refiner + 2] = tone
                else:
                    chosen[refiner] = half
                for i in range(choices):
                    chosen[i] = (chosen[i] + offsets[i]) * slots

                # --- the symbol
                marks[0], marks[1], marks[2] = w - centre, n - centre, p - centre
                marks[3], marks[4], marks[5] = ne - centre, nw - centre, ww - centre
                if fine:
                    marks[6], marks[7] = nn - centre, nne - centre
                for i in range(mark_count):
                    marks[i] = ((2 * marks[i] + step) * per_step) >> 25
                symbol = int64(0)
                if not decoding and levels[row, column] >= 0:
                    symbol = quantized(int64(levels[row, column]) - centre, tolerance, step)
                symbol = code_symbol(
                    decoding, symbol, scale, counts, tables, chosen, marks, offsets[MATCH], inputs,
                    curves, counters, weights, refined, coder, stream,
                )  # fmt: skip
                value = min(max(centre + symbol * step, int64(0)), top)
                current[y, x] = value
                symbols[y, x] = min(max(symbol, -(int64(1) << 30)), int64(1) << 30)
                errors[y, x] = value - centre

                # --- learning from the sample
                exact = value << FRACTION
                if fine:
                    missed = (abs(exact - predicted) * per_step) >> 24
                    missed = min(missed, int64(MISSED_MOST))
                    misses[y, x] = missed
                    note(tones, tone, missed << _TONED, tables[2])
                    off = (exact - blend) >> narrow
                    off_votes[count] = min(max(off, -_FAR), _FAR)
                    near_taps[near_count] = (value - base) >> narrow
                    place = column % nearby.COLUMNS
                    for i in range(count + 1):
                        votes_seen[i, place] = off_votes[i]
                    for i in range(near_count + 1):
                        taps_seen[i, place] = near_taps[i]
                    if place == nearby.COLUMNS - 1 or column == columns - 1:
                        by, bx = block_row + nearby.MARGIN, block + nearby.MARGIN
                        nearby.observe(
                            sums[nearby.CORRECTION, by, bx], votes_seen, count, place + 1
                        )
                        nearby.observe(sums[nearby.FIT, by, bx], taps_seen, near_count, place + 1)
                if lively:
                    repeats = int64(65536) if value in (w, n, p) else int64(0)
                    bias[_REPEATS, 0] += (repeats - bias[_REPEATS, 0]) >> 8
                add_up(bias, cell, exact - predicted)
                for v in range(count):
                    missed = (abs(exact - votes[v]) * per_step) >> 24
                    voter_errors[now, x, v] = min(missed, int64(1) << 27)
                inverse = (int64(1) << 33) // (energy + floor)
                if fine:
                    quick = ((exact - votes[first + 1]) >> narrow) * inverse
                    adapt(filters[1], taps, used, quick >> 25, 6)
                    inverse_small = (int64(1) << 33) // (small_energy + floor)
                    small = ((exact - votes[first]) >> narrow) * inverse_small
                    adapt(filters[0], taps, 6, small >> 20, 9)
                slow = ((exact - votes[at_slow]) >> narrow) * inverse
                adapt(filters[2], taps, used, slow >> 23, 6)
        pad(current, rows, columns)
        return coder[3]

    return code_plane
