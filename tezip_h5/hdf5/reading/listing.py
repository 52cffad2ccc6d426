"""A report as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from tezip_h5.hdf5.reading.chunks import ChunkReport

__all__ = ["chunk_table", "counted_bytes", "frame_table", "overview", "table"]


def counted_bytes(nbytes: float) -> str:
    """A number of bytes, in the unit that needs few digits.

    >>> counted_bytes(512), counted_bytes(123456), counted_bytes(7864320)
    ('512 B', '123 kB', '7.86 MB')
    """
    units = ["B", "kB", "MB", "GB", "TB", "PB"]
    value, unit = float(nbytes), units.pop(0)
    while units and value >= 999.5:
        value, unit = value / 1000, units.pop(0)
    return f"{value:.0f} {unit}" if value >= 999.5 else f"{value:.3g} {unit}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """A table as text; the columns with the numbers in `left` are left-aligned.

    >>> print(table(["name", "bytes"], [["a", "7"], ["longer", "1234"]]))
    name    bytes
    ------  -----
    a           7
    longer   1234
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def overview(stacks: Sequence) -> str:
    """A line for every stack; `stacks` are their reports."""
    rows = [
        [
            stack.name,
            stack.dtype,
            " x ".join(map(str, stack.shape)),
            stack.bound,
            "?" if stack.max_error is None else f"{stack.max_error:g}",
            stack.level,
            counted_bytes(stack.raw_bytes),
            counted_bytes(stack.payload_bytes),
            f"{stack.ratio:.2f}",
        ]
        for stack in stacks
    ]
    head = ["stack", "dtype", "shape", "bound", "max error", "level", "samples", "stored", "ratio"]
    return table(head, rows, left=(0, 1, 2, 3, 5))


def _printable(name: str) -> str:
    """A name for a terminal; escaped if it has characters that are not printable."""
    return name if name.isprintable() else ascii(name)


def frame_table(rows: Sequence[dict]) -> str:
    """A line for every frame."""
    named = any(row.get("filename") for row in rows)
    head = ["frame", "kind", "window", "bytes", "mse of prediction", "max error"]
    lines = [
        [
            str(row["frame"]),
            row["kind"],
            str(row["window"]),
            str(row["bytes"]),
            f"{row['mse']:.3g}" if row["kind"] == "predicted" else "",
            f"{row['max_error']:g}",
            *([_printable(row.get("filename", ""))] if named else []),
        ]
        for row in rows
    ]
    return table([*head, *(["file"] if named else [])], lines, left=(1, 6))


def chunk_table(chunks: Sequence[ChunkReport]) -> str:
    """A line for every chunk, with a column for every section that occurs."""
    sections = list(dict.fromkeys(section for chunk in chunks for section in chunk.parts))
    rows = [
        [
            ",".join(map(str, chunk.offset)),
            str(chunk.frames),
            chunk.coder,
            chunk.predictor,
            str(chunk.nbytes),
            f"{chunk.raw_bytes / max(chunk.nbytes, 1):.2f}",
            *(str(sum(chunk.parts.get(section, {}).values()) or "") for section in sections),
        ]
        for chunk in chunks
    ]
    head = ["chunk at", "frames", "coder", "predictor", "bytes", "ratio", *sections]
    return table(head, rows, left=(0, 2, 3))
