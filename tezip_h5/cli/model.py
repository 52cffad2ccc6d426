"""``tezip-h5 model show|export|embed|import``: look at models and move them."""

from __future__ import annotations

from pathlib import Path

from tezip_h5.cli.outputs import check_out, place
from tezip_h5.errors import InputError, ModelError
from tezip_h5.frames import open_stack
from tezip_h5.hdf5.files import opening
from tezip_h5.hdf5.reading.sources import open_source
from tezip_h5.model import embedding, original, store
from tezip_h5.model.batches import clip_of
from tezip_h5.prediction.integer import IntegerModel

__all__ = ["add_parser"]


def add_parser(commands) -> None:
    """Add the command and its own commands to the parser."""
    parser = commands.add_parser(
        "model",
        help="look at a network's model, or move it into or out of a file",
        description="Look at a network's model, or move it into or out of an HDF5 file.",
    )
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    text = "a model's folder, a .tzm file, 'default', or an HDF5 file with models in it"
    show = verbs.add_parser("show", help="what a model is and where it came from")
    show.add_argument("model", metavar="MODEL", help=text)
    show.set_defaults(run=_show)
    export = verbs.add_parser("export", help="write a model as a .tzm file")
    export.add_argument("model", metavar="MODEL", help=text)
    export.add_argument("out", metavar="OUT.tzm")
    which = "the first digits of the model's digest (see show), to choose one of several models"
    export.add_argument("--digest", default="", metavar="DIGEST", help=which)
    export.set_defaults(run=_export)
    embed = verbs.add_parser("embed", help="put a model into an HDF5 file")
    embed.add_argument("file", metavar="FILE.h5")
    embed.add_argument("model", metavar="MODEL", help=text)
    embed.set_defaults(run=_embed)
    bring = verbs.add_parser("import", help="make a network of the original TEZip usable")
    bring.add_argument("folder", metavar="FOLDER", help="with prednet_model.json and weights")
    text = "frames to calibrate on: a folder of images, FILE.h5:/DATASET, FILE.tif or FILE.npy"
    bring.add_argument("frames", metavar="FRAMES", help=text)
    bring.set_defaults(run=_import)


def _models(name: str) -> list[IntegerModel]:
    if name == store.DEFAULT:
        models = [store.default(channels) for channels in (1, 3)]
        return [model for model in models if model is not None]
    path = Path(name)
    if path.is_file() and path.suffix.lower() != ".tzm" and not store.is_model(path):
        with opening.open_existing(path) as file:
            found = [embedding.read(file, digest) for digest in embedding.embedded(file)]
        if not found:
            raise ModelError(f"{name} holds no model (looked at {embedding.MODELS})")
        return found
    return [store.load(path)]


def _show(args) -> int:
    for model in _models(args.model):
        arch = model.architecture
        print(f"{model.digest.hex()}")
        print(f"  channels {arch.channels}, patch {arch.patch}, skip {arch.skip}")
        print(f"  states {arch.states}, targets {arch.targets}")
        largest = max(int(conv.bounds.max()) for conv in model.convolutions.values())
        print(f"  largest accumulator {largest}, below {1 << 24}")
        print(f"  {len(model.to_bytes())} bytes")
        for key, value in model.provenance.items():
            print(f"  {key}: {value}")
    return 0


def _export(args) -> int:
    there = {model.digest.hex(): model for model in _models(args.model)}
    models = [m for digest, m in there.items() if digest.startswith(args.digest.lower())]
    if len(models) != 1:
        those = f" whose digests begin with {args.digest!r}" if args.digest else ""
        raise InputError(
            f"{args.model} holds {len(models)} models{those}, of "
            f"{', '.join(digest[:12] for digest in there)}; choose one with --digest"
        )
    check_out(args.out, advice="give another name")
    made = models[0].to_bytes()
    place(args.out, made)
    print(f"{args.out}: {len(made)} bytes, digest {models[0].digest.hex()}")
    return 0


def _embed(args) -> int:
    models = _models(args.model)
    path = opening.target_of(opening.check_is_hdf5(args.file))
    with opening.changing(path, sum(embedding.size(model) for model in models)) as file:
        names = [embedding.embed(file, model).name for model in models]
    for name in names:  # only once the file is closed they are in it
        print(f"{args.file}:{name}")
    return 0


def _import(args) -> int:
    folder = Path(args.folder)
    if not original.is_original(folder):
        raise ModelError(f"{folder} holds no network of the original TEZip")

    def sample():
        with open_source(args.frames) as stack:
            block = next(open_stack(stack).blocks(8))
            block = block.reshape((*block.shape[:3], -1))
            return clip_of(block, 0, len(block), block.shape[3])

    model = store.calibrated(folder, sample)  # whatever an earlier import left in the folder
    out, made = folder / store.INTEGER_FILE, model.to_bytes()
    place(out, made)
    print(f"{out}: {len(made)} bytes, digest {model.digest.hex()}")
    return 0
