"""Kill a writer again and again, at random moments, and look at what it leaves.

    python benchmarks/kills.py [--kills 100] [--out benchmarks/results/kills.md]

A process writes a stack (`fast`, 16-bit frames, `flush()` now and then) and says after every flush
how many frames are safe. It is killed with SIGKILL at a random moment; then the file must open and
hold every frame that was safe, sample by sample. With SWMR a reader follows it meanwhile, the file
is opened with ``swmr=True``, and again plainly after `tezip_h5.repair`. Other processes add stacks
to a file with other data, one after the other, of HDF5's earliest and its latest format; those must
be there, too.
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
OTHERS = 60  # datasets of the user's


def write(path: Path, swmr: bool, say: int) -> None:
    """Write frames without end; say into the pipe how many are safe."""
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
    """Add short stacks to a file without end, by `Writer` and by `write`, which replaces its own;
    say after every flush how many frames of all writers are safe."""
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
    """Make a file with what a user would not lose."""
    with h5py.File(path, "w", libver=libver) as file:
        for i in range(OTHERS):
            file[f"user/group{i % 7}/{i}"] = np.full(50, i)
            file[f"user/group{i % 7}/{i}"].attrs["i"] = i
    tezip_h5.write(frames(), path, "whole", level="fast", threads=2)


def others_safe(file: h5py.File) -> bool:
    """Whether what `with_others` made is there."""
    items = (file[f"user/group{i % 7}/{i}"] for i in range(OTHERS))
    return np.array_equal(file["whole/data"][:], frames()) and all(
        (item[:] == i).all() and item.attrs["i"] == i for i, item in enumerate(items)
    )


def follow(path: Path) -> None:
    """Read what another process writes, without end."""
    with h5py.File(path, "r", swmr=True) as file:
        data = file["scan/data"]
        while True:
            data.refresh()
            if len(data):
                data[-1]
            time.sleep(0.003)


def started(function, *arguments) -> int:
    """A process that runs a function; it shares what was imported and compiled here."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            function(*arguments)
        finally:
            os._exit(1)
    return child


def killed(child: int) -> None:
    """Kill a process, and wait until it is gone."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def frames() -> np.ndarray:
    """What the writer writes, over and over."""
    return np.random.default_rng(7).poisson(40, (32, *SHAPE)).astype(np.uint16)


def safe_added(file: h5py.File, flushed: int, expected: np.ndarray) -> bool:
    """Whether the stacks with the first `flushed` frames are there, and all else."""
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
    """Kill one writer after `delay` seconds; count what was found."""
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
        pipe.readline()  # it has begun
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
    """Kill, count, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="of each way")
    parser.add_argument("--longest", type=float, default=1.0, help="seconds until a kill, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the table there, too")
    args = parser.parse_args()
    made = made_by()
    moments = random.Random(args.seed)
    expected = frames()
    # Compiled here once, for all processes.
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
