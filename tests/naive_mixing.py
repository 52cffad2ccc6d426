"""The mixing coder's decoder, plainly: FORMAT.md, chapter 9, in Python's own integers."""

import struct
from itertools import pairwise

import numpy as np
import zstandard

FRACTION = 6
SIZES = {
    0: ((256, 81, 81, 90, 64), (20,), (10,), 12),
    1: (
        (80, 225, 225, 225, 256, 225, 225, 150, 324, 320, 405, 225, 256, 225, 256, 225, 1024),
        (20, 15, 32),
        (20, 25, 64),
        22,
    ),
}
NEAR = [(0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0)]
NEAR += [(-1, 2), (-1, -2), (-2, -1), (-2, 1), (-2, -2), (-2, 2)]
PAST = [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)]
PAST += [(0, 2), (2, 0), (0, -2), (-2, 0)]
AHEAD = [(0, 0), (0, 1), (1, 0)]


def squash_and_stretch():
    one = 1 << 64
    ratio, term, n = 0, one, 0
    while term:
        ratio += (-1) ** n * term
        n += 1
        term //= 256 * n
    squash, e = {}, one
    for x in range(3072):
        squash[x] = min((65536 * one) // (one + e), 65535)
        squash[-x] = squash[x] if x == 0 else max(65536 - squash[x], 1)
        e = e * ratio >> 64
    squash[0] = max(65536 - squash[0], 1)
    stretch, x = [], -3071
    for i in range(4096):
        while x < 3071 and squash[x] < 16 * i + 8:
            x += 1
        stretch.append(x)
    return squash, stretch


SQUASH, STRETCH = squash_and_stretch()


def curve():
    one = 1 << 96
    ratio, term, n = 0, one, 0
    while term:
        ratio += (-1) ** n * term
        n += 1
        term //= 64 * n
    tails, e = {}, one
    for z in range(1281):
        tails[z] = (e << 40) // (one + e)
        tails[-z] = (1 << 40) - tails[z]
        e = e * ratio >> 96
    return tails


CURVE = curve()


def wrapped(v):
    """32 bits of it, two's complement."""
    return (v + 2**31) % 2**32 - 2**31


def clip(v, low, high):
    return min(max(v, low), high)


def log_class(v):
    k = 0
    while v >> k >= 4:
        k += 1
    return 2 * k + (v >> k)


def median(a, b, c):
    if c >= max(a, b):
        return min(a, b)
    return max(a, b) if c <= min(a, b) else a + b - c


class Arithmetic:
    def __init__(self, data):
        self.data, self.at = data, 4
        self.low, self.high = 0, 2**32 - 1
        self.code = int.from_bytes(data[:4].ljust(4, b"\0"), "big")

    def decide(self, chance):
        middle = self.low + ((self.high - self.low) * chance >> 16)
        bit = int(self.code <= middle)
        if bit:
            self.narrow(self.low, middle)
        else:
            self.narrow(middle + 1, self.high)
        return bit

    def narrow(self, low, high):
        while low >> 24 == high >> 24:
            byte = self.data[self.at] if self.at < len(self.data) else 0
            self.at += 1
            low = (low << 8) & 0xFFFFFFFF
            high = ((high << 8) & 0xFFFFFFFF) | 255
            self.code = ((self.code << 8) & 0xFFFFFFFF) | byte
        self.low, self.high = low, high

    def raw(self, bits):
        value = 0
        while bits:
            count = min(bits, 12) if self.high - self.low >= 2**20 else 1
            unit = (self.high - self.low + 1) >> count
            part = min((self.code - self.low) // unit, 2**count - 1)
            low = self.low + unit * part
            self.narrow(low, self.high if part == 2**count - 1 else low + unit - 1)
            value, bits = value << count | part, bits - count
        return value


class Plane(dict):
    """Samples by (row, column), margins included; what was never set is 0."""

    def __missing__(self, key):
        return 0

    def repeat_edges(self, h, w):
        for y in range(-3, h + 3):
            for x in range(-4, w + 4):
                if not (0 <= y < h and 0 <= x < w):
                    self[y, x] = self[clip(y, 0, h - 1), clip(x, 0, w - 1)]

    def moved(self, vectors, h, w):
        out = Plane()
        for y in range(h):
            for x in range(w):
                dy, dx = vectors[y // 16][x // 16]
                out[y, x] = self[clip(y + dy, 0, h - 1), clip(x + dx, 0, w - 1)]
        return out


class LeastSquares:
    """The fit's, or the correction's."""

    def __init__(self, flatten, noise, start):
        self.flatten, self.noise, self.start = flatten, noise, start
        self.reset()

    def reset(self):
        self.sums, self.past = {}, {}
        self.first = [*self.start, *[0] * 24]

    def add(self, y, x, inputs, target):
        values = [*inputs, target]
        products = [a * b for i, a in enumerate(values) for b in values[: i + 1]]
        old = self.sums.get((y // 8, x // 16), [0] * len(products))
        self.sums[y // 8, x // 16] = [a + b for a, b in zip(old, products, strict=True)]

    def end_frame(self):
        for block in set(self.sums) | set(self.past):
            new = self.sums.get(block)
            old = [a >> 1 for a in self.past.get(block, [0] * len(new or ()))]
            self.past[block] = (
                old if new is None else [a + b for a, b in zip(old, new, strict=True)]
            )
        self.sums = {}

    def fit(self, row, across, z):
        """Weights of a row of blocks."""
        self.weights = []
        for column in range(across):
            terms = [(2, self.sums, -1, -1), (2, self.sums, -1, 0), (2, self.sums, -1, 1)]
            terms += [(1, self.sums, -1, -2), (1, self.sums, -1, 2), (1, self.sums, -2, -1)]
            terms += [(1, self.sums, -2, 0), (1, self.sums, -2, 1), (2, self.past, 0, 0)]
            terms += [(1, self.past, dy, dx) for dy, dx in ((0, -1), (0, 1), (1, 0), (-1, 0))]
            known = [(f, sums.get((row + dy, column + dx))) for f, sums, dy, dx in terms]
            known = [[f * a for a in sums] for f, sums in known if sums is not None]
            total = [sum(parts) for parts in zip(*known, strict=True)]
            found = self.solve(total, z) if known else None
            if found is None:
                found = self.weights[-1] if column else self.first
            self.weights.append(found)
        self.first = self.weights[0]

    def solve(self, total, z):
        T, at = [], 0
        while at < len(total):
            T.append(total[at : at + len(T) + 1])
            at += len(T)
        n = len(T) - 1
        largest = max(T[i][i] for i in range(n + 1))
        if largest == 0:
            return None
        down = up = 0
        while largest >> down >= 1 << 30:
            down += 1
        while largest << up < 1 << 28:
            up += 1
        trace = sum(T[i][i] // n for i in range(n)) >> self.flatten
        floor = self.noise * z**2
        if down > 0:
            ridge = 64 + ((trace + floor) >> down)
        else:
            ridge = 64 + ((trace + min(floor, (1 << 34) >> up)) << up)
        L = [[0] * n for _ in range(n + 1)]
        R = [[0] * n for _ in range(n + 1)]
        for i in range(n + 1):
            for j in range(min(i, n - 1) + 1):
                s = ((T[i][j] << up) >> down) - (sum(L[i][k] * R[j][k] for k in range(j)) >> 16)
                if i == j:
                    R[i][i] = max(s, 0) + ridge
                else:
                    R[i][j] = clip(s, -(1 << 31), 1 << 31)
                    L[i][j] = clip((R[i][j] << 16) // R[j][j], -(1 << 26), 1 << 26)
        weights = [0] * n
        for i in reversed(range(n)):
            rest = sum(L[k][i] * weights[k] for k in range(i + 1, n)) >> 16
            weights[i] = clip(L[n][i] - rest, -(1 << 21), 1 << 21)
        return weights


class Distribution:
    def __init__(self, centre, sharpness):
        self.centre, self.sharpness = centre, sharpness

    def beyond(self, edge, sign=1):
        z = ((32 * edge - sign * self.centre) * self.sharpness) >> 16
        return CURVE[clip(z, -1280, 1280)]


def ratio(v, w):
    return STRETCH[min((v << 12) // (w + 1), 4095)]


class Channel:
    def __init__(self, model):
        contexts, mixers, refiners, slots = SIZES[model]
        self.slots = slots
        self.planes = [Plane(), Plane(), Plane()]
        self.mean, self.usual = Plane(), Plane()
        self.tones = [[0, 0] for _ in range(64)]
        self.symbols, self.errors = [Plane(), Plane()], Plane()
        self.misses = [Plane(), Plane()]
        self.fit = LeastSquares(10, 8, [1 << 15, 1 << 15])
        self.correction = LeastSquares(5, 1 << 17, [])
        self.filters = [[0] * 40 for _ in range(3)]
        self.filters[0][0] = self.filters[0][1] = 1 << 15
        self.filters[1][12] = self.filters[2][12] = 1 << 16
        self.bias = [[0, 0] for _ in range(128)]
        self.repeats = 0
        self.counters = [{} for _ in contexts]
        count = len(contexts) + (5 if model else 0)
        self.new_weights = [78643 // count] * count + [0]
        self.weights, self.learned = [{} for _ in mixers], [{} for _ in mixers]
        self.new_table = [SQUASH[clip(128 * j - 2048, -2047, 2047)] for j in range(33)]
        self.tables = [{} for _ in refiners]
        self.seen = 0

    def decide(self, slot, contexts, mixers, refiners, coder, more):
        cells = [(c, (context, slot)) for c, context in zip(self.counters, contexts, strict=True)]
        inputs = [STRETCH[c.get(key, 1 << 31) >> 20] for c, key in cells] + more + [256]
        dots, rows = [], []
        for weights, choice in zip(self.weights, mixers, strict=True):
            row = weights.setdefault((choice, slot), list(self.new_weights))
            rows.append(row)
            dot = sum(a * b for a, b in zip(row, inputs, strict=True)) >> 16
            dots.append(clip(dot, -2047, 2047))
        mean = sum(dots) * {1: 65536, 3: 21845}[len(dots)] >> 16
        j, i = (mean + 2048) >> 7, (mean + 2048) & 127
        final = (4 - len(refiners)) * SQUASH[mean]
        lines = []
        for table, choice in zip(self.tables, refiners, strict=True):
            line = table.setdefault((choice, slot), list(self.new_table))
            lines.append(line)
            final += (line[j] * (128 - i) + line[j + 1] * i) >> 7
        bit = coder.decide(clip(final >> 2, 32, 65536 - 32))
        target = 65535 if bit else 0
        for row, dot, learned, choice in zip(rows, dots, self.learned, mixers, strict=True):
            seen = learned.get((choice, slot), 0)
            learned[choice, slot] = min(seen + 1, 61504)
            error = (target - SQUASH[dot]) * (4 + (65536 // (64 + seen // 64) * 5 >> 7))
            for k, value in enumerate(inputs):
                row[k] = wrapped(row[k] + ((value * error + (1 << 19)) >> 20))
        for c, key in cells:
            chance, n = divmod(c.get(key, 1 << 31), 1024)
            rate = 65536 // (n + 2)
            chance += ((4194303 - chance) * rate) >> 16 if bit else -((chance * rate) >> 16)
            c[key] = chance << 10 | min(n + 1, 1023)
        for line in lines:
            near = j + (i >= 64)
            line[near] += (target - line[near]) >> 6
        return bit

    def symbol(self, k, coder, distributions, marks, contexts, *where):
        def decide(slot, inputs):
            return self.decide(slot, contexts, *where, coder, inputs)

        if k == 0:
            inside = [d.beyond(-1) - d.beyond(1) for d in distributions]
            if not decide(0, [-STRETCH[min(v >> 28, 4095)] for v in inside]):
                return 0
            below = [((1 << 40) - d.beyond(-1)) >> 20 for d in distributions]
            above = [d.beyond(1) >> 20 for d in distributions]
            negative = decide(1, [ratio(v, v + w) for v, w in zip(below, above, strict=True)])
        else:
            chances = [d.beyond(-1) for d in distributions]
            negative = decide(1, [-STRETCH[min(v >> 28, 4095)] for v in chances])
        sign = -1 if negative else 1
        f = -1 if k > 0 and not negative else 1
        side = 10 if negative and self.slots > 12 else 0
        height = 0
        if k == 0:
            rungs = [abs(m) - 1 if m and (m < 0) == bool(negative) else -1 for m in marks]
        elif negative:
            rungs = [(-1 - m) >> k if m < 0 else -1 for m in marks]
        else:
            rungs = [m >> k if m >= 0 else -1 for m in marks]
        while height < 20:
            contexts[4] = sum((rung == height) << bit for bit, rung in enumerate(rungs))
            near, far = ((height << (k + 1)) + f, ((height + 1) << (k + 1)) + f)
            inputs = [ratio(d.beyond(far, sign), d.beyond(near, sign)) for d in distributions]
            if not decide(2 + min(height, 9) + side, inputs):
                break
            height += 1
        if height == 20:
            length = 0
            while length < 40 and not coder.raw(1):
                length += 1
            height += (1 << length | coder.raw(length)) - 1
            low = coder.raw(k)
        elif distributions:
            low = self.low_bits(k, (height << (k + 1)) + f, sign, distributions, coder)
        else:
            low = coder.raw(k)
        magnitude = height << k | low
        if k == 0:
            magnitude += 1
            return -magnitude if negative else magnitude
        return -1 - magnitude if negative else magnitude

    def low_bits(self, k, edge, sign, distributions, coder):
        near = [d.beyond(edge, sign) for d in distributions]
        far = [d.beyond(edge + (2 << k), sign) for d in distributions]
        low, modelled = 0, min(k, 2)
        for bit in range(k - 1, k - 1 - modelled, -1):
            mid = [d.beyond(edge + (2 << bit), sign) for d in distributions]
            parts = zip(near, mid, far, strict=True)
            chance = sum(((m - f + 1) << 16) // (n - f + 2) for n, m, f in parts) // 5
            one = coder.decide(clip(chance, 64, 65472))
            low = 2 * low + one
            if one:
                near, edge = mid, edge + (2 << bit)
            else:
                far = mid
        return low << (k - modelled) | coder.raw(k - modelled)


class Stream:
    """One band; `decode` gives its frames one after the other."""

    def __init__(self, data, model, shape, top, guided, use, learned, vectors, jumps):
        self.coder, self.model, self.shape, self.top = Arithmetic(data), model, shape, top
        self.guided, self.use, self.learned = guided, use, learned
        self.vectors, self.jumps, self.frame = vectors, jumps, 0
        self.channels = [Channel(model) for _ in range(shape[0])]

    def decode(self, guess, tolerances, keyframe):
        out = np.zeros(self.shape, np.int64)
        other = None
        for c, channel in enumerate(self.channels):
            if keyframe:
                channel.seen = 0
            for least_squares in (channel.fit, channel.correction):
                if channel.seen <= 1:
                    least_squares.reset()
            guide = self.padded(guess[c]) if self.guided and not keyframe else None
            learned = self.learned[c] if self.use else None
            self.plane(channel, c, int(tolerances[c]), guide, other, keyframe, learned)
            for y in range(self.shape[1]):
                for x in range(self.shape[2]):
                    out[c, y, x] = channel.planes[0][y, x]
            if self.model:
                self.remember(channel)
            channel.seen += 1
            other = channel
        for channel in self.channels:
            channel.planes = [Plane(), *channel.planes[:2]]
            channel.symbols = [Plane(), channel.symbols[0]]
            channel.misses = [Plane(), channel.misses[0]]
            channel.fit.end_frame()
            channel.correction.end_frame()
        self.frame += 1
        return out

    def padded(self, array):
        _, h, w = self.shape
        plane = Plane({(y, x): int(array[y, x]) for y in range(h) for x in range(w)})
        plane.repeat_edges(h, w)
        return plane

    @property
    def finer(self):
        return max(0, min(6, 30 - self.top.bit_length()))

    def remember(self, channel):
        _, h, w = self.shape
        share = 65536 // min(channel.seen + 1, 6)
        for y in range(-3, h + 3):
            for x in range(-4, w + 4):
                change = (channel.planes[0][y, x] << self.finer) - channel.mean[y, x]
                channel.mean[y, x] += (change * share) >> 16
                change = (channel.misses[0][y, x] << 5) - channel.usual[y, x]
                channel.usual[y, x] += (change * share) >> 16

    def past(self, channel, c):
        """P, Q, S' and M', as bright as this frame, and moved; A stays so."""
        _, h, w = self.shape
        if channel.seen > 0 and self.jumps is not None and self.frame < len(self.jumps[c]):
            gain, offset = (int(number) for number in self.jumps[c][self.frame])
            for plane in channel.planes[1:]:
                for y in range(-3, h + 3):
                    for x in range(-4, w + 4):
                        value = (gain * plane[y, x] + offset + 32768) >> 16
                        plane[y, x] = clip(value, 0, self.top)
            for y in range(-3, h + 3):
                for x in range(-4, w + 4):
                    value = gain * channel.mean[y, x] + (offset << self.finer) + 32768
                    channel.mean[y, x] = clip(value >> 16, 0, self.top << self.finer)
        planes = [*channel.planes[1:], channel.symbols[1], channel.misses[1]]
        if channel.seen > 0 and self.frame < len(self.vectors):
            planes = [plane.moved(self.vectors[self.frame], h, w) for plane in planes]
            channel.mean = channel.mean.moved(self.vectors[self.frame], h, w)
            channel.usual = channel.usual.moved(self.vectors[self.frame], h, w)
            for plane in (*planes[:2], channel.mean):
                plane.repeat_edges(h, w)
        return planes

    def plane(self, channel, c, tolerance, G, O, keyframe, learned):
        _, h, w = self.shape
        has_p, has_q = channel.seen > 0, channel.seen > 1
        if keyframe:
            channel.symbols[1].clear()
        F = channel.planes[0]
        P, Q, past, past_misses = self.past(channel, c)
        self.symbols, self.misses = (channel.symbols[0], past), (channel.misses[0], past_misses)
        self.narrow = 0
        while self.top >> self.narrow > 1 << 20:
            self.narrow += 1
        z = min((2 * tolerance + 1) >> self.narrow, 1 << 20)
        misses = {}
        for y in range(h):
            if self.model:
                for least_squares in (channel.fit, channel.correction):
                    if y % 8 == 0 and (y > 0 or has_p):
                        least_squares.fit(y // 8, -(-w // 16), z)
                    elif y == 0:
                        least_squares.weights = [least_squares.first] * -(-w // 16)
            if y == 0:
                for x in range(-4, w + 4):
                    value = (self.top + 1) // 2
                    if has_p:
                        value = P[0, x]
                    elif O is not None:
                        value = O.planes[0][0, x]
                    F[-1, x] = F[-2, x] = F[-3, x] = value
            else:
                for x in range(w, w + 4):
                    F[y - 1, x] = F[y - 1, w - 1]
            for x in range(-4, 0):
                F[y, x] = F[y - 1, 0]
            for x in range(w):
                self.sample(
                    channel, tolerance, y, x, (F, P, Q, G, O), (has_p, has_q), learned, misses
                )
        F.repeat_edges(h, w)

    def sample(self, channel, tolerance, y, x, planes, has, learned, misses):
        F, P, Q, G, O = planes
        has_p, has_q = has
        top, model, narrow = self.top, self.model, self.narrow
        S, past = self.symbols
        M, past_misses = self.misses
        step = 2 * tolerance + 1
        u = (1 << 24) // step

        def at(plane, dy, dx):
            return plane[y + dy, x + dx]

        w, n, nw, ne = at(F, 0, -1), at(F, -1, 0), at(F, -1, -1), at(F, -1, 1)
        ww, nn, nne = at(F, 0, -2), at(F, -2, 0), at(F, -2, 1)
        p, pw, pn = at(P, 0, 0), at(P, 0, -1), at(P, -1, 0)
        pnw, pne = at(P, -1, -1), at(P, -1, 1)
        level = abs(w - ww) + abs(n - nw) + abs(n - ne)
        d = abs(w - nw) + abs(n - nn) + abs(ne - nne) - level
        flat = ((w + n) << 5) + ((ne - nw) << 4)
        if abs(d) > 80 * step:
            gradient = (w if d > 0 else n) << 6
        elif abs(d) > 32 * step:
            gradient = (flat + ((w if d > 0 else n) << 6)) >> 1
        elif abs(d) > 8 * step:
            gradient = (3 * flat + ((w if d > 0 else n) << 6)) >> 2
        else:
            gradient = flat
        votes = [gradient, median(w, n, nw) << 6, ((3 * w + n + ne - ww) << 6) >> 2]
        base = (w + n + 1) >> 1
        if has_p:
            votes.append(p << 6)
            if model:
                votes += [
                    (p << 6) + ((w - pw + n - pn) << 5),
                    median(w + p - pw, n + p - pn, ((w + n - pw - pn) >> 1) + p) << 6,
                ]
            votes.append((p << 6) + (((w - pw) + (n - pn) + (ne - pne) + (nw - pnw)) << 4))
            base = (2 * p + w + n + 2) >> 2
        if G is not None:
            votes.append(at(G, 0, 0) << 6)
        if O is not None:
            other, wrong = O.planes[0], at(O.errors, 0, 0)
            moved = (w - at(other, 0, -1)) + (n - at(other, -1, 0))
            votes.append((at(other, 0, 0) << 6) + (moved << 5))
        taps = [(at(F, *o) - base) >> narrow for o in NEAR]
        if has_p:
            taps += [(at(P, *o) - base) >> narrow for o in PAST]
        fitted = taps[:8] + taps[12:21]
        if has_q:
            taps += [(at(Q, *o) - base) >> narrow for o in AHEAD]
            if model:
                taps += [((at(channel.mean, *o) >> self.finer) - base) >> narrow for o in AHEAD]
        if has_p:
            fitted += [taps[25], taps[28]] if has_q and model else [0, 0]
        if G is not None:
            more = [(at(G, *o) - base) >> narrow for o in AHEAD]
            taps += more
            fitted.append(more[0])
        if O is not None:
            more = [wrong >> narrow]
            for o in ((0, -1), (-1, 0), (0, 1), (1, 0)):
                more.append((at(other, 0, 0) - at(other, *o)) >> narrow)
            taps += more
            fitted += more[:3]

        def vote(weights, taps):
            total = sum(int(a) * b for a, b in zip(weights, taps, strict=False))
            limit = (top << 6) >> narrow
            return (base << 6) + (clip(total >> 10, -limit, limit) << narrow)

        if self.use:
            kind = 3
            if has_p:
                a = abs(w - nw) + abs(n - nw) + abs(n - ne)
                b = abs(w - pw) + abs(n - pn) + abs(ne - pne)
                kind = 0 if 2 * b < a else 1 if b < 2 * a else 2
            lesson = vote(learned[kind], taps)
            votes.append(lesson)
        if model:
            fit = vote(channel.fit.weights[x // 16], fitted)
            votes.append(fit)
        first = len(votes)
        used = (0, 1, 2) if model else (2,)  # small, quick, slow
        votes += [vote(channel.filters[f], taps if f else taps[:6]) for f in used]
        small, slow = votes[first], votes[-1]
        quick = votes[first + 1] if model else votes[first - 1]  # for the contexts

        recent = []
        for v in range(len(votes)):
            r = 2 * (misses.get((v, y, x - 1), 0) + misses.get((v, y - 1, x), 0))
            r += misses.get((v, y - 1, x - 1), 0) + misses.get((v, y - 1, x + 1), 0)
            recent.append(r + misses.get((v, y, x - 2), 0))
        down = 0
        while min(recent) >> down >= 64:
            down += 1
        shares = [min(16 * 65535, 2**30 // (min(r >> down, 1023) + 1) ** 3) for r in recent]
        over = sum(s * (v - votes[0]) for s, v in zip(shares, votes, strict=True))
        blend = pred = votes[0] + over // sum(shares)
        if self.use == 2:
            blend = pred = lesson
        if model:
            offs = [clip((v - blend) >> narrow, -(1 << 25), 1 << 25) for v in votes]
            weights = channel.correction.weights[x // 16]
            total = sum(a * b for a, b in zip(weights, offs, strict=False))
            pred = blend + ((total >> 16) << narrow)
        apart = min(log_class((((max(votes) - min(votes)) >> 6) * u * 4) >> 24), 15)

        sw, sn, sp = at(S, 0, -1), at(S, -1, 0), at(past, 0, 0)
        here = 3 * (abs(sw) + abs(sn)) + 2 * (abs(at(S, -1, -1)) + abs(at(S, -1, 1)))
        here += abs(at(S, 0, -2)) + abs(at(S, -2, 0))
        around = sum(abs(at(past, *o)) for o in ((0, 1), (1, 0), (0, -1), (-1, 0)))
        there = 2 * abs(sp) + around
        act = ((2 * here + 4 * there if has_p else 4 * here) * 21845) >> 16
        k = 0
        while act >> (k + 5):
            k += 1
        lively = k > 0
        if channel.repeats > 16384:
            k = max(k - 2, 0)
        level = min(log_class(act), 19)

        bias = channel.bias[
            8 * min(level, 15)
            + (w << 6 > pred)
            + 2 * (n << 6 > pred)
            + 4 * (has_p and p << 6 > pred)
        ]
        if bias[1]:
            pred += bias[0] // bias[1]
        pred = clip(pred, 0, top << 6)
        centre = (pred + 32) >> 6
        part = (pred - (centre << 6) + 32) >> 4
        tone = pred >> max(top.bit_length(), 6)

        def c(difference):
            t = (difference * u >> 24) >> k
            size = abs(t)
            if model:
                size = size if size < 4 else 4 if size < 6 else 5 if size < 12 else 6
                size = 7 if abs(t) >= 32 else size
                return 7 + size if t >= 0 else 7 - size
            size = size if size < 3 else 3 if size < 6 else 4
            return 4 + size if t >= 0 else 4 - size

        def q(value, most):
            return clip(value, -most, most) + most

        wide = 15 if model else 9
        dw, dn = c(w - centre), c(n - centre)
        dp = c(p - centre) if has_p else wide // 2
        half = min(level >> 1, 9)
        tests = (n == w, w == nw, centre == w, centre == p, p == w, ne == n, n == nw, p == n)
        equal = sum(test << bit for bit, test in enumerate(tests))
        contexts = [
            4 * (level if model else tone) + part,
            dw * wide + dn,
            c((quick - pred) >> 4) * wide + c((slow - pred) >> 4),
            c(ne - centre) * wide + c(nw - centre),
            equal if model else equal & 63,
        ]
        guided = c(at(G, 0, 0) - centre) if G is not None else None
        if model:
            beside = at(past, 0, 1) + at(past, 1, 0)
            last = c((small - pred) >> 4) * 15 + dp
            if guided is not None:
                last = guided * 15 + half
            elif O is not None:
                last = c(wrong) * 15 + half
            contexts += [
                dp * wide + dw,
                dp * wide + dn,
                10 * dp + half,
                (9 * q(sp >> k, 4) + q(beside >> (k + 1), 4)) * 4 + part,
                20 * apart + level,
                (9 * q(sw >> k, 4) + q(sn >> k, 4)) * 5 + q(sp >> k, 2),
                c(nn - centre) * 15 + c(ww - centre),
                16 * min(log_class(there), 15) + min(log_class(here), 15),
                last,
            ]
            close = 2 * (at(M, 0, -1) + at(M, -1, 0)) + at(M, -1, -1) + at(M, -1, 1)
            wider = close + at(M, 0, -2) + at(M, -2, 0)
            if has_p:
                close += 2 * at(past_misses, 0, 0) + at(past_misses, 0, 1) + at(past_misses, 1, 0)
            else:
                close += (close * 43691) >> 16
            contexts.append(8 * min(log_class(close >> 1), 31) + ((pred - (centre << 6) + 32) >> 3))
            contexts.append(c((fit - pred) >> 4) * 15 + c((votes[first - 2] - pred) >> 4))
            contexts.append(pred >> max(top.bit_length() - 4, 6))
            usual = 4 * at(channel.usual, 0, 0)
            for dy, dx in ((0, -1), (-1, 0), (0, 1), (1, 0)):
                usual += 2 * at(channel.usual, dy, dx)
            for dy, dx in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
                usual += at(channel.usual, dy, dx)
            usual = 10 * (usual >> 4)
            far = usual >> 5 if has_p else close

            def distribution(value, weight, off, finer=0):
                return Distribution(
                    ((value - (centre << 6)) * u) >> 24,
                    (weight << 22 + finer) // (off + (40 << finer)),
                )

            distributions = [
                distribution(pred, 14, close),
                distribution(fit, 11, recent[first - 1]),
                distribution(blend, 11, wider),
                distribution(pred, 14, usual, 5),
                distribution(pred, 14, 10 * channel.tones[tone][0], 4),
            ]
            if not has_p:
                distributions[2:4] = distributions[1], distributions[0]
            if channel.tones[tone][1] == 0:
                distributions[4] = distributions[0]
            mixers = (level, dp, min(log_class(far >> 1), 31))
            refiners = (level, 5 * q(sw >> k, 2) + q(sn >> k, 2), tone)
        else:
            if O is not None:
                contexts[3] = c(wrong) * 9 + min(half, 8)
            elif guided is not None:
                contexts[3] = guided * 9 + min(half, 8)
            mixers, refiners = (level,), (half,)
            distributions = []

        beside = (w, n, p, ne, nw, ww) + (nn, nne) * model
        marks = [((2 * (sample - centre) + step) * u) >> 25 for sample in beside]
        symbol = channel.symbol(k, self.coder, distributions, marks, contexts, mixers, refiners)
        value = clip(centre + symbol * step, 0, top)
        if lively:
            channel.repeats += (65536 * (value in (w, n, p)) - channel.repeats) >> 8
        F[y, x], S[y, x] = value, clip(symbol, -(2**30), 2**30)
        channel.errors[y, x] = value - centre

        exact = value << 6
        if model:
            M[y, x] = min(abs(exact - pred) * u >> 24, 1 << 24)
            known, seen = channel.tones[tone]
            known += (((M[y, x] << 4) - known) * (65536 // (seen + 2))) >> 16
            channel.tones[tone] = [known, min(seen + 1, 1023)]
            channel.fit.add(y, x, fitted, (value - base) >> narrow)
            off = clip((exact - blend) >> narrow, -(1 << 25), 1 << 25)
            channel.correction.add(y, x, offs, off)
        bias[0] += exact - pred
        bias[1] += 1
        if bias[1] >= 512:
            bias[0], bias[1] = bias[0] >> 1, bias[1] >> 1
        for v, guess in enumerate(votes):
            misses[v, y, x] = min(abs(exact - guess) * u >> 24, 1 << 27)
        speeds = ((6, 20, 9), (40, 25, 6), (40, 23, 6))
        for place, f in enumerate(used):
            count, down, last = speeds[f]
            energy = sum(t * t for t in taps[:count])
            speed = ((exact - votes[first + place]) >> narrow) * (
                2**33 // (energy + 16 * step**2 + 1)
            )
            speed = clip(speed >> down, -(1 << 30), 1 << 30)
            for i, tap in enumerate(taps[:count]):
                weight = channel.filters[f][i] + ((speed * tap) >> last)
                channel.filters[f][i] = clip(weight, -(1 << 26), 1 << 26)


def read_vectors(data, frames, sizes):
    """Every band's [frame][block row][block column] = (dy, dx)."""
    shapes = [(frames, -(-rows // 16), -(-columns // 16)) for rows, columns in sizes]
    count = sum(f * down * across for f, down, across in shapes)
    raw = zstandard.ZstdDecompressor().decompress(data)
    assert len(raw) == 2 * count
    assert count <= 1 << 22

    def one_after_the_other(steps):
        value = 0
        for step in steps:
            value = (value + step) % 256
            yield value - 256 if value > 127 else value

    both = zip(one_after_the_other(raw[:count]), one_after_the_other(raw[count:]), strict=True)
    return [
        [[[next(both) for _ in range(across)] for _ in range(down)] for _ in range(frames)]
        for _, down, across in shapes
    ]


def decode(section, shape, top, keyframes, tolerances, guesses=None):
    """Frames (T, C, h, w) of a mixing section; `guesses` are the network's predictions."""
    channels, height, width = shape
    model, flags, use, zero, bands = struct.unpack_from("<BBBBH", section)
    assert zero == 0
    at, learned, vectors = 6, None, [[]] * bands
    edges = [height * b // bands for b in range(bands + 1)]
    if flags & 2:
        size, frames = struct.unpack_from("<IH", section, at)
        heights = [(b - a, width) for a, b in pairwise(edges)]
        vectors = read_vectors(section[at + 6 : at + 6 + size], frames, heights)
        at += 6 + size
    jumps = None
    if flags & 4:
        size, frames = struct.unpack_from("<IH", section, at)
        raw = zstandard.ZstdDecompressor().decompress(section[at + 6 : at + 6 + size])
        jumps = np.frombuffer(raw, "<i8").reshape(channels, frames, 2)
        at += 6 + size
    if use:
        (size,) = struct.unpack_from("<I", section, at)
        raw = zstandard.ZstdDecompressor().decompress(section[at + 4 : at + 4 + size])
        split = np.frombuffer(raw, np.uint8).reshape(4, -1)
        learned = np.ascontiguousarray(split.T).view("<i4").reshape(channels, 4, 40)
        at += 4 + size
    sizes = struct.unpack_from(f"<{bands}I", section, at)
    at += 4 * bands
    parts = []
    for b, size in enumerate(sizes):
        rows = slice(edges[b], edges[b + 1])
        band = (channels, rows.stop - rows.start, width)
        data = section[at : at + size]
        stream = Stream(data, model, band, top, flags & 1, use, learned, vectors[b], jumps)
        at += size
        parts.append(
            [
                stream.decode(
                    None if guesses is None else guesses[t][:, rows], tolerances, keyframe
                )
                for t, keyframe in enumerate(keyframes)
            ]
        )
    return np.concatenate(parts, 2)
