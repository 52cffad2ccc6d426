"""The fallback codec: Blosc, which shuffles bits or bytes and then uses zstd. It is exact for
every dtype.

It has two uses. It keeps the promise that no chunk is larger than with Blosc alone (plus 64
bytes). And it stores what the predictive coders do not take: lossless float64, and 64-bit
integers of a wide range.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager

import numpy as np

from tezip_h5.errors import FormatError

__all__ = ["decode", "encode", "parts"]

_LIMIT = 2**31 - 64


def encode(frames: np.ndarray, levels: tuple[int, ...]) -> bytes:
    """Compress the samples of `frames` (any shape and dtype, C order) with Blosc.

    At the first of the zstd `levels`, shuffled bits and shuffled bytes are both tried. At further
    levels only the shuffle that was smaller is. Returns the smallest result.
    """
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
    """Keep Blosc from using threads of its own, which numcodecs lets it do in the main thread.

    Blosc's threads write blocks in the order in which they finish, so the bytes would vary. Running
    in another thread would avoid that, too. But a filter callback holds h5py's lock and must not
    wait for a thread, because garbage collection there may need that lock.
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
    """Number of bytes of each part of the section."""
    return {"shuffle + zstd": len(data)}
