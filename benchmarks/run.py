"""Measure every codec on every stack of a folder.

    python benchmarks/run.py FOLDER [--threads 2] [--slow] [--results benchmarks/results]
    python benchmarks/run.py FOLDER --keep-peers      # measure this codec only

The stacks are the HDF5 files, .npy files and folders of images in FOLDER. The script writes one
CSV file for each stack, and all tables to ``stacks.md``. Otherwise it does the same as ``tezip-h5
bench``. With --keep-peers, the rows of peers, the other codecs, come from the CSV files of an
earlier run on the same machine. Their bytes are exact; their speeds are those of the earlier run.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from provenance import made_by, of_rows

from tezip_h5.cli import bench

COLUMNS = ("codec", "bytes", "ratio", "bits", "MB/s in", "MB/s out", "error", "verdict", "threads")


def stacks(folder: Path) -> list[Path]:
    """The stacks in the folder, sorted."""
    kept = (p for p in sorted(folder.iterdir()) if not p.name.startswith("."))
    return [p for p in kept if p.is_dir() or p.suffix in (".h5", ".hdf5", ".nxs", ".npy")]


def markdown(rows: list[bench.Row]) -> str:
    """A heading and a table for each stack and bound. The bytes of the smallest peer are bold."""
    lines = []
    for (stack, bound), group in groupby(rows, key=lambda row: (row.stack, row.bound)):
        group = list(group)
        least = min((r.bytes for r in group if r.good and not r.ours), default=0)
        promise = f"absolute bound {bound:g}" if bound else "lossless"
        lines += ["", f"### {stack}, {group[0].dtype} {group[0].shape}, {promise}", ""]
        lines += ["| " + " | ".join(COLUMNS) + " |", "|---" + "|--:" * 6 + "|---|--:|"]
        for row in group:
            if not row.measured:
                lines.append(f"| {row.codec} |{' – |' * 6} {row.verdict} | – |")
                continue
            star = "\\*" if row.note else ""
            size = f"**{row.bytes}**" if row.bytes == least and not row.ours else row.bytes
            lines.append(
                f"| {row.codec} | {size} | {row.ratio:.3f} | {row.bits_per_sample:.3f} "
                f"| {row.mb_per_s_in:.1f} | {row.mb_per_s_out:.1f} | {row.largest_error:.5g} "
                f"| {row.verdict} | {row.threads}{star} |"
            )
    return "\n".join(lines)


def together(ours: list[bench.Row], kept: list[bench.Row]) -> list[bench.Row]:
    """Sort rows by bound, ours first. Bounds of kept rows may differ in the last digits."""
    snapped = []
    for row in kept:
        mine = next((mine for mine in ours if bench.same_bound(mine, row)), row)
        snapped.append(replace(row, bound=mine.bound))
    return sorted(ours + snapped, key=lambda row: row.bound)


def document(rows: list[bench.Row], machine: str) -> str:
    """The text of ``stacks.md``: what was measured, on which machine, the means, and all rows."""
    means = f"```\n{bench.summary(rows)}\n```"
    about = f"{machine}. {of_rows(row.made_by for row in rows)}"
    text = f"# Beside other codecs\n\n{bench.ABOUT}\n\n{about}\n\n{means}\n"
    return text + markdown(rows) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--keep-peers", action="store_true", help="measure this codec only")
    bench.add_options(parser)
    args = parser.parse_args()
    bench.check_options(args)
    if args.keep_peers:
        args.only = ["tezip"]
    args.results.mkdir(parents=True, exist_ok=True)
    made = made_by()
    machine = f"{os.cpu_count()} processors ({platform.machine()}), Python "
    machine += f"{platform.python_version()}"
    everything: list[bench.Row] = []
    for path in stacks(args.folder):
        rows = bench.bench(str(path), args, lambda text: print(text, flush=True))
        rows = [replace(row, made_by=made) for row in rows]
        if args.keep_peers:
            kept = [row for row in bench.saved(args.results / f"{path.stem}.csv") if not row.ours]
            rows = together(rows, kept)
        bench.save(rows, args.results / f"{path.stem}.csv")
        everything += rows
        (args.results / "stacks.md").write_text(document(everything, machine))
    print("\n" + bench.summary(everything))
    return 0 if all(row.good for row in everything if row.ours) else 2


if __name__ == "__main__":
    sys.exit(main())
