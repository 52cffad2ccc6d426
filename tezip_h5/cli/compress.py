"""``tezip-h5 compress [MODEL] IMAGES OUT.h5``: the manual's compression, into one file."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import numpy as np

import tezip_h5
from tezip_h5.bounds import MODES, ErrorBound
from tezip_h5.cli.device import add_device_option, device_of
from tezip_h5.errors import InputError
from tezip_h5.hdf5.files import opening
from tezip_h5.settings import FEEDBACKS, LEVELS
from tezip_h5.stacks import dataset_paths
from tezip_h5.stacks.stackfiles import is_stack_file, open_file

__all__ = ["add_bound_options", "add_parser", "add_window_options", "bound_of", "compress"]


_BOUNDS = {
    "absolute": "|x - x'| <= BOUND",
    "relative": "|x - x'| <= BOUND * (max - min of the frame)",
    "pointwise_relative": "|x - x'| <= BOUND * |x|",
    "noise": "|x - x'| <= BOUND * sqrt(|x|), for counts",
}


def add_bound_options(parser, *, words: bool = True) -> None:
    """-m and -b, as the manual has them; with `words` the names that Python has, too."""
    for name, promise in _BOUNDS.items() if words else ():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=float, metavar="BOUND", help=promise)
    parser.add_argument(
        "-m",
        "--mode",
        metavar="MODE",
        help=f"error bound of -b: {', '.join(MODES[1:])} (default: lossless)",
    )
    parser.add_argument(
        "-b",
        "--bound",
        type=float,
        nargs="*",
        default=[],
        metavar="VALUE",
        help="the bound; for absrel two, absolute then relative; any 0 means lossless",
    )


def bound_of(args) -> ErrorBound:
    """The bound that a command line asks for, in one of two ways.

    Raises
    ------
    InputError
        When it is given in both, or is none.
    """
    given = {name: getattr(args, name, None) for name in _BOUNDS}
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        return ErrorBound.from_mode(args.mode, args.bound)
    if args.mode is not None or args.bound:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{flags} and -m or -b say the bound twice; give it in one of the ways")
    return ErrorBound(**given)


def add_window_options(parser) -> None:
    """-p, -w, -t, -f, -v and -n, as the manual has them."""
    add = parser.add_argument
    text = "warm-up frames: the first N of every chunk are keyframes"
    add("-p", "--preprocess", type=int, default=0, metavar="N", dest="warmup", help=text)
    add("-w", "--window", type=int, metavar="N", help="a keyframe every N frames")
    text = "a keyframe where the predictions' mean squared error exceeds MSE"
    add("-t", "--threshold", type=float, metavar="MSE", help=text)
    add("-f", "--force", action="store_true", help="use the CPU only")
    add("-v", "--verbose", action="store_true", help="say what is being done")
    text = "leave out partitioned entropy encoding"
    add("-n", "--no_entropy", "--no-entropy", action="store_true", help=text)


def add_parser(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "compress",
        help="compress a folder of images, an HDF5 dataset, a TIFF or NumPy file",
        description="Compress a folder of images, a dataset FILE.h5:/PATH, or a .tif, .npy or "
        ".npz file into one HDF5 file.",
    )
    parser.intermixed = True
    text = "a model's folder, 'default' or 'none' (default: default)"
    parser.add_argument("model", metavar="MODEL", nargs="?", default="default", help=text)
    text = "a folder of images, FILE.h5 (its only stack), FILE.h5:/DATASET, FILE.tif, FILE.npy, or "
    text += "FILE.npz:NAME"
    parser.add_argument("images", metavar="IMAGES", help=text)
    parser.add_argument("out", metavar="OUT.h5", help="the file to make, or to add the stack to")
    add_window_options(parser)
    add_bound_options(parser)
    parser.add_argument("--name", default="scan", help="name of the stack (default: %(default)s)")
    parser.add_argument("--level", choices=LEVELS, default="balanced")
    parser.add_argument("--feedback", choices=FEEDBACKS, default=FEEDBACKS[0])
    text = "order of the axes, such as TMYX; other letters than TYXC are panels"
    parser.add_argument("--axes", help=text)
    text = "masked pixels, not 0 in a (H, W) array FILE.h5:/DATASET or FILE.npy: kept exactly"
    parser.add_argument("--mask", metavar="FILE", help=text)
    parser.add_argument("--chunk-frames", type=int, metavar="G", help="frames per chunk")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all processors")
    add_device_option(parser)
    parser.add_argument(
        "--scheduler",
        metavar="tcp://HOST:PORT",
        help="a dask scheduler, whose workers encode; FILE.h5:/DATASET they read themselves",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a stack of that name")
    parser.add_argument("--verify", action="store_true", help="read back and compare every sample")
    parser.set_defaults(run=run)


def read_mask(path: str) -> np.ndarray:
    """The array that --mask names."""
    if not path:
        raise InputError("--mask names no file; give FILE.h5:/DATASET or FILE.npy, or leave it out")
    if is_stack_file(path):
        return np.asarray(open_file(path)[0])
    file, inside = dataset_paths.split(path)
    if inside is None:
        raise InputError(f"{path} names no mask; give FILE.h5:/DATASET or FILE.npy")
    with opening.open_existing(file) as opened:
        return dataset_paths.dataset_of(opened, inside)[()]


def compress(args, out, *, name="scan", **options):
    """Compress what the manual's arguments name into `out`; returns the summary."""
    bound = bound_of(args)
    folder = Path(out).parent
    if os.path.isdir(args.images) and folder.exists() and folder.samefile(args.images):
        raise InputError(
            f"{out} would lie among the images of {args.images}, and be taken for one of them the "
            "next time; give another folder"
        )
    return tezip_h5.write(
        args.images,
        out,
        name,
        **asdict(bound),
        window=args.window,
        mse_threshold=args.threshold,
        warmup=args.warmup,
        entropy=not args.no_entropy,
        model=args.model,
        **options,
    )


def print_frames(path, name: str) -> None:
    """What became of every frame: the manual's -v."""
    with opening.open_existing(path) as file:
        for i, row in enumerate(file[name]["frames"][()]):
            kind = ("keyframe", "warm-up", "predicted")[row["kind"]]
            size = row["keyframe_bytes"] + row["residual_bytes"]
            print(f"frame {i}: {kind}, {size} bytes, MSE: {row['mse']:.3g}")


def run(args) -> int:
    """Compress; print the summary."""
    if args.images in ("default", "none") and not os.path.exists(args.images):
        raise InputError(
            f"{args.images} is a model, so IMAGES or OUT.h5 is missing; give [MODEL] IMAGES OUT.h5"
        )
    if args.axes == "":  # which would mean that of the file
        raise InputError(
            "--axes is empty; give the order of the axes, such as TYX, or leave it out"
        )
    summary = compress(
        args,
        args.out,
        name=args.name,
        level=args.level,
        feedback=args.feedback,
        chunk_frames=args.chunk_frames,
        threads=args.threads,
        device=device_of(args),
        overwrite=args.overwrite,
        verify=args.verify,
        scheduler=args.scheduler,
        axes=args.axes,
        mask=read_mask(args.mask) if args.mask is not None else None,
    )
    if args.verbose:
        print_frames(args.out, summary.name)
    print(summary)
    return 0
