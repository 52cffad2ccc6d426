"""Ratios by window size and by threshold, as the manual of TEZip shows them.

    python benchmarks/windows.py STACKS/kitti_gray_seq1.h5 ... > benchmarks/results/windows.md

`-p 3` throughout: the first three frames of every chunk are keyframes, to fill the network's
memory. Both ways of feeding the network: with the reconstructed frames (this package's), and
with its own predictions inside a window (the original's).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import h5py
import numpy as np

import tezip_h5
from tezip_h5.windows import Kind

WARMUP = 3
WINDOWS = (2, 3, 5, 10, 20)
THRESHOLDS = (0.002, 0.005, 0.01, 0.02, 0.05)
FEEDBACKS = ("reconstruction", "prediction")
PREDICTORS = ("prednet", "previous")


def measured(stack: np.ndarray, bound: float, level: str, **options) -> tuple[float, int]:
    """Ratio of the chunks, and how many frames are keyframes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.h5"
        frames = len(stack)
        options |= {"warmup": WARMUP, "chunk_frames": frames, "level": level, "preview": False}
        tezip_h5.write(stack, path, absolute=bound, **options)
        with h5py.File(path) as file:
            stored = file["scan/data"].id.get_storage_size()
            keyframes = int(np.count_nonzero(file["scan/frames"]["kind"] != Kind.PREDICTED))
    return stack.nbytes / stored, keyframes


def show(name: str, stack: np.ndarray, bound: float, level: str) -> None:
    """Print a stack's two tables."""
    heads = [f"{p}, {f}s fed" for p in PREDICTORS for f in FEEDBACKS if p != "previous"]
    print(f"\n## {name}, {'x'.join(map(str, stack.shape))}, bound {bound:g}, {level}\n")
    for option, values in (("window", WINDOWS), ("mse_threshold", THRESHOLDS)):
        flag = {"window": "-w", "mse_threshold": "-t"}[option]
        print(f"| `-p {WARMUP} {flag}` | {' | '.join(heads)} | previous frame |")
        print("|---|" + "--:|" * (len(heads) + 1))
        for value in values:
            cells = []
            for predictor in PREDICTORS:
                for feedback in FEEDBACKS[: 1 if predictor == "previous" else 2]:
                    options = {"predictor": predictor, "feedback": feedback, option: value}
                    ratio, keyframes = measured(stack, bound, level, **options)
                    cells.append(f"{ratio:.2f} ({keyframes})")
            print(f"| {value} | {' | '.join(cells)} |", flush=True)
        print()


def middle(stack: np.ndarray, size) -> np.ndarray:
    """The middle of every frame, at most `size`."""
    starts = [
        max(0, (there - most) // 2) for there, most in zip(stack.shape[1:3], size, strict=True)
    ]
    y, x = (slice(start, start + most) for start, most in zip(starts, size, strict=True))
    return stack[:, y, x]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stacks", nargs="+", type=Path)
    parser.add_argument("--bounds", nargs="+", type=float, default=[0, 5])
    parser.add_argument("--level", default="balanced")
    parser.add_argument("--crop", nargs=2, type=int, default=(128, 512), help="the middle only")
    args = parser.parse_args()
    print(
        "# Windows\n\nRatio, and in brackets how many frames are keyframes, with all frames in one"
    )
    print("one chunk and the model that ships.")
    for path in args.stacks:
        with h5py.File(path) as file:
            stack = middle(file["data"][:], args.crop)
        for bound in args.bounds:
            show(path.stem, stack, bound, args.level)


if __name__ == "__main__":
    main()
