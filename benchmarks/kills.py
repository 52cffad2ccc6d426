"""Kill a writer repeatedly at random moments, and check the files that it leaves.

    python benchmarks/kills.py [--kills 100] [--out benchmarks/results/kills.md]

A process writes a stack (`fast`, 16-bit frames) and calls `flush()` now and then. After each flush
it reports how many frames are safe. It is killed with SIGKILL at a random moment. Then the file
must open, and each frame that was safe must be in it, sample by sample. With SWMR, a reader reads
the file meanwhile; then the file is opened with ``swmr=True``, and without it after
`tezip_h5.repair`. Other processes add stacks to a file that holds other data, in HDF5's earliest
and in its latest format. These data must still be there, too.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import os
import random
import signal
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from provenance import made_by

import tezip_h5

SHAPE = (96, 128)
ADDED = 7  # frames of each stack that is added
OTHERS = 60  # datasets with other data


def write(path: Path, swmr: bool, say: int) -> None:
    """Write frames endlessly, and write the number of those that are safe to the pipe."""
    expected = frames()
    writer = tezip_h5.Writer(
        path,
        "scan",
        SHAPE,
        "uint16",
        level="fast",
        chunk_frames=4,
        threads=2,
        swmr=swmr,
        metadata={"/entry/title": "kills"},
    )
    os.write(say, b"0\n")
    for number in itertools.count(1):
        writer.append(expected[number % 32 - 1], filename=f"{number}.tif")
        if number % 11 == 0:
            writer.flush()
            os.write(say, b"%d\n" % number)


def add(path: Path, say: int) -> None:
    """Add short stacks to a file endlessly, by `Writer`, and by `write`, which replaces its own.

    After each flush, the number of frames of all writers that are safe is written to the pipe.
    """
    expected, safe = frames(), 0
    os.write(say, b"0\n")
    for number in itertools.count():
        with tezip_h5.Writer(
            path, f"scan{number}", SHAPE, "uint16", level="fast", chunk_frames=4, threads=2
        ) as writer:
            for frame in expected[:ADDED]:
                writer.append(frame)
            writer.flush()
            safe += ADDED
            os.write(say, b"%d\n" % safe)
        tezip_h5.write(expected, path, "whole", overwrite=True, level="fast", threads=2)


def with_others(path: Path, libver: str) -> None:
    """Make a file with other data, which must not be lost."""
    with h5py.File(path, "w", libver=libver) as file:
        for i in range(OTHERS):
            file[f"user/group{i % 7}/{i}"] = np.full(50, i)
            file[f"user/group{i % 7}/{i}"].attrs["i"] = i
    tezip_h5.write(frames(), path, "whole", level="fast", threads=2)


def others_safe(file: h5py.File) -> bool:
    """Whether the data from `with_others` are there."""
    items = (file[f"user/group{i % 7}/{i}"] for i in range(OTHERS))
    return np.array_equal(file["whole/data"][:], frames()) and all(
        (item[:] == i).all() and item.attrs["i"] == i for i, item in enumerate(items)
    )


def follow(path: Path) -> None:
    """Read the file that another process writes, endlessly."""
    with h5py.File(path, "r", swmr=True) as file:
        data = file["scan/data"]
        while True:
            data.refresh()
            if len(data):
                data[-1]
            time.sleep(0.003)


def started(function, *arguments) -> int:
    """Fork a process that runs a function. It shares the modules and kernels of this process."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            function(*arguments)
        finally:
            os._exit(1)
    return child


