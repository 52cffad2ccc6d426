"""Measure the gain of each ingredient of the mixing coder: bytes and seconds without it.

    python benchmarks/ablation.py STACKS

prints a table for the present code, in a quarter of an hour. ``ablation.md`` has the measurements
that were made during development, by which the ingredients were chosen. The script takes the first
frames of the dataset `data` of each HDF5 file in the folder STACKS, as one chunk. It encodes them
in one thread, lossless and with a bound of one percent of their range.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
from provenance import made_by

from tezip_h5 import ErrorBound, Settings, codec
from tezip_h5.residual import mixing

FRAMES = 12


def without_motion():
    return mock.patch.object(mixing.motion, "estimate", return_value=None)


def without_rehearsal():
    return mock.patch.object(mixing.lessons, "rehearse", lambda channels, *_: channels)


def without_lessons():
    return mock.patch.object(mixing.MixingEncoder, "prepare", return_value=None)


def bands(count):
    return mock.patch.object(mixing, "_bands", return_value=count)


@contextmanager
def nothing():
    yield


VARIANTS = {
    "everything": nothing,
    "no block motion": without_motion,
    "no rehearsal": without_rehearsal,
    "no weights learnt from the original": without_lessons,
    "one band": lambda: bands(1),
    "eight bands": lambda: bands(8),
}


def measure(frames, bound, settings) -> tuple[int, float]:
    """The bytes of the payload, and the seconds that encoding takes."""
    limits = bound.of_frames(frames.reshape((*frames.shape[:3], -1)))
    started = time.process_time()
    encoded = codec.encode_chunk(frames, limits, settings)
    return len(encoded.payload), time.process_time() - started


def stacks(folder: Path):
    for path in sorted(folder.glob("*.h5")):
        with h5py.File(path) as file:
            yield path.stem, file["data"][:FRAMES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("stacks", type=Path)
    folder = parser.parse_args().stacks
    known = list(stacks(folder))
    print("# What the ingredients of the mixing coder gain\n")
    print(
        f"First {FRAMES} frames of every stack, one chunk, one thread. Bytes more (+) or fewer\n"
        "(-) without the ingredient, and the time that encoding then takes. "
        f"{made_by()}."
    )
    for level in ("balanced", "best"):
        settings = Settings(level=level, coder="mixing", predictor="previous")
        warm = known[0][1][:2, :64, :64]
        measure(np.ascontiguousarray(warm), ErrorBound(), settings)
        for bounded in (False, True):
            print(f"\n## {level}, {'a bound of 1 % of the range' if bounded else 'lossless'}\n")
            print("| stack | bits per sample | " + " | ".join(list(VARIANTS)[1:]) + " |")
            print("|---|" + "--:|" * len(VARIANTS))
            factors = {name: [] for name in VARIANTS}
            times = {name: [] for name in VARIANTS}
            for stack, frames in known:
                reach = 0.01 * float(frames.max() - frames.min())
                reach = max(1, round(reach)) if frames.dtype.kind in "iu" else reach
                bound = ErrorBound(absolute=reach) if bounded else ErrorBound()
                sizes = {}
                for name, patched in VARIANTS.items():
                    with patched():
                        sizes[name], seconds = measure(frames, bound, settings)
                    factors[name].append(sizes[name] / sizes["everything"])
                    times[name].append(seconds)
                bits = 8 * sizes["everything"] / frames.size
                rest = [f"{100 * (factors[n][-1] - 1):+.2f} %" for n in list(VARIANTS)[1:]]
                print(f"| {stack} | {bits:.4f} | " + " | ".join(rest) + " |", flush=True)
            means = [math.exp(np.mean(np.log(factors[n]))) - 1 for n in list(VARIANTS)[1:]]
            print("| geometric mean | | " + " | ".join(f"{100 * m:+.2f} %" for m in means) + " |")
            speed = [sum(times[n]) / sum(times["everything"]) for n in list(VARIANTS)[1:]]
            print("| time of encoding | 1 | " + " | ".join(f"{s:.2f}" for s in speed) + " |")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
