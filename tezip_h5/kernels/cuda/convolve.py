"""3x3 convolution on CUDA, the first step of the kernels of the network (`network`).

A block computes a tile of the output for a few groups of four output channels. It reads tiles of
the inputs and weights into shared memory, some channels at a time. A thread computes four rows of
two columns of one group. Its 32 sums stay in registers. The rest of the kernel works on them
there, so accumulators are never written to memory. For each input channel, a thread reads 24
activations and 36 weights, and multiplies 288 times. Even and odd columns of a tile are stored
apart, in rows of 36 words, so that the threads of a warp read from 32 different banks.

Sums are int32, and below 2**24 in magnitude (see `prediction.integer`).
"""

from __future__ import annotations

from numba import int32

from tezip_h5.kernels.cuda.launch import SIMULATED, cuda, device

__all__ = ["COLUMNS", "ROWS", "accumulate", "blocks_of", "place"]

ROWS, COLUMNS = 4, 2
"""The numbers of rows and columns of the output that a thread computes."""

_X, _Y, _Z = (2, 1, 2) if SIMULATED else (16, 4, 4)  # threads of a block; z counts groups
_CHANNELS = 2 if SIMULATED else 8  # input channels in shared memory at a time
_HALF = 4 if SIMULATED else 18  # words for the even or the odd columns of a row; more than _X
_PITCH = 2 * _HALF
_TILE_ROWS = ROWS * _Y + 2
_TILE_COLUMNS = COLUMNS * _X + 2
_TILE = _TILE_ROWS * _TILE_COLUMNS


def blocks_of(batch: int, rows: int, columns: int, groups: int):
    """The blocks and threads for `groups` groups of output channels and `batch` frames."""
    together = min(_Z, groups)
    blocks = (
        -(-columns // (COLUMNS * _X)),
        -(-rows // (ROWS * _Y)),
        batch * -(-groups // together),
    )
    return blocks, (_X, _Y, together)


@device
def place(groups):
    """The frame, group, first row and first column of this thread.

    The group may be beyond the last one; then the thread has nothing to compute.
    """
    together = cuda.blockDim.z
    parts = (groups + together - 1) // together
    frame = cuda.blockIdx.z // parts
    group = (cuda.blockIdx.z - frame * parts) * together + cuda.threadIdx.z
    row = (cuda.blockIdx.y * _Y + cuda.threadIdx.y) * ROWS
    column = (cuda.blockIdx.x * _X + cuda.threadIdx.x) * COLUMNS
    return frame, group, row, column


@device
def _add(sums, inputs, weights, down, right):
    """Add the products of one of the nine taps.

    It is called nine times with constants. So all loops are unrolled, and `sums` and `inputs` are
    kept in registers. A loop over the taps would keep them in memory.
    """
    for q in range(4):
        for i in range(4):
            for j in range(2):
                sums[8 * q + 2 * i + j] += weights[q] * inputs[4 * (i + down) + j + right]


@device
def accumulate(x, first, inputs, weights, bias, sums):
    """Compute the sums of this thread's outputs: sums[8 * channel + 2 * row + column].

    `x` is int16 (batch, channels, rows + 2, columns + 2); `inputs` of its channels, from `first`
    on, are convolved. `weights` is int32 (groups, inputs, 9, 4), and `bias` int32 (4 * groups,).
    """
    tile = cuda.shared.array((_CHANNELS, _TILE_ROWS, _PITCH), int32)
    taps = cuda.shared.array((_CHANNELS, _Z, 9, 4), int32)
    around = cuda.local.array(24, int32)
    across, down, depth = cuda.threadIdx.x, cuda.threadIdx.y, cuda.threadIdx.z
    together = cuda.blockDim.z
    thread = across + _X * (down + _Y * depth)
    threads = _X * _Y * together
    groups = weights.shape[0]
    frame, group, row, column = place(groups)
    group_of_block = group - depth
    top, left = row - ROWS * down, column - COLUMNS * across
    for q in range(4):
        start = bias[4 * group + q] if group < groups else int32(0)
        for i in range(8):
            sums[8 * q + i] = start
    for channel in range(0, inputs, _CHANNELS):
        count = min(_CHANNELS, inputs - channel)
        cuda.syncthreads()  # all threads are done with the channels before
        for k in range(thread, count * _TILE, threads):
            c = k // _TILE
            y = (k - c * _TILE) // _TILE_COLUMNS
            z = k - c * _TILE - y * _TILE_COLUMNS
            value = int32(0)
            if top + y < x.shape[2] and left + z < x.shape[3]:
                value = int32(x[frame, first + channel + c, top + y, left + z])
            tile[c, y, (z & 1) * _HALF + (z >> 1)] = value
        for k in range(thread, count * together * 36, threads):
            c = k // (together * 36)
            part = k - c * together * 36
            g = part // 36
            tap = (part - g * 36) >> 2
            weight = int32(0)
            if group_of_block + g < groups:
                weight = weights[group_of_block + g, channel + c, tap, part & 3]
            taps[c, g, tap, part & 3] = weight
        cuda.syncthreads()
        for c in range(count):
            for i in range(6):
                for j in range(4):
                    around[4 * i + j] = tile[
                        c, ROWS * down + i, (j & 1) * _HALF + across + (j >> 1)
                    ]
            own = taps[c, depth]
            _add(sums, around, own[0], 0, 0)
            _add(sums, around, own[1], 0, 1)
            _add(sums, around, own[2], 0, 2)
            _add(sums, around, own[3], 1, 0)
            _add(sums, around, own[4], 1, 1)
            _add(sums, around, own[5], 1, 2)
            _add(sums, around, own[6], 2, 0)
            _add(sums, around, own[7], 2, 1)
            _add(sums, around, own[8], 2, 2)
