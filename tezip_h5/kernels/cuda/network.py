"""Kernels of the integer PredNet for CUDA. They compute what `kernels.network` does, in batches.

Each array has a leading batch axis. It counts frames of different chunks, each with its own top,
offset and shift (`scales`, int64 (batch, 3)). The tensor x of a layer is int16 (batch, channels,
rows + 2, columns + 2); it includes a border of zeros. A part of it is given by its first channel.
All kernels except the first two begin with the convolution that computes their accumulators
(`convolve`). So functions take (x, first channel, `Weights`) where those of the CPU take
accumulators. A layer has two tensors that it uses in turn, because R must not be written to a
tensor that other threads still convolve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import boolean, cuda, int16, int32, int64, uint8, void

from tezip_h5.kernels.cuda import memory
from tezip_h5.kernels.cuda.convolve import COLUMNS, ROWS, accumulate, blocks_of, place
from tezip_h5.kernels.cuda.launch import device, grid, kernel

__all__ = [
    "Weights",
    "convolve",
    "output",
    "pool_errors",
    "rectify",
    "show_changes",
    "show_errors",
    "update",
]

_TENSOR = int16[:, :, :, ::1]
_LEVELS = int32[:, :, :, ::1]
_SCALES = int64[:, ::1]
_CONVOLUTION = (_TENSOR, int64, int64, int32[:, :, :, ::1], int32[::1])

# The same constants as in `kernels.network`.
ACTIVATION = 255
GATE = 256
PREACTIVATION = 1023
CELL = 2047
CHANGE_BITS = 3


@dataclass(frozen=True)
class Weights:
    """The parameters of a convolution on the device, in groups of four output channels.

    Attributes
    ----------
    packed : int32 (groups, inputs, 9, 4)
    bias : int32 (4 * groups,)
    shift : uint8 (4 * groups,)
    """

    packed: object
    bias: object
    shift: object

    @classmethod
    def of(cls, kernel, bias, shift, gates: bool) -> Weights:
        """Make them from arrays (3, 3, in, out), (out,), (out,) on the host.

        If `gates`, the four gates of one state channel form a group.
        """
        outputs = len(bias)
        groups = -(-outputs // 4)
        places = np.arange(outputs)
        if gates:
            places = places.reshape(4, -1).T.reshape(-1)
        wide = np.zeros((9, kernel.shape[2], 4 * groups), np.int32)
        wide[..., :outputs] = kernel.reshape(9, -1, outputs)[..., places]
        packed = wide.reshape(9, -1, groups, 4).transpose(2, 1, 0, 3)
        ends = np.zeros((2, 4 * groups), np.int32)
        ends[:, :outputs] = bias[places], shift[places]
        arrays = packed, ends[0], ends[1].astype(np.uint8)
        return cls(*map(memory.to_device, arrays))

    @property
    def inputs(self) -> int:
        """The number of input channels."""
        return self.packed.shape[1]

    def over(self, rows: int, columns: int, batch: int):
        """The blocks and threads of a kernel."""
        return blocks_of(batch, rows, columns, self.packed.shape[0])


@device
def _rescale(value, bits):
    if bits > 0:
        return (value + (int64(1) << (bits - 1))) >> bits
    return value << -bits


@device
def _clamp(value, low, high):
    return min(max(value, low), high)


@device
def _activation(value, bits):
    return _clamp((value + ((1 << bits) >> 1)) >> bits, 0, ACTIVATION)


# --- the input of the first layer -------------------------------------------------------


@kernel(void(_LEVELS, _LEVELS, _LEVELS, int64, _SCALES, int64, _TENSOR, _TENSOR))
def _show_changes(levels, last, prediction, patch, scales, first, x, following):
    channels, height, width = levels.shape[1:]
    rows, columns = x.shape[2] - 2, x.shape[3] - 2
    count = channels * patch * patch
    for n in range(cuda.grid(1), levels.shape[0] * count * rows * columns, cuda.gridsize(1)):
        j = n % columns
        i = n // columns % rows
        k = n // (columns * rows) % count
        b = n // (columns * rows * count)
        c, block = k % channels, k // channels
        y = min(i * patch + block // patch, height - 1)
        z = min(j * patch + block % patch, width - 1)
        shift = scales[b, 2]
        bits = shift - CHANGE_BITS
        level = int64(levels[b, c, y, z])
        shown = _clamp(_rescale(level - scales[b, 1], shift), 0, ACTIVATION)
        change = _rescale(level - int64(last[b, c, y, z]), bits)
        change = _clamp(change, -ACTIVATION, ACTIVATION)
        error = _rescale(level - int64(prediction[b, c, y, z]), bits)
        k += first
        x[b, k, i + 1, j + 1] = shown
        x[b, k + count, i + 1, j + 1] = change
        following[b, k, i + 1, j + 1] = shown
        following[b, k + count, i + 1, j + 1] = change
        x[b, k + 2 * count, i + 1, j + 1] = _clamp(error, 0, ACTIVATION)
        x[b, k + 3 * count, i + 1, j + 1] = _clamp(-error, 0, ACTIVATION)


def show_changes(levels, last, prediction, patch, scales, first, x, following) -> None:
    """As in `kernels.network`, but written to `x` from the channel `first` on.

    Frame and change are also written to `following`, the tensor that receives R.
    """
    size = x.shape[0] * levels.shape[1] * patch * patch * (x.shape[2] - 2) * (x.shape[3] - 2)
    _show_changes(*grid(size), levels, last, prediction, patch, scales, first, x, following)


@kernel(void(_LEVELS, _LEVELS, int64, _SCALES, int64, _TENSOR))
def _show_errors(levels, ahat, patch, scales, first, x):
    channels, height, width = levels.shape[1:]
    rows, columns = x.shape[2] - 2, x.shape[3] - 2
    count = channels * patch * patch
    for n in range(cuda.grid(1), levels.shape[0] * count * rows * columns, cuda.gridsize(1)):
        j = n % columns
        i = n // columns % rows
        k = n // (columns * rows) % count
        b = n // (columns * rows * count)
        c, block = k % channels, k // channels
        y = min(i * patch + block // patch, height - 1)
        z = min(j * patch + block % patch, width - 1)
        level = int64(levels[b, c, y, z])
        shown = _clamp(_rescale(level - scales[b, 1], scales[b, 2]), 0, ACTIVATION)
        error = shown - int64(ahat[b, k, i, j])
        x[b, first + k, i + 1, j + 1] = max(error, 0)
        x[b, first + k + count, i + 1, j + 1] = max(-error, 0)


def show_errors(levels, ahat, patch, scales, first, x) -> None:
    """As in `kernels.network`, but written to `x` from the channel `first` on."""
    size = x.shape[0] * levels.shape[1] * patch * patch * (x.shape[2] - 2) * (x.shape[3] - 2)
    _show_errors(*grid(size), levels, ahat, patch, scales, first, x)


# --- convolutions, and the use of their accumulators ------------------------------------


@kernel(void(*_CONVOLUTION, _LEVELS))
def _convolve(x, first, inputs, weights, bias, out):
    sums = cuda.local.array(32, int32)
    accumulate(x, first, inputs, weights, bias, sums)
    b, group, row, column = place(weights.shape[0])
    for q in range(4):
        k = 4 * group + q
        for i in range(4):
            for j in range(2):
                if k < out.shape[1] and row + i < out.shape[2] and column + j < out.shape[3]:
                    out[b, k, row + i, column + j] = sums[8 * q + 2 * i + j]


def convolve(x, first, weights, out) -> None:
    """Compute accumulators only: int32 (batch, outputs, rows, columns)."""
    over = weights.over(out.shape[2], out.shape[3], out.shape[0])
    _convolve(*over, x, first, weights.inputs, weights.packed, weights.bias, out)


@kernel(void(*_CONVOLUTION, uint8[::1], _LEVELS, int64, _TENSOR))
def _pool_errors(x, first, inputs, weights, bias, shift, ahat, target, out):
    sums = cuda.local.array(32, int32)
    accumulate(x, first, inputs, weights, bias, sums)
    b, group, row, column = place(weights.shape[0])
    count, rows, columns = ahat.shape[1:]
    z = column // COLUMNS
    for q in range(4):
        k = 4 * group + q
        for i in range(2):
            y = row // 2 + i
            if k < count and y < rows and z < columns:
                n = 8 * q + 4 * i
                # Rescaling is monotonic, so the largest accumulator gives the largest A.
                largest = max(max(sums[n], sums[n + 1]), max(sums[n + 2], sums[n + 3]))
                error = _activation(int64(largest), int64(shift[k])) - int64(ahat[b, k, y, z])
                out[b, target + k, y + 1, z + 1] = max(error, 0)
                out[b, target + k + count, y + 1, z + 1] = max(-error, 0)


def pool_errors(x, first, weights, ahat, target, out) -> None:
    """Compute A of a layer (ReLU, 2x2 maximum), and write E = A - Ahat to `out`.

    E is written from the channel `target` on. `x` has twice the rows and columns of `out`.
    """
    over = weights.over(2 * ahat.shape[2], 2 * ahat.shape[3], ahat.shape[0])
    convolution = x, first, weights.inputs, weights.packed, weights.bias
    _pool_errors(*over, *convolution, weights.shift, ahat, target, out)


@kernel(void(*_CONVOLUTION, uint8[::1], _LEVELS))
def _rectify(x, first, inputs, weights, bias, shift, out):
    sums = cuda.local.array(32, int32)
    accumulate(x, first, inputs, weights, bias, sums)
    b, group, row, column = place(weights.shape[0])
    for q in range(4):
        k = 4 * group + q
        for i in range(4):
            for j in range(2):
                if k < out.shape[1] and row + i < out.shape[2] and column + j < out.shape[3]:
                    value = int64(sums[8 * q + 2 * i + j])
                    out[b, k, row + i, column + j] = _activation(value, int64(shift[k]))


def rectify(x, first, weights, out) -> None:
    """Compute Ahat of a layer: ReLU with an upper limit."""
    over = weights.over(out.shape[2], out.shape[3], out.shape[0])
    convolution = x, first, weights.inputs, weights.packed, weights.bias
    _rectify(*over, *convolution, weights.shift, out)


@device
def _gate(value, bits, low, high):
    return _clamp((value + ((1 << bits) >> 1)) >> bits, low, high)


@kernel(
    void(*_CONVOLUTION, uint8[::1], int16[::1], int16[::1], _LEVELS, _TENSOR, int64, int64, _TENSOR)
)
def _update(
    x, first, inputs, weights, bias, shift, tanh_input, tanh_cell, cell, r, enlarged, target, below
):
    sums = cuda.local.array(32, int32)
    accumulate(x, first, inputs, weights, bias, sums)
    b, k, row, column = place(weights.shape[0])
    if k < cell.shape[1]:
        bi, bf = int64(shift[4 * k]), int64(shift[4 * k + 1])
        bg, bo = int64(shift[4 * k + 2]), int64(shift[4 * k + 3])
        for i in range(4):
            for j in range(2):
                y, z = row + i, column + j
                if y < cell.shape[2] and z < cell.shape[3]:
                    n = 2 * i + j
                    take = _gate(int64(sums[n]), bi, 0, GATE)
                    keep = _gate(int64(sums[8 + n]), bf, 0, GATE)
                    g = _gate(int64(sums[16 + n]), bg, -PREACTIVATION, PREACTIVATION)
                    show = _gate(int64(sums[24 + n]), bo, 0, GATE)
                    value = keep * int64(cell[b, k, y, z])
                    value += take * int64(tanh_input[g + PREACTIVATION])
                    value = _clamp((value + 128) >> 8, -CELL, CELL)
                    cell[b, k, y, z] = value
                    shown = (show * int64(tanh_cell[value + CELL]) + 128) >> 8
                    r[b, k, y + 1, z + 1] = shown
                    if enlarged:
                        for down in range(1, 3):
                            below[b, target + k, 2 * y + down, 2 * z + 1] = shown
                            below[b, target + k, 2 * y + down, 2 * z + 2] = shown


def update(x, weights, tables, cell, r, below=None, target: int = 0) -> None:
    """Update the LSTM of a layer: `cell` in place, and the new R to the first channels of `r`.

    `x` and `r` are the two tensors of the layer. All channels of `x` are convolved. If there is a
    layer below, R is also written to `below` at twice the size, from the channel `target` on.
    """
    over = weights.over(cell.shape[2], cell.shape[3], cell.shape[0])
    convolution = x, 0, weights.inputs, weights.packed, weights.bias
    lower = (0, 0, r) if below is None else (1, target, below)
    _update(*over, *convolution, weights.shift, *tables, cell, r, *lower)


@device
def _answer(value, bits, b, k, y, z, levels, scales, patch, skip, ahat, prediction):
    """Compute the prediction of one pixel from its accumulator."""
    channels, height, width = levels.shape[1:]
    count, rows, columns = ahat.shape[1:]
    if k < count and y < rows and z < columns:
        if not skip:
            ahat[b, k, y, z] = _activation(value, bits)
        c, block = k % channels, k // channels
        y = y * patch + block // patch
        z = z * patch + block % patch
        if y < height and z < width:
            base = int64(levels[b, c, y, z]) if skip else scales[b, 1]
            change = _rescale(value, bits - scales[b, 2])
            prediction[b, c, y, z] = _clamp(base + change, int64(0), scales[b, 0])


@device
def _answers(q, sums, shift, levels, scales, patch, skip, ahat, prediction):
    """Compute the predictions of one output channel. It is called with constants, as
    `convolve._add` is."""
    b, group, row, column = place(shift.size // 4)
    k = 4 * group + q
    bits = int64(shift[k]) if k < shift.size else int64(0)
    at = b, k
    rest = levels, scales, patch, skip, ahat, prediction
    for i in range(4):
        for j in range(2):
            _answer(int64(sums[8 * q + 2 * i + j]), bits, *at, row + i, column + j, *rest)


@kernel(void(*_CONVOLUTION, uint8[::1], _LEVELS, _SCALES, int64, boolean, _LEVELS, _LEVELS))
def _output(x, first, inputs, weights, bias, shift, levels, scales, patch, skip, ahat, prediction):
    sums = cuda.local.array(32, int32)
    accumulate(x, first, inputs, weights, bias, sums)
    _answers(0, sums, shift, levels, scales, patch, skip, ahat, prediction)
    _answers(1, sums, shift, levels, scales, patch, skip, ahat, prediction)
    _answers(2, sums, shift, levels, scales, patch, skip, ahat, prediction)
    _answers(3, sums, shift, levels, scales, patch, skip, ahat, prediction)


def output(x, weights, levels, scales, patch, skip, ahat, prediction) -> None:
    """Compute the predictions (batch, C, h, w) of the next frames' levels.

    They are made from the last frames' levels and the output of the network. Without `skip`, Ahat
    of the first layer is written, too.
    """
    over = weights.over(ahat.shape[2], ahat.shape[3], ahat.shape[0])
    convolution = x, 0, weights.inputs, weights.packed, weights.bias
    _output(*over, *convolution, weights.shift, levels, scales, patch, skip, ahat, prediction)


assert (ROWS, COLUMNS) == (4, 2)  # the loops above are written for these numbers
