"""Comparison with other lossless codecs on the same samples."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import h5py
import numpy as np

from tezip_h5.hdf5.contents.layout import panels_joined
from tezip_h5.hdf5.pipeline.options import panel_axes_of
from tezip_h5.hdf5.reading import reader
from tezip_h5.hdf5.threads import default_threads
from tezip_h5.peers import peers
from tezip_h5.progress import progress_bar

__all__ = ["Comparison", "Rival", "compare"]

_BYTES = 4 << 20  # about the most bytes of samples that are compared; one chunk may be larger


@dataclass(frozen=True)
class Rival:
    """The bytes that a codec needs for the samples, and the time that it took."""

    name: str
    nbytes: int
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """A comparison on the frames `first` to `stop`.

    Their samples have `raw_bytes`, and `nbytes` in the file. `left_out` gives the reasons why
    other codecs were not run.
    """

    first: int
    stop: int
    raw_bytes: int
    nbytes: int
    rivals: list[Rival] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def compare(data: h5py.Dataset, *, threads: int | None = None, slow: bool = False) -> Comparison:
    """Run every installed lossless codec on a part of a stack, as the stack decodes.

    The part is a run of whole chunks from the middle of the stack, some 4 MiB of samples at most.
    Codecs with about 1 MB/s or less are run only if `slow`. Each result is decoded and compared. A
    codec that fails or is not exact is left out.
    """
    first, stop = _part(data)
    samples = reader.read(data, slice(first, stop), threads=threads)
    samples = panels_joined(samples, panel_axes_of(data))  # other codecs have no panels
    if samples.ndim == 4 and samples.shape[3] == 1:
        samples = samples[..., 0]
    places = reader.offsets(data, slice(first, stop))
    stored = sum(data.id.get_chunk_info_by_coord(offset).size for offset in places)
    rivals, left_out = [], {}
    for peer in progress_bar(peers(), unit="codec"):
        if not peer.supports(samples.dtype, samples.shape, 0):
            continue
        reason = peer.available() or ("it is slow" if peer.slow and not slow else None)
        if reason is None:
            found = _measured(peer, samples, threads or default_threads())
            if isinstance(found, Rival):
                rivals.append(found)
                continue
            reason = found
        left_out[peer.name] = reason
    rivals.sort(key=lambda rival: rival.nbytes)
    return Comparison(first, stop, samples.nbytes, stored, rivals, left_out)


def _part(data: h5py.Dataset) -> tuple[int, int]:
    """First and last frame, exclusive, of whole chunks from the middle."""
    frames, chunk = data.shape[0], data.chunks[0]
    frame_bytes = int(np.prod(data.shape[1:])) * data.dtype.itemsize
    steps = -(-frames // chunk)
    count = min(steps, max(1, _BYTES // max(chunk * frame_bytes, 1)))
    start = (steps - count) // 2
    return start * chunk, min((start + count) * chunk, frames)


def _measured(peer, samples: np.ndarray, threads: int) -> Rival | str:
    """The result of a codec, or the reason why it is left out."""
    started = time.perf_counter()
    try:
        encoded = peer.encode(samples, 0, threads)
        seconds = time.perf_counter() - started
        back = peer.decode(encoded, threads)
    except Exception as error:  # another codec's failure must not stop the page
        return f"it failed: {error}"
    same = back.dtype == samples.dtype and np.ascontiguousarray(back).tobytes() == samples.tobytes()
    return Rival(peer.name, encoded.nbytes, seconds) if same else "it was not exact"
