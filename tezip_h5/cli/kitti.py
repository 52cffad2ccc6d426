"""``tezip-h5 kitti OUT [-d] [-p]``, also ``kitti_train_data_create``: KITTI -> training data."""

from __future__ import annotations

from tezip_h5.cli import Parser, guarded
from tezip_h5.errors import InputError

__all__ = ["add_parser", "main"]

_DESCRIPTION = (
    "Download the KITTI raw recordings of the categories city, residential and road to OUT/raw "
    "(-d), and write training data of them to OUT (-p). The same command continues an interrupted "
    "download."
)


def _add_arguments(parser) -> None:
    add = parser.add_argument
    add("out", metavar="OUT", help="folder for the recordings and the training data")
    add("-d", "--download", action="store_true", help="download the recordings, some 165 GB")
    add("-p", "--process", action="store_true", help="write training data of them, some 3 GB")
    add(
        "--only",
        nargs="+",
        metavar="RECORDING",
        help="download only these; city/2011_09_26_drive_0005_sync, for validation, is needed",
    )
    add(
        "--base-url",
        metavar="URL",
        help="where the recordings are (default: the variable TEZIP_KITTI_URL, else KITTI's own)",
    )
    add(
        "--size",
        nargs=2,
        type=int,
        default=(128, 160),
        metavar=("HEIGHT", "WIDTH"),
        help="of the frames, in pixels (default: 128 160)",
    )
    parser.set_defaults(run=run)


def add_parser(commands) -> None:
    """Add the command to the parser."""
    _add_arguments(
        commands.add_parser(
            "kitti", help="download KITTI, make training data of it", description=_DESCRIPTION
        )
    )


def run(args) -> int:
    """Download, convert, or both."""
    from tezip_h5.model import kitti

    if not (args.download or args.process):
        raise InputError("nothing to do; give -d to download, -p to convert, or both")
    if args.download:
        kitti.download(args.out, recordings=args.only, base_url=args.base_url)
    if args.process:
        shapes = kitti.convert(args.out, size=tuple(args.size))
        for part, (count, height, width, _) in shapes.items():
            print(f"{args.out}/X_{part}.hkl: {count} frames of {height}x{width}, RGB")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``kitti_train_data_create``, the manual's program."""
    parser = Parser(prog="kitti_train_data_create", description=_DESCRIPTION)
    _add_arguments(parser)
    args = parser.parse_args(argv)
    return guarded("kitti_train_data_create", lambda: args.run(args))
