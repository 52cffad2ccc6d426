"""Draw the results of benchmarks: docs/figures/*.png, and docs/benchmarks.md that shows them.

    pip install ".[plot]"
    python benchmarks/plots.py [--results benchmarks/results] [--docs docs]

The script reads all CSV files that `benchmarks/run.py` (or ``tezip-h5 bench --csv``) wrote. It
draws all codecs, bounds and stacks in them. Rows whose decoded samples were wrong are left out.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

# The palette of Okabe and Ito, which people with any colour blindness can distinguish.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*X<>"
OURS = "tezip"
LEVELS = {"fast": "^", "balanced": "s", "best": "o"}
GOOD = ("exact", "kept")
COLUMNS = 3
FRONT = {"color": "0.6", "linewidth": 6, "alpha": 0.4, "marker": "o", "markersize": 13, "zorder": 1}


@dataclass(frozen=True)
class Point:
    """One row of a CSV file."""

    stack: str
    dtype: str
    codec: str
    bound: float
    bits: float
    ratio: float
    speed_in: float
    speed_out: float

    @property
    def ours(self) -> bool:
        """Whether a row is that of this package's codec."""
        return self.codec.startswith(OURS)


def read(folder: Path) -> dict[str, list[Point]]:
    """The rows of each stack whose samples were right, by the name of the stack."""
    stacks = defaultdict(list)
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                if row.get("verdict") not in GOOD:
                    continue
                try:
                    point = Point(
                        row["stack"],
                        row["dtype"],
                        row["codec"],
                        *map(
                            float,
                            (
                                row["bound"],
                                row["bits_per_sample"],
                                row["ratio"],
                                row["mb_per_s_in"],
                                row["mb_per_s_out"],
                            ),
                        ),
                    )
                except (KeyError, TypeError, ValueError) as error:
                    print(f"{path}: a row is left out: {error!r}", file=sys.stderr)
                    continue
                stacks[point.stack].append(point)
    return dict(sorted(stacks.items()))


class Looks:
    """A colour and marker for each codec, the same in all panels. Ours is thick and blue."""

    def __init__(self, codecs):
        self._looks, peers = {}, 0
        for codec in sorted(codecs, key=lambda name: (not name.startswith(OURS), name)):
            if codec.startswith(OURS):
                level = codec.removeprefix(OURS).strip()
                style = {"fast": ":", "balanced": "--"}.get(level, "-")
                look = {"color": COLOURS[0], "marker": LEVELS.get(level, "o"), "linestyle": style}
                self._looks[codec] = {**look, "linewidth": 2.2, "markersize": 6, "zorder": 3}
            else:
                colour = COLOURS[1:][peers % (len(COLOURS) - 1)]
                marker = MARKERS[peers % len(MARKERS)]
                look = {"color": colour, "marker": marker, "linestyle": "-"}
                self._looks[codec] = {**look, "linewidth": 1.0, "markersize": 5, "zorder": 2}
                peers += 1

    def __getitem__(self, codec):
        return self._looks[family(codec)]


def panels(count: int, title: str, height: float):
    """A figure with a panel for each stack, and room for a legend below."""
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    figure, axes = pyplot.subplots(
        rows,
        columns,
        figsize=(4.4 * columns, height * rows + 1.2),
        squeeze=False,
        layout="constrained",
    )
    figure.suptitle(title, fontsize=13 if columns > 1 else 10)
    for spare in axes.flat[count:]:
        spare.set_axis_off()
    return figure, axes.flat[:count]


def legend(figure, axes) -> None:
    """Add one legend below all panels."""
    handles = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    order = sorted(handles, key=lambda name: (not name.startswith(OURS), name))
    figure.legend(
        [handles[name] for name in order],
        order,
        loc="outside lower center",
        ncols=max(1, int(figure.get_figwidth() / 3)),
        fontsize=9,
        frameon=False,
    )


def save(figure, path: Path) -> None:
    """Write a figure without metadata that change from run to run."""
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def best_of(points: list[Point], key) -> dict:
    """The smallest point for each value of `key`."""
    kept = {}
    for point in points:
        if key(point) not in kept or point.bits < kept[key(point)].bits:
            kept[key(point)] = point
    return kept


