"""``tezip-h5 convert IN.h5 OUT.h5``: compress the stacks of a file, and copy all else."""

from __future__ import annotations

from dataclasses import asdict

import tezip_h5
from tezip_h5.cli.compress import add_bound_options, bound_of
from tezip_h5.cli.device import add_device_option
from tezip_h5.errors import InputError
from tezip_h5.settings import LEVELS

__all__ = ["add_parser"]


def add_parser(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "convert",
        help="compress the stacks of a whole HDF5 file, and copy the rest",
        description="Make a file with the same tree, in which image stacks are compressed. After "
        "an interruption, the same command continues where it stopped.",
    )
    parser.add_argument("source", metavar="IN.h5")
    parser.add_argument("target", metavar="OUT.h5", nargs="?", help="the file to make")
    parser.add_argument("--in-place", action="store_true", help="replace IN.h5 by the new file")
    parser.add_argument(
        "--dataset",
        nargs="+",
        metavar="PATH",
        help="the datasets to compress (default: every dataset that looks like a stack)",
    )
    add_bound_options(parser)
    parser.add_argument("--level", choices=LEVELS, default="balanced")
    parser.add_argument("--model", default="default", help="a model's folder, 'default' or 'none'")
    parser.add_argument("--chunk-frames", type=int, metavar="G", help="frames per chunk")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all processors")
    add_device_option(parser)
    parser.set_defaults(run=run)


def run(args) -> int:
    """Convert; print what became of each stack."""
    if (args.target is None) != args.in_place:
        raise InputError("give either OUT.h5 or --in-place")
    bound = bound_of(args)
    print(
        tezip_h5.convert(
            args.source,
            args.target,
            args.dataset,
            in_place=args.in_place,
            **asdict(bound),
            level=args.level,
            model=args.model,
            chunk_frames=args.chunk_frames,
            threads=args.threads,
            device=args.device,
        )
    )
    return 0
