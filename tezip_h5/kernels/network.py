"""Kernels of the integer PredNet for the CPU (numba, without the GIL, kept on disk).

`prediction.reference` defines what they compute. The tensor x of a layer is float32 (channels,
rows + 2, columns + 2); it includes a border of zeros. Its values are integers. So are the
accumulators, which are below 2**24 in magnitude, so float32 holds them exactly. Their values
depend neither on the order of summation, nor on whether the processor fuses multiplication and
addition. Only for this reason is `contract` allowed here.
"""

from __future__ import annotations

from numba import float32, int16, int32, int64, uint8, void

from tezip_h5.kernels.compiling import inlined, kernel

_TENSOR = float32[:, :, ::1]
_LEVELS = int32[:, :, ::1]

ACTIVATION = 255  # largest activation
GATE = 256  # a gate that is fully open
PREACTIVATION = 1023  # largest magnitude of the input of the table of tanh
CELL = 2047  # largest magnitude of the state of an LSTM cell
CHANGE_BITS = 3  # changes and errors have this many more bits than the frame itself


@inlined
def _rescale(value, bits):
    """value / 2**bits, rounded; `bits` may be negative."""
    if bits > 0:
        return (value + (int64(1) << (bits - 1))) >> bits
    return value << -bits


@inlined
def _clamp(value, low, high):
    return min(max(value, low), high)


@kernel(
    void(_TENSOR, float32[:, :, :, ::1], float32[::1], int64, int64, _TENSOR),
    fastmath={"contract"},
)
def convolve(x, weights, bias, first, stop, out):
    """Compute the rows from `first` up to but not including `stop` of a 3x3 convolution.

    `weights` is (out / 4, in, 4, 9). Four output channels at a time share the nine inputs of a
    pixel, and the compiler vectorises the loop over a row. `out` is (out, rows, columns).
    """
    columns = out.shape[2]
    for y in range(first, stop):
        for block in range(weights.shape[0]):
            p, q = out[4 * block, y], out[4 * block + 1, y]
            r, s = out[4 * block + 2, y], out[4 * block + 3, y]
            for i in range(columns):
                p[i] = bias[4 * block]
                q[i] = bias[4 * block + 1]
                r[i] = bias[4 * block + 2]
                s[i] = bias[4 * block + 3]
            for channel in range(weights.shape[1]):
                above, here, below = x[channel, y], x[channel, y + 1], x[channel, y + 2]
                k = weights[block, channel]
                p0, p1, p2, p3, p4 = k[0, 0], k[0, 1], k[0, 2], k[0, 3], k[0, 4]
                p5, p6, p7, p8 = k[0, 5], k[0, 6], k[0, 7], k[0, 8]
                q0, q1, q2, q3, q4 = k[1, 0], k[1, 1], k[1, 2], k[1, 3], k[1, 4]
                q5, q6, q7, q8 = k[1, 5], k[1, 6], k[1, 7], k[1, 8]
                r0, r1, r2, r3, r4 = k[2, 0], k[2, 1], k[2, 2], k[2, 3], k[2, 4]
                r5, r6, r7, r8 = k[2, 5], k[2, 6], k[2, 7], k[2, 8]
                s0, s1, s2, s3, s4 = k[3, 0], k[3, 1], k[3, 2], k[3, 3], k[3, 4]
                s5, s6, s7, s8 = k[3, 5], k[3, 6], k[3, 7], k[3, 8]
                for i in range(columns):
                    a, b, c = above[i], above[i + 1], above[i + 2]
                    d, e, f = here[i], here[i + 1], here[i + 2]
                    g, h, j = below[i], below[i + 1], below[i + 2]
                    p[i] = (
                        p[i] + p0 * a + p1 * b + p2 * c + p3 * d + p4 * e
                        + p5 * f + p6 * g + p7 * h + p8 * j
                    )  # fmt: skip
                    q[i] = (
                        q[i] + q0 * a + q1 * b + q2 * c + q3 * d + q4 * e
                        + q5 * f + q6 * g + q7 * h + q8 * j
                    )  # fmt: skip
                    r[i] = (
                        r[i] + r0 * a + r1 * b + r2 * c + r3 * d + r4 * e
                        + r5 * f + r6 * g + r7 * h + r8 * j
                    )  # fmt: skip
                    s[i] = (
                        s[i] + s0 * a + s1 * b + s2 * c + s3 * d + s4 * e
                        + s5 * f + s6 * g + s7 * h + s8 * j
                    )  # fmt: skip


@kernel(void(_LEVELS, _LEVELS, _LEVELS, int64, int64, int64, _TENSOR))
def show_changes(levels, last, prediction, patch, offset, shift, x):
    """Write the input of the first layer of a network with `skip` to `x`.

    The channels of `x` are those of the frame, of its change since the last frame, of positive
    errors of the prediction, and of negative ones. `levels`, `last` and `prediction` are (C, h,
    w). Where patches extend beyond the frame, they repeat the nearest pixel.
    """
    channels, height, width = levels.shape
    count = channels * patch * patch
    bits = shift - CHANGE_BITS
    for row in range(patch):
        for column in range(patch):
            for c in range(channels):
                k = (row * patch + column) * channels + c
                for i in range(x.shape[1] - 2):
                    y = min(i * patch + row, height - 1)
                    for j in range(x.shape[2] - 2):
                        z = min(j * patch + column, width - 1)
                        level = int64(levels[c, y, z])
                        shown = _clamp(_rescale(level - offset, shift), 0, ACTIVATION)
                        change = _rescale(level - last[c, y, z], bits)
                        error = _rescale(level - prediction[c, y, z], bits)
                        x[k, i + 1, j + 1] = shown
                        x[k + count, i + 1, j + 1] = _clamp(change, -ACTIVATION, ACTIVATION)
                        x[k + 2 * count, i + 1, j + 1] = _clamp(error, 0, ACTIVATION)
                        x[k + 3 * count, i + 1, j + 1] = _clamp(-error, 0, ACTIVATION)


