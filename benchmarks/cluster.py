"""Measure how writing and reading scale with the worker processes of a dask cluster.

    python benchmarks/cluster.py [--workers 1 2] [--rounds 3] > benchmarks/results/cluster.md

Workers have one thread each and run on this machine. The stack is simulated into a plain HDF5
file, which the workers read; "threads" are writes without a cluster.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import dask
import h5py
import numpy as np
from distributed import Client, LocalCluster
from provenance import made_by

import tezip_h5
from tezip_h5.simulate import detector_sequence

FRAMES = 256  # many steps, because `balanced` encodes the first step alone, as a probe
SIDE = 512


def stack_file(folder: Path, frames: int) -> Path:
    """Make a plain HDF5 file of simulated detector frames, shifted so that no two are the same."""
    path = folder / f"raw-{frames}.h5"
    tile = detector_sequence(16, SIDE, SIDE)
    with h5py.File(path, "w") as file:
        shape = (frames, SIDE, SIDE)
        data = file.create_dataset("images", shape, tile.dtype, chunks=(1, SIDE, SIDE))
        for i in range(frames):
            data[i] = np.roll(tile[i % 16], 31 * i, axis=1)
    return path


def cpu_seconds(client) -> float:
    """The processor time of this process and of all workers so far."""
    workers = client.run(time.process_time).values() if client else ()
    return time.process_time() + sum(workers)


def timed(function, client, rounds: int) -> tuple[float, float]:
    """The median time of a few calls, and their median processor time, in seconds."""
    seconds = []
    for _ in range(rounds):
        used, started = cpu_seconds(client), time.perf_counter()
        function()
        seconds.append((time.perf_counter() - started, cpu_seconds(client) - used))
    wall, cpu = (statistics.median(column) for column in zip(*seconds, strict=True))
    return wall, cpu


def measure(path: Path, level: str, rounds: int, count: int, client=None):
    """(seconds, processor time) of writing and of reading, each after a first call to warm up."""
    out = path.with_name("out.h5")
    where = {"threads": count} if client is None else {"scheduler": client}

    def write():
        out.unlink(missing_ok=True)
        with h5py.File(path) as file:
            tezip_h5.write(file["images"], out, level=level, chunk_frames=16, **where)

    def read():
        scheduler = {"scheduler": "threads", "num_workers": count} if client is None else {}
        with dask.config.set(scheduler):
            tezip_h5.to_dask(out).max().compute()

    write()
    read()
    return timed(write, client, rounds), timed(read, client, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print("# Scaling with the workers of a dask cluster\n")
    print("`python benchmarks/cluster.py`:")
    print(f"{made_by()}, {platform.machine()}, {os.cpu_count()} processors, load")
    print(f"{os.getloadavg()[0]:.1f} when it began; medians of {args.rounds}. uint16 frames of")
    print(f"{SIDE} x {SIDE}, lossless, in chunks of 16; workers read them from one HDF5 file.")
    print("CPU s: processor time of all processes together.\n")
    print("| level | MB | by | write s | MB/s | CPU s | read s | MB/s | CPU s |")
    print("|---|--:|---|--:|--:|--:|--:|--:|--:|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        for level in ("fast", "balanced"):
            path = stack_file(Path(name), FRAMES)
            mega = FRAMES * SIDE * SIDE * 2 / 1e6
            for count in args.workers:
                times = measure(path, level, args.rounds, count)
                print_row(level, mega, f"{count} threads, no cluster", times)
            for count in args.workers:
                local = LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                )
                with local, Client(local) as client:
                    times = measure(path, level, args.rounds, count, client)
                    print_row(level, mega, f"{count} workers", times)


def print_row(level: str, mega: float, by: str, times) -> None:
    cells = [f"{wall:.2f} | {mega / wall:.1f} | {cpu:.2f}" for wall, cpu in times]
    print(f"| {level} | {mega:.0f} | {by} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":  # worker processes import this file
    main()
