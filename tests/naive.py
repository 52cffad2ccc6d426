"""The obvious versions: they define what the kernels compute, one sample at a time."""

import numpy as np


def wrap(value, width):
    """`value` modulo 2**(8 * width), as a signed integer."""
    modulus = 1 << 8 * width
    return (int(value) + modulus // 2) % modulus - modulus // 2


def level(value, width):
    """A level as it is stored: wide ones wrap into int32."""
    return wrap(value % (1 << 8 * width), 4)


def nearest(residual, tolerance):
    """Index of the cell of width 2 * tolerance + 1 that holds `residual`."""
    step = 2 * tolerance + 1
    return int(np.sign(residual)) * ((abs(int(residual)) + tolerance) // step)


def uniform(levels, prediction, tolerance, top, width):
    """Symbols and reconstruction of one channel, uniform quantizer."""
    symbols, reconstruction = np.zeros_like(levels), np.zeros_like(levels)
    for at in np.ndindex(levels.shape):
        residual = int(levels[at]) - int(prediction[at])
        if tolerance == 0:
            symbols[at], reconstruction[at] = wrap(residual, width), levels[at]
        else:
            symbols[at] = nearest(residual, tolerance)
            value = int(prediction[at]) + int(symbols[at]) * (2 * tolerance + 1)
            reconstruction[at] = min(max(value, 0), top)
    return symbols, reconstruction


def merged(levels, prediction, tolerance, top, width):
    """Symbols and reconstruction of one channel, run-merging quantizer."""
    flat, guess = levels.reshape(-1).tolist(), prediction.reshape(-1).tolist()
    values, run, low, high = [], [], None, None
    for x, p in zip(flat, guess, strict=True):
        a, b = x - p - tolerance, x - p + tolerance
        if run and max(low, a) > min(high, b):
            values += [(low + high) // 2] * len(run)
            run = []
        low, high = (max(low, a), min(high, b)) if run else (a, b)
        run.append(x)
    values += [(low + high) // 2] * len(run)
    reconstruction = [min(max(p + v, 0), top) for p, v in zip(guess, values, strict=True)]
    symbols = [wrap(r - p, width) for r, p in zip(reconstruction, guess, strict=True)]
    as_frame = lambda a: np.array(a, np.int32).reshape(levels.shape)  # noqa: E731
    return as_frame(symbols), as_frame(reconstruction)


def median(left, above, corner):
    """LOCO-I's predictor: the median of left, above, and left + above - corner."""
    return sorted([left, above, left + above - corner])[1]


def keyframe(levels, tolerance, top, width):
    """Symbols and reconstruction of one channel predicted from its own pixels."""
    symbols, out = np.zeros_like(levels), np.zeros_like(levels)
    for y, x in np.ndindex(levels.shape):
        if y == 0:
            guess = int(out[0, x - 1]) if x else 0
        elif x == 0:
            guess = int(out[y - 1, 0])
        else:
            guess = median(int(out[y, x - 1]), int(out[y - 1, x]), int(out[y - 1, x - 1]))
        residual = int(levels[y, x]) - guess
        if tolerance == 0:
            symbols[y, x], out[y, x] = wrap(residual, width), levels[y, x]
        else:
            symbols[y, x] = nearest(residual, tolerance)
            out[y, x] = min(max(guess + int(symbols[y, x]) * (2 * tolerance + 1), 0), top)
    return symbols, out


def differences(symbols, width):
    """Each symbol's predecessor minus itself."""
    return [wrap(a - b, width) for a, b in zip([0, *symbols[:-1]], symbols, strict=True)]


def ranked(symbols):
    """Distinct symbols, the most frequent first, ties by value."""
    return sorted(set(symbols), key=lambda s: (-symbols.count(s), s))


def folded(symbol):
    """0, -1, 1, -2, … as 0, 1, 2, 3, …"""
    return 2 * symbol if symbol >= 0 else -2 * symbol - 1
