"""``tezip-h5 decompress [MODEL] IN.h5 OUT_FOLDER``: image files back."""

from __future__ import annotations

import time

import tezip_h5
from tezip_h5.cli.device import add_device_option, device_of
from tezip_h5.errors import InputError

__all__ = ["add_parser", "decompress"]


def add_parser(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "decompress",
        help="write a stack's frames as image files",
        description="Write a stack's frames as lossless image files under their recorded names.",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="[MODEL] IN.h5 OUT_FOLDER",
        help="MODEL is accepted as in the manual; the file says which model it needs",
    )
    parser.add_argument("--name", help="which stack, when the file holds several")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all processors")
    add_device_option(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument("-f", "--force", action="store_true", help="use the CPU only")
    parser.add_argument("-v", "--verbose", action="store_true", help="say what is being done")
    parser.set_defaults(run=run)


def decompress(source, folder, *, verbose=False, **options) -> None:
    """Extract, and report names that had to change."""
    started = time.perf_counter()
    renamed = tezip_h5.extract(source, folder, **options)
    for recorded, written in renamed.items():
        print(f"{recorded} -> {written}")
    if verbose:
        print(f"decompressed in {time.perf_counter() - started:.2f} s")
    print(f"wrote the images of {source} to {folder}")


def run(args) -> int:
    """Decompress."""
    if len(args.paths) not in (2, 3):
        raise InputError(
            f"decompress takes [MODEL] IN.h5 OUT_FOLDER, {len(args.paths)} argument(s) given"
        )
    source, folder = args.paths[-2:]
    decompress(
        source,
        folder,
        verbose=args.verbose,
        name=args.name,
        threads=args.threads,
        device=device_of(args),
        overwrite=args.overwrite,
    )
    return 0
