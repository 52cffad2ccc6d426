"""``tezip-h5 bench PATH…``: this codec beside every peer installed, at equal guaranteed bounds."""

from __future__ import annotations

import csv
import io
import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np

from tezip_h5 import holes
from tezip_h5.cli import sources
from tezip_h5.cli.outputs import check_out, place
from tezip_h5.cli.sources import load
from tezip_h5.errors import InputError
from tezip_h5.hdf5.threads import default_threads
from tezip_h5.peers import Encoded, Peer, peers
from tezip_h5.settings import LEVELS

__all__ = [
    "Row",
    "Tezip",
    "add_parser",
    "bench",
    "load",
    "measure",
    "same_bound",
    "save",
    "saved",
    "summary",
]

ABOUT = (
    "1 MB is 10^6 bytes of samples; times are wall times. Every codec runs once on a few small\n"
    "frames before it is timed, so that compiling and loading are not timed. Every result is\n"
    "decoded and compared. Lossless codecs are measured once, lossy ones at every bound.\n"
    "* HDF5 runs filters in one thread."
)
_NOT_RUN = "not run"


@dataclass(frozen=True)
class Row:
    """One codec on one stack at one bound: what is printed, and saved as CSV.

    `bytes` are those of the payload, without the file around it; `verdict` is "exact" or "not
    exact" where lossless was asked for, else "kept" or "broken", or "not run" and why, where the
    numbers are 0; `threads` those it may use; `made_by` the code that measured it, where known.
    """

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
    verdict: str
    threads: int
    note: str = ""
    made_by: str = ""

    @property
    def ours(self) -> bool:
        """Whether it is this codec's."""
        return self.codec.startswith("tezip ")

    @property
    def good(self) -> bool:
        """Whether the promise was kept."""
        return self.verdict in ("exact", "kept")

    @property
    def measured(self) -> bool:
        """Whether it was run."""
        return not self.verdict.startswith(_NOT_RUN)


@dataclass(frozen=True, kw_only=True)
class Tezip(Peer):
    """This codec at a level: from memory to a file in a temporary folder, and back."""

    level: str
    options: dict = field(default_factory=dict)

    def supports(self, dtype, shape, bound):
        return True

    def encode(self, stack, bound, threads):
        import tezip_h5

        folder = tempfile.TemporaryDirectory()
        path = Path(folder.name) / "run.h5"
        made = tezip_h5.write(
            stack,
            path,
            absolute=bound or None,
            level=self.level,
            threads=threads,
            preview=False,
            progress=False,
            **self.options,
        )
        return Encoded((folder, path), made.payload_bytes, stack.shape, stack.dtype)

    def decode(self, encoded, threads):
        import tezip_h5

        return tezip_h5.read(encoded.parts[1], threads=threads, cache_bytes=0)


def add_parser(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "bench",
        help="compare this codec with all other installed codecs",
        description="Measure bytes, speed and largest error of this codec and of every other codec "
        "that is installed, lossless and at equal guaranteed bounds, with the same number of "
        "threads.",
    )
    text = "FILE.h5 (its first stack), FILE.h5:/DATASET, a folder of images, FILE.tif, FILE.npy, "
    text += "or FILE.npz:NAME"
    parser.add_argument("paths", nargs="+", metavar="PATH", help=text)
    add_options(parser)
    parser.add_argument("--csv", metavar="FILE.csv", help="save the rows there")
    parser.set_defaults(run=run)


def add_options(parser) -> None:
    """Add the options of a measurement."""
    add = parser.add_argument
    text = "for every codec that can use them (default: %(default)s)"
    add("--threads", type=int, default=default_threads(), metavar="N", help=text)
    text = "absolute bounds, 0 is lossless (default: 0; 1 2 5 for uint8, else 1e-4, 1e-3 and "
    text += "1e-2 of the stack's range, in whole numbers >= 1 for integers)"
    add("--bounds", type=float, nargs="+", metavar="B", help=text)
    add("--only", nargs="+", metavar="WORD", help="codecs whose name has one of these words in it")
    add("--slow", action="store_true", help="also peers that run at 1 MB/s or less")
    add("--repeat", type=int, default=1, metavar="N", help="take the best time of N")


def default_bounds(stack: np.ndarray) -> list[float]:
    """Lossless, then 1, 2, 5 for uint8, else 1e-4, 1e-3, 1e-2 of the range of what was measured;
    lossless alone for bool."""
    if stack.dtype == np.bool_:
        return [0.0]
    if stack.dtype == np.uint8:
        return [0.0, 1.0, 2.0, 5.0]
    missing = holes.find(stack.reshape((*stack.shape[:3], -1)))
    values = stack.reshape(-1) if missing is None else stack.reshape(-1)[~missing.reshape(-1)]
    extent = float(values.max()) - float(values.min()) if values.size else 0.0
    bounds = {extent * share for share in (1e-4, 1e-3, 1e-2)}
    if stack.dtype.kind in "iu":
        bounds = {max(1.0, math.floor(bound)) for bound in bounds}
    return sorted({0.0, *bounds})


