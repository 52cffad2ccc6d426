"""Measure the gain of networks for each stack: errors of prediction, bytes and speed.

    python benchmarks/network.py halves STACKS FIRST_HALVES        # to train on
    tezip-h5 train OWN/NAME FIRST_HALVES/NAME.h5 --start default   # for every stack NAME
    python benchmarks/network.py errors STACKS --own OWN   > benchmarks/results/network.md
    python benchmarks/network.py bytes STACKS --own OWN   >> benchmarks/results/network.md
    python benchmarks/network.py pinned STACKS --own OWN  >> benchmarks/results/network.md
    python benchmarks/network.py speed                    >> benchmarks/results/network.md

All measurements use the second half of each stack. The shipped models were trained on first halves
only. OWN/NAME is a model that was trained on the first half of the stack NAME. OWN/NAME.WHAT are
further models of that stack, trained in other ways.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
from provenance import made_by
from two_frames import TwoFrames

import tezip_h5
from tezip_h5.model import store
from tezip_h5.model.batches import clip_of
from tezip_h5.prediction.architecture import ORIGINAL
from tezip_h5.prediction.prednet import PredNet
from tezip_h5.prediction.scaling import choose_scale

CHUNK = 16
AIMS = {"sim_turbulence_vorticity_f32": 0.6, "xray_tomo_projections_u16": 0.7}
"""The goal for the own model of a stack: its error relative to that of the previous frame. For all
other stacks, the goal is an error below those of the previous frame and of two frames."""


def stacks(folder: Path, only: list[str] | None = None):
    """Yield the name, first half and second half (T, H, W[, C]) of each stack."""
    for path in sorted(folder.glob("*.h5")):
        if only is None or path.stem in only:
            with h5py.File(path) as file:
                data = file["data"][:]
            yield path.stem, data[: len(data) // 2], data[len(data) // 2 :]


def clips(stack: np.ndarray, channels: int) -> list[np.ndarray]:
    """The chunks of 16 frames as input of the network, int32 (T, C, H, W).

    Floats are put on a grid of 4095 steps.
    """
    planes = stack if stack.ndim == 4 else stack[..., None]
    parts = [(start, min(start + CHUNK, len(planes))) for start in range(0, len(planes), CHUNK)]
    return [
        np.ascontiguousarray(np.moveaxis(clip_of(planes, start, stop, channels), 3, 1))
        for start, stop in parts
        if stop - start > 1
    ]


def network_error(clip: np.ndarray, model) -> float:
    """The sum of absolute errors of a network's predictions of all frames but the first."""
    top = max(255, int(clip.max()))
    offset, shift = choose_scale(clip[0], top, model.architecture.skip)
    net, total = PredNet(model, clip.shape[1:], top, offset, shift), 0.0
    for before, after in pairwise(clip):
        net.observe(before)
        total += np.abs(net.predict() - after).sum()
    return total


def noise_floor(clip: np.ndarray) -> float:
    """Estimate the mean absolute white noise of frames, by Immerkaer (CVIU 1996).

    No prediction has a smaller error than the noise of the frame. Fine texture counts as noise, so
    this is a rough estimate.
    """
    x = clip.astype(np.float64)
    for axis in (-1, -2):
        x = np.diff(x, n=2, axis=axis)
    return float(np.abs(x).mean()) / 6


def channels_of(stack: np.ndarray) -> int:
    return stack.shape[3] if stack.ndim == 4 else 1


def own_models(folder: Path | None, name: str) -> dict:
    """The models of a stack, by the part of their names after the name of the stack."""
    found = {}
    for path in sorted(folder.glob(f"{name}*")) if folder else ():
        what = path.name.removeprefix(name).removeprefix(".")
        if path.name.partition(".")[0] == name and (path / store.INTEGER_FILE).is_file():
            found[what] = path
    return found


def effort(folder: Path) -> str:
    """A short description of how a model was trained."""
    rows = json.loads((folder / "training.json").read_text())
    trained = store.load(folder).provenance.get("trained with", {})
    options = ", ".join(f"{key} {value}" for key, value in trained.items())
    return f"{len(rows)} epochs, best {min(r['validation'] for r in rows):.3f}; {options}"


