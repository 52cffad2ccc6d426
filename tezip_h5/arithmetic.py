"""What an arithmetic coder is between calls of the kernels: low, high, code, position (int64)."""

from __future__ import annotations

import numpy as np

__all__ = ["begin", "ending"]


def begin(data: bytes | None = None) -> np.ndarray:
    """The coder at its start, with `data` to decode."""
    head = int.from_bytes(data[:4].ljust(4, b"\0"), "big") if data is not None else 0
    return np.array([0, 0xFFFFFFFF, head, 0 if data is None else 4], np.int64)


def ending(coder: np.ndarray) -> bytes:
    """The last bytes of what an encoder wrote.

    Any number within its range tells a decoder the rest; one byte is enough where those after it
    may be zeros, or the next stream's.
    """
    low = int(coder[0])
    return bytes([(low >> 24) + 1 & 0xFF]).rstrip(b"\0") if low else b""
