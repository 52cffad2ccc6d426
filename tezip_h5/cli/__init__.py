"""The command line: ``tezip-h5 COMMAND``; one file per command.

Exit codes: 0 done, 1 the user's input is wrong, 2 the file is damaged or the bound is
broken, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from tezip_h5.errors import TezipError
from tezip_h5.version import __version__

__all__ = ["Parser", "guarded", "main"]


class Parser(argparse.ArgumentParser):
    """argparse's parser, but a wrong command line exits with 1 as all wrong input does."""

    def error(self, message):
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: {message}\n")


def guarded(prog: str, run: Callable[[], int | None]) -> int:
    """Run a command; turn the errors it may raise into one line and an exit code."""
    try:
        return run() or 0
    except TezipError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 130


def _parser() -> Parser:
    from tezip_h5.cli import (
        bench,
        compress,
        convert,
        decompress,
        demo,
        doctor,
        inspect,
        kitti,
        model,
        plugin,
        recompress,
        references,
        repair,
        train,
        train_data,
        verify,
    )

    parser = Parser(
        prog="tezip-h5",
        description="Error-bounded compression of image stacks inside HDF5.",
    )
    parser.add_argument("--version", action="version", version=f"tezip_h5 {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (
        compress,
        decompress,
        convert,
        recompress,
        repair,
        inspect,
        verify,
        train,
        train_data,
        kitti,
        model,
        plugin,
        references,
        bench,
        demo,
        doctor,
    ):
        module.add_parser(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``tezip-h5``."""
    args = _parser().parse_args(argv)
    return guarded("tezip-h5", lambda: args.run(args))
