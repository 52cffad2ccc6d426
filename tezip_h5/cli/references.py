"""``tezip-h5 references FILE.h5 OUT.json``: for zarr, where the chunks lie."""

from __future__ import annotations

import json

import tezip_h5
from tezip_h5.cli.outputs import check_out, place

__all__ = ["add_parser"]


def add_parser(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "references",
        help="write the places of the chunks to JSON, so that zarr reads them without HDF5",
        description="Write references to the chunks of FILE.h5, in kerchunk's format: with them "
        "fsspec and zarr read its stacks, locally or from an object store.",
    )
    parser.add_argument("path", metavar="FILE.h5")
    parser.add_argument("out", metavar="OUT.json", help="the file to make")
    parser.add_argument("--name", metavar="STACK", help="only this stack; default: all")
    parser.add_argument("--url", help="where readers find FILE.h5; default: its absolute path")
    parser.add_argument("--zarr-format", type=int, choices=(2, 3), default=2)
    parser.add_argument(
        "--others", action="store_true", help="also reference all other datasets, with kerchunk"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.json if it is there")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Write the references; print how many there are."""
    check_out(
        args.out,
        [args.path],
        replace=args.overwrite,
        advice="give another name, or --overwrite to replace it",
    )
    found = tezip_h5.references(
        args.path, args.name, url=args.url, zarr_format=args.zarr_format, others=args.others
    )
    place(args.out, json.dumps(found).encode())
    chunks = sum(isinstance(value, list) for value in found["refs"].values())
    print(f"{args.out}: references to {chunks} chunks of {args.path}")
    return 0