def family(codec: str) -> str:
    """The name of a codec in a rate-distortion plot; of variants, the smaller one is drawn."""
    return codec if codec.startswith(OURS) else codec.partition(",")[0]


def rate_distortion(stacks: dict[str, list[Point]], path: Path, looks: Looks) -> bool:
    """Draw bits per sample over the absolute bound, in a panel for each stack.

    Returns False if there is nothing to draw.
    """
    lossy = {name: [p for p in points if p.bound > 0] for name, points in stacks.items()}
    lossy = {name: points for name, points in lossy.items() if points}
    if not lossy:
        return False
    figure, axes = panels(len(lossy), "Bits per sample at a guaranteed absolute bound", 3.2)
    for axis, (name, points) in zip(axes, lossy.items(), strict=True):
        least = best_of(points, lambda p: (family(p.codec), p.bound))
        bounds = sorted({bound for _, bound in least})
        for codec in sorted({codec for codec, _ in least}):
            line = [(b, least[codec, b].bits) for b in bounds if (codec, b) in least]
            axis.plot(*zip(*line, strict=True), label=codec, alpha=0.9, **looks[codec])
        axis.set_xscale("log")
        axis.minorticks_off()
        axis.set_xticks(bounds, [f"{bound:.3g}" for bound in bounds])
        set_axis(axis, "y", [point.bits for point in least.values()])
        axis.set_title(f"{name} ({points[0].dtype})", fontsize=10)
        axis.set_xlabel("absolute bound, in the stack's unit", fontsize=9)
        axis.set_ylabel("bits per sample", fontsize=9)
        axis.grid(alpha=0.3)
    legend(figure, axes)
    save(figure, path)
    return True


def whole_ticks(values) -> dict:
    """Limits and ticks of a logarithmic axis: a few round numbers."""
    low, high = min(values) / 1.15, max(values) * 1.15
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):  # finer steps if ticks are few
        ticks = [m * 10.0**e for e in powers for m in steps if low <= m * 10.0**e <= high]
        if len(ticks) > 3:
            break
    return {"lim": (low, high), "ticks": ticks, "ticklabels": [f"{tick:g}" for tick in ticks]}


def set_axis(axis, side: str, values) -> None:
    """Make an axis, "x" or "y", logarithmic, with readable ticks."""
    getattr(axis, f"set_{side}scale")("log")
    getattr(axis, f"{side}axis").minorticks_off()
    for name, value in whole_ticks(values).items():
        getattr(axis, f"set_{side}{name}")(value)


def front(points: list[Point], speed) -> list[Point]:
    """The points than which no other is both smaller and faster, beginning with the fastest."""
    found = []
    for point in sorted(points, key=lambda p: (-speed(p), -p.ratio)):
        if not found or point.ratio > found[-1].ratio:
            found.append(point)
    return found


def speeds(stacks, path: Path, looks: Looks, speed, direction: str) -> bool:
    """Draw the lossless ratio over speed, in a panel for each stack, and mark the best points.

    Returns False if there is nothing to draw.
    """
    exact = {name: [p for p in points if p.bound == 0] for name, points in stacks.items()}
    exact = {name: points for name, points in exact.items() if points}
    if not exact:
        return False
    title = f"Lossless ratio against the speed of {direction}; grey is the front"
    figure, axes = panels(len(exact), title, 3.2)
    for axis, (name, points) in zip(axes, exact.items(), strict=True):
        line = front(points, speed)
        axis.plot([speed(p) for p in line], [p.ratio for p in line], **FRONT)
        for point in points:
            look = {**looks[point.codec], "linestyle": ""}
            if point.ours:
                look |= {"markersize": 9, "markeredgecolor": "black"}
            axis.plot([speed(point)], [point.ratio], label=point.codec, **look)
        set_axis(axis, "x", [speed(point) for point in points])
        axis.set_title(f"{name} ({points[0].dtype})", fontsize=10)
        axis.set_xlabel(f"{direction}, MB/s", fontsize=9)
        axis.set_ylabel("ratio", fontsize=9)
        axis.grid(alpha=0.3)
    legend(figure, axes)
    save(figure, path)
    return True


def mean(values) -> float:
    """The geometric mean."""
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values))


