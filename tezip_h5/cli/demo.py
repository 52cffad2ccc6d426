"""``tezip-h5 demo``: compress, read and verify a simulated stack."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import tezip_h5
from tezip_h5.errors import BoundError, FormatError, InputError
from tezip_h5.simulate import detector_sequence

__all__ = ["add_parser"]

_BOUNDS = (None, 4, 16)
_FRAMES = 64

# The reader's program, which runs in its own process: plain h5py, and one import for the filter.
# It reads everything once before the timed run, so that loading the kernels is not timed. Closing
# the file and emptying our cache make HDF5 and tezip_h5 forget the decoded chunks.
_READER = """
import json, sys, time
import h5py, numpy, tezip_h5
with h5py.File(sys.argv[1]) as file:
    file["scan/data"][...]
tezip_h5.configure(cache_bytes=0)
with h5py.File(sys.argv[1]) as file:
    started = time.perf_counter()
    decoded = file["scan/data"][...]
    seconds = time.perf_counter() - started
original = numpy.load(sys.argv[2])
error = numpy.abs(decoded.astype("int64") - original).max()
same = decoded.shape == original.shape
print(json.dumps({"seconds": seconds, "error": float(error), "same": same}))
"""


def add_parser(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "demo",
        help="simulate a stack, compress it, read it back, verify it",
        description="Simulate a small detector sequence, compress it lossless and at two "
        "bounds, read it back through plain h5py in a fresh process, and verify it.",
    )
    parser.add_argument("--folder", help="keep the files there, a new folder (default: none kept)")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all processors")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Run the demonstration; a broken bound or a damaged file ends it with an error."""
    if args.threads is not None and args.threads < 1:
        raise InputError(f"--threads {args.threads}: give a number >= 1")
    with contextlib.ExitStack() as cleanup:
        scratch = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        folder = _new_folder(args.folder) if args.folder else scratch
        print(f"Simulating {_FRAMES} frames of drifting, diffusing particles with shot noise ...")
        stack = detector_sequence(_FRAMES)
        print("Loading the kernels (not in the speeds) ...\n", flush=True)
        for bound, coder in ((1, "mixing"), (1, "linear"), (None, "linear")):
            how = {"coder": coder, "threads": args.threads, "overwrite": True}
            tezip_h5.write(stack[:2, :64], scratch / "warm.h5", absolute=bound, **how)
        np.save(folder / "original.npy", stack)
        print(f"uint16 {stack.shape}, {stack.nbytes / 1e6:.1f} MB, level balanced")
        head = ("bound", "ratio", "bytes/frame", "MB/s in", "MB/s out", "largest error", "verified")
        print("  ".join(f"{title:>13}" for title in head))
        for bound in _BOUNDS:
            print("  ".join(f"{cell:>13}" for cell in _row(folder, stack, bound, args.threads)))
        if args.folder:
            print(f"\nThe files are in {folder}.")
    print(
        "\nYour own stack:\n"
        '  in Python     tezip_h5.write(stack, "run.h5", absolute=2)  # stack: (T, H, W[, C])\n'
        "  from images   tezip-h5 compress IMAGE_FOLDER run.h5 --absolute 2\n"
        "  look inside   tezip-h5 inspect run.h5"
    )
    return 0


def _new_folder(path: str) -> Path:
    """Make the folder; refuse one that is not empty, so that nothing in it is overwritten."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; give --folder a new or empty folder")
    return folder


def _row(folder: Path, stack: np.ndarray, bound, threads) -> list[str]:
    """Compress at one bound, read back in a fresh process, verify; a row of the table."""
    label = "lossless" if bound is None else f"absolute {bound}"
    path = folder / f"run_{label.replace(' ', '_')}.h5"
    summary = tezip_h5.write(stack, path, absolute=bound, threads=threads, overwrite=True)
    reader = [sys.executable, "-c", _READER, str(path), str(folder / "original.npy")]
    result = subprocess.run(reader, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = result.stderr.strip().rpartition("\n")[2] or f"exit code {result.returncode}"
        raise FormatError(f"plain h5py could not read {path}: {reason}")
    found = json.loads(result.stdout)
    if not found["same"] or found["error"] > (bound or 0):
        raise BoundError(f"{path}: read back with an error of {found['error']:g}, bound {bound}")
    tezip_h5.verify(path, stack, threads=threads)
    megabytes = stack.nbytes / 1e6
    return [
        label,
        f"{summary.ratio:.2f}",
        f"{summary.payload_bytes / len(stack):.0f}",
        f"{megabytes / summary.seconds:.0f}",
        f"{megabytes / found['seconds']:.0f}",
        f"{found['error']:g}",
        "yes",
    ]
