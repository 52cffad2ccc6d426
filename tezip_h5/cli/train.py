"""``tezip-h5 train MODEL_OUT DATA...``: train a network on any stacks."""

from __future__ import annotations

import argparse
import os

__all__ = ["add_parser", "learn", "mode", "require"]

_OPTIONS = (
    *("validation", "start", "epochs", "steps", "rate", "seed"),
    *("patience", "batch", "length", "side", "scenes", "keep", "symmetry"),
)


def add_parser(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "train",
        help="train a network on your own stacks",
        description="Train a PredNet on stacks: HDF5 files (or FILE.h5:/DATASET), folders of "
        "images, or training data. The folder MODEL_OUT is then a MODEL for compress. After an "
        "interruption, the same command continues where it stopped.",
    )
    add = parser.add_argument
    add("out", metavar="MODEL_OUT", help="new folder for the model")
    add("data", metavar="DATA", nargs="+", help="the stacks to learn from")
    text = "the stacks to validate with (default: the last fifth of every sequence)"
    add("--validation", metavar="DATA", nargs="+", help=text)
    add("--start", metavar="MODEL", help="a trained model's folder to begin with, or 'default'")
    add("--epochs", type=int, default=40, metavar="N", help="epochs at most (%(default)s)")
    add("--steps", type=int, default=250, metavar="N", help="batches per epoch (%(default)s)")
    add("--rate", type=float, default=2e-3, help="first learning rate (%(default)s)")
    add("--seed", type=int, default=0)
    for name, kind, text in (
        ("patience", int, "epochs without a gain before it stops (10)"),
        ("batch", int, "clips per batch (8)"),
        ("length", int, "frames per clip (10)"),
        ("side", int, "height and width of a clip, in pixels (64)"),
        ("scenes", float, "share of simulated scenes among the clips (0.1)"),
        ("keep", float, "share of --start in the result (0.5 if the network overfits, else 0)"),
    ):
        add(f"--{name}", type=kind, metavar="N", default=argparse.SUPPRESS, help=text)
    add(
        "--symmetry",
        default=argparse.SUPPRESS,
        metavar="KIND",
        help="transforms that turn a clip into another realistic one: none, mirror, flips, turns "
        "or all (all)",
    )
    net = parser.add_argument_group("the network (default: sizes of the models that ship)")
    net.add_argument("--states", type=int, nargs="+", metavar="N", help="channels of every layer")
    text = "channels of the targets A of PredNet, in the layers above the first"
    net.add_argument("--targets", type=int, nargs="*", metavar="N", help=text)
    text = "height and width in pixels of one position of the network: 1, 2 or 4"
    net.add_argument("--patch", type=int, help=text)
    net.add_argument("--no-skip", action="store_true", help="predict frames, not their change")
    add("-f", "--force", action="store_true", help="use the CPU only")
    add("-v", "--verbose", action="store_true", help="print a line after every epoch")
    parser.set_defaults(run=run)


def mode(force: bool) -> str:
    """The first line that a training prints, as in the manual; `force` hides GPUs from it."""
    if force:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from tezip_h5.model.learning import on_gpu

    return "GPU MODE" if on_gpu() else "CPU MODE"


def require(out, data) -> None:
    """Check the paths before a backend is imported, which takes seconds."""
    from tezip_h5.model import learning

    learning.require(out, data)


def learn(out, data, **options) -> None:
    """Train; Keras is imported only here."""
    from tezip_h5.model.learning import train

    train(out, data, **options)


def run(args) -> int:
    """Train; the model is in MODEL_OUT then."""
    require(args.out, args.data)
    print(mode(args.force))
    given = vars(args)
    learn(
        args.out,
        args.data,
        network=_network(args),
        **{name: given[name] for name in _OPTIONS if name in given},
        verbose=args.verbose,
    )
    return 0


def _network(args) -> dict:
    """The options of the network."""
    sizes = {}
    if args.states is not None:
        sizes = {"states": tuple(args.states), "targets": tuple(args.states[1:])}
    if args.targets is not None:
        sizes["targets"] = tuple(args.targets)
    if args.patch is not None:
        sizes["patch"] = args.patch
    if args.no_skip:
        sizes["skip"] = False
    return sizes
