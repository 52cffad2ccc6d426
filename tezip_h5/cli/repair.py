"""``tezip-h5 repair FILE``: after a writer died."""

from __future__ import annotations

import tezip_h5

__all__ = ["add_parser"]


def add_parser(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "repair",
        help="make a file usable again after its writer was killed",
        description="Clear HDF5's lock of the writer, and complete the stacks that were not "
        "closed. Every frame that was flushed stays.",
    )
    parser.add_argument("file", metavar="FILE.h5")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Repair; print what was done."""
    print(tezip_h5.repair(args.file))
    return 0
