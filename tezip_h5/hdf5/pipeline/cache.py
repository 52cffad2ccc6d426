"""An LRU cache of decoded chunks, limited in bytes.

A filter sees one chunk at a time, and HDF5's own chunk cache is small. Without this cache, reading
frame by frame would decode each chunk once per frame.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

import numpy as np

from tezip_h5 import bitstream, codec
from tezip_h5.errors import InputError

__all__ = ["ChunkCache", "configure", "decoded"]

DEFAULT_BYTES = 192 << 20


class ChunkCache:
    """A least-recently-used map from payloads to their decoded chunks.

    A payload is found by its identity, which has its checksums. Different payloads could have the
    same checksums, so the whole payload is kept and compared. The newest chunk is always kept, so
    that frames of a chunk larger than the limit can be read one by one.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.reset()

    def reset(self) -> None:
        """Forget everything; needed after a fork, when nobody would release a held lock."""
        self._lock = threading.Lock()
        self._chunks: OrderedDict[bytes, tuple] = OrderedDict()  # payload, chunk
        self._bytes = 0

    def get(self, identity: bytes, payload) -> np.ndarray | None:
        """The chunk, or None."""
        with self._lock:
            known, chunk = self._chunks.get(identity, (b"", None))
            if chunk is None or not np.array_equal(known, np.frombuffer(payload, np.uint8)):
                return None
            self._chunks.move_to_end(identity)
            return chunk

    def put(self, identity: bytes, payload, chunk: np.ndarray) -> None:
        """Keep a chunk, dropping the least recently used ones."""
        payload = np.frombuffer(payload, np.uint8).copy()
        with self._lock:
            self._forget(self._chunks.pop(identity, None))
            self._chunks[identity] = payload, chunk
            self._bytes += payload.nbytes + chunk.nbytes
            self._drop(keep=1)

    def resize(self, limit: int) -> None:
        """Set the limit, and drop what exceeds it."""
        with self._lock:
            self.limit = limit
            self._drop(keep=0)

    def _drop(self, keep: int) -> None:
        while self._bytes > self.limit and len(self._chunks) > keep:
            self._forget(self._chunks.popitem(last=False)[1])

    def _forget(self, entry: tuple | None) -> None:
        self._bytes -= sum(part.nbytes for part in entry or ())


def _initial_limit() -> int:
    text = os.environ.get("TEZIP_CACHE_BYTES", "")
    return int(text) if text.isdigit() else DEFAULT_BYTES


_cache = ChunkCache(_initial_limit())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_cache.reset)


def configure(*, cache_bytes: int) -> None:
    """Set how many bytes of decoded chunks this process keeps.

    The environment variable ``TEZIP_CACHE_BYTES`` sets it before import.

    Parameters
    ----------
    cache_bytes : int
        The limit, 192 MiB at first. With 0 only the newest chunk is kept.

    Raises
    ------
    InputError
        For anything but an int >= 0.

    Examples
    --------
    >>> configure(cache_bytes=1 << 30)
    """
    if not isinstance(cache_bytes, int) or cache_bytes < 0:
        raise InputError(f"cache_bytes={cache_bytes!r} is no number of bytes; give an int >= 0")
    _cache.resize(cache_bytes)


def decoded(
    payload, *, max_bytes: int | None = None, threads: int = 1, device: str = "cpu"
) -> np.ndarray:
    """Decode a payload, or take it from the cache. The result must not be written to."""
    _, identity = bitstream.peek(payload)
    chunk = _cache.get(identity, payload)
    if chunk is None:
        chunk = codec.decode_chunk(payload, max_bytes=max_bytes, threads=threads, device=device)
        chunk.flags.writeable = False
        _cache.put(identity, payload, chunk)
    return chunk
