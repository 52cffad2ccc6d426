"""A decoder of whole payloads, plainly, as FORMAT.md words it: chapters 2 to 7, without networks.

Chapters 8 and 9 are `naive_linear` and `naive_mixing`. Levels are Python's integers. Only zstd,
Blosc and CRC-32 are others' work.
"""

import struct
import zlib

import naive
import naive_linear
import naive_mixing
import numpy as np
import zstandard

DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8", "i8", "u8", "f2", "u1")


def inflated(data):
    return zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj().decompress(data)


def parse(payload):
    """Chapter 2: the fields of the header, and the sections by number."""
    fields = struct.unpack_from("<4s8B", payload)
    magic, version, dtype, coder, predictor, scale, flags, n, channels = fields
    shape = struct.unpack_from("<3I", payload, 12)
    stored = struct.unpack_from("<3I", payload, 24)
    reserved, checksum = struct.unpack_from("<2I", payload, 36)
    assert (magic, version, reserved) == (b"TZH5", 0, 0)
    assert flags < 2
    assert channels <= 4
    end = 44 + 12 * n
    assert struct.unpack_from("<I", payload, end)[0] == zlib.crc32(payload[:end])
    sections, at = {}, end + 4
    for i in range(n):
        number, size, crc = struct.unpack_from("<3I", payload, 44 + 12 * i)
        sections[number] = payload[at : at + size]
        assert zlib.crc32(sections[number]) == crc
        at += size
    assert at == len(payload)
    head = (DTYPES[dtype], dtype, coder, predictor, scale, flags, channels)
    return (*head, shape, stored, checksum), sections


def bits_of(pattern, dtype):
    """The float whose bit pattern is the integer `pattern` modulo its range."""
    width = int(dtype[1])
    return np.frombuffer((pattern % 2 ** (8 * width)).to_bytes(width, "little"), "<" + dtype)[0]