def show_errors(args) -> None:
    """Print the table of errors, and the table of all trials."""
    print("# What networks gain\n\n## Errors of prediction\n")
    print("Second halves of the stacks, in chunks of 16 frames: mean |prediction - frame| over the")
    print("previous frame's. `two frames` is a robust linear predictor from 7x7 samples of two")
    print("frames, `own` the integer model trained on the stack, both fitted to the first half.")
    print("`noise` is what is left where only white noise is (Immerkaer's estimate; fine texture")
    print(f"counts as noise): no predictor gets far below that. {made_by()}.\n")
    print("| stack | previous frame | noise | two frames | default | own | aim | reached |")
    print("|---|--:|--:|--:|--:|--:|--:|---|")
    trials = []
    for name, first, second in stacks(args.data, args.only):
        channels = channels_of(second)
        parts = clips(second, channels)
        moved = sum(np.abs(np.diff(clip, axis=0)).sum() for clip in parts)

        def relative(model, parts=parts, moved=moved):
            return sum(network_error(clip, model) for clip in parts) / moved

        linear = sum(map(TwoFrames(clips(first, channels)).error, parts)) / moved
        default = relative(store.default(channels))
        own = own_models(args.own, name)
        errors = {what: relative(store.load(path)) for what, path in own.items()}
        trials += [(name, what, own[what], error) for what, error in errors.items()]
        aim = min(AIMS.get(name, 1.0), linear, 1.0)
        noise = sum(noise_floor(clip) * (clip[1:].size) for clip in parts) / moved
        cells = [f"{noise:.2f}", f"{linear:.3f}", f"{default:.3f}", "-", f"{aim:.3f}", "-"]
        if "" in errors:
            cells[3], cells[5] = f"{errors['']:.3f}", "yes" if errors[""] <= aim else "no"
        print(f"| {name} | 1 | {' | '.join(cells)} |", flush=True)
    if trials:
        print("\n### What was tried\n\n| stack | trial | error | training |\n|---|---|--:|---|")
        for name, what, path, error in trials:
            print(f"| {name} | {what or 'own'} | {error:.3f} | {effort(path)} |")


def loose(stack: np.ndarray) -> float:
    """A bound whose errors the eye does not see: about 1% of the range."""
    span = float(np.nanmax(stack)) - float(np.nanmin(stack))
    return span / 100 if stack.dtype.kind == "f" else max(2, round(span / 100))


def size(stack: np.ndarray, bound: float, model, **options) -> int:
    """The bytes of a file with this stack, and with the model if it has to be embedded."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.h5"
        tezip_h5.write(stack, path, absolute=bound, model=model, preview=False, **options)
        return os.path.getsize(path)


def size_beside(stack: np.ndarray, bound: float, model, **options) -> int:
    """The same without the model, as if it shipped with the package or many stacks shared it."""
    with mock.patch.object(store, "is_shipped", return_value=True):
        return size(stack, bound, model, **options)


def middle(stack: np.ndarray, most: int) -> np.ndarray:
    """The middle of each frame, with a side of at most `most` samples."""
    y, x = (slice(start := max(0, (n - most) // 2), start + most) for n in stack.shape[1:3])
    return stack[:, y, x]


def cropped(args) -> str:
    return f"The middle {args.crop}x{args.crop} of the frames." if args.crop else ""


def parts_to_encode(args):
    """Yield name, second half, own model and bound, for each stack and two bounds."""
    for name, _, second in stacks(args.data, args.only):
        second = middle(second, args.crop) if args.crop else second
        for bound in (0, loose(second)):
            yield name, second, own_models(args.own, name).get(""), bound


def show_bytes(args) -> None:
    """Print the table of file sizes, and say where a file with a network is larger."""
    print("\n## Bytes as `auto` chooses\n\nWhole files of the second halves, the network where it")
    print(
        "pays: none, the model that ships, the own one embedded if that pays, and the own one kept"
    )
    print(f"beside the file. {cropped(args)} {made_by()}.\n")
    print("| stack | level | bound | none | default | own | own beside | saved by these |")
    print("|---|---|--:|--:|--:|--:|--:|---|")
    larger, files = [], 0
    for name, second, own, bound in parts_to_encode(args):
        for level in args.levels:
            none = size(second, bound, None, level=level)
            found = [size(second, bound, "default", level=level)]
            if own:
                found += [way(second, bound, own, level=level) for way in (size, size_beside)]
            files += len(found)
            larger += [f"{name} {level} {bound:.4g}" for n in found if n > none]
            cells = [str(n) for n in found] + ["-"] * (3 - len(found))
            cells.append(" / ".join(f"{100 * (1 - n / none):.2f}%" for n in found))
            row = f"{name} | {level} | {bound:.4g} | {none} | {' | '.join(cells)}"
            print(f"| {row} |", flush=True)
    print(f"\nOf {files} files with a network, larger than without: {', '.join(larger) or 'none'}.")


def show_pinned(args) -> None:
    """Print the table of file sizes with each predictor pinned."""
    print(
        "\n## Bytes with each predictor\n\nThe same with the predictor pinned, models not counted:"
    )
    print("what each gives TEZip's own stages, and the mixing coder, which has a blend of adaptive")
    print(f"predictors besides. {cropped(args)} {made_by()}.\n")
    print("| stack | coder | bound | previous frame | default | own | saved by these |")
    print("|---|---|--:|--:|--:|--:|---|")
    for name, second, own, bound in parts_to_encode(args):
        for coder in ("stages", "mixing"):
            options = {"coder": coder, "predictor": "previous"}
            previous = size(second, bound, None, **options)
            options["predictor"] = "prednet"
            found = [
                size_beside(second, bound, model, **options) for model in ("default", own) if model
            ]
            cells = [str(n) for n in found] + ["-"] * (2 - len(found))
            cells.append(" / ".join(f"{100 * (1 - n / previous):.2f}%" for n in found))
            row = f"{name} | {coder} | {bound:.4g} | {previous} | {' | '.join(cells)}"
            print(f"| {row} |", flush=True)


def speed(model, side: int = 512) -> tuple[float, float, float]:
    """Measure one forward pass.

    Returns its processor time in one thread, which other programs disturb least; its time with two
    threads; and the Mpixel/s of two predictors that run in one thread each.
    """
    shape = (model.architecture.channels, side, side)
    frame = np.random.default_rng(0).integers(0, 256, shape).astype(np.int32)
    nets = [PredNet(model, shape, 255, 0, 0) for _ in range(2)]
    for net in nets:
        net.observe(frame)
    best = min(_timed(lambda: nets[0].observe(frame), time.thread_time) for _ in range(5))
    nets[0].threads = 2
    shared = min(_timed(lambda: nets[0].observe(frame)) for _ in range(5))
    nets[0].threads = 1

    def work(net):
        for _ in range(4):
            net.observe(frame)

    with ThreadPoolExecutor(2) as pool:
        together = min(_timed(lambda: list(pool.map(work, nets))) for _ in range(3))
    return best, shared, 8 * side * side / together / 1e6


def _timed(work, clock=time.perf_counter) -> float:
    start = clock()
    work()
    return clock() - start


def original_model():
    """A network of the original's size with random weights, which do not change its speed."""
    from tezip_h5.model.export import export

    rng = np.random.default_rng(0)
    weights = {
        name: (
            rng.normal(0, 0.7 / np.sqrt(9 * inputs), (3, 3, inputs, outputs)).astype(np.float32),
            np.zeros(outputs, np.float32),
        )
        for name, (inputs, outputs) in ORIGINAL.convolutions().items()
    }
    frames = rng.integers(0, 256, (2, 32, 32, 3))
    return export(ORIGINAL, weights, [frames], clipped=False, allowed_loss=np.inf)


