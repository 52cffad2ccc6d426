"""``tezip-h5 recompress IN.h5 OUT.h5``: the same samples, at another level."""

from __future__ import annotations

import tezip_h5
from tezip_h5.cli.device import add_device_option
from tezip_h5.settings import LEVELS

__all__ = ["add_parser"]


def add_parser(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "recompress",
        help="encode stacks again at another level, into another file",
        description="Encode the stacks of a file again. Every sample stays as it is, bit for bit, "
        "and everything else in the file is copied.",
    )
    parser.add_argument("source", metavar="IN.h5")
    parser.add_argument("target", metavar="OUT.h5", help="the file to make")
    parser.add_argument("--level", choices=LEVELS, default="best", help="default: %(default)s")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all processors")
    add_device_option(parser)
    parser.add_argument(
        "--name", nargs="+", metavar="STACK", help="only these stacks; the others are copied"
    )
    parser.set_defaults(run=run)


def run(args) -> int:
    """Recompress; print what became of each stack."""
    print(
        tezip_h5.recompress(
            args.source,
            args.target,
            level=args.level,
            threads=args.threads,
            name=args.name,
            device=args.device,
        )
    )
    return 0
