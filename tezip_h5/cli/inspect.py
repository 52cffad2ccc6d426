"""``tezip-h5 inspect FILE``: what a file holds, as tables, as JSON, as a page for a browser."""

from __future__ import annotations

import json

import tezip_h5
from tezip_h5.errors import InputError

__all__ = ["add_parser"]


def add_parser(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("inspect", help="report what a file holds")
    add = parser.add_argument
    add("file", metavar="FILE.h5")
    add("--frames", action="store_true", help="also a line for every frame")
    add("--chunks", action="store_true", help="also a line for every chunk: where its bytes went")
    add("--json", action="store_true", help="for programs")
    add("--html", metavar="PAGE.html", help="write a page for a browser, one file without network")
    pages = parser.add_argument_group("with --html")
    pages.add_argument("--name", metavar="STACK", help="only this stack (default: all)")
    pages.add_argument(
        "--pictures",
        metavar="N",
        help="pictures of N frames, of frames A:B, or all (default: 48)",
    )
    pages.add_argument("--no-peers", action="store_true", help="no comparison with other codecs")
    pages.add_argument("--slow", action="store_true", help="compare with slow codecs, too")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Print the report, or write the page."""
    if args.html is not None:
        if args.json or args.frames or args.chunks:
            raise InputError("--html makes a page, the others print tables; give one or the other")
        made = tezip_h5.report(
            args.file,
            args.html,
            name=args.name,
            pictures=_pictures("48" if args.pictures is None else args.pictures),
            peers=not args.no_peers,
            slow=args.slow,
        )
        print(f"{made} ({made.stat().st_size / 1e6:.1f} MB): open it in a browser")
        return 0
    if args.name is not None or args.pictures is not None or args.no_peers or args.slow:
        raise InputError("--name, --pictures, --no-peers and --slow are for a page; add --html")
    report = tezip_h5.inspect(args.file, frames=args.frames, chunks=args.chunks)
    print(json.dumps(report.to_dict(), indent=2) if args.json else report)
    return 0


def _pictures(text: str) -> int | slice | None:
    """The frames that ``--pictures`` names.

    >>> _pictures("all"), _pictures("12"), _pictures("100:120")
    (None, 12, slice(100, 120, None))
    """
    if text == "all":
        return None
    first, colon, stop = text.partition(":")
    try:
        if colon:
            return slice(int(first) if first else None, int(stop) if stop else None)
        count = int(text)
    except ValueError:
        count = -1
    if count < 0:
        raise InputError(
            f"--pictures {text}: give a number of frames, A:B for frames A to B - 1, or all"
        )
    return count