def show_speed() -> None:
    """Print the speed of the integer networks."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    print("\n## Speed\n\nFrames of 512x512, integers on the CPU; the best of several runs on a")
    print(f"machine with {os.cpu_count()} processors and a load of {load} before; {made_by()}.\n")
    print("| model | bytes | a frame, time of one processor | by two threads | two at once |")
    print("|---|--:|--:|--:|--:|")
    models = {"grey, ships": store.default(1), "RGB, ships": store.default(3)}
    for label, model in (models | {"RGB 3-48-96-192": original_model()}).items():
        alone, shared, rate = speed(model)
        row = f"{len(model.to_bytes())} | {1000 * alone:.0f} ms | {1000 * shared:.0f} ms"
        row += f" | {rate:.2f} Mpixel/s"
        print(f"| {label} | {row} |", flush=True)


def save_halves(data: Path, out: Path) -> None:
    """Write the first half of each stack to a file, for training."""
    out.mkdir(parents=True, exist_ok=True)
    for name, first, _ in stacks(data):
        with h5py.File(out / f"{name}.h5", "w") as half:
            half["data"] = first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    jobs = parser.add_subparsers(dest="job", required=True)
    names = ("halves", "errors", "bytes", "pinned")
    halves, errors, sizes, pinned = (jobs.add_parser(name) for name in names)
    for job in (halves, errors, sizes, pinned):
        job.add_argument("data", type=Path)
    halves.add_argument("out", type=Path)
    for job in (errors, sizes, pinned):
        job.add_argument("--own", type=Path, help="folder of models, one per stack")
        job.add_argument("--only", nargs="+", metavar="NAME", help="these stacks")
    for job in (sizes, pinned):
        job.add_argument("--crop", type=int, metavar="N", help="only the middle NxN of frames")
    sizes.add_argument("--levels", nargs="+", default=["balanced", "best"])
    jobs.add_parser("speed")
    args = parser.parse_args()
    if args.job == "halves":
        save_halves(args.data, args.out)
    elif args.job == "errors":
        show_errors(args)
    elif args.job == "bytes":
        show_bytes(args)
    elif args.job == "pinned":
        show_pinned(args)
    else:
        show_speed()


if __name__ == "__main__":
    main()
