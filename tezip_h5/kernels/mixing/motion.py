"""Motion of blocks and changes of brightness between two frames.

The encoder searches for motion. Encoder and decoder shift blocks and change brightness alike.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import float64, int8, int16, int32, int64, uint64

from tezip_h5.kernels.compiling import inlined, kernel, uncounted

BLOCK = 16
"""The number of rows and columns of a block, which moves as a whole."""
COARSE = 4  # a coarse pixel is the mean of 4 x 4 pixels
WINDOW = BLOCK // COARSE + 4  # side of a block and its surroundings, in coarse pixels
_REACH_Y, _REACH_X = 6, 12  # largest vectors of the coarse search, in coarse pixels


@numba.njit(nogil=True)
def _shrink(frame):
    """The means of 4 x 4 pixels."""
    rows, columns = frame.shape[0] // COARSE, frame.shape[1] // COARSE
    out = np.zeros((rows, columns), np.int16)
    for y in range(rows):
        for x in range(columns):
            total = int64(0)
            for dy in range(COARSE):
                for dx in range(COARSE):
                    total += frame[y * COARSE + dy, x * COARSE + dx]
            out[y, x] = total // (COARSE * COARSE)
    return out


@inlined
def _apart(a, b, count):
    """The sum of |a - b| over the first `count` samples.

    Whole blocks and windows have loops of their own, whose lengths are constants for the compiler.
    """
    total = int32(0)
    if count == BLOCK:
        for x in range(BLOCK):
            total += int32(abs(int32(int32(a[x]) - int32(b[x]))))
    elif count == WINDOW:
        for x in range(WINDOW):
            total += int32(abs(int32(int32(a[x]) - int32(b[x]))))
    else:
        for x in range(count):
            total += int32(abs(int32(int32(a[x]) - int32(b[x]))))
    return total


@uncounted  # not inlined: it is called in ten places, and that would take seconds to compile
def _difference(frame, last, y0, y1, x0, x1, dy, dx, skip, least):
    """The sum of |frame - shifted last frame| over every `skip`-th row of a block.

    It stops once the sum reaches `least`. It is huge if the shifted block is not inside the frame.
    """
    if y0 + dy < 0 or y1 + dy > last.shape[0] or x0 + dx < 0 or x1 + dx > last.shape[1]:
        return int64(1) << 60
    total = int64(0)
    for y in range(y0, y1, skip):
        total += _apart(frame[uint64(y)][x0:], last[uint64(y + dy)][x0 + dx :], x1 - x0)
        if total >= least:
            break
    return total


_PLANE = int32[:, ::1]
_VECTORS = int8[:, :, ::1]


@kernel(float64(int16[:, ::1], int16[:, ::1], _VECTORS, int64, _VECTORS))
def search(frame, last, past, skip, vectors):
    """Find a motion vector for each block of a frame.

    `vectors` receives them: int8 (blocks down, blocks across, (dy, dx)). `past` are those of the
    frame before. The search examines every `skip`-th row.

    Returns the share of the differences between the frames that the motion explains. If possible
    it is measured in rows that the search did not examine, since a search finds motion in noise,
    too.
    """
    rows, columns = frame.shape
    small, small_last = _shrink(frame), _shrink(last)
    before, after = int64(0), int64(0)
    for by in range(vectors.shape[0]):
        y0, y1 = by * BLOCK, min(by * BLOCK + BLOCK, rows)
        for bx in range(vectors.shape[1]):
            x0, x1 = bx * BLOCK, min(bx * BLOCK + BLOCK, columns)
            still = _difference(frame, last, y0, y1, x0, x1, 0, 0, skip, int64(1) << 60)
            price = still >> 5
            best, dy, dx = still, int64(0), int64(0)
            # Vectors equal to those of neighbours take few bits.
            for k in range(3):
                if k == 0 and bx > 0:
                    ty, tx = int64(vectors[by, bx - 1, 0]), int64(vectors[by, bx - 1, 1])
                elif k == 1 and by > 0:
                    ty, tx = int64(vectors[by - 1, bx, 0]), int64(vectors[by - 1, bx, 1])
                else:
                    ty, tx = int64(past[by, bx, 0]), int64(past[by, bx, 1])
                if ty == dy and tx == dx:
                    continue
                cost = _difference(frame, last, y0, y1, x0, x1, ty, tx, skip, best)
                cost += price >> 2
                if cost < best:
                    best, dy, dx = cost, ty, tx
            # A wide search in coarse pixels, with a window around the block.
            sy0, sy1 = max(y0 // COARSE - 2, 0), min(y1 // COARSE + 2, small.shape[0])
            sx0, sx1 = max(x0 // COARSE - 2, 0), min(x1 // COARSE + 2, small.shape[1])
            least, wy, wx = int64(1) << 59, int64(0), int64(0)
            for ty in range(-_REACH_Y, _REACH_Y + 1, 2):
                for tx in range(-_REACH_X, _REACH_X + 1, 2):
                    cost = _difference(small, small_last, sy0, sy1, sx0, sx1, ty, tx, 2, least)
                    if cost < least:
                        least, wy, wx = cost, ty, tx
            cy, cx, least = wy, wx, int64(1) << 59
            for ty in range(cy - 1, cy + 2):
                for tx in range(cx - 1, cx + 2):
                    cost = _difference(small, small_last, sy0, sy1, sx0, sx1, ty, tx, 1, least)
                    if cost < least:
                        least, wy, wx = cost, ty, tx
            ty, tx = wy * COARSE, wx * COARSE
            cost = _difference(frame, last, y0, y1, x0, x1, ty, tx, skip, best) + price
            own = False
            if cost < best:
                best, dy, dx, own = cost, wy * COARSE, wx * COARSE, True
            for reach in (2, 1, 1):
                cy, cx, found = dy, dx, best
                for ty in range(-1, 2):
                    for tx in range(-1, 2):
                        if ty == 0 and tx == 0:
                            continue
                        ny, nx = cy + ty * reach, cx + tx * reach
                        cost = _difference(frame, last, y0, y1, x0, x1, ny, nx, skip, best)
                        cost += int64(0) if own else price
                        if cost < best and abs(ny) < 64 and abs(nx) < 64:
                            best, dy, dx, own = cost, ny, nx, True
                if reach == 1 and best == found:
                    break
            vectors[by, bx, 0], vectors[by, bx, 1] = dy, dx
            other = y0 + skip - 1
            before += _difference(frame, last, other, y1, x0, x1, 0, 0, skip, int64(1) << 60)
            after += _difference(frame, last, other, y1, x0, x1, dy, dx, skip, int64(1) << 60)
    return 1.0 - after / max(before, int64(1))


@kernel(numba.void(_PLANE, int64, int64, int64, int64, _VECTORS, _PLANE))
def follow(plane, top, left, rows, columns, vectors, out):
    """Shift every block of a plane with margins. Outside of the plane, its edge is repeated."""
    for by in range(vectors.shape[0]):
        for bx in range(vectors.shape[1]):
            dy, dx = int64(vectors[by, bx, 0]), int64(vectors[by, bx, 1])
            x0, x1 = bx * BLOCK, min(bx * BLOCK + BLOCK, columns)
            inside = x0 + dx >= 0 and x1 + dx <= columns
            for y in range(by * BLOCK, min(by * BLOCK + BLOCK, rows)):
                sy = min(max(y + dy, int64(0)), rows - 1)
                source, target = plane[top + sy][left:], out[top + y][left:]
                if inside:
                    for x in range(x0, x1):
                        target[uint64(x)] = source[uint64(x + dx)]
                else:
                    for x in range(x0, x1):
                        target[x] = source[min(max(x + dx, int64(0)), columns - 1)]


@kernel(numba.void(_PLANE, int64, int64, int64))
def brighten(plane, gain, offset, top):
    """Apply a gain and an offset in place, both with 16 fraction bits, and clip to 0..top."""
    if gain == 1 << 16 and offset == 0:
        return
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            value = (gain * int64(plane[y, x]) + offset + (1 << 15)) >> 16
            plane[y, x] = min(max(value, int64(0)), top)
