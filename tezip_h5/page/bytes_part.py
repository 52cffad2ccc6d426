"""The page's parts about bytes: what the chunks hold, and what other codecs would need."""

from __future__ import annotations

from collections import Counter
from html import escape

from tezip_h5.hdf5.reading.chunks import ChunkReport
from tezip_h5.hdf5.reading.listing import counted_bytes
from tezip_h5.page.charts import Series, columns
from tezip_h5.page.findings import Findings

__all__ = ["beside_others", "where_bytes_went"]

# What is drawn in one colour: its class, and what it is called.
_GROUPS = {
    "keyframes": "samples of keyframes",
    "residuals": "residuals of predicted frames",
    "both": "samples, all frames",
    "side": "weights, motion, sizes",
    "tables": "tables of contexts",
    "exact": "exact samples and mantissa bits",
    "plain": "fallback",
    "head": "headers, kinds, scales",
}
_SIDE = (
    "prefix",
    "table of ranks",
    "motion of blocks",
    "changes of brightness",
    "transmitted weights",
    "sizes of streams",
    "weights",
)


def _group(section: str, name: str, coder: str) -> str:
    if section in ("keyframes", "residuals"):
        if name in _SIDE:
            return "side"
        return section if coder == "stages" else "both"
    others = {"tables": "tables", "exceptions": "exact", "mantissa": "exact"}
    others |= {"fallback": "plain", "chunk": "plain"}
    return others.get(section, "head")


def where_bytes_went(findings: Findings) -> str:
    """All chunks together, then one by one."""
    chunks = findings.chunks
    if not chunks:
        return ""
    groups: Counter = Counter()
    parts: Counter = Counter()
    bands = Counter()
    for chunk in chunks:
        for section, name, size in _parts(chunk):
            group = _group(section, name, chunk.coder)
            groups[group] += size
            if name.startswith("stream of band"):
                bands[name] += 1
                name = "streams"
            parts[section, name, group] += size
    total = sum(groups.values())
    present = [group for group in _GROUPS if groups[group]]
    whole = "".join(
        f'<i class="{g}" style="width:{100 * groups[g] / total:.3f}%" '
        f'title="{_GROUPS[g]}: {counted_bytes(groups[g])}"></i>'
        for g in present
    )
    legend = "".join(
        f'<li><i class="{g}"></i>{_GROUPS[g]} {100 * groups[g] / total:.1f}%</li>' for g in present
    )
    return (
        f'<section class="part"><h2>Where the bytes went</h2><p>{escape(_about(findings))}</p>'
        f'<div class="whole">{whole}</div><ul class="legend">{legend}</ul>'
        f"{_parts_table(parts, total, len(bands))}<h3>Chunk by chunk</h3>"
        f'<div class="scroll">{_chart(chunks, present)}</div>{_chunks_table(findings)}</section>'
    )


def _parts(chunk: ChunkReport):
    for section, names in chunk.parts.items():
        for name, size in names.items():
            yield section, name, size


def _about(findings: Findings) -> str:
    chunks, count = findings.chunks, findings.report.chunks
    coders = Counter(chunk.coder for chunk in chunks)
    text = ", ".join(f"{n} by the {coder} coder" for coder, n in coders.most_common())
    text = text.replace("the fallback coder", "the fallback").replace("by the none coder", "raw")
    which = "" if len(chunks) == count else f" {len(chunks)} of {count} chunks were examined."
    return f"Chunks: {text}.{which} FORMAT.md describes the sections and streams."


