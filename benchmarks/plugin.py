"""Measure how fast h5dump reads a stack with the C plugin, and `tezip_h5.read` on one core.

    python benchmarks/plugin.py > benchmarks/results/plugin.md

The script needs h5dump and a built plugin (`tezip-h5 plugin path`). Both programs read the same
file, 100 MB of simulated detector frames, for each level. h5dump writes the samples to a file;
`tezip_h5.read` keeps them in memory. Times are the best of three runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from provenance import made_by

import tezip_h5
from tezip_h5.hdf5.pipeline import plugin
from tezip_h5.simulate import detector_sequence

RUNS = 3


def best(work) -> float:
    """The shortest time of a few runs, in seconds."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


class Dump:
    """Run h5dump on one core, with the plugin."""

    def __init__(self, path: Path):
        self._path = path
        self._environment = {
            **os.environ,
            "HDF5_PLUGIN_PATH": tezip_h5.PLUGIN_PATH,
            "TEZIP_PYTHON": sys.executable,
        }

    def __call__(self, *options) -> None:
        command = ["taskset", "-c", "0", "h5dump", "-d", "scan/data", *options, str(self._path)]
        subprocess.run(command, env=self._environment, check=True, stdout=subprocess.DEVNULL)


def row(level: str, stack: np.ndarray, folder: Path) -> str:
    """Write a stack, read it in both ways, compare the samples, and print the times."""
    path, raw = folder / f"{level}.h5", folder / "raw.bin"
    tezip_h5.write(stack, path, absolute=2, level=level, model=None, preview=False)
    dump = Dump(path)
    read = best(lambda: tezip_h5.read(path, threads=1, cache_bytes=0))
    dumped = best(lambda: dump("-b", "LE", "-o", str(raw)))
    if raw.read_bytes() != tezip_h5.read(path).tobytes():
        raise SystemExit("h5dump wrote something else")
    first = best(lambda: dump("-s", "0,0,0", "-c", "1,1,1"))
    plain = folder / "plain.h5"
    with h5py.File(plain, "w") as file:
        file.create_dataset("scan/data", data=stack, chunks=(16, *stack.shape[1:]))
    dump = Dump(plain)
    bare = best(lambda: dump("-b", "LE", "-o", str(raw)))
    rates = [stack.nbytes / 1e6 / seconds for seconds in (read, dumped, bare)]
    share = rates[1] / rates[0]
    cells = f"{rates[0]:.0f} | {rates[1]:.0f} | {share:.0%} | {rates[2]:.0f} | {first:.2f}"
    return f"| {level} | {cells} |"


def main() -> int:
    if plugin.library() is None:
        print("no plugin was built; see filters/README.md", file=sys.stderr)
        return 1
    stack = np.concatenate([detector_sequence(50, 512, 512, seed=seed) for seed in range(4)])
    print("# Reading through the C plugin\n")
    print(
        f"uint16 {stack.shape} (level balanced: a quarter of it), absolute bound 2; MB of samples"
    )
    print("a second, one thread or core.")
    print(f"Uncompressed: h5dump of the same samples without any filter. {made_by()}.\n")
    print("| level | `tezip_h5.read` | h5dump | share | h5dump, uncompressed | first chunk, s |")
    print("|---|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for level in ("fast", "balanced"):
            part = stack if level == "fast" else stack[:50]
            print(row(level, part, Path(folder)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