@kernel(void(_LEVELS, _LEVELS, int64, int64, int64, _TENSOR))
def show_errors(levels, ahat, patch, offset, shift, x):
    """Write the input of the first layer of a network without `skip` to `x`.

    The channels of `x` are those of positive errors and of negative errors. `ahat` is (C *
    patch**2, rows, columns), the last prediction on the scale of the network.
    """
    channels, height, width = levels.shape
    count = channels * patch * patch
    for row in range(patch):
        for column in range(patch):
            for c in range(channels):
                k = (row * patch + column) * channels + c
                for i in range(x.shape[1] - 2):
                    y = min(i * patch + row, height - 1)
                    for j in range(x.shape[2] - 2):
                        z = min(j * patch + column, width - 1)
                        level = int64(levels[c, y, z])
                        shown = _clamp(_rescale(level - offset, shift), 0, ACTIVATION)
                        error = shown - ahat[k, i, j]
                        x[k, i + 1, j + 1] = max(error, 0)
                        x[k + count, i + 1, j + 1] = max(-error, 0)


@kernel(void(_TENSOR, uint8[::1], _LEVELS, _TENSOR))
def pool_errors(accumulators, shift, ahat, x):
    """Compute A of a layer (ReLU, maximum of 2x2 accumulators), and write E = A - Ahat to `x`."""
    count, rows, columns = ahat.shape
    for k in range(count):
        bits = int32(shift[k])
        half = (int32(1) << bits) >> int32(1)
        for i in range(rows):
            above, below = accumulators[k, 2 * i], accumulators[k, 2 * i + 1]
            for j in range(columns):
                # Rescaling is monotonic, so the largest accumulator gives the largest A.
                largest = max(
                    max(above[2 * j], above[2 * j + 1]), max(below[2 * j], below[2 * j + 1])
                )
                a = _clamp((int32(largest) + half) >> bits, int32(0), int32(ACTIVATION))
                error = a - ahat[k, i, j]
                x[k, i + 1, j + 1] = max(error, int32(0))
                x[k + count, i + 1, j + 1] = max(-error, int32(0))


@kernel(void(_TENSOR, uint8[::1], _LEVELS))
def rectify(accumulators, shift, out):
    """Compute Ahat of a layer from its accumulators: ReLU with an upper limit."""
    for k in range(out.shape[0]):
        bits = int32(shift[k])
        half = (int32(1) << bits) >> int32(1)
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                value = (int32(accumulators[k, i, j]) + half) >> bits
                out[k, i, j] = _clamp(value, int32(0), int32(ACTIVATION))


@kernel(void(_TENSOR, uint8[::1], int16[::1], int16[::1], _LEVELS, _TENSOR, _TENSOR))
def update(accumulators, shift, tanh_input, tanh_cell, cell, r, below):
    """Update the LSTM of a layer: `cell` in place, and the new R is written to `r`.

    `below` is the part of the lower layer's tensor that receives R at twice the size. For the
    lowest layer it has no channels.
    """
    count, rows, columns = cell.shape
    for k in range(count):
        bi, bf = int32(shift[k]), int32(shift[k + count])
        bg, bo = int32(shift[k + 2 * count]), int32(shift[k + 3 * count])
        one = int32(1)
        hi, hf, hg, ho = (one << bi) >> 1, (one << bf) >> 1, (one << bg) >> 1, (one << bo) >> 1
        for y in range(rows):
            gi, gf = accumulators[k, y], accumulators[k + count, y]
            gg, go = accumulators[k + 2 * count, y], accumulators[k + 3 * count, y]
            for z in range(columns):
                i = _clamp((int32(gi[z]) + hi) >> bi, 0, GATE)
                f = _clamp((int32(gf[z]) + hf) >> bf, 0, GATE)
                o = _clamp((int32(go[z]) + ho) >> bo, 0, GATE)
                g = _clamp((int32(gg[z]) + hg) >> bg, -PREACTIVATION, PREACTIVATION)
                value = f * cell[k, y, z] + i * int32(tanh_input[g + PREACTIVATION])
                value = _clamp((value + 128) >> 8, -CELL, CELL)
                cell[k, y, z] = value
                r[k, y + 1, z + 1] = (o * int32(tanh_cell[value + CELL]) + 128) >> 8
        if below.shape[0]:
            for y in range(rows):
                source = r[k, y + 1]
                for row in (below[k, 2 * y + 1], below[k, 2 * y + 2]):
                    for z in range(columns):
                        row[2 * z + 1] = source[z + 1]
                        row[2 * z + 2] = source[z + 1]


@kernel(void(_TENSOR, uint8[::1], _LEVELS, int64, int64, int64, int64, int64, _LEVELS))
def output(accumulators, shift, levels, top, patch, offset, exponent, skip, prediction):
    """Compute the prediction (C, h, w) of the next frame's levels.

    It is made from the last frame's levels and the output of the network. `exponent` is the shift
    that brings the levels of this chunk to the scale of the network.
    """
    channels, height, width = levels.shape
    for row in range(patch):
        for column in range(patch):
            for c in range(channels):
                k = (row * patch + column) * channels + c
                bits = int64(shift[k]) - exponent
                for i in range(row, height, patch):
                    source = accumulators[k, i // patch]
                    for j in range(column, width, patch):
                        change = _rescale(int64(source[j // patch]), bits)
                        base = int64(levels[c, i, j]) if skip else offset
                        prediction[c, i, j] = _clamp(base + change, 0, top)