def _parts_table(parts: Counter, total: int, bands: int) -> str:
    rows = ""
    for (section, name, group), size in parts.most_common():
        share = 100 * size / total
        if name == "streams":
            name = f"streams of {bands} bands" if bands > 1 else "stream"
        rows += (
            f"<tr><td>{escape(section)}</td><td>{escape(name)}</td>"
            f'<td class="number">{counted_bytes(size)}</td><td class="number">{share:.2f}%</td>'
            f'<td class="wide share"><i class="meter {group}" style="width:{share:.2f}%"></i></td>'
            "</tr>"
        )
    return (
        '<div class="scroll"><table><thead><tr><th>section</th><th>part</th>'
        '<th class="number">bytes</th><th class="number">share</th><th></th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _chart(chunks: list[ChunkReport], present: list[str]) -> str:
    values = {group: [0] * len(chunks) for group in present}
    for place, chunk in enumerate(chunks):
        for section, name, size in _parts(chunk):
            values[_group(section, name, chunk.coder)][place] += size
    series = [
        Series(
            group,
            values[group],
            [
                f"chunk at {chunk.offset}: {_GROUPS[group]}, {counted_bytes(value)}"
                for chunk, value in zip(chunks, values[group], strict=True)
            ],
        )
        for group in present
    ]
    names = [str(chunk.offset[0]) for chunk in chunks]
    return columns("Bytes per chunk", names, series, counted_bytes, "first frame of the chunk")


def _chunks_table(findings: Findings) -> str:
    rows = "".join(
        f"<tr><td>{escape(str(chunk.offset))}</td>"
        f'<td class="number">{chunk.frames}</td><td>{escape(chunk.coder)}</td>'
        f'<td>{escape(chunk.predictor)}</td><td class="number">{chunk.nbytes}</td>'
        f'<td class="number">{chunk.raw_bytes / max(chunk.nbytes, 1):.2f}</td></tr>'
        for chunk in findings.chunks
    )
    return (
        "<details><summary>All chunks as a table</summary>"
        '<div class="scroll"><table><thead><tr><th>at</th><th class="number">frames</th>'
        '<th>coder</th><th>predictor</th><th class="number">bytes</th><th class="number">ratio</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def beside_others(findings: Findings) -> str:
    """Bars of what other lossless codecs need for the same samples."""
    found = findings.comparison
    if found is None:
        return ""
    mine = (f"tezip {findings.report.level}, as it is in the file", found.nbytes, None)
    entries = sorted(
        [mine, *((r.name, r.nbytes, r.seconds) for r in found.rivals)], key=lambda e: e[1]
    )
    largest = max(size for _, size, _ in entries)
    rows = ""
    for name, size, seconds in entries:
        ours = name == mine[0]
        against = "" if ours else f"{100 * (size / max(found.nbytes, 1) - 1):+.1f}%"
        speed = "" if not seconds else f"{found.raw_bytes / 1e6 / seconds:.0f} MB/s"
        rows += (
            f'<tr class="{"ours" if ours else "peer"}"><td>{escape(name)}</td>'
            f'<td class="wide"><i class="meter" style="width:{100 * size / largest:.2f}%"></i></td>'
            f'<td class="number">{counted_bytes(size)}</td>'
            f'<td class="number">{found.raw_bytes / max(size, 1):.2f}</td>'
            f'<td class="number">{against.replace("-", "−")}</td>'
            f'<td class="number">{speed}</td></tr>'
        )
    left = "; ".join(f"{name}: {reason}" for name, reason in found.left_out.items())
    left = f'<p class="note">Left out: {escape(left)}.</p>' if left else ""
    return (
        '<section class="part"><h2>Beside other lossless codecs</h2>'
        f"<p>{escape(_what_was_compared(findings))}</p>"
        '<div class="scroll"><table class="peers"><thead><tr><th>codec</th><th></th>'
        '<th class="number">bytes</th><th class="number">ratio</th><th class="number">to ours</th>'
        f'<th class="number">encodes</th></tr></thead><tbody>{rows}</tbody></table></div>{left}'
        "</section>"
    )


def _what_was_compared(findings: Findings) -> str:
    found, stack = findings.comparison, findings.report
    text = f"Frames {found.first} to {found.stop - 1}, {counted_bytes(found.raw_bytes)}, "
    if found.first == 0 and found.stop == stack.shape[0]:
        text = f"All {stack.shape[0]} frames, {counted_bytes(found.raw_bytes)}, "
    if stack.bound == "lossless":
        return text + "encoded by every lossless codec that is installed here."
    return text + (
        f"as decoded from this file: the other codecs store these samples losslessly. The bound "
        f"({stack.bound}) has changed them, which makes them easier to compress than the recording."
    )
