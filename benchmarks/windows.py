"""Measure ratios by window size and by threshold, as in the manual of TEZip.

    python benchmarks/windows.py STACKS/kitti_gray_seq1.h5 ... > benchmarks/results/windows.md

All runs use `-p 3`: the first three frames of each chunk are keyframes, which fill the memory of
the network. The network is fed in two ways: with reconstructed frames, as this package does, and
with its own predictions inside a window, as the original does.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import h5py
import numpy as np
from provenance import made_by

import tezip_h5
from tezip_h5.windows import Kind

WARMUP = 3
WINDOWS = (2, 3, 5, 10, 20)
THRESHOLDS = (0.002, 0.005, 0.01, 0.02, 0.05)
PREDICTORS = (
    ("PredNet, fed reconstructions", {"predictor": "prednet"}),
    ("PredNet, fed predictions", {"predictor": "prednet", "feedback": "prediction"}),
    ("previous frame", {"predictor": "previous"}),
    ("first of the window", {"predictor": "previous", "feedback": "prediction"}),
)
CODERS = {"stages": "TEZip's stages", "mixing": "mixing coder"}


def measured(stack: np.ndarray, bound: float, **options) -> tuple[float, int]:
    """The ratio of the chunks, and the number of keyframes and warm-up frames."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.h5"
        options |= {"warmup": WARMUP, "chunk_frames": len(stack), "preview": False}
        tezip_h5.write(stack, path, absolute=bound, **options)
        with h5py.File(path) as file:
            stored = file["scan/data"].id.get_storage_size()
            keyframes = int(np.count_nonzero(file["scan/frames"]["kind"] != Kind.PREDICTED))
    return stack.nbytes / stored, keyframes


def show(name: str, stack: np.ndarray, bound: float, coder: str) -> None:
    """Print the two tables of a stack."""
    print(f"\n## {name}, {'x'.join(map(str, stack.shape))}, bound {bound:g}, {CODERS[coder]}\n")
    for option, values in (("window", WINDOWS), ("mse_threshold", THRESHOLDS)):
        flag = {"window": "-w", "mse_threshold": "-t"}[option]
        print(f"| `-p {WARMUP} {flag}` | {' | '.join(label for label, _ in PREDICTORS)} |")
        print("|---|" + "--:|" * len(PREDICTORS))
        for value in values:
            cells = []
            for _, predictor in PREDICTORS:
                ratio, keyframes = measured(
                    stack, bound, coder=coder, **predictor, **{option: value}
                )
                cells.append(f"{ratio:.3f} ({keyframes})")
            print(f"| {value} | {' | '.join(cells)} |", flush=True)
        print()


def middle(stack: np.ndarray, size) -> np.ndarray:
    """The middle of each frame, with at most `size` samples to a side."""
    starts = [
        max(0, (there - most) // 2) for there, most in zip(stack.shape[1:3], size, strict=True)
    ]
    y, x = (slice(start, start + most) for start, most in zip(starts, size, strict=True))
    return stack[:, y, x]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stacks", nargs="+", type=Path)
    parser.add_argument("--bounds", nargs="+", type=float, default=[0, 5])
    parser.add_argument("--crop", nargs=2, type=int, default=(128, 160), help="the middle only")
    args = parser.parse_args()
    print(
        "# Windows\n\nRatio, and in brackets how many frames are keyframes or warm-up frames, with"
    )
    print("all frames in one chunk and the model that ships; the middle of the frames, in the size")
    print(f"that the original's training data of KITTI have. {made_by()}.")
    for path in args.stacks:
        with h5py.File(path) as file:
            stack = middle(file["data"][:], args.crop)
        for bound in args.bounds:
            for coder in CODERS:
                show(path.stem, stack, bound, coder)


if __name__ == "__main__":
    main()
