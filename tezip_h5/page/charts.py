"""Charts as inline SVG: bars and lines over frames, stacked columns over chunks, bars of codecs.

They are coloured by classes of page.css, so that they follow the page's light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Series", "bars_over_frames", "binned", "columns", "error_over_frames"]

WIDTH = 960
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 14, 40
_MOST_BARS = 480
_WIDEST = 64  # of a bar


@dataclass(frozen=True)
class Series:
    """Values at places along the x axis; None where there is none.

    `css` names its colour, `titles` say what a reader sees who points at one.
    """

    css: str
    values: Sequence[float | None]
    titles: Sequence[str] = ()


def binned(count: int) -> list[range]:
    """The frames, or as many runs of them as a chart can hold."""
    step = -(-count // _MOST_BARS)
    return [range(a, min(a + step, count)) for a in range(0, count, max(step, 1))]


def _ticks(top: float, wanted: int = 4) -> list[float]:
    """Round numbers from 0 to about `top`.

    >>> _ticks(93)
    [0.0, 25.0, 50.0, 75.0, 100.0]
    >>> _ticks(1e-14)
    [0.0, 2.5e-15, 5e-15, 7.5e-15, 1e-14]
    """
    if not top > 1e-300 or not math.isfinite(top):  # below it powers of ten are not exact
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(top / wanted))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power * wanted >= top * 0.999)
    return [float(f"{i * step:.12g}") for i in range(math.ceil(top / step * 0.999) + 1)]


class _Canvas:
    """An SVG chart under construction: `count` places along x, values up to `top`."""

    def __init__(self, label: str, count: int, top: float, height: int, say):
        self.height, self.count = height, max(count, 1)
        ticks = _ticks(top)
        self.top = ticks[-1]
        self.step = min((WIDTH - _LEFT - _RIGHT) / self.count, _WIDEST)
        self.parts = [
            f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" '
            f'aria-label="{escape(label)}" data-left="{_LEFT}" data-step="{self.step:.4f}">'
        ]
        for tick in ticks:
            y = self.y(tick)
            self.parts.append(
                f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
                f"{escape(say(tick))}</text>"
            )

    def x(self, place: float) -> float:
        return _LEFT + place * self.step

    def y(self, value: float) -> float:
        share = min(max(value / self.top, 0), 1)
        return self.height - _BOTTOM - share * (self.height - _TOP - _BOTTOM)

    def label_x(self, names: Sequence[str], title: str) -> None:
        """Some of the places' names, far enough from each other."""
        gap = max(1, math.ceil(52 / self.step))
        gap = next((n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256) if n >= gap), gap)
        last = None
        for place in range(0, len(names), gap):
            if names[place] == last:  # of several tiles the first
                continue
            last, x = names[place], self.x(place + 0.5)
            self.parts.append(
                f'<text class="tick" x="{x:.1f}" y="{self.height - 23}" text-anchor="middle">'
                f"{escape(names[place])}</text>"
            )
        self.parts.append(
            f'<text class="tick axis" x="{WIDTH - _RIGHT}" y="{self.height - 6}" '
            f'text-anchor="end">{escape(title)}</text>'
        )

    def bar(self, place: int, bottom: float, top: float, css: str, title: str) -> None:
        gap = min(2.0, self.step * 0.18)
        y = self.y(top)
        height = max(self.y(bottom) - y, 0.6 if top > bottom else 0)
        self.parts.append(
            f'<rect class="{css}" x="{self.x(place) + gap / 2:.2f}" y="{y:.2f}" '
            f'width="{max(self.step - gap, 0.4):.2f}" height="{height:.2f}">'
            f"<title>{escape(title)}</title></rect>"
        )

    def finish(self, frames: Sequence[range] = ()) -> str:
        """The chart; with `frames` at its places, the page can go to them."""
        if frames:
            starts = " ".join(str(run.start) for run in frames)
            self.parts[0] = self.parts[0].replace(
                "data-left", f'data-frames="{starts}" data-left', 1
            )
            base = self.height - _BOTTOM
            self.parts.append(f'<line class="cursor" x1="-9" x2="-9" y1="{_TOP}" y2="{base}"/>')
        return "".join([*self.parts, "</svg>"])


def bars_over_frames(label: str, runs: Sequence[range], series: Sequence[Series], say) -> str:
    """A bar for each frame, in the colour of the series that has a value there."""
    top = max((v for s in series for v in s.values if v is not None), default=0)
    canvas = _Canvas(label, len(runs), top, 200, say)
    for one in series:
        for place, (value, title) in enumerate(zip(one.values, one.titles, strict=True)):
            if value is not None:
                canvas.bar(place, 0, value, one.css, title)
    canvas.label_x([str(run.start) for run in runs], "frame")
    return canvas.finish(runs)


def error_over_frames(
    label: str, runs: Sequence[range], line: Series, limit: float | None, say
) -> str:
    """A line over frames, broken where there is no value, and the bound as a dashed one."""
    known = [v for v in line.values if v is not None]
    top = max([*known, limit or 0], default=0)
    canvas = _Canvas(label, len(runs), top * 1.02, 160, say)
    if limit:
        y = canvas.y(limit)
        canvas.parts.append(
            f'<line class="limit" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick limit-label" x="{WIDTH - _RIGHT - 4}" y="{y - 5:.1f}" '
            f'text-anchor="end">bound {escape(say(limit))}</text>'
        )
    path, pen_up = [], True
    for place, value in enumerate(line.values):
        if value is None:
            pen_up = True
            continue
        path.append(f"{'M' if pen_up else 'L'}{canvas.x(place + 0.5):.1f} {canvas.y(value):.1f}")
        pen_up = False
    canvas.parts.append(f'<path class="{line.css}" d="{" ".join(path)}"/>')
    radius = min(3.2, max(1.2, canvas.step * 0.25))
    for place, (value, title) in enumerate(zip(line.values, line.titles, strict=True)):
        if value is not None:
            x, y = canvas.x(place + 0.5), canvas.y(value)
            canvas.parts.append(
                f'<circle class="{line.css}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">'
                f"<title>{escape(title)}</title></circle>"
            )
    canvas.label_x([str(run.start) for run in runs], "frame")
    return canvas.finish(runs)


def columns(label: str, names: Sequence[str], series: Sequence[Series], say, title: str) -> str:
    """Stacked columns: every series adds its value at each place."""
    totals = [sum(s.values[i] or 0 for s in series) for i in range(len(names))]
    canvas = _Canvas(label, len(names), max(totals, default=0), 220, say)
    for place in range(len(names)):
        base = 0.0
        for one in series:
            value = one.values[place] or 0
            if value:
                canvas.bar(place, base, base + value, one.css, one.titles[place])
            base += value
    canvas.label_x(names, title)
    return canvas.finish()
