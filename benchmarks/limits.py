"""Measure speed, memory, start-up time, and reading frame by frame.

    python benchmarks/limits.py [--frames 512] > benchmarks/results/limits.txt

Each number is measured in a process of its own, with a simulated stack.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from provenance import made_by

PREPARE = """
    import sys, time, resource, numpy as np, h5py, tezip_h5
    from tezip_h5.simulate import detector_sequence
    folder = sys.argv[1]
"""

SPEED = """
    for dtype in ("uint8", "uint16"):
        tile = detector_sequence(16, 512, 512, dtype)
        stack = np.tile(tile, (4, 1, 1))
        mega = stack.nbytes / 1e6
        for bound in (None, 2):
            for level in ("fast", "balanced"):
                path = f"{folder}/speed.h5"
                tezip_h5.write(stack[:2], path, level=level, absolute=bound, overwrite=True)
                times = []
                for _ in range(3):
                    options = {"level": level, "absolute": bound, "overwrite": True}
                    summary = tezip_h5.write(stack, path, **options)
                    started = time.perf_counter()
                    back = tezip_h5.read(path)
                    times.append((summary.seconds, time.perf_counter() - started))
                encode, decode = (sorted(t)[1] for t in zip(*times))
                print(f"{dtype:7} {level:9} bound {bound or 0}: encode {mega / encode:6.0f} MB/s, "
                      f"decode {mega / decode:6.0f} MB/s, ratio {summary.ratio:.2f}")
"""

FRAMEWISE = """
    for level, size, count in (
        ("fast", 512, 64), ("fast", 1024, 64), ("fast", 2048, 32),
        ("balanced", 512, 32), ("balanced", 1024, 32),
    ):
        tile = detector_sequence(16, 512, 512)
        path = f"{folder}/{level}-{size}.h5"
        shifted = (np.roll(tile[i % 16], 31 * i, axis=1) for i in range(count))
        slope = np.add.outer(np.arange(size) // 7, np.arange(size) // 11).astype(np.uint16)
        frames = (np.tile(frame, (size // 512, size // 512)) + slope for frame in shifted)
        tezip_h5.write(frames, path, level=level, absolute=2, overwrite=True)
        def whole():
            with h5py.File(path) as f:
                f["scan/data"][...]
        def framewise():
            with h5py.File(path) as f:
                for i in range(count):
                    f["scan/data"][i]
        whole()
        seconds = {whole: [], framewise: []}
        for _ in range(3):
            for call in seconds:
                tezip_h5.configure(cache_bytes=0)  # forget what was decoded before
                tezip_h5.configure(cache_bytes=192 << 20)
                started = time.perf_counter()
                call()
                seconds[call].append(time.perf_counter() - started)
        a, b = (sorted(seconds[call])[1] for call in (whole, framewise))
        print(f"{level}, {count} frames {size}x{size}: f[...] at once {a:.3f} s, "
              f"f[i] one by one {b:.3f} s, {b / a:.2f} times")
"""

MEMORY = """
    base = np.tile(detector_sequence(4, 512, 512), (1, 4, 4))
    count = int(sys.argv[2])
    path = f"{folder}/large.h5"
    frames = (base[i % 4] + np.uint16(i) for i in range(count))
    summary = tezip_h5.write(frames, path, level="fast")
    print(f"writing {summary.raw_bytes / 1e9:.2f} GB: {summary.seconds:.1f} s, peak "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
"""

READ_MEMORY = """
    path = f"{folder}/large.h5"
    started = time.perf_counter()
    with h5py.File(path) as f:
        data = f["scan/data"]
        total = sum(int(data[i, 0, 0]) for i in range(0, len(data)))
    print(f"reading it frame by frame: {time.perf_counter() - started:.1f} s, peak "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
"""

IMPORT = """
    import sys, time
    started = time.perf_counter()
    import tezip_h5
    seconds = time.perf_counter() - started
    heavy = [m for m in ("numba", "tensorflow", "keras") if m in sys.modules]
    print(f"import tezip_h5: {seconds:.2f} s, heavy modules loaded: {heavy or 'none'}")
"""

FIRST = """
    import sys, time
    started = time.perf_counter()
    import h5py, tezip_h5
    with h5py.File(f"{sys.argv[1]}/{sys.argv[2]}.h5") as f:
        f["scan/data"][0]
    seconds = time.perf_counter() - started
    print(f"first frame of a file in a new process, {sys.argv[2]}: {seconds:.2f} s")
"""


def in_process(code: str, *arguments) -> None:
    """Run `code` in a new Python process, and print its output."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    print(result.stdout or result.stderr, end="", flush=True)


def processor() -> str:
    """The name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=512, help="of 8 MB, for the memory figures")
    count = parser.parse_args().frames
    print(f"{processor()}, {os.cpu_count()} processors, Python {platform.python_version()}")
    print(made_by())
    with tempfile.TemporaryDirectory() as folder:
        in_process(IMPORT)
        in_process(PREPARE + SPEED, folder)
        in_process(PREPARE + FRAMEWISE, folder)
        for made in ("fast-512", "fast-1024", "fast-2048", "balanced-512", "balanced-1024"):
            in_process(FIRST, folder, made)
        in_process(PREPARE + MEMORY, folder, count)
        in_process(PREPARE + READ_MEMORY, folder)


if __name__ == "__main__":
    main()
