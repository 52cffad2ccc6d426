"""Models and the integer PredNet, plainly, as FORMAT.md, 6.1, words them."""

import hashlib
import json
import struct

import numpy as np
import zstandard


def read_model(data):
    """The architecture and the arrays of a .tzm file."""
    assert data[:4] == b"TZM0"
    raw = zstandard.ZstdDecompressor().decompress(data[36:], max_output_size=1 << 28)
    (size,) = struct.unpack_from("<I", raw)
    head = json.loads(raw[4 : 4 + size])
    digest = hashlib.sha256(head["description"].encode())
    at, arrays = 4 + size, {}
    for name, (kind, shape) in head["arrays"].items():
        array = np.frombuffer(raw, kind, int(np.prod(shape)), at).reshape(shape)
        at += array.nbytes
        digest.update(f"\0{name}\0{array.dtype.str}{array.shape}\0".encode() + array.tobytes())
        arrays[name] = array if name == "conformance" else array.astype(np.int64)
    assert at == len(raw)
    assert digest.digest() == data[4:36]
    return json.loads(head["description"])["architecture"]["config"], arrays


def rescaled(v, n):
    n = np.broadcast_to(np.asarray(n, np.int64), v.shape)
    half = np.where(n > 0, np.int64(1) << np.maximum(n, 0) >> 1, 0)
    return np.where(n > 0, (v + half) >> np.maximum(n, 0), v << np.maximum(-n, 0))


def both_signs(e):
    return np.concatenate([np.clip(e, 0, 255), np.clip(-e, 0, 255)])


class Network:
    """`guess` is what the next frame will be, (C, h, w)."""

    def __init__(self, config, arrays, shape, top, offset, shift):
        self.arrays, self.shape, self.top = arrays, shape, top
        self.offset, self.shift, self.skip = offset, shift, config["skip"]
        self.layers, self.patch = len(config["states"]), config["patch"]
        multiple = self.patch * 2 ** (self.layers - 1)
        self.size = tuple(-(-n // multiple) * multiple for n in shape[1:])
        targets = [config["channels"] * self.patch**2, *config["targets"]]
        self.r = [self.zeros(n, layer) for layer, n in enumerate(config["states"])]
        self.c = [self.zeros(n, layer) for layer, n in enumerate(config["states"])]
        self.ahat = [self.zeros(n, layer) for layer, n in enumerate(targets)]
        self.last, self.guess = None, np.zeros(shape, np.int64)

    def zeros(self, channels, layer):
        rows, columns = (n // self.patch >> layer for n in self.size)
        return np.zeros((channels, rows, columns), np.int64)

    def places(self):
        """Channel of a block, and which pixels of which channel it holds."""
        p, channels = self.patch, self.shape[0]
        for row, column, c in np.ndindex(p, p, channels):
            yield (row * p + column) * channels + c, np.s_[c, row::p, column::p]

    def blocks(self, frame):
        _, h, w = self.shape
        rows, columns = (
            np.minimum(np.arange(n), m - 1) for n, m in zip(self.size, (h, w), strict=True)
        )
        extended = frame[:, rows][:, :, columns]
        out = self.zeros(self.shape[0] * self.patch**2, 0)
        for channel, pixels in self.places():
            out[channel] = extended[pixels]
        return out

    def pixels(self, blocks):
        out = np.zeros((self.shape[0], *self.size), np.int64)
        for channel, pixels in self.places():
            out[pixels] = blocks[channel]
        return out[:, : self.shape[1], : self.shape[2]]

    def conv(self, name, *inputs):
        x = np.pad(np.concatenate(inputs), ((0, 0), (1, 1), (1, 1)))
        kernel = self.arrays[f"{name}/kernel"]
        rows, columns = x.shape[1] - 2, x.shape[2] - 2
        out = self.arrays[f"{name}/bias"][:, None, None] + np.zeros((1, rows, columns), np.int64)
        for dy, dx in np.ndindex(3, 3):
            out += np.tensordot(kernel[dy, dx].T, x[:, dy : dy + rows, dx : dx + columns], 1)
        return out, self.arrays[f"{name}/shift"][:, None, None]

    def observe(self, frame):
        x, s = self.blocks(frame), self.shift
        shown, seen = np.clip(rescaled(x - self.offset, s), 0, 255), []
        e = shown - self.ahat[0]
        if self.skip:
            first = self.last is None
            change = rescaled(x - (x if first else self.last), s - 3)
            e = rescaled(x - (x if first else self.blocks(self.guess)), s - 3)
            seen = [shown, np.clip(change, -255, 255)]
        errors = [both_signs(e)]
        for l in range(1, self.layers):
            a = np.clip(rescaled(*self.conv(f"a{l}", errors[-1])), 0, 255)
            a = np.max([a[:, i::2, j::2] for i, j in np.ndindex(2, 2)], 0)
            errors.append(both_signs(a - self.ahat[l]))
        for l in reversed(range(self.layers)):
            inputs = [self.r[l], *(seen if l == 0 else []), errors[l]]
            if l < self.layers - 1:
                inputs.append(self.r[l + 1].repeat(2, 1).repeat(2, 2))
            i, f, g, o = np.split(rescaled(*self.conv(f"gates{l}", *inputs)), 4)
            i, f, o = (np.clip(gate, 0, 256) for gate in (i, f, o))
            g = self.arrays["tables/tanh_input"][np.clip(g, -1023, 1023) + 1023]
            self.c[l] = np.clip(rescaled(f * self.c[l] + i * g, 8), -2047, 2047)
            self.r[l] = rescaled(o * self.arrays["tables/tanh_cell"][self.c[l] + 2047], 8)
        for l in range(1, self.layers):
            self.ahat[l] = np.clip(rescaled(*self.conv(f"ahat{l}", self.r[l])), 0, 255)
        y, shift = self.conv("ahat0", self.r[0], *seen)
        self.ahat[0] = np.clip(rescaled(y, shift), 0, 255)
        change = rescaled(y, shift - s)
        base = x if self.skip else self.offset
        self.guess = self.pixels(np.clip(base + change, 0, self.top))
        self.last = x


def conformance(config, arrays):
    """The predictions after each of three frames, which a model holds, too."""
    side = 2 * config["patch"] * 2 ** (len(config["states"]) - 1)
    shape = (config["channels"], side, side)
    network, z, found = Network(config, arrays, shape, 255, 0, 0), 1, []
    for t in range(3):
        frame = np.zeros(shape, np.int64)
        for c, y, x in np.ndindex(*shape):
            z = (1664525 * z + 1013904223) % 2**32
            frame[c, y, x] = (3 * y + 5 * (x + 2 * t) + 17 * c) % 160 + (z >> 26)
        network.observe(frame)
        found.append(network.guess)
    return np.stack(found)