def ordered(code, dtype):
    """The sample of an integer in the order of the values, of which the lowest bits count."""
    n = 8 * int(dtype[1])
    if dtype[0] != "f":
        return np.frombuffer((code % 2**n).to_bytes(n // 8, "little"), "<" + dtype)[0]
    key = (code + 2 ** (n - 1)) % 2**n - 2 ** (n - 1)
    return bits_of(key if key >= 0 else key ^ (2 ** (n - 1) - 1), dtype)


def key_of(sample):
    """The inverse of `ordered`, of floats."""
    n = 8 * sample.itemsize
    bits = int.from_bytes(sample.tobytes(), "little", signed=True)
    return bits if bits >= 0 else bits ^ (2 ** (n - 1) - 1)


class Levels:
    """Chapter 5."""

    def __init__(self, data, scale, dtype, g=1):
        self.scale, self.dtype = scale, dtype
        self.offset, self.top = struct.unpack_from("<qI", data)
        self.b = 1 if self.top < 2**8 else 2 if self.top < 2**16 else 4
        more = data[12:]
        if scale == 7:
            self.step, self.divisor, self.intercept = struct.unpack("<ddd", more)
        if scale == 8:
            self.scales = []
            for _ in range(g):
                kind, size = struct.unpack_from("<BI", more)
                self.scales.append(Levels(more[5 : 5 + size], kind, dtype))
                more = more[5 + size :]
            assert not more
        if scale in (2, 5):
            (self.step,) = struct.unpack("<d", more)
        if scale == 3:
            (self.step,) = struct.unpack("<Q", more)
        if scale in (4, 6):
            (n,) = struct.unpack_from("<I", more)
            raw = inflated(more[4:]) if len(more) > 4 else b""
        if scale == 4:
            self.table = [0]
            for (step,) in struct.iter_unpack("<I", raw):
                self.table.append(self.table[-1] + step)
            assert len(self.table) == n
        if scale == 6:
            w = 8 if dtype[1] == "8" else 4
            assert len(raw) == n * w
            key, self.table = 0, []
            for i in range(n):
                key += sum(raw[k * n + i] << 8 * k for k in range(w))
                self.table.append(ordered(key % 2 ** (8 * w), dtype))

    def sample(self, level, t=0):
        if self.scale == 8:
            return self.scales[t].sample(level)
        code, dtype = int(level) + self.offset, self.dtype
        if self.scale == 7:
            value = float(code) * self.step / self.divisor + self.intercept
            with np.errstate(over="ignore"):
                return np.dtype(dtype).type(value)
        if self.scale < 2:
            return ordered(code, dtype)
        if self.scale in (2, 5):
            with np.errstate(over="ignore"):
                return np.dtype(dtype).type(float(code) * self.step)
        if self.scale == 3:
            most = 2 ** (8 * int(dtype[1]) - 1) - 1
            value = bits_of(self.step * min(abs(code), most // self.step), dtype)
            return -value if code < 0 else value
        if self.scale == 4:
            value = self.table[min(abs(code), len(self.table) - 1)]
            return ordered(-value if code < 0 else value, dtype)
        return self.table[min(max(code, 0), len(self.table) - 1)]


class Stages:
    """Chapters 4 and 7."""

    def __init__(self, sections, shape, levels):
        self.shape, self.levels = shape, levels
        self.streams = {n: self.open(sections[n]) for n in (4, 5) if n in sections}

    def open(self, data):
        options, b, p, quantizer, size = struct.unpack_from("<4BI", data)
        assert options < 4
        assert b == self.levels.b
        assert p in (1, 2, 4)
        table = None
        if options & 2:
            raw = inflated(data[8 : 8 + size])
            table = [int(v) for v in np.frombuffer(raw, f"<i{b}")]
        return options, p, quantizer, table, inflated(data[8 + size :]), [0]

    def symbols(self, number):
        options, p, _, table, raw, at = self.streams[number]
        count = int(np.prod(self.shape))
        planes = np.frombuffer(raw, np.uint8, p * count, at[0]).reshape(p, count)
        at[0] += p * count
        packed = [sum(int(planes[k, i]) << 8 * k for k in range(p)) for i in range(count)]
        found = [table[v] for v in packed] if table else [(v >> 1) ^ -(v & 1) for v in packed]
        if options & 1:
            before, out = 0, []
            for d in found:
                before = naive.wrap(before - d, self.levels.b)
                out.append(before)
            found = out
        return np.array(found, object).reshape(self.shape)

    def keyframe(self, tolerances):
        symbols = self.symbols(4)
        out = np.zeros(self.shape, object)
        for c, y, x in np.ndindex(*self.shape):
            o = out[c]
            if y == 0:
                guess = o[0, x - 1] if x else 0
            elif x == 0:
                guess = o[y - 1, 0]
            else:
                guess = naive.median(o[y, x - 1], o[y - 1, x], o[y - 1, x - 1])
            o[y, x] = self.level(guess, symbols[c, y, x], tolerances[c])
        return out

    def residual(self, guesses, tolerances):
        symbols, merging = self.symbols(5), self.streams[5][2]
        out = np.zeros(self.shape, object)
        for at in np.ndindex(*self.shape):
            tolerance = 0 if merging else tolerances[at[0]]
            out[at] = self.level(guesses[at], symbols[at], tolerance)
        return out

    def level(self, guess, symbol, tolerance):
        if tolerance:
            return min(max(guess + symbol * (2 * tolerance + 1), 0), self.levels.top)
        return naive.level(guess + symbol, self.levels.b)


def decode(payload):
    """All samples of a chunk, those outside the stored part 0."""
    head, sections = parse(payload)
    dtype, number, coder, predictor, scale, flags, channels, shape, stored, checksum = head
    assert predictor < 2  # no network here
    g, h, w = stored
    C = max(channels, 1)
    if coder == 0:
        from numcodecs import Blosc

        samples = np.frombuffer(Blosc().decode(sections[7]), "<" + dtype).reshape(g, h, w, C)
    else:
        samples = frames(sections, coder, flags, scale, dtype, (g, C, h, w))
    assert zlib.crc32(samples.tobytes()) == checksum
    out = np.zeros((*shape, C), "<" + dtype)
    out[:g, :h, :w] = samples
    out = out if channels else out[..., 0]
    return out.view(bool) if number == 11 else out


def frames(sections, coder, flags, scale, dtype, size):
    g, C, h, w = size
    kinds, each = sections[1][:g], sections[1][g]
    rest = struct.unpack(f"<{(g * C if each else 1)}I", sections[1][g + 1 :])
    tolerances = [list(rest[t * C : t * C + C]) if each else [rest[0]] * C for t in range(g)]
    assert scale != 7  # it is only of one frame
    levels = Levels(sections[2], scale, dtype, g)
    low, high = (0, levels.top) if levels.top < 2**31 else (-(2**31), 2**31 - 1)
    if coder == 2:
        assert len({tuple(t) for t in tolerances}) == 1  # all that the naive decoder takes
        keyframes = [kind < 2 for kind in kinds]
        decoded = naive_mixing.decode(sections[5], (C, h, w), levels.top, keyframes, tolerances[0])
    else:
        names = {"tables": sections.get(9), "residuals": sections.get(5)}
        if coder == 3:
            decoder = naive_linear.Decoder(names, (C, h, w), low, high)
        else:
            decoder = Stages(sections, (C, h, w), levels)
        decoded, guess = [], np.zeros((C, h, w), object)
        for t, kind in enumerate(kinds):
            if coder == 3:
                frame = decoder.frame(guess if kind == 2 else None, tolerances[t])
            elif kind == 2:
                frame = decoder.residual(guess, tolerances[t])
            else:
                frame = decoder.keyframe(tolerances[t])
            if kind < 2 or not flags & 1:
                guess = frame
            decoded.append(frame)
    samples = np.zeros((g, h, w, C), "<" + dtype)
    for t, c, y, x in np.ndindex(*size):
        samples[t, y, x, c] = levels.sample(decoded[t][c][y, x], t)
    if scale == 5:
        complete(samples, decoded, levels, inflated(sections[10]))
    if scale == 8 and dtype[0] == "f" and 12 in sections:
        for place, off in beside(samples, sections[12], "i1"):
            samples[place] = ordered(key_of(samples[place]) + int(off), dtype)
    if 11 in sections:
        replace(samples, sections[11])
    return samples


def complete(samples, decoded, levels, bits):
    """Mantissa bits, chapter 5."""
    m = {"f4": 23, "f8": 52}[levels.dtype]
    width = int(levels.dtype[1])
    at = 0
    for t, frame in enumerate(decoded):
        flat = samples[t].reshape(-1)
        planes = np.moveaxis(np.array(frame, object), 0, 2)
        codes = [int(level) + levels.offset for level in planes.reshape(-1)]
        counts = [max(m - (abs(c).bit_length() - 1), 0) if c else 0 for c in codes]
        found = [0] * len(codes)
        for k in reversed(range(m)):
            have = [i for i, n in enumerate(counts) if n > k]
            for j, i in enumerate(have):
                found[i] |= (bits[at + j // 8] >> 7 - j % 8 & 1) << k
            at += -(-len(have) // 8)
        for i, c in enumerate(codes):
            if c == 0:
                found[i] = int.from_bytes(bits[at : at + width], "little")
                at += width
                flat[i] = bits_of(found[i], levels.dtype)
            else:
                whole = int.from_bytes(flat[i].tobytes(), "little")
                flat[i] = bits_of(whole | found[i], levels.dtype)
    assert at == len(bits)


class Masks:
    """The masks of exceptions, chapter 5."""

    def __init__(self, data, shape):
        self.coder, self.shape = naive_mixing.Arithmetic(data), shape
        self.counters, self.before = {}, {}

    def decide(self, context):
        chance, seen = self.counters.get(context, (1 << 21, 0))
        bit = self.coder.decide(naive_mixing.clip(chance >> 6, 1, 65535))
        rate = 65536 // (seen + 2)
        chance += (4194303 - chance) * rate >> 16 if bit else -(chance * rate >> 16)
        self.counters[context] = chance, min(seen + 1, 1023)
        return bit

    def frame(self):
        """The places (y, x, c) of the next frame's exceptions."""
        h, w, channels = self.shape
        found, other = set(), self.before
        for c in range(channels):
            mask, same = {}, 1
            for y in range(h):
                same = self.decide(("row", c > 0, same))
                for x in range(w):
                    if same:
                        mask[y, x] = other.get((y, x), 0)
                        continue
                    coded = [(0, -1), (0, -2), (-1, -1), (-1, 0), (-1, 1), (-2, 0)]
                    around = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]
                    bits = [mask.get((y + dy, x + dx), 0) for dy, dx in coded]
                    bits += [other.get((y + dy, x + dx), 0) for dy, dx in around]
                    mask[y, x] = self.decide((c > 0, *bits))
            found |= {(y, x, c) for (y, x), bit in mask.items() if bit}
            self.before = mask if c == 0 else self.before
            other = mask
        return sorted(found)


def replace(samples, data):
    """Exceptions, chapter 5."""
    for place, sample in beside(samples, data, samples[0].dtype):
        samples[place[0]][place[1 : 1 + samples[0].ndim]] = sample


def beside(samples, data, dtype):
    """What exceptions or corrections say, chapter 5, and of which samples."""
    (n,) = struct.unpack_from("<I", data)
    shape = samples[0].shape
    masks = Masks(data[4 : 4 + n], shape if len(shape) == 3 else (*shape, 1))
    raw, at = inflated(data[4 + n :]), 0
    for t in range(len(samples)):
        for place in masks.frame():
            yield (t, *place), np.frombuffer(raw, dtype, 1, at)[0]
            at += np.dtype(dtype).itemsize
    assert at == len(raw)
    assert n + 3 <= masks.coder.at <= n + 16
