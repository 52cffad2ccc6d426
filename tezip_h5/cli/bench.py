"""``tezip-h5 bench PATH…``: this codec beside every peer installed, at equal guaranteed bounds."""

from __future__ import annotations

import csv
import math
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import h5py
import numpy as np

import tezip_h5
from tezip_h5.cli.compress import open_source
from tezip_h5.errors import InputError
from tezip_h5.frames import open_stack
from tezip_h5.hdf5.plan import default_threads
from tezip_h5.peers import Encoded, Peer, peers
from tezip_h5.settings import LEVELS

__all__ = ["Row", "add_parser", "load", "measure", "table"]


@dataclass(frozen=True)
class Row:
    """One codec on one stack at one bound. MB are 10**6 bytes of samples, seconds wall time."""

    stack: str
    shape: str
    dtype: str
    codec: str
    bound: float
    bytes: int
    ratio: float
    bits_per_sample: float
    mb_per_s_in: float
    mb_per_s_out: float
    largest_error: float
    kept: bool
    threads: int
    note: str = ""


def add_parser(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "bench",
        help="measure this codec beside its peers",
        description="Measure ratio, speed and largest error of this codec and of every peer "
        "installed, lossless and at equal guaranteed bounds, with the same number of threads.",
    )
    add = parser.add_argument
    text = "FILE.h5 (its only image stack), FILE.h5:/DATASET or a folder of images"
    add("paths", nargs="+", metavar="PATH", help=text)
    text = "for every codec (default: %(default)s)"
    add("--threads", type=int, default=default_threads(), metavar="N", help=text)
    text = "absolute bounds; 0 is lossless (default: 0 and three more)"
    add("--bounds", type=float, nargs="*", metavar="B", help=text)
    add("--csv", metavar="FILE", help="save the rows there")
    add("--only", nargs="*", metavar="WORD", help="only codecs whose name has a WORD")
    add("--slow", action="store_true", help="also peers below 1 MB/s")
    parser.set_defaults(run=run)


def load(path: str) -> tuple[str, np.ndarray]:
    """Name and samples of the stack that `path` means."""
    if path.endswith((".h5", ".hdf5", ".nxs")):
        with h5py.File(path) as file:
            found = []
            file.visititems(lambda name, item: found.append(name) if _is_stack(item) else None)
            if len(found) != 1:
                raise InputError(
                    f"{path} holds {len(found)} image stacks: {found}; say which, {path}:/NAME"
                )
            return Path(path).stem, file[found[0]][()]
    with open_source(path) as source:
        stack = open_stack(source)
        name = Path(path.partition(":/")[0]).stem
        return name, np.concatenate(list(stack.blocks(64)))


def _is_stack(item) -> bool:
    return isinstance(item, h5py.Dataset) and item.ndim in (3, 4) and item.dtype.kind in "iuf"


def default_bounds(stack: np.ndarray) -> list[float]:
    """Lossless, and three bounds: 1, 2, 5 for 8 bits, else 1e-4, 1e-3, 1e-2 of the range."""
    if stack.dtype.itemsize == 1:
        return [0, 1, 2, 5]
    extent = float(np.nanmax(stack)) - float(np.nanmin(stack))
    bounds = [extent * share for share in (1e-4, 1e-3, 1e-2)]
    if stack.dtype.kind in "iu":
        bounds = sorted({max(1.0, float(round(b))) for b in bounds})
    return [0, *bounds]


def _ours(level: str) -> Peer:
    """This codec at a level, as a peer: from memory to a file in a temporary folder and back."""

    def encode(stack, bound, threads):
        folder = tempfile.TemporaryDirectory()
        path = Path(folder.name) / "run.h5"
        summary = tezip_h5.write(
            stack, path, absolute=bound or None, level=level, threads=threads, preview=False
        )
        return Encoded((folder, path), summary.payload_bytes)

    def decode(encoded, stack, threads):
        folder, path = encoded.parts
        with folder:
            return tezip_h5.read(path, threads=threads)

    return Peer(f"tezip {level}", True, encode, decode)


def _candidates(stack, bound, only, slow) -> list[Peer]:
    chosen = [_ours(level) for level in LEVELS]
    for peer in peers():
        fits = peer.supports(stack) and peer.lossy == bool(bound) and (slow or not peer.slow)
        if fits and peer.missing is None:
            chosen.append(peer)
    if only:
        chosen = [p for p in chosen if any(word in p.name for word in only)]
    return chosen


