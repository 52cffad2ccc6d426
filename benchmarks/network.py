"""What networks gain: error of prediction and bytes, per stack.

    python benchmarks/network.py ../shared/data [--own FOLDER] > benchmarks/results/network.md

Everything is measured on the second half of every stack; the models that ship have seen first
halves at most. FOLDER/<stack> may hold a model trained on the first half of that very stack
(`tezip-h5 train FOLDER/<stack> FIRST_HALF.h5`; write those files with --halves FOLDER).
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np

from tezip_h5 import Settings
from tezip_h5.bounds import ErrorBound
from tezip_h5.codec import encode_chunk
from tezip_h5.model import store
from tezip_h5.model.batches import clip_of
from tezip_h5.prediction.prednet import PredNet
from tezip_h5.prediction.scaling import choose_scale

CHUNK = 16


def second_halves(folder: Path):
    """Name, second half (T, H, W[, C]) of every stack."""
    for path in sorted(folder.glob("*.h5")):
        with h5py.File(path) as file:
            data = file["data"]
            yield path.stem, data[len(data) // 2 :]


def relative_error(stack: np.ndarray, model) -> float:
    """Mean absolute error of the network's predictions over that of the previous frame.

    Chunks of 16 frames, the network sees the frames as they are; floats on a grid of 4095
    steps.
    """
    planes = stack if stack.ndim == 4 else stack[..., None]
    wrong = moved = 0.0
    for start in range(0, len(planes) - 1, CHUNK):
        stop = min(start + CHUNK, len(planes))
        clip = clip_of(planes, start, stop, model.architecture.channels)
        frames = np.ascontiguousarray(np.moveaxis(clip, 3, 1))
        top = max(255, int(frames.max()))
        offset, shift = choose_scale(frames[0], top, model.architecture.skip)
        net = PredNet(model, frames.shape[1:], top, offset, shift)
        for before, after in pairwise(frames):
            net.observe(before)
            wrong += np.abs(net.predict() - after).sum()
            moved += np.abs(before - after).sum()
    return wrong / max(moved, 1e-9)


def size(stack: np.ndarray, bound: float, model, level: str) -> int:
    """Bytes of all chunks, with the network where it is smaller."""
    limit = ErrorBound(absolute=bound) if bound else ErrorBound()
    settings = Settings(level=level)

    def chunk(start):
        part = stack[start : start + CHUNK]
        return len(
            encode_chunk(
                part,
                limit.of_frames(part.reshape(*part.shape[:3], -1)),
                settings,
                model=model,
            ).payload
        )

    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(chunk, range(0, len(stack), CHUNK)))


def speed(model, side: int = 512) -> tuple[float, float]:
    """Seconds of one forward pass, and Mpixel/s of two predictors in two threads."""
    shape = (model.architecture.channels, side, side)
    frame = np.random.default_rng(0).integers(0, 256, shape).astype(np.int32)
    nets = [PredNet(model, shape, 255, 0, 0) for _ in range(2)]
    for net in nets:
        net.observe(frame)
    best = min(_timed(lambda: nets[0].observe(frame)) for _ in range(5))

    def work(net):
        for _ in range(8):
            net.observe(frame)

    with ThreadPoolExecutor(2) as pool:
        together = min(_timed(lambda: list(pool.map(work, nets))) for _ in range(3))
    return best, 16 * side * side / together / 1e6


def _timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def save_halves(folder: Path, out: Path) -> None:
    """Write the first half of every stack, to train on."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("*.h5")):
        with h5py.File(path) as file, h5py.File(out / path.name, "w") as half:
            data = file["data"]
            half["data"] = data[: len(data) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--own", type=Path, help="folder of models, one per stack")
    parser.add_argument("--halves", type=Path, help="only write first halves there")
    parser.add_argument("--level", default="best")
    args = parser.parse_args()
    if args.halves:
        save_halves(args.data, args.halves)
        return
    print("# What networks gain\n")
    print("Second halves of the stacks. Error: mean |prediction - frame| over the previous")
    print("frame's. Bytes: without a network, then with the model that ships, then with a model")
    print(f"trained on the stack's first half (its own bytes not added); level {args.level}.\n")
    print("| stack | error, default | error, own | bound | bytes without | default | own |")
    print("|---|---|---|---|---|---|---|")
    for name, stack in second_halves(args.data):
        channels = stack.shape[3] if stack.ndim == 4 else 1
        default = store.default(channels)
        own = None
        if args.own and (args.own / name / store.INTEGER_FILE).is_file():
            own = store.load(args.own / name)
        errors = [f"{relative_error(stack, m):.3f}" if m else "-" for m in (default, own)]
        span = float(np.ptp(stack))
        loose = span / 1000 if stack.dtype.kind == "f" else 2 if span < 256 else round(span / 1000)
        for bound in (0, loose):
            row = [str(size(stack, bound, m, args.level)) if m else "-" for m in (default, own)]
            without = size(stack, bound, None, args.level)
            print(
                f"| {name} | {' | '.join(errors)} | {bound:.4g} | {without} | {' | '.join(row)} |"
            )
    print()
    for channels, label in ((1, "grey"), (3, "RGB")):
        model = store.default(channels)
        if model:
            seconds, rate = speed(model)
            print(
                f"{label} model, {len(model.to_bytes())} bytes: one 512x512 frame "
                f"{1000 * seconds:.0f} ms in one thread, {rate:.2f} Mpixel/s in two threads.\n"
            )


if __name__ == "__main__":
    main()
