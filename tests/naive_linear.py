"""The linear coder's decoder, one sample at a time, as FORMAT.md, chapter 8, words it."""

import struct

import numpy as np
import zstandard

ABOVE = [(-2, 0), (-2, -1), (-2, 1)]
BEFORE = [(0, 0), (0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)]
CHANNEL = [(0, 0), (0, -1), (0, 1), (-1, 0), (1, 0)]
SECOND = [(0, 0), (0, -1), (-1, 0)]


class Bytes:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        self.at += count
        assert self.at <= len(self.data)
        return self.data[self.at - count : self.at]

    def varint(self):
        number = shift = 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    def signed(self):
        folded = self.varint()
        return folded >> 1 if folded % 2 == 0 else -(folded + 1) >> 1


def read_tables(data):
    """Scale, the table of each context by side, frequencies."""
    scale, count, symbols, sides = struct.unpack("<4B", data[:4])
    body = zstandard.ZstdDecompressor().decompress(data[4:], max_output_size=1 << 24)
    of_context = {side: bytes(7776) for side in range(3)}
    for side in range(3):
        if sides >> side & 1:
            of_context[side], body = body[:7776], body[7776:]
    size = count * symbols
    assert len(body) == 2 * size
    numbers = [body[i] + 256 * body[size + i] for i in range(size)]
    frequencies = [numbers[i * symbols : (i + 1) * symbols] for i in range(count)]
    assert all(sum(row) == 4096 for row in frequencies)
    return scale, of_context, frequencies


class Stream:
    """Words and bits of every sixteenth row."""

    def __init__(self, words, bits, count):
        self.words, self.bits, self.left = words, bits, count
        self.position, self.low = 2, 0
        self.state = words[0] | words[1] << 16

    def cell(self, frequencies, flat):
        slot = self.state & 4095
        start, symbol = 0, 0
        while slot >= start + frequencies[symbol]:
            start += frequencies[symbol]
            symbol += 1
        self.state = frequencies[symbol] * (self.state >> 12) + slot - start
        if self.state < 1 << 16:
            self.state = self.state << 16 | self.words[self.position]
            self.position += 1
        if symbol >= 32:
            count = ((symbol - 32) >> 2) + 3
            value = int.from_bytes(self.bits, "little") >> self.low & ((1 << count) - 1)
            self.low += count
            symbol = (4 + (symbol & 3)) << count | value
        if flat:
            return symbol
        return symbol >> 1 if symbol % 2 == 0 else -(symbol + 1) >> 1

    def finished(self):
        return (self.state, self.position, self.low) == (1 << 16, len(self.words), self.left)


def reader(plane):
    """Samples of a plane of which rows may yet be unknown, with what lies around it."""
    height, width = plane.shape

    def at(y, x):
        if x < 0:
            return at(y - 1, 0) if y > 0 else 0
        return int(plane[min(max(y, 0), height - 1), min(x, width - 1)])

    # Left of rows -1 and h lies what is left of the rows that stand for them.
    return lambda y, x: at(min(max(y, 0), height - 1), x)


def magnitude_reader(plane):
    height, width = plane.shape
    return lambda y, x: int(plane[y, x]) if 0 <= y < height and 0 <= x < width else 0


def median(a, b, c):
    return sorted([a, b, a + b - c])[1]