def measure(name: str, stack: np.ndarray, bound: float, peer: Peer, threads: int) -> Row:
    """Encode and decode once, after a run on the first frames that is not counted."""
    warm = np.ascontiguousarray(stack[:2])
    peer.decode(peer.encode(warm, bound, threads), warm, threads)
    started = time.perf_counter()
    encoded = peer.encode(stack, bound, threads)
    between = time.perf_counter()
    back = peer.decode(encoded, stack, threads)
    done = time.perf_counter()
    with np.errstate(invalid="ignore"):
        error = np.abs(back.astype(np.float64) - stack.astype(np.float64))
    largest = float(np.nanmax(error)) if error.size else 0.0
    kept = back.tobytes() == stack.tobytes() if not bound else largest <= bound
    megabytes = stack.nbytes / 1e6
    return Row(
        name,
        "x".join(map(str, stack.shape)),
        stack.dtype.name,
        peer.name,
        bound,
        encoded.size,
        stack.nbytes / encoded.size,
        8 * encoded.size / stack.size,
        megabytes / (between - started),
        megabytes / (done - between),
        largest,
        kept,
        threads,
        peer.note,
    )


_HEAD = ("bytes", "ratio", "bits", "MB/s in", "MB/s out", "error")
_WIDTHS = (11, 8, 7, 9, 10, 10)


def table(rows: list[Row]) -> str:
    """Rows as an aligned table."""
    head = "".join(f"{t:>{w}}" for t, w in zip(_HEAD, _WIDTHS, strict=True))
    lines, group = [], None
    for row in rows:
        if (row.stack, row.bound) != group:
            group = row.stack, row.bound
            bound = f"absolute bound {row.bound:g}" if row.bound else "lossless"
            title = f"{row.stack}  {row.dtype} {row.shape}  {bound}  {row.threads} thread(s)"
            lines += ["", title, f"{'codec':36}{head}  kept"]
        lines.append(
            f"{row.codec:36}{row.bytes:>11}{row.ratio:>8.3f}{row.bits_per_sample:>7.3f}"
            f"{row.mb_per_s_in:>9.1f}{row.mb_per_s_out:>10.1f}{row.largest_error:>10.4g}"
            f"  {'yes' if row.kept else 'NO'}"
        )
    return "\n".join(lines)


def geometric_means(rows: list[Row]) -> str:
    """Bytes of each peer over ours at level balanced, where both were measured."""
    ours = {(r.stack, r.bound): r.bytes for r in rows if r.codec == "tezip balanced"}
    lines = ["", "bytes of the peer / bytes of tezip balanced, geometric mean over stacks"]
    for codec in dict.fromkeys(r.codec for r in rows):
        for lossy in (False, True):
            logs = [
                math.log(r.bytes / ours[r.stack, r.bound])
                for r in rows
                if r.codec == codec and r.kept and bool(r.bound) == lossy
                if (r.stack, r.bound) in ours
            ]
            if logs:
                kind = "bounds" if lossy else "lossless"
                lines.append(
                    f"{codec:36}{kind:10}{math.exp(sum(logs) / len(logs)):8.3f}  n={len(logs)}"
                )
    return "\n".join(lines)


def save(rows: list[Row], path) -> None:
    """Write the rows as CSV."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(row).items()}
            for row in rows
        )


def run(args) -> int:
    """Measure everything; print as it comes, save at the end."""
    if args.threads < 1:
        raise InputError(f"--threads {args.threads}: give a number >= 1")
    for peer in peers():
        if peer.missing:
            print(f"{peer.name} is left out: {peer.missing}", file=sys.stderr)
    rows: list[Row] = []
    for path in args.paths:
        name, stack = load(path)
        for bound in default_bounds(stack) if args.bounds is None else args.bounds:
            group = []
            for peer in _candidates(stack, bound, args.only, args.slow):
                try:
                    group.append(measure(name, stack, bound, peer, args.threads))
                except Exception as error:  # a peer that fails is reported, and the rest goes on
                    if peer.name.startswith("tezip"):
                        raise
                    print(f"{peer.name} failed on {name}: {error}", file=sys.stderr)
            print(table(group), flush=True)
            rows += group
            if args.csv:
                save(rows, args.csv)
    print(geometric_means(rows))
    return 0 if all(row.kept for row in rows if row.codec.startswith("tezip")) else 2
