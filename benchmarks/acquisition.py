"""Measure how many MB of 16-bit frames `Writer` writes per second while a process reads along.

    python benchmarks/acquisition.py [--threads 2] [--out benchmarks/results/acquisition.md]

Frames arrive as fast as `Writer` accepts them, with a queue of limited length. The time ends when
the last frame is on disk. A reader process reads the newest frame twenty times per second.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import runpy
import tempfile
import time
from pathlib import Path

import h5py
from provenance import made_by

EXAMPLE = Path(__file__).parents[1] / "examples" / "acquire.py"


def main() -> None:
    """Measure each level, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=1024, help="at fast; fewer at the others")
    parser.add_argument("--levels", nargs="+", default=["fast", "balanced", "best"])
    parser.add_argument("--out", type=Path, help="write the table there, too")
    args = parser.parse_args()
    made = made_by()
    acquire = runpy.run_path(str(EXAMPLE))["acquire"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for level in args.levels:
            frames = args.frames if level == "fast" else args.frames // 16
            for bound in (None, 4):
                path = f"{folder}/{level}{bound}.h5"
                busy = time.process_time()
                with contextlib.redirect_stdout(io.StringIO()):
                    speed, _, summary = acquire(
                        path, 1e9, frames, level, absolute=bound, threads=args.threads
                    )
                busy = time.process_time() - busy
                rows.append(
                    f"| {level} | {bound or 'lossless'} | {speed:.0f} | {frames}"
                    f" | {summary.raw_bytes / 1e6 / busy:.0f} | {summary.ratio:.2f} |"
                )
                print(rows[-1], flush=True)
    load = os.getloadavg()[0]
    lines = [
        "# Acquisition",
        "",
        f"`python benchmarks/acquisition.py --threads {args.threads}`: simulated 16-bit frames of "
        f"512 x 512, `swmr=True`, h5py {h5py.version.version}, {os.cpu_count()} processors, "
        f"load {load:.1f} at the end; {made}.",
        "",
        "| level | bound | MB/s | frames | MB per second of processor time | ratio |",
        "|---|---|--:|--:|--:|--:|",
        *rows,
        "",
    ]
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
