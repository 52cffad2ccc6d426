"""``tezip-h5 prepare``: compile what will be needed, before an acquisition begins."""

from __future__ import annotations

from dataclasses import asdict

import tezip_h5
from tezip_h5.cli.compress import add_bound_options, bound_of
from tezip_h5.cli.device import add_device_option
from tezip_h5.settings import LEVELS

__all__ = ["add_parser"]


def add_parser(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "prepare",
        help="compile what will be needed, before an acquisition begins",
        description="Compile what writing and reading needs, which takes a minute or two, once "
        "per machine. Give what the writer will be given.",
    )
    text = "of the frames (default: %(default)s)"
    parser.add_argument("dtype", metavar="DTYPE", nargs="?", default="uint16", help=text)
    parser.add_argument("--level", choices=LEVELS, default="balanced")
    parser.add_argument("--channels", type=int, metavar="N", default=1, help=text)
    parser.add_argument("--model", default="default", help="a model's folder, 'default' or 'none'")
    add_bound_options(parser)
    add_device_option(parser)
    parser.set_defaults(run=run)


def run(args) -> int:
    """Prepare; print how long it took."""
    bound = bound_of(args)
    seconds = tezip_h5.prepare(
        args.dtype,
        channels=args.channels,
        **asdict(bound),
        level=args.level,
        model=args.model,
        device=args.device,
    )
    done = f"compiled in {seconds:.0f} s" if seconds else "all was compiled already"
    print(f"ready for {args.dtype}, {bound}, level {args.level}: {done}")
    return 0