def overview(stacks: dict[str, list[Point]], path: Path, looks: Looks) -> bool:
    """The geometric means of ratio and speeds, over the stacks that all shown codecs can encode."""
    exact = {n: {p.codec: p for p in ps if p.bound == 0} for n, ps in stacks.items()}
    ours = {c for rows in exact.values() for c in rows if c.startswith(OURS)}
    exact = {n: rows for n, rows in exact.items() if ours and ours <= set(rows)}
    if not exact:
        return False
    everywhere = set.intersection(*(set(rows) for rows in exact.values()))
    whole = {n: r for n, r in exact.items() if next(iter(r.values())).dtype.startswith(("u", "i"))}
    if whole:  # image codecs encode integers only
        codecs, used = set.intersection(*(set(rows) for rows in whole.values())), whole
    else:
        codecs, used = everywhere, exact
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 5.6), layout="constrained")
    figure.suptitle(f"Lossless, geometric means over {len(used)} stacks", fontsize=13)
    for axis, name, direction in zip(
        axes, ("speed_in", "speed_out"), ("encoding", "decoding"), strict=True
    ):
        averages = {
            codec: Point(
                "",
                "",
                codec,
                0,
                0,
                mean(rows[codec].ratio for rows in used.values()),
                mean(rows[codec].speed_in for rows in used.values()),
                mean(rows[codec].speed_out for rows in used.values()),
            )
            for codec in codecs
        }
        line = front(list(averages.values()), lambda p, name=name: getattr(p, name))
        axis.plot([getattr(p, name) for p in line], [p.ratio for p in line], **FRONT)
        for codec, point in averages.items():
            look = {**looks[codec], "linestyle": ""}
            if point.ours:
                look |= {"markersize": 9, "markeredgecolor": "black"}
            axis.plot([getattr(point, name)], [point.ratio], label=codec, **look)
        set_axis(axis, "x", [getattr(point, name) for point in averages.values()])
        axis.set_xlabel(f"{direction}, MB/s")
        axis.set_ylabel("ratio")
        axis.grid(alpha=0.3)
    legend(figure, axes)
    save(figure, path)
    return True


PAGE = """# Benchmarks, drawn

Made by `python benchmarks/plots.py` from [benchmarks/results](../benchmarks/results/stacks.md);
how everything was measured is in [benchmarks/README.md](../benchmarks/README.md). Only rows whose
decoded samples were right are drawn: bit for bit where lossless was asked for, else within the
bound everywhere. Blue is `tezip_h5`, one marker for each level.
"""
SECTIONS = (
    (
        "overview.png",
        "Ratio and speed, lossless",
        "Up and to the right is better. Grey joins the codecs of which none other is both "
        "smaller and faster. Of integer stacks, those codecs that take all of them.",
    ),
    (
        "rate-distortion.png",
        "Rate and distortion",
        "Lower is better. The promise is the same for all codecs at one place of the axis: no "
        "sample differs by more than the bound. Of a peer that was run in several ways the "
        "smallest result is drawn. On integers a bound below 1 is lossless.",
    ),
    ("speed-encode.png", "Encoding, stack by stack", "As above, for every stack."),
    ("speed-decode.png", "Decoding, stack by stack", "As above, for every stack."),
)


def main() -> int:
    root = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=root / "benchmarks" / "results")
    parser.add_argument("--docs", type=Path, default=root / "docs")
    args = parser.parse_args()
    stacks = read(args.results)
    if not stacks:
        print(f"{args.results} holds no results; run benchmarks/run.py first", file=sys.stderr)
        return 1
    figures = args.docs / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    looks = Looks({family(p.codec) for points in stacks.values() for p in points})
    drawn = {
        "overview.png": overview(stacks, figures / "overview.png", looks),
        "rate-distortion.png": rate_distortion(stacks, figures / "rate-distortion.png", looks),
    }
    for name, speed, direction in (
        ("speed-encode.png", lambda p: p.speed_in, "encoding"),
        ("speed-decode.png", lambda p: p.speed_out, "decoding"),
    ):
        drawn[name] = speeds(stacks, figures / name, looks, speed, direction)
    page = PAGE
    for name, heading, text in SECTIONS:
        if drawn[name]:
            page += f"\n## {heading}\n\n{text}\n\n![{heading}](figures/{name})\n"
    (args.docs / "benchmarks.md").write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
