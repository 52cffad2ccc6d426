"""``tezip-h5 train-data IMAGES OUT``, also ``train_data_create``: images -> training data."""

from __future__ import annotations

from tezip_h5.cli import Parser, guarded

__all__ = ["add_parser", "main"]

_DESCRIPTION = (
    "Write X_train.hkl, X_val.hkl, sources_train.hkl and sources_val.hkl, as the original TEZip "
    "reads them, from a folder with a sub-folder of 8-bit images per sequence."
)


def _add_arguments(parser) -> None:
    parser.add_argument("images", metavar="IMAGES", help="a folder with a sub-folder per sequence")
    parser.add_argument("out", metavar="OUT", help="folder for the four files; they are replaced")
    parser.add_argument(
        "-v",
        "--validation",
        metavar="VAL",
        nargs="+",
        action="extend",
        help="sub-folders to validate with (default: about a tenth, at least one)",
    )
    parser.set_defaults(run=run)


def add_parser(commands) -> None:
    """Add the command to the parser."""
    _add_arguments(
        commands.add_parser(
            "train-data", help="make training data of images", description=_DESCRIPTION
        )
    )


def run(args) -> int:
    """Write the files; say what is in them."""
    from tezip_h5.model.traindata import create

    shapes = create(args.images, args.out, validation=args.validation)
    for part, (count, height, width, channels) in shapes.items():
        print(f"{args.out}/X_{part}.hkl: {count} frames of {height}x{width}, {channels} channel(s)")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``train_data_create``, the manual's program."""
    parser = Parser(prog="train_data_create", description=_DESCRIPTION)
    _add_arguments(parser)
    args = parser.parse_args(argv)
    return guarded("train_data_create", lambda: args.run(args))
