"""The mixing coder's decoder, plainly: FORMAT.md section 9 in Python's own integers."""

import struct

import numpy as np
import zstandard

FRACTION = 6
SIZES = {
    0: ((80, 81, 81, 81, 81, 90, 64), (20, 9), (10,), 12),
    1: (
        (80, 225, 225, 225, 225, 225, 256, 150, 324, 320, 405, 225, 256, 225),
        (20, 15, 16),
        (20, 25),
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
        span = self.high - self.low
        middle = self.low + (span >> 16) * chance + (((span & 65535) * chance) >> 16)
        bit = int(self.code <= middle)
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while self.low >> 24 == self.high >> 24:
            byte = self.data[self.at] if self.at < len(self.data) else 0
            self.at += 1
            self.low = (self.low << 8) & 0xFFFFFFFF
            self.high = ((self.high << 8) & 0xFFFFFFFF) | 255
            self.code = ((self.code << 8) & 0xFFFFFFFF) | byte
        return bit

    def raw(self, bits):
        value = 0
        for _ in range(bits):
            value = 2 * value + self.decide(32768)
        return value


class Plane(dict):
    """Samples by (row, column), margins included; what was never set is 0."""

    def __missing__(self, key):
        return 0


class Channel:
    def __init__(self, model):
        contexts, mixers, refiners, slots = SIZES[model]
        self.slots = slots
        self.planes = [Plane(), Plane(), Plane()]
        self.symbols, self.errors = [Plane(), Plane()], Plane()
        self.filters = [[0] * 40 for _ in range(3)]
        self.filters[0][0] = self.filters[0][1] = 1 << 15
        self.filters[1][12] = self.filters[2][12] = 1 << 16
        self.bias = [[0, 0] for _ in range(128)]
        self.counters = [{} for _ in contexts]
        weight = 78643 // len(contexts)
        self.new_weights = [weight] * len(contexts) + [0]
        self.weights = [{} for _ in mixers]
        self.new_table = [SQUASH[clip(128 * j - 2048, -2047, 2047)] for j in range(33)]
        self.tables = [{} for _ in refiners]
        self.seen = 0

    def decide(self, slot, contexts, mixers, refiners, coder):
        cells = [(c, (context, slot)) for c, context in zip(self.counters, contexts, strict=True)]
        inputs = [STRETCH[c.get(key, 1 << 31) >> 20] for c, key in cells] + [256]
        dots, rows = [], []
        for weights, choice in zip(self.weights, mixers, strict=True):
            row = weights.setdefault((choice, slot), list(self.new_weights))
            rows.append(row)
            dot = sum(a * b for a, b in zip(row, inputs, strict=True)) >> 16
            dots.append(clip(dot, -2047, 2047))
        mean = sum(dots) * {2: 32768, 3: 21845}[len(dots)] >> 16
        j, i = (mean + 2048) >> 7, (mean + 2048) & 127
        final = (4 - len(refiners)) * SQUASH[mean]
        lines = []
        for table, choice in zip(self.tables, refiners, strict=True):
            line = table.setdefault((choice, slot), list(self.new_table))
            lines.append(line)
            final += (line[j] * (128 - i) + line[j + 1] * i) >> 7
        bit = coder.decide(clip(final >> 2, 32, 65536 - 32))
        target = 65535 if bit else 0
        for row, dot in zip(rows, dots, strict=True):
            error = (target - SQUASH[dot]) * 7
            for k, value in enumerate(inputs):
                row[k] = clip(row[k] + ((value * error + (1 << 17)) >> 18), -(1 << 22), 1 << 22)
        for c, key in cells:
            chance, n = divmod(c.get(key, 1 << 31), 1024)
            rate = 65536 // (n + 2)
            chance += ((4194303 - chance) * rate) >> 16 if bit else -((chance * rate) >> 16)
            c[key] = chance << 10 | min(n + 1, 1023)
        for line in lines:
            near = j + (i >= 64)
            line[near] += (target - line[near]) >> 6
        return bit

    def symbol(self, k, coder, *where):
        if k == 0 and not self.decide(0, *where, coder):
            return 0
        negative = self.decide(1, *where, coder)
        height = 0
        side = 10 if negative and self.slots > 12 else 0
        while height < 20 and self.decide(2 + min(height, 9) + side, *where, coder):
            height += 1
        if height == 20:
            length = 0
            while length < 40 and not coder.raw(1):
                length += 1
            height += (1 << length | coder.raw(length)) - 1
        magnitude = height << k | coder.raw(k)
        if k == 0:
            magnitude += 1
            return -magnitude if negative else magnitude
        return -1 - magnitude if negative else magnitude


class Stream:
    """One band; `decode` gives its frames one after the other."""

    def __init__(self, data, model, shape, top, guided, use, learned):
        self.coder, self.model, self.shape, self.top = Arithmetic(data), model, shape, top
        self.guided, self.use, self.learned = guided, use, learned
        self.channels = [Channel(model) for _ in range(shape[0])]

    def decode(self, guess, tolerances, keyframe):
        out = np.zeros(self.shape, np.int64)
        other = None
        for c, channel in enumerate(self.channels):
            if keyframe:
                channel.seen = 0
            guide = self.padded(guess[c]) if self.guided and not keyframe else None
            learned = self.learned[c] if self.use else None
            self.plane(channel, int(tolerances[c]), guide, other, keyframe, learned)
            for y in range(self.shape[1]):
                for x in range(self.shape[2]):
                    out[c, y, x] = channel.planes[0][y, x]
            channel.seen += 1
            other = channel
        for channel in self.channels:
            f, p, q = channel.planes
            channel.planes = [q, f, p]
            channel.symbols.reverse()
        return out

    def padded(self, array):
        _, h, w = self.shape
        return Plane(
            {
                (y, x): int(array[clip(y, 0, h - 1), clip(x, 0, w - 1)])
                for y in range(-3, h + 3)
                for x in range(-4, w + 4)
            }
        )

    def plane(self, channel, tolerance, G, O, keyframe, learned):
        _, h, w = self.shape
        F, P, Q = channel.planes
        has_p, has_q = channel.seen > 0, channel.seen > 1
        S, past = channel.symbols
        S.clear()
        if keyframe:
            past.clear()
        misses = {}
        for y in range(h):
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
        for y in range(h):
            for x in range(4):
                F[y, x - 4], F[y, w + x] = F[y, 0], F[y, w - 1]
        for x in range(-4, w + 4):
            for y in range(3):
                F[h + y, x], F[y - 3, x] = F[h - 1, x], F[0, x]

    def sample(self, channel, tolerance, y, x, planes, has, learned, misses):
        F, P, Q, G, O = planes
        has_p, has_q = has
        top, model = self.top, self.model
        S, past = channel.symbols
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
            votes += [
                p << 6,
                (p << 6) + ((w - pw + n - pn) << 5),
                median(w + p - pw, n + p - pn, ((w + n - pw - pn) >> 1) + p) << 6,
                (p << 6) + (((w - pw) + (n - pn) + (ne - pne) + (nw - pnw)) << 4),
            ]
            base = (2 * p + w + n + 2) >> 2
        if G is not None:
            votes.append(at(G, 0, 0) << 6)
        if O is not None:
            other, wrong = O.planes[0], at(O.errors, 0, 0)
            moved = (w - at(other, 0, -1)) + (n - at(other, -1, 0))
            votes.append((at(other, 0, 0) << 6) + (moved << 5))
        narrow = 0
        while top >> narrow > 1 << 20:
            narrow += 1
        taps = [(at(F, *o) - base) >> narrow for o in NEAR]
        if has_p:
            taps += [(at(P, *o) - base) >> narrow for o in PAST]
        for plane, exists in ((Q, has_q), (G, G is not None)):
            if exists:
                taps += [(at(plane, *o) - base) >> narrow for o in AHEAD]
        if O is not None:
            taps.append(wrong >> narrow)
            for o in ((0, -1), (-1, 0), (0, 1), (1, 0)):
                taps.append((at(other, 0, 0) - at(other, *o)) >> narrow)

        def vote(weights, count):
            total = sum(int(a) * b for a, b in zip(weights, taps[:count], strict=False))
            limit = (top << 6) >> narrow
            return (base << 6) + (clip(total >> 10, -limit, limit) << narrow)

        if self.use:
            kind = 3
            if has_p:
                a = abs(w - nw) + abs(n - nw) + abs(n - ne)
                b = abs(w - pw) + abs(n - pn) + abs(ne - pne)
                kind = 0 if 2 * b < a else 1 if b < 2 * a else 2
            votes.append(vote(learned[kind], 40))
        first = len(votes)
        counts = (6, 40, 40)
        votes += [vote(f, c) for f, c in zip(channel.filters, counts, strict=True)]
        small, quick, slow = votes[first:]

        recent = []
        for v in range(len(votes)):
            r = 2 * (misses.get((v, y, x - 1), 0) + misses.get((v, y - 1, x), 0))
            r += misses.get((v, y - 1, x - 1), 0) + misses.get((v, y - 1, x + 1), 0)
            recent.append(r + misses.get((v, y, x - 2), 0))
        down = 0
        while min(recent) >> down >= 64:
            down += 1
        shares = [min(65535, (1 << 24) // (min(r >> down, 4095) + 1) ** 2) for r in recent]
        over = sum(s * (v - votes[0]) for s, v in zip(shares, votes, strict=True))
        pred = votes[0] + over // sum(shares)
        if self.use == 2:
            pred = votes[first - 1]
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
            4 * level + part,
            dp * wide + dw,
            dw * wide + dn,
            dp * wide + dn,
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
                10 * dp + half,
                (9 * q(sp >> k, 4) + q(beside >> (k + 1), 4)) * 4 + part,
                20 * apart + level,
                (9 * q(sw >> k, 4) + q(sn >> k, 4)) * 5 + q(sp >> k, 2),
                c(nn - centre) * 15 + c(ww - centre),
                16 * min(log_class(there), 15) + min(log_class(here), 15),
                last,
            ]
            mixers = (level, dp, apart)
            refiners = (level, 5 * q(sw >> k, 2) + q(sn >> k, 2))
        else:
            if O is not None:
                contexts[5] = c(wrong) * 9 + min(half, 8)
            elif guided is not None:
                contexts[5] = guided * 9 + min(half, 8)
            mixers, refiners = (level, dp), (half,)

        symbol = channel.symbol(k, self.coder, contexts, mixers, refiners)
        value = clip(centre + symbol * step, 0, top)
        F[y, x], S[y, x] = value, clip(symbol, -(2**30), 2**30)
        channel.errors[y, x] = value - centre

        exact = value << 6
        bias[0] += exact - pred
        bias[1] += 1
        if bias[1] >= 512:
            bias[0], bias[1] = bias[0] >> 1, bias[1] >> 1
        for v, guess in enumerate(votes):
            misses[v, y, x] = min(abs(exact - guess) * u >> 24, 1 << 27)
        for f, (count, down, last) in enumerate(((6, 20, 9), (40, 25, 6), (40, 23, 6))):
            energy = sum(t * t for t in taps[:count])
            speed = ((exact - votes[first + f]) >> narrow) * (2**33 // (energy + 16 * step**2 + 1))
            for i, tap in enumerate(taps[:count]):
                channel.filters[f][i] += ((speed >> down) * tap) >> last


def decode(section, shape, top, keyframes, tolerances, guesses=None):
    """Frames (T, C, h, w) of a mixing section; `guesses` are the network's predictions."""
    channels, height, width = shape
    model, flags, use, zero, bands = struct.unpack_from("<BBBBH", section)
    assert zero == 0
    at, learned = 6, None
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
        rows = slice(height * b // bands, height * (b + 1) // bands)
        band = (channels, rows.stop - rows.start, width)
        stream = Stream(section[at : at + size], model, band, top, flags & 1, use, learned)
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
