"""``tezip-h5 inspect FILE``: what a file holds."""

from __future__ import annotations

import json

import tezip_h5

__all__ = ["add_parser"]


def add_parser(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("inspect", help="report what a file holds")
    parser.add_argument("file", metavar="FILE.h5")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Print the report."""
    report = tezip_h5.inspect(args.file)
    print(json.dumps(report.to_dict(), indent=2) if args.json else report)
    return 0