def killed(child: int) -> None:
    """Kill a process, and wait for its end."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def frames() -> np.ndarray:
    """The frames that the writer writes repeatedly."""
    return np.random.default_rng(7).poisson(40, (32, *SHAPE)).astype(np.uint16)


def safe_added(file: h5py.File, flushed: int, expected: np.ndarray) -> bool:
    """Whether the stacks with the first `flushed` frames are there, and all other data."""
    return others_safe(file) and all(
        np.array_equal(file[f"scan{number}/data"][:], expected[:ADDED])
        for number in range(flushed // ADDED)
    )


def safe_frames(file: h5py.File, flushed: int, expected: np.ndarray) -> bool:
    """Whether the first `flushed` frames are there, sample by sample."""
    data = file["scan/data"]
    if len(data) < flushed:
        return False
    for start in range(0, flushed, 256):
        numbers = np.arange(start, min(start + 256, flushed))
        if not np.array_equal(data[numbers[0] : numbers[-1] + 1], expected[numbers % 32]):
            return False
    return True


def one(way: str, delay: float, folder: Path, expected: np.ndarray) -> collections.Counter:
    """Kill a writer after `delay` seconds, check the file, and count the result."""
    path = folder / f"{way}.h5"
    path.unlink(missing_ok=True)
    added, safe = way.startswith("added"), safe_frames
    if added:
        with_others(path, way.split()[-1])
        safe = safe_added
    said, say = os.pipe()
    writer = started(add, path, say) if added else started(write, path, way == "swmr", say)
    os.close(say)
    with os.fdopen(said, "rb") as pipe:
        pipe.readline()  # wait until the process has begun to write
        reader = started(follow, path) if way == "swmr" else None
        time.sleep(delay)
        killed(writer)
        if reader is not None:
            killed(reader)
        lines = pipe.read().split()
    flushed = int(lines[-1]) if lines else 0
    count = collections.Counter(kills=1, flushed=flushed)
    try:
        with h5py.File(path, "r", swmr=way == "swmr") as file:
            count["opened"] += 1
            count["kept"] += safe(file, flushed, expected)
    except (OSError, KeyError, RuntimeError) as error:
        print(f"{way} after {delay:.3f} s: {error}")
    try:
        tezip_h5.repair(path)
        tezip_h5.verify(path)
        with h5py.File(path) as file:
            count["repaired"] += safe(file, flushed, expected)
    except (OSError, KeyError, RuntimeError, tezip_h5.TezipError) as error:
        print(f"{way} after {delay:.3f} s, repaired: {error}")
    return count


def main() -> None:
    """Kill writers, count the results, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="of each way")
    parser.add_argument("--longest", type=float, default=1.0, help="seconds until a kill, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the table there, too")
    args = parser.parse_args()
    made = made_by()
    moments = random.Random(args.seed)
    expected = frames()
    # Compile kernels here once, for all forked processes.
    bound = tezip_h5.ErrorBound().of_frames(expected[:4, ..., None])
    tezip_h5.encode_chunk(expected[:4], bound, tezip_h5.Settings(level="fast"))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for way in ("plain", "swmr", "added, earliest", "added, latest"):
            total = collections.Counter()
            for _ in range(args.kills):
                total += one(way, moments.uniform(0, args.longest), Path(folder), expected)
            rows.append(
                f"| {way} | {total['kills']} | {total['flushed']} | {total['opened']} | "
                f"{total['kept']} | {total['repaired']} |"
            )
            print(rows[-1], flush=True)
    lines = [
        "# Killed writers",
        "",
        f"`python benchmarks/kills.py --kills {args.kills} --seed {args.seed}`, h5py "
        f"{h5py.version.version}, HDF5 {h5py.version.hdf5_version}, {os.cpu_count()} processors, "
        f"{made}. "
        "SIGKILL at a random moment of the",
        f"first {args.longest:g} s; `swmr`: while a reader follows, opened with `swmr=True`; "
        f"`added`: stacks of {ADDED} frames, one",
        "after the other, and one that is replaced again and again, in a file with other data, "
        "all of which must be there,",
        "too. The latest format has a mark of open writers, which `repair` takes off.",
        "",
        "| writer | kills | frames flushed before | files that opened | with every flushed frame | "
        "and after `repair`, opened plainly |",
        "|---|--:|--:|--:|--:|--:|",
        *rows,
        "",
    ]
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
