"""The page's parts about frames: the viewer, and what happened frame by frame."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import escape

from tezip_h5.hdf5.reading.listing import counted_bytes
from tezip_h5.page.charts import Series, bars_over_frames, binned, error_over_frames
from tezip_h5.page.findings import Findings, FrameRow

__all__ = ["over_time", "viewer"]

_KINDS = ("keyframe", "warm-up", "predicted")
_MOST_THUMBNAILS = 24
_MOST_ROWS = 2000


def _number(value: float) -> str:
    return f"{value:.4g}"


def viewer(findings: Findings) -> str:
    """Frame, prediction and residual side by side, with a slider, and the keyframes below."""
    pictures = findings.pictures
    if pictures is None or not pictures.frames:
        return ""
    rows = {row.number: row for row in findings.frames}
    told = {
        "size": pictures.size,
        "images": pictures.images,
        "frames": [
            {
                "number": shown.number,
                "frame": shown.frame,
                "prediction": shown.prediction,
                "residual": shown.residual,
                "kind": _kind(rows.get(shown.number), shown),
                "words": _words(rows.get(shown.number), findings),
            }
            for shown in pictures.frames
        ],
    }
    # In a script element nothing is escaped but what could end it.
    data = json.dumps(told).replace("<", "\\u003c").replace("\u2028", "").replace("\u2029", "")
    say = (lambda v: f"{v:.0f}") if findings.report.dtype[0] in "iu" else _number
    greys = (
        f'<span>{say(pictures.low)}</span><i class="greys"></i><span>{say(pictures.high)}</span>'
    )
    strongest = _number(pictures.largest)
    signs = f'<span>−{strongest}</span><i class="signs signed"></i><span>+{strongest}</span>'
    panels = "".join(
        f'<figure class="{css}"><figcaption><b>{title}</b> {text}</figcaption>'
        f'<div class="plate"><img class="{extra}" alt="{title}" hidden>'
        f'<div class="none" hidden>a keyframe has no prediction</div></div>'
        f'<div class="scale">{scale}</div></figure>'
        for css, title, text, extra, scale in (
            ("frame", "Frame", "as it is stored", "", greys),
            ("prediction", "Prediction", _predictor(findings), "", greys),
            ("residual", "Residual", "frame − prediction", "signed", signs),
        )
    )
    return (
        '<section class="part"><h2>Frames</h2>'
        f"<p>{escape(_about(findings))}</p>"
        f'<div class="viewer"><div class="panels">{panels}</div>'
        '<p class="told"><span class="words"></span></p>'
        '<div class="steer"><button class="back" aria-label="Previous frame">‹</button>'
        '<button class="play optional">Play</button>'
        '<button class="on" aria-label="Next frame">›</button>'
        '<input type="range" min="0" value="0" aria-label="Frame"></div>'
        f"{_strip(findings, rows)}"
        f'<script type="application/json">{data}</script>'
        "<noscript><p>Pictures are shown by a small script, which is in this page.</p></noscript>"
        "</div></section>"
    )


def _kind(row: FrameRow | None, shown) -> str:
    if row is not None:
        return row.kind
    return "keyframe" if shown.prediction is None else "predicted"


def _words(row: FrameRow | None, findings: Findings) -> str:
    if row is None:
        return ""
    words = [counted_bytes(row.nbytes), f"window {row.window}"]
    if row.rms is not None:
        words.append(f"error of the prediction {_rms(row.rms, findings)} (rms)")
    words.append(f"largest error {row.max_error:g}" if row.max_error else "no error")
    if row.filename:
        words.append(row.filename)
    return " · ".join(words)


def _rms(value: float, findings: Findings) -> str:
    return _number(value) if findings.report.dtype[0] in "iu" else f"{_number(100 * value)}%"


def _predictor(findings: Findings) -> str:
    found = {chunk.predictor for chunk in findings.chunks}
    if "prednet" in found:
        return "by the network" if "previous" not in found else "by network or last frame"
    return "the frame before"


def _about(findings: Findings) -> str:
    pictures, total = findings.pictures, findings.report.shape[0]
    shown = len(pictures.frames)
    text = "Every frame" if shown == total else f"{shown} of {total} frames"
    text += ", with the prediction and the residual. The coder refines this prediction for every "
    text += "sample, from the samples of the frame that it has coded already."
    if pictures.reduction > 1:
        text += f" Pictures show means over {pictures.reduction} × {pictures.reduction} pixels."
    return text


def _strip(findings: Findings, rows: dict[int, FrameRow]) -> str:
    """The keyframes, small; a button each."""
    shown = findings.pictures.frames
    keyframes = [s for s in shown if _kind(rows.get(s.number), s) != "predicted"]
    step = -(-len(keyframes) // _MOST_THUMBNAILS) or 1
    buttons = "".join(
        f'<button data-frame="{s.number}" aria-label="Keyframe {s.number}">'
        f'<img alt="">{s.number}</button>'
        for s in keyframes[::step]
    )
    title = "Keyframes" if step == 1 else f"Every {step}th keyframe"
    return f'<h3>{title}</h3><div class="strip">{buttons}</div>' if buttons else ""


def over_time(findings: Findings) -> str:
    """Charts of bytes and errors over the frames, and a table of all of them."""
    rows = findings.frames
    if not rows:
        return ""
    runs = binned(len(rows))
    about = "of every frame, in its chunk"
    if len(runs) < len(rows):
        about = f"means of {len(runs[0])} frames, in the colour of the first; below, their largest"
    kinds = [kind for kind in _KINDS if any(row.kind == kind for row in rows)]
    legend = "".join(f'<li><i class="{kind}"></i>{kind}</li>' for kind in kinds)
    bars = [_bytes_series(rows, runs, kind) for kind in kinds]
    chart = bars_over_frames("Bytes per frame", runs, bars, counted_bytes)
    parts = [
        f"<h3>Bytes</h3><p>{about}</p>"
        f'<div class="scroll">{chart}</div>'
        f'<ul class="legend">{legend}</ul>'
    ]
    if any(row.rms is not None for row in rows):
        unit = "grey levels" if findings.report.dtype[0] in "iu" else "% of the range"
        line = _line(rows, runs, "error-line", lambda row: row.rms, lambda v: _rms(v, findings))
        chart = error_over_frames(
            "Error of the predictions", runs, line, None, lambda v: _rms(v, findings)
        )
        parts.append(
            f"<h3>Error of the prediction</h3><p>root mean square, in {unit}</p>"
            f'<div class="scroll">{chart}</div>'
        )
    if any(row.max_error for row in rows):
        line = _line(rows, runs, "lost-line", lambda row: row.max_error, _number)
        chart = error_over_frames("Largest error", runs, line, findings.bound_absolute, _number)
        parts.append(
            "<h3>Largest error after decoding</h3><p>|original − decoded|, checked for every "
            "sample</p>"
            f'<div class="scroll">{chart}</div>'
        )
    else:
        parts.append('<p class="note">The stack is lossless: every sample is exact.</p>')
    return (
        f'<section class="part"><h2>Frame by frame</h2>{"".join(parts)}{_table(findings)}</section>'
    )


def _name(run: range) -> str:
    return f"frame {run.start}" if len(run) == 1 else f"frames {run.start} to {run.stop - 1}"


def _bytes_series(rows: list[FrameRow], runs: list[range], kind: str) -> Series:
    """Mean bytes of the runs whose first frame is of this kind (of one frame, mostly)."""
    values: list[float | None] = []
    titles = []
    for run in runs:
        mean = sum(rows[t].nbytes for t in run) / len(run)
        mine = rows[run.start].kind == kind
        values.append(mean if mine else None)
        titles.append(
            f"{_name(run)}: {counted_bytes(mean)}, {rows[run.start].kind}" if mine else ""
        )
    return Series(kind, values, titles)


def _line(rows, runs, css: str, value_of: Callable, say: Callable) -> Series:
    """The largest value of every run."""
    values: list[float | None] = []
    titles = []
    for run in runs:
        known = [v for v in (value_of(rows[t]) for t in run) if v is not None]
        values.append(max(known) if known else None)
        titles.append(f"{_name(run)}: {say(max(known))}" if known else "")
    return Series(css, values, titles)


def _table(findings: Findings) -> str:
    rows = findings.frames
    if len(rows) > _MOST_ROWS:
        return ""
    names = any(row.filename for row in rows)
    body = "".join(
        f'<tr><td class="number">{row.number}</td><td>{escape(row.kind)}</td>'
        f'<td class="number">{row.window}</td><td class="number">{row.nbytes}</td>'
        f'<td class="number">{"" if row.rms is None else _rms(row.rms, findings)}</td>'
        f'<td class="number">{row.max_error:g}</td>'
        + (f"<td>{escape(row.filename)}</td>" if names else "")
        + "</tr>"
        for row in rows
    )
    return (
        "<details><summary>All frames as a table</summary>"
        '<div class="scroll"><table><thead><tr><th class="number">frame</th><th>kind</th>'
        '<th class="number">window</th><th class="number">bytes</th>'
        '<th class="number">prediction, rms</th><th class="number">largest error</th>'
        + ("<th>file</th>" if names else "")
        + f"</tr></thead><tbody>{body}</tbody></table></div></details>"
    )
