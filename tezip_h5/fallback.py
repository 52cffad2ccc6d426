"""The fallback behind every chunk: shuffled bits or bytes + zstd (Blosc), exact for every dtype.

It is the promise that no chunk is larger than what a user has without us (plus 64 bytes),
and the coder of what the predictive codec does not take: lossless float64, wide integers
of wide range.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager

import numpy as np

from tezip_h5.errors import FormatError

__all__ = ["decode", "encode", "parts"]

_LIMIT = 2**31 - 64


def encode(frames: np.ndarray, levels: tuple[int, ...]) -> bytes:
    """Compress the samples of `frames` (any shape and dtype, C order) with Blosc, at the first of
    these levels of zstd with bits shuffled and with bytes, at further ones the way that was
    smaller; the smallest stays."""
    from numcodecs import Blosc

    samples = frames.reshape(-1)
    first, *further = levels
    shuffles = Blosc.BITSHUFFLE, Blosc.SHUFFLE
    with _one_thread():
        tries = [bytes(Blosc("zstd", first, shuffle).encode(samples)) for shuffle in shuffles]
        better = shuffles[len(tries[1]) < len(tries[0])]
        tries += [bytes(Blosc("zstd", level, better).encode(samples)) for level in further]
    return min(tries, key=len)


@contextmanager
def _one_thread():
    """Keep numcodecs from having Blosc's own threads at work, as it does in the main thread: blocks
    would lie as they are done.

    Another thread would serve, too, but a filter callback, which has h5py's lock, must not wait for
    one: garbage that is collected there may want that lock.
    """
    from numcodecs import blosc

    main = threading.current_thread() is threading.main_thread()
    before = blosc.use_threads
    if main:  # no other thread does this, so that each finds what it left
        blosc.use_threads = False
    try:
        yield
    finally:
        if main:
            blosc.use_threads = before


def decode(data: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Inverse of `encode`. Raises FormatError when the bytes do not hold such an array."""
    from numcodecs import Blosc

    out = np.empty(shape, dtype)
    # Blosc's header: bytes 4..8 are the decoded size, bytes 12..16 the encoded one.
    sizes = tuple(int.from_bytes(data[i : i + 4], "little") for i in (4, 12))
    if len(data) < 16 or sizes != (out.nbytes, len(data)) or out.nbytes > _LIMIT:
        raise FormatError(
            f"a fallback section of {len(data)} bytes claims sizes {sizes}; "
            f"expected {(out.nbytes, len(data))}"
        )
    try:
        Blosc().decode(data, out=out.reshape(-1).view(np.uint8))
    except RuntimeError as error:
        raise FormatError(f"a fallback section is damaged: {error}") from None
    return out


def parts(data: bytes) -> dict[str, int]:
    """What the section's bytes are, by name."""
    return {"shuffle + zstd": len(data)}
