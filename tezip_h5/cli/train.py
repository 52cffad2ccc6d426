"""``tezip-h5 train MODEL_OUT DATA...``: the manual's learning, on any stacks."""

from __future__ import annotations

import os

__all__ = ["add_parser", "learn", "mode"]


def add_parser(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "train",
        help="train a network on your own stacks",
        description="Train a PredNet on stacks: HDF5 files (or FILE.h5:/DATASET), folders of "
        "images, or training data. The folder MODEL_OUT is then a MODEL for compress. "
        "Interrupted, it goes on where it was when called again.",
    )
    add = parser.add_argument
    add("out", metavar="MODEL_OUT", help="folder for the model")
    add("data", metavar="DATA", nargs="+", help="what to learn from")
    add("--validation", metavar="DATA", nargs="+", help="what to judge by (default: the ends)")
    add("--start", metavar="MODEL", help="folder of a trained model to begin with")
    add("--epochs", type=int, default=40, metavar="N", help="at most (default: %(default)s)")
    add("--steps", type=int, default=250, metavar="N", help="batches per epoch (%(default)s)")
    add("--rate", type=float, default=2e-3, help="first learning rate (%(default)s)")
    add("--seed", type=int, default=0)
    add("-f", "--force", action="store_true", help="use the CPU only")
    add("-v", "--verbose", action="store_true", help="say something after every epoch")
    parser.set_defaults(run=run)


def mode(force: bool) -> str:
    """What the manual has a training say first; `force` hides GPUs from it."""
    if force:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from tezip_h5.model.learning import on_gpu

    return "GPU MODE" if on_gpu() else "CPU MODE"


def learn(out, data, **options) -> None:
    """Train; Keras is imported only here."""
    from tezip_h5.model.learning import train

    train(out, data, **options)


def run(args) -> int:
    """Train; the model is in MODEL_OUT then."""
    print(mode(args.force))
    learn(
        args.out,
        args.data,
        validation=args.validation,
        start=args.start,
        epochs=args.epochs,
        steps=args.steps,
        rate=args.rate,
        seed=args.seed,
        verbose=args.verbose,
    )
    return 0
