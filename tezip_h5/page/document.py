"""The page itself: findings as one HTML document that loads nothing from anywhere."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from pathlib import Path

from tezip_h5.hdf5.reading.listing import counted_bytes
from tezip_h5.hdf5.reading.report import FileReport
from tezip_h5.page import bytes_part, frames_part
from tezip_h5.page.findings import Findings
from tezip_h5.version import __version__

__all__ = ["is_page", "page"]

# With this policy browsers load nothing, even if names in a file contain HTML.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

_TITLE_END = " · tezip_h5</title>"

# Colour maps of residuals, from negative over 0 to positive (Brewer's RdBu; one for dark pages).
_SIGNED = {
    "signed-light": [
        (5, 48, 97), (33, 102, 172), (67, 147, 195), (146, 197, 222), (247, 247, 247),
        (244, 165, 130), (214, 96, 77), (178, 24, 43), (103, 0, 31),
    ],
    "signed-dark": [
        (166, 208, 255), (96, 160, 240), (56, 110, 190), (34, 62, 108), (24, 26, 30),
        (108, 42, 40), (188, 68, 56), (242, 114, 88), (255, 190, 160),
    ],
}  # fmt: skip


def page(report: FileReport, findings: list[Findings]) -> str:
    """The HTML document, from the `findings` of the stacks and the `report` of their file."""
    style = files("tezip_h5.page").joinpath("page.css").read_text()
    script = files("tezip_h5.page").joinpath("page.js").read_text()
    name = escape(report.path.replace("\\", "/").rpartition("/")[2])
    several = len(findings) > 1
    head = ""
    if several:
        links = "".join(
            f'<li><a href="#stack-{i}">{escape(f.report.name)}</a>'
            f"<span>{escape(_shape(f))}, ratio {f.report.ratio:.2f}, "
            f"{counted_bytes(f.report.payload_bytes)}</span></li>"
            for i, f in enumerate(findings, 1)
        )
        size = counted_bytes(report.file_bytes)
        head = (
            f'<div class="stack"><header><h1>{name}</h1><p class="lead">{size}, '
            f"{len(findings)} compressed stacks</p>"
            f'<ul class="contents">{links}</ul></header></div>'
        )
    stacks = "".join(_stack(i, f, report, name, several=several) for i, f in enumerate(findings, 1))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}{_TITLE_END}<style>{style}</style></head><body>"
        f'{_filters()}<div class="top"><span class="brand"><b>tezip_h5</b> report</span>'
        '<button id="theme" hidden>Dark</button></div>'
        f"<main>{head}{stacks}</main>"
        f"<footer>Made by tezip_h5 {escape(__version__)}. This page is one file; it loads nothing "
        f"from elsewhere.</footer><script>{script}</script></body></html>\n"
    )


def is_page(path: Path) -> bool:
    """Whether a file is a page that tezip_h5 made, by its title."""
    if not path.is_file():  # a pipe or a device: reading it may never end
        return False
    with path.open("rb") as file:
        return _TITLE_END.encode() in file.read(8192)


def _filters() -> str:
    made = []
    for name, stops in _SIGNED.items():
        functions = "".join(
            f'<feFunc{channel} type="table" tableValues="'
            f'{" ".join(f"{stop[i] / 255:.3f}" for stop in stops)}"/>'
            for i, channel in enumerate("RGB")
        )
        made.append(
            f'<filter id="{name}" color-interpolation-filters="sRGB">'
            f"<feComponentTransfer>{functions}</feComponentTransfer></filter>"
        )
    return (
        '<svg width="0" height="0" style="position:absolute" aria-hidden="true">'
        f"{''.join(made)}</svg>"
    )


def _shape(findings: Findings) -> str:
    report = findings.report
    return f"{report.shape[0]} frames of {' × '.join(map(str, report.shape[1:]))} {report.dtype}"


def _stack(number: int, findings: Findings, report: FileReport, name: str, *, several) -> str:
    stack = findings.report
    title = f"<h1>{name}</h1>" if not several else f"<h1>{escape(stack.name)}</h1>"
    lead = f"<code>/{escape(stack.dataset)}</code> · {escape(_shape(findings))} · "
    lead += f"{escape(stack.bound)}, level {escape(stack.level)}"
    parts = [
        f'<header>{title}<p class="lead">{lead}</p></header>',
        _alerts(findings),
        _figures(findings, report),
        frames_part.viewer(findings),
        frames_part.over_time(findings),
        bytes_part.where_bytes_went(findings),
        bytes_part.beside_others(findings),
        _how_to_read(findings, report),
    ]
    return f'<article class="stack" id="stack-{number}">{"".join(parts)}</article>'


def _alerts(findings: Findings) -> str:
    if findings.report.complete:
        return ""
    return (
        '<p class="alert">This stack is not closed: its writer is still running, or it was killed. '
        "This page shows the chunks that were written.</p>"
    )


def _figures(findings: Findings, report: FileReport) -> str:
    stack = findings.report
    samples = max(stack.raw_bytes // max(_itemsize(stack.dtype), 1), 1)
    keyframes = stack.kinds.get("keyframe", 0) + stack.kinds.get("warm-up", 0)
    error = "unknown" if stack.max_error is None else f"{stack.max_error:g}"
    promise = "nothing is lost" if stack.bound == "lossless" else f"promised: {stack.bound}"
    chunks = f"in {stack.chunks} chunk{'s' * (stack.chunks != 1)}"
    counted = f"{keyframes} keyframe{'s' * (keyframes != 1)}, {chunks}" if stack.kinds else chunks
    rows = [
        ("Ratio", f"{stack.ratio:.2f} : 1", f"{100 / max(stack.ratio, 1e-9):.1f}% of the bytes"),
        ("Size", counted_bytes(stack.payload_bytes), f"of {counted_bytes(stack.raw_bytes)}"),
        (
            "Bits per sample",
            f"{8 * stack.payload_bytes / samples:.2f}",
            f"of {8 * _itemsize(stack.dtype)}",
        ),
        ("Largest error", error, promise),
        ("Frames", f"{stack.shape[0]}", counted),
        ("File", counted_bytes(report.file_bytes), "with everything in it"),
    ]
    cells = "".join(
        f'<div class="{"first" if i == 0 else "more"}"><dt>{name}</dt>'
        f"<dd>{escape(value)}<small>{escape(small)}</small></dd></div>"
        for i, (name, value, small) in enumerate(rows)
    )
    share = min(100 / max(stack.ratio, 1e-9), 100)
    return (
        f'<dl class="figures">{cells}</dl><div class="shrunk" title="{share:.1f}% of the bytes">'
        f'<i style="width:{share:.2f}%"></i></div>'
    )


def _itemsize(dtype: str) -> int:
    import numpy as np

    return np.dtype(dtype).itemsize


def _how_to_read(findings: Findings, report: FileReport) -> str:
    stack = findings.report
    file = report.path.replace("\\", "/").rpartition("/")[2]
    code = (
        f"import h5py\nimport tezip_h5  # registers the filter\n\n"
        f"with h5py.File({file!r}) as file:\n"
        f"    frames = file[{stack.dataset!r}][0:{min(stack.shape[0], 8)}]"
    )
    rows = [
        ("Dataset", f"/{stack.dataset}"),
        ("Shape and type", f"{stack.shape} {stack.dtype}"),
        ("Chunks", f"{stack.chunks} of {stack.chunk}"),
        ("Level", stack.level),
        ("Written by", f"tezip_h5 {stack.written_by or '?'}"),
    ]
    if stack.fallback_chunks is not None:
        rows.append(("Fallback codec", f"used by {stack.fallback_chunks} chunks"))
    if stack.model:
        place = "embedded in the file" if stack.embedded else "not in this file"
        rows.append(
            ("Network", f"{stack.model} ({place}), predicts in {stack.network_chunks} chunks")
        )
    if stack.filenames:
        rows.append(("File names", "kept, with the frames"))
    table = "".join(f"<tr><th>{k}</th><td>{escape(v)}</td></tr>" for k, v in rows)
    return (
        '<section class="part"><h2>How it was written, and how to read it</h2>'
        f'<table class="facts">{table}</table><pre><code>{escape(code)}</code></pre></section>'
    )