_STAGES = Tezip(
    name="the original's stages", level="balanced", options={"coder": "stages", "model": None}
)


def known(only=None) -> list[Peer]:
    """This codec at every level, then the peers: those that have a word of `only` in the name."""
    ours = [Tezip(name=f"tezip {level}", level=level) for level in LEVELS]
    return [
        peer
        for peer in (*ours, _STAGES, *peers())
        if not only or any(word.lower() in peer.name.lower() for word in only)
    ]


def candidates(stack: np.ndarray, bound: float, only=None, slow=False) -> Iterator[Peer]:
    """The known codecs that can be run here on such a stack."""
    for peer in known(only):
        if peer.supports(stack.dtype, stack.shape, bound) and not _left_out(peer, slow):
            yield peer


def _left_out(peer: Peer, slow: bool) -> str | None:
    """Why a codec is not measured on any stack."""
    return peer.available() or ("it is slow; add --slow" if peer.slow and not slow else None)


def measure(name, stack, bound, peer, threads, repeat=1) -> Row:
    """Encode and decode a stack with one codec, and compare; the best times of `repeat`.

    A codec that refuses the samples is not run: some would end this process.
    """
    about = (name, "x".join(map(str, stack.shape)), stack.dtype.name, peer.name, bound)
    used = (1 if peer.note else threads, peer.note)
    if reason := peer.refuses(stack):
        return Row(*about, 0, 0.0, 0.0, 0.0, 0.0, 0.0, f"{_NOT_RUN}: {reason}", *used)
    small = np.ascontiguousarray(stack[:3, :256, :256])
    peer.decode(peer.encode(small, bound, threads), threads)
    inward, outward = [], []
    for _ in range(repeat):
        started = time.perf_counter()
        encoded = peer.encode(stack, bound, threads)
        between = time.perf_counter()
        back = peer.decode(encoded, threads)
        outward.append(time.perf_counter() - between)
        inward.append(between - started)
    if back.shape != stack.shape or back.dtype != stack.dtype:
        raise InputError(f"it gave back {back.dtype} {back.shape}")
    error, exact = compare(stack, back)
    if bound:
        verdict = "kept" if error <= bound else "broken"
    else:
        verdict = "exact" if exact else "not exact"
    return Row(
        *about,
        encoded.nbytes,
        stack.nbytes / encoded.nbytes,
        8 * encoded.nbytes / stack.size,
        stack.nbytes / 1e6 / min(inward),
        stack.nbytes / 1e6 / min(outward),
        error,
        verdict,
        *used,
    )


def compare(stack: np.ndarray, back: np.ndarray) -> tuple[float, bool]:
    """The largest |back - stack|, and whether all bits are the same.

    Samples that are not finite must come back as they were; the error is infinite otherwise.
    """
    largest, exact = 0.0, True
    for before, after in zip(stack, back, strict=True):
        if before.tobytes() == after.tobytes():
            continue
        exact = False
        same = before == after
        if stack.dtype.kind == "f":
            same |= np.isnan(before) & np.isnan(after)
        error = np.abs(after[~same].astype(np.float64) - before[~same].astype(np.float64))
        largest = max(largest, float(np.nan_to_num(error, nan=np.inf).max(initial=0)))
    return largest, exact


def bench(
    path, args, report: Callable[[str], None] = print, taken: Collection[str] = ()
) -> list[Row]:
    """Measure every codec on the stack at `path`; `report` gets the table, line by line.

    Names that are `taken` are those of other stacks: rows are put together by them.
    """
    name, stack = load(path)
    if name in taken:
        name = path
    rows: list[Row] = []
    for bound in default_bounds(stack) if args.bounds is None else sorted(set(args.bounds)):
        report("\n" + heading(name, stack, bound))
        for peer in candidates(stack, bound, args.only, args.slow):
            try:
                row = measure(name, stack, bound, peer, args.threads, args.repeat)
            except Exception as error:  # a peer that fails is reported, and the rest goes on
                if isinstance(peer, Tezip):
                    raise
                print(f"{peer.name} failed on {name}: {error}", file=sys.stderr)
                continue
            rows.append(row)
            report(line(row))
    return rows


def heading(name: str, stack, bound: float) -> str:
    """The lines above the rows of a stack at a bound."""
    shape = "x".join(map(str, stack.shape))
    promise = f"absolute bound {bound:g}" if bound else "lossless"
    return (
        f"{name}  {stack.dtype.name} {shape}  {promise}\n"
        f"{'codec':36}{'bytes':>12}{'ratio':>9}{'bits':>8}{'MB/s in':>9}{'MB/s out':>10}"
        f"{'error':>11}  {'verdict':9}{'threads':>9}"
    )


