"""``tezip-h5 verify FILE``: decode everything, check everything."""

from __future__ import annotations

import tezip_h5

__all__ = ["add_parser"]


def add_parser(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "verify",
        help="decode every chunk and check it",
        description="Decode every chunk from its stored bytes; exit with 2 if one is damaged.",
    )
    parser.add_argument("file", metavar="FILE.h5")
    parser.add_argument(
        "--against",
        metavar="IMAGES",
        help="compare every sample with the original: a folder, or FILE.h5:/DATASET",
    )
    parser.add_argument("--name", help="only this stack")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all processors")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Verify; print what was checked."""
    print(tezip_h5.verify(args.file, args.against, name=args.name, threads=args.threads))
    return 0
