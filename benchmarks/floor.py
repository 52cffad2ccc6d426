"""Estimate the smallest size at a bound, which is the entropy of quantised noise.

    python benchmarks/floor.py > benchmarks/results/floor.md

The script reads the results of run.py. The part of a stack that a lossless coder cannot predict is
noise. With a bound b, noise is quantised to cells of 2 b + 1 levels. Suppose that predictions were
as good as lossless ones, and not disturbed by the quantization of neighbours. Then the size would
be about the entropy of the quantised noise.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
from provenance import of_rows

HEAD = """# What limits the size at a bound

Bits per sample at level best, integer stacks. `noise`: Gaussian noise with the entropy of what best
needs lossless, in cells of 2 b + 1 levels; calmer parts of a scene need less, so that where most of
it is calm the numbers say nothing (shown as -).
"""
RESULTS = Path(__file__).parent / "results"
SZ3 = ("hdf5 sz3", "hdf5 sz3, 16 frames")


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of the results of a stack."""
    with path.open() as file:
        return list(csv.DictReader(file))


def bits_by_codec(rows: list[dict[str, str]]) -> dict[float, dict[str, float]]:
    """The bits per sample by bound and codec."""
    found: dict[float, dict[str, float]] = defaultdict(dict)
    for row in rows:
        found[float(row["bound"])][row["codec"]] = float(row["bits_per_sample"])
    return found


def quantized_bits(entropy: float, cell: float) -> float:
    """The entropy of Gaussian noise after quantization to cells of `cell` levels.

    Before quantization, it has an entropy of `entropy` bits.
    """
    deviation = 2**entropy / math.sqrt(2 * math.pi * math.e)
    edges = (np.arange(-2000, 2001) + 0.5) * cell / deviation / math.sqrt(2)
    below = np.array([math.erf(edge) for edge in edges]) / 2
    chances = np.diff(below)
    chances = chances[chances > 0]
    return float(-(chances * np.log2(chances)).sum())


def covering_bits(deviation: float, bound: int) -> float:
    """The rate that the best possible coder needs for Gaussian samples with |error| <= bound.

    This is the rate for infinitely many samples: the smallest mutual information of all possible
    choices (Blahut, IEEE Trans. Information Theory 18, 1972).
    """
    reach = math.ceil(6 * deviation) + bound
    values = np.arange(-reach, reach + 1)
    chances = np.exp(-((values / deviation) ** 2) / 2)
    chances /= chances.sum()
    near = np.abs(values[:, None] - values) <= bound
    used = np.full(values.size, 1 / values.size)
    for _ in range(20000):
        cover = near @ used
        step = (chances / np.maximum(cover, 1e-300)) @ near
        if np.abs(used * step - used).max() < 1e-9:
            break
        used = used * step
    return float(-(chances * np.log2(np.maximum(near @ used, 1e-300))).sum())


def main() -> None:
    results = {path: rows_of(path) for path in sorted(RESULTS.glob("*.csv"))}
    print(HEAD + of_rows(row.get("made_by") for rows in results.values() for row in rows) + "\n")
    print("| stack | bound | SZ3 | best | SZ3 / best | noise | SZ3 / noise |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for path, rows in results.items():
        bits = bits_by_codec(rows)
        if "f32" in path.stem or "tezip best" not in bits.get(0.0, {}):
            continue
        lossless = bits[0.0]["tezip best"]
        for bound in sorted(bits)[1:]:
            ours, sz3 = bits[bound]["tezip best"], min(bits[bound][codec] for codec in SZ3)
            noise = quantized_bits(lossless, 2 * bound + 1)
            shown = f"{noise:.3f} | {sz3 / noise:.2f}" if noise > 0.8 * ours else "- | -"
            print(
                f"| {path.stem} | {bound:g} | {sz3:.3f} | {ours:.3f} | {sz3 / ours:.2f} | {shown} |"
            )
    print("\nCells that tile are not the last word: a coder that chooses all samples of a frame")
    print("together, each within the bound, could go lower. Gaussian noise, bound 5:\n")
    print("| deviation | cells that tile | best possible |")
    print("|--:|--:|--:|")
    for deviation in (2.5, 3.5, 5.0, 8.0, 14.0, 25.0):
        entropy = math.log2(deviation * math.sqrt(2 * math.pi * math.e))
        print(
            f"| {deviation:g} | {quantized_bits(entropy, 11):.3f} "
            f"| {covering_bits(deviation, 5):.3f} |"
        )


if __name__ == "__main__":
    main()