def line(row: Row) -> str:
    """One row of the table."""
    if not row.measured:
        return f"{row.codec:36}{row.verdict}"
    return (
        f"{row.codec:36}{row.bytes:>12}{row.ratio:>9.3f}{row.bits_per_sample:>8.3f}"
        f"{row.mb_per_s_in:>9.1f}{row.mb_per_s_out:>10.1f}{row.largest_error:>11.5g}"
        f"  {row.verdict:9}{row.threads:>9}{'*' if row.note else ''}"
    )


def summary(rows: Iterable[Row]) -> str:
    """Bytes of the best peer over ours, and of every peer over ours but at level fast.

    Geometric means over stacks and bounds. The best peer at a bound may be a lossless one.
    Where a codec at that bound was not run, there is no best one: others may be smaller by chance.
    Only rows that kept their promise count. The original's stages are ours to measure against, and
    no other's codec: they are never the best peer.
    """
    rows = list(rows)
    good = [row for row in rows if row.good]
    left_out = [row for row in rows if not row.measured]
    others = [row for row in good if not row.ours]
    shares = defaultdict(list)
    for mine in (row for row in good if row.ours):
        kind = "bounded" if mine.bound else "lossless"
        rivals = [
            r for r in others if r.stack == mine.stack and (not r.bound or same_bound(r, mine))
        ]
        peers_bytes = [row.bytes for row in rivals if row.codec != _STAGES.name]
        complete = not any(r.stack == mine.stack and same_bound(r, mine) for r in left_out)
        if peers_bytes and complete:
            best = min(peers_bytes)
            shares[f"best peer / {mine.codec}", kind].append(best / mine.bytes)
        for rival in rivals:
            if same_bound(rival, mine) and mine.codec != "tezip fast":
                shares[f"{rival.codec} / {mine.codec}", kind].append(rival.bytes / mine.bytes)
    title = "its bytes / our bytes (above 1, ours is smaller), geometric mean"
    lines = [f"{title:64}{'mean':>9}{'least':>9}{'cases':>7}"]
    for (title, kind), found in sorted(shares.items(), key=lambda item: item[0][0][:5] != "best "):
        mean = math.exp(sum(map(math.log, found)) / len(found))
        lines.append(f"{title:54}{kind:10}{mean:9.3f}{min(found):9.3f}{len(found):7}")
    return "\n".join(lines) if shares else ""


def same_bound(one: Row, other: Row) -> bool:
    """Whether two rows have the same bound, as far as a saved one says it."""
    return math.isclose(one.bound, other.bound, rel_tol=1e-4)


def save(rows: Iterable[Row], path) -> None:
    """Write the rows as CSV, a column for each field of `Row`."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(Row)])
    writer.writeheader()
    for row in rows:
        cells = asdict(row)
        writer.writerow(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in cells.items()}
            | {"bound": f"{row.bound:.17g}"}  # rows of several runs are put together by it
        )
    place(path, text.getvalue().encode("utf-8", "surrogateescape"))


def saved(path) -> list[Row]:
    """The rows that `save` wrote."""
    types = {field.name: {"int": int, "float": float}.get(field.type, str) for field in fields(Row)}
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [
            Row(**{name: types[name](value) for name, value in row.items()})
            for row in csv.DictReader(file)
        ]


def check_options(args) -> None:
    """Raise InputError for options that cannot be used."""
    for option, least in (("threads", 1), ("repeat", 1)):
        if getattr(args, option) < least:
            raise InputError(f"--{option} {getattr(args, option)}: give a number >= {least}")
    for bound in args.bounds or ():
        if not 0 <= bound < math.inf:
            raise InputError(f"--bounds {bound:g}: give finite numbers >= 0")
    for word in args.only or ():
        if not known([word]):
            names = "; ".join(peer.name for peer in known())  # some have commas in them
            raise InputError(f"--only {word}: no codec has that in its name; there are: {names}")
    reasons = {peer.name: _left_out(peer, args.slow) for peer in known(args.only)}
    if all(reasons.values()):
        left_out = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise InputError(f"--only {' '.join(args.only)}: none can be run: {left_out}")


def check_csv(out, paths: Iterable[str]) -> None:
    """Raise InputError unless the rows of `paths` may be saved as `out`."""
    check_out(
        out,
        map(sources.file_of, paths),
        replace=Path(out).suffix.lower() == ".csv",
        advice="only a file that ends in .csv is replaced by rows; give another name",
    )


def run(args) -> int:
    """Measure everything; print rows as they come."""
    check_options(args)
    if args.csv is not None:
        check_csv(args.csv, args.paths)
    for path in args.paths:
        sources.check(path)
    print(ABOUT)
    for peer in peers():
        if reason := peer.available():
            print(f"{peer.name} is left out: {reason}", file=sys.stderr)
    rows: list[Row] = []
    for path in args.paths:
        names = {row.stack for row in rows}
        rows += bench(path, args, lambda text: print(text, flush=True), names)
        if args.csv is not None and rows:
            save(rows, args.csv)
    if not any(row.measured for row in rows):
        raise InputError("nothing was measured: no codec took these stacks at these bounds")
    print("\n" + summary(rows))
    return 0 if all(row.good for row in rows if row.ours) else 2
