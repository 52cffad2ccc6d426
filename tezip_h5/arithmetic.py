"""The state of an arithmetic coder between calls of the kernels: low, high, code and position,
all int64."""

from __future__ import annotations

import numpy as np

__all__ = ["begin", "ending"]


def begin(data: bytes | None = None) -> np.ndarray:
    """The state in which a coder begins; `data` is what a decoder is to decode."""
    head = int.from_bytes(data[:4].ljust(4, b"\0"), "big") if data is not None else 0
    return np.array([0, 0xFFFFFFFF, head, 0 if data is None else 4], np.int64)


def ending(coder: np.ndarray) -> bytes:
    """The last bytes of an encoder's output.

    A decoder finds the remaining symbols from any number within the coder's range. One byte is
    enough if the bytes after it may be zeros, or belong to the next stream.
    """
    low = int(coder[0])
    return bytes([(low >> 24) + 1 & 0xFF]).rstrip(b"\0") if low else b""