class Decoder:
    """Decode frames of (C, h, w) levels in order."""

    def __init__(self, sections, shape, low, high):
        self.shape, self.low, self.high = shape, low, high
        self.scale, self.of_context, self.frequencies = read_tables(sections["tables"])
        self.data = Bytes(sections["residuals"])
        sizes = [(self.data.varint(), self.data.varint()) for _ in range(min(shape[1], 16))]
        words = [struct.unpack(f"<{n}H", self.data.take(2 * n)) for n, _ in sizes]
        bits = [self.data.take((n + 7) // 8) for _, n in sizes]
        self.streams = [Stream(w, b, n) for w, b, (_, n) in zip(words, bits, sizes, strict=True)]
        self.last = {}
        self.earlier = np.zeros(shape, np.int64)

    def frame(self, prediction, tolerances):
        frame, magnitudes = np.zeros(self.shape, np.int64), np.zeros(self.shape, np.int64)
        for c, tolerance in enumerate(tolerances):
            self.plane(self.data, frame, magnitudes, prediction, c, int(tolerance))
        self.earlier = magnitudes
        return frame

    def plane(self, data, frame, magnitudes, prediction, c, tolerance):
        predicted = prediction is not None
        flags = data.take(1)[0]
        drift, side, flat = flags >> 1 & 1, flags >> 2 & 3, flags >> 4
        sources = [(reader(frame[c]), ABOVE)]
        if predicted:
            sources.append((reader(prediction[c]), BEFORE))
        if c > 0:
            sources.append((reader(frame[c - 1]), CHANNEL))
        if c > 1:
            sources.append((reader(frame[c - 2]), SECOND))
        taps = [(source, dy, dx) for source, places in sources for dy, dx in places]
        mean, weights = self.last.get((c, predicted), (0, [0] * 5 + [4096] + [0] * len(taps)))
        if flags & 1:
            mean, weights = data.signed(), [data.signed() for _ in range(6 + len(taps))]
        if flat:
            assert flags & 3 == 0
            weights = [0] * len(weights)
        else:
            self.last[c, predicted] = mean, weights
        height, width = self.shape[1:]
        own = sources[0][0]
        past = sources[1][0] if predicted else (lambda y, x: 0)
        reference = past if predicted else sources[1][0] if c > 0 else (lambda y, x: 0)
        m = magnitude_reader(magnitudes[c])
        s = magnitude_reader(self.earlier[c] if side == 1 else magnitudes[c - 1])
        for y in range(height):
            for x in range(width):
                w, ww = own(y, x - 1), own(y, x - 2)
                # Above row 0 there is nothing yet.
                n, nw, ne = (own(y - 1, x + d) if y else 0 for d in (0, -1, 1))
                p, pw = past(y, x), past(y, x - 1)
                pn, pnw = (past(y - 1, x + d) if y else 0 for d in (0, -1))
                middle = p + median(w - pw, n - pn, nw - pnw) if drift else median(w, n, nw)
                if flat:
                    v = 2048 + 4096 * self.low
                elif y == 0:
                    v = 2048 + 4096 * (w + reference(y, x) - reference(y, x - 1))
                elif y == 1:
                    v = 2048 + 4096 * middle
                else:
                    samples = [w, ww, n, nw, ne, middle]
                    samples += [source(y + dy, x + dx) for source, dy, dx in taps]
                    v = 2048 + mean * (4096 - sum(weights))
                    v += sum(a * b for a, b in zip(weights, samples, strict=True))
                g = min(max(v >> 12, self.low), self.high)
                near = 2 * (m(y - 1, x) + m(y, x - 1)) + m(y - 1, x - 1) + m(y - 1, x + 1)
                if side == 0:
                    e = 3 * near + 2 * m(y - 2, x)
                else:
                    e = 2 * near + 2 * s(y, x)
                    e += s(y, x - 1) + s(y, x + 1) + s(y - 1, x) + s(y + 1, x)
                a = min(e >> 2, 4095)
                octave = a.bit_length() - 1
                kind = a if a < 4 else 2 * octave + (a >> (octave - 1) & 1)
                other = p if side == 1 else nw
                pattern = 0
                for sample in (w, n, ne, other):
                    below, above = sample < g - tolerance, sample > g + tolerance
                    pattern = 3 * pattern + (0 if below else 2 if above else 1)
                last = v >> 10 & 3
                if tolerance or all(weight % 4096 == 0 for weight in weights):
                    last = 0 if ww < g - tolerance else 2 if ww > g + tolerance else 1
                context = kind * 324 + pattern * 4 + last
                table = self.of_context[side][context]
                cell = self.streams[y % 16].cell(self.frequencies[table], flat)
                frame[c, y, x] = min(max(g + cell * (2 * tolerance + 1), self.low), self.high)
                magnitudes[c, y, x] = min(abs(cell) >> self.scale, 1023)
        if data.at == len(data.data):  # that was the last plane
            assert all(stream.finished() for stream in self.streams)
