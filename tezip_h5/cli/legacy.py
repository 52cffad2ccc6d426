"""``tezip``: the command line of the original TEZip, as its manual describes it.

Where the manual's argument is a folder of .dat files, the container is FOLDER/tezip.h5.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tezip_h5 import devices
from tezip_h5.cli import Parser, guarded
from tezip_h5.cli.compress import (
    add_bound_options,
    add_window_options,
    compress,
    print_frames,
)
from tezip_h5.cli.decompress import decompress
from tezip_h5.cli.device import device_of, mode_of
from tezip_h5.cli.train import learn, mode, require
from tezip_h5.errors import InputError

__all__ = ["main"]

CONTAINER = "tezip.h5"


def _parser() -> Parser:
    parser = Parser(prog="tezip", description="TEZip's command line, provided by tezip_h5.")
    job = parser.add_mutually_exclusive_group(required=True)
    job.add_argument("-l", "--learn", nargs=2, metavar=("MODEL", "DATA"), help="learn a model")
    names = ("MODEL", "IMAGES", "OUT")
    job.add_argument("-c", "--compress", nargs=3, metavar=names, help="compress a folder of images")
    names = ("MODEL", "COMPRESSED", "OUT")
    job.add_argument("-u", "--uncompress", nargs=3, metavar=names, help="write the images again")
    add_window_options(parser)
    add_bound_options(parser, words=False)
    return parser


def _compress(args, device: str) -> None:
    args.model, args.images, folder = args.compress
    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{folder} is no folder, nor can it be one; give another name") from None
    target = folder / CONTAINER
    # As the original, a second run replaces the first; but only once it is complete.
    fresh = folder / f".{CONTAINER}.new"
    fresh.unlink(missing_ok=True)
    try:
        summary = compress(args, fresh, device=device)
        os.replace(fresh, target)
    finally:
        fresh.unlink(missing_ok=True)
        for path in made:  # those that nothing was put into
            with contextlib.suppress(OSError):
                path.rmdir()
    if args.verbose:
        print_frames(target, summary.name)
    print(str(summary).replace(str(fresh), str(target)))


def _uncompress(args, device: str) -> None:
    _, folder, out = args.uncompress
    source = Path(folder) / CONTAINER
    if not source.is_file():
        if (Path(folder) / "key_frame.dat").is_file():
            raise InputError(
                f"{folder} holds an archive of the original TEZip; only the machine that made it "
                "decodes it exactly: decompress it there, then compress the images with tezip_h5"
            )
        raise InputError(f"{folder} holds no {CONTAINER}; give the folder that tezip -c made")
    # Twice into one folder, as the original; but images that differ may be the originals.
    decompress(source, out, verbose=args.verbose, overwrite="equal", device=device)


def _run(args) -> int:
    if args.learn:
        model, data = args.learn
        require(model, [data])
        print(mode(args.force))
        print("train mode")
        learn(model, [data], verbose=args.verbose)
        return 0
    device = devices.choose(device_of(args))
    print(mode_of(device))
    if args.compress:
        print("compress mode")
        _compress(args, device)
    else:
        print("uncompress mode")
        _uncompress(args, device)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``tezip``."""
    return guarded("tezip", lambda: _run(_parser().parse_args(argv)))
