"""The function that encodes a chunk; with `verify` it also decodes and compares it."""

from __future__ import annotations

from functools import partial

from tezip_h5 import failover
from tezip_h5.codec import Encoded, decode_chunk, encode_chunk
from tezip_h5.errors import BoundError

__all__ = ["chunk_encoder", "encode_and_check"]


def chunk_encoder(verify: bool, device: str):
    """`encode_chunk` on a device, or `encode_and_check` with `verify`."""
    return partial(encode_and_check if verify else encode_chunk, device=device)


def encode_and_check(frames, bound, settings, *, threads=1, device="cpu", **options) -> Encoded:
    """Call `encode_chunk`, then decode the payload and compare every sample with the original.

    The CPU decodes, even if the GPU encoded.

    Raises
    ------
    BoundError
        When a sample lies outside the bound.
    """

    def work(place: str) -> Encoded:
        encoded = encode_chunk(frames, bound, settings, threads=threads, device=place, **options)
        _check(encoded, frames, bound, threads)
        return encoded

    return failover.run(work, device)


def _check(encoded: Encoded, frames, bound, threads: int) -> None:
    stored = decode_chunk(encoded.payload, threads=threads)[tuple(slice(n) for n in frames.shape)]
    native = frames.astype(stored.dtype, copy=False)
    for t, (frame, back) in enumerate(zip(native, stored, strict=True)):
        pixels = (*frame.shape[:2], -1)
        if bound.check(frame.reshape(pixels), back.reshape(pixels), t)[1].any():
            raise BoundError(f"frame {t} of a chunk does not decode within its bound; not written")
