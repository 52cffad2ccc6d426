"""The result of writing a stack: sizes, the largest error and the time it took."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from tezip_h5 import kernels
from tezip_h5.bounds import ErrorBound

__all__ = ["Stopwatch", "Summary", "summarise"]


class Stopwatch:
    """Wall time since it was made, that of compiling apart: it comes once per machine."""

    def __init__(self):
        self._started, self._compiled = time.perf_counter(), kernels.compile_seconds()

    @property
    def compile_seconds(self) -> float:
        """Of them, how many kernels were compiled in."""
        return kernels.compile_seconds() - self._compiled

    @property
    def seconds(self) -> float:
        """The others."""
        return max(time.perf_counter() - self._started - self.compile_seconds, 0.0)


@dataclass(frozen=True)
class Summary:
    """The result of writing a stack. Printable.

    Attributes
    ----------
    path, name : str
        The file, and the path of the stack in it.
    shape, dtype : tuple of int, numpy dtype
        Of the stack.
    bound : ErrorBound
    raw_bytes, payload_bytes, file_bytes : int
        Sizes of the samples, of the chunks that hold them, and of the whole file.
    max_error : float
        Largest |original - reconstruction| of all samples, in their unit.
    seconds : float
        Wall time, without that of compiling.
    chunks, fallback_chunks, network_chunks : int
        The number of chunks, of those stored by the fallback codec, and of those that a network
        predicts.
    reclaimable_bytes : int
        Unused bytes that the file keeps after compressing in place or overwriting.
    compile_seconds : float
        Wall time of compiling kernels meanwhile, which are kept for the next process.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    bound: ErrorBound
    raw_bytes: int
    payload_bytes: int
    file_bytes: int
    max_error: float
    seconds: float
    chunks: int
    fallback_chunks: int
    network_chunks: int
    reclaimable_bytes: int = 0
    compile_seconds: float = 0.0

    @property
    def ratio(self) -> float:
        """Bytes of the samples over bytes of the chunks."""
        return self.raw_bytes / max(self.payload_bytes, 1)

    def __str__(self):
        speed = self.raw_bytes / 1e6 / max(self.seconds, 1e-9)
        speed = f"{speed:.0f}" if speed >= 10 else f"{speed:.2g}"  # not 0 of a small stack
        network = fallback = ""
        if self.network_chunks:
            network = f", {self.network_chunks} predicted by the network"
        if self.fallback_chunks:
            fallback = f", {self.fallback_chunks} stored by the fallback codec"
        lines = [
            f"{self.path}:/{self.name}  {self.dtype.name} {self.shape}  {self.bound}",
            f"  {self.raw_bytes} -> {self.payload_bytes} bytes, ratio {self.ratio:.2f}, "
            f"file {self.file_bytes} bytes",
            f"  largest error {self.max_error:g}, {self.seconds:.2f} s, {speed} MB/s, "
            f"{self.chunks} chunk{'s' * (self.chunks != 1)}{network}{fallback}",
        ]
        if self.compile_seconds:
            lines.append(f"  besides, {self.compile_seconds:.1f} s of compiling")
        if self.reclaimable_bytes:
            lines.append(
                f"  {self.reclaimable_bytes} bytes of the file are free; "
                f"`h5repack {self.path} NEW.h5` gives them back"
            )
        return "\n".join(lines)


def summarise(path, name, encoder, watch, file_bytes, reclaimable=0) -> Summary:
    """The summary of what an encoder wrote."""
    totals, recipe = encoder.totals, encoder.recipe
    return Summary(
        str(path),
        name,
        (totals.frames, *recipe.layout.frame_shape),
        recipe.dtype,
        recipe.bound,
        totals.raw_bytes,
        totals.payload_bytes,
        file_bytes,
        totals.max_error,
        watch.seconds,
        totals.chunks,
        totals.fallback_chunks,
        totals.network_chunks,
        reclaimable,
        watch.compile_seconds,
    )
