"""Train the models that ship with the package.

    python benchmarks/default_models.py ../shared/data OUT [--channels 1|3]

Training uses only stacks whose licence allows publishing the weights; the model names them. It
uses the first half of each stack, so that benchmarks on the second half measure frames that were
not seen in training. The last fifth of the first half is for validation. The other clips of each
batch are simulated scenes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import h5py
import numpy as np

from tezip_h5.model import store, training
from tezip_h5.model.batches import Clips, Scenes, Stack
from tezip_h5.model.export import export, floating
from tezip_h5.model.training import Options
from tezip_h5.prediction.architecture import Architecture

LICENCES = {
    "brightfield_spheres": "BSD",
    "colloid_bulk_water": "BSD",
    "climate_navy_zonal_wind_f32": "US government, public domain",
    "radar_fmi_dbz_u8": "CC BY 4.0, Finnish Meteorological Institute",
    "sim_turbulence_vorticity_f32": "own simulation",
    "sun_aia304_u16": "NASA/SDO, public domain",
    "xray_tomo_projections_u16": "Apache-2.0",
}
"""The stacks whose licence allows shipping weights that were trained on them."""

ARCHITECTURES = {
    1: Architecture(1, targets=(12, 16), states=(16, 20, 24)),
    3: Architecture(3, targets=(12, 16), states=(16, 20, 24)),
}
BATCH, LENGTH, SIDE = 8, 10, 64
SCENES_SHARE = 0.5


def halves(folder: Path) -> dict[str, np.ndarray]:
    """The first half of each stack that may be used, (T, H, W, 1)."""
    stacks = {}
    for name in LICENCES:
        with h5py.File(folder / f"{name}.h5") as file:
            data = file["data"]
            stacks[name] = data[: len(data) // 2][..., None]
    return stacks


def clips(parts: dict, channels: int, seed: int, batch: int = BATCH) -> Clips:
    """Yield batches that have as many clips of stacks as of scenes.

    A clip of a stack has frames, and the number of them that are context.
    """
    sources = [Stack(frames, channels, context) for frames, context in parts.values()]
    shares = [(1 - SCENES_SHARE) / len(sources)] * len(sources)
    scenes = Scenes(channels, 96, LENGTH, count=200, seed=seed)
    return Clips(
        [*sources, scenes],
        [*shares, SCENES_SHARE],
        batch=batch,
        length=LENGTH,
        side=SIDE,
        seed=seed,
    )


def with_context(frames: np.ndarray, cut: int) -> tuple[np.ndarray, int]:
    """The frames from `cut` on, preceded by enough frames to fill the network's memory."""
    context = min(cut, max(LENGTH - (len(frames) - cut), 1))
    return frames[cut - context :], context


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--channels", type=int, choices=(1, 3), default=1)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--further", action="store_true", help="begin with the model that ships")
    args = parser.parse_args()
    stacks = halves(args.data)
    cut = {name: max(2, len(frames) * 4 // 5) for name, frames in stacks.items()}
    seen = {name: (frames[: cut[name]], 0) for name, frames in stacks.items()}
    kept = {name: with_context(frames, cut[name]) for name, frames in stacks.items()}
    judge = clips(kept, args.channels, seed=1)
    validation = [judge(step) for step in range(16)]
    architecture = ARCHITECTURES[args.channels]
    shipped = store.default(args.channels) if args.further else None
    options = Options(args.epochs, args.steps, args.rate, patience=args.epochs)
    trained = training.fit(
        args.out,
        architecture,
        clips(seen, args.channels, seed=0),
        validation,
        options,
        start=floating(shipped) if shipped else None,
        verbose=True,
        say=lambda text: print(text, flush=True),
    )
    provenance = {
        "trained on": LICENCES | {"scenes": "simulated by tezip_h5.model.scenes"},
        "of each stack": "the first half",
        "by": "benchmarks/default_models.py",
        "epochs": len(trained.history),
        "steps per epoch": args.steps,
        "begun with": shipped.digest.hex() if shipped else "nothing",
        "validation error relative to the previous frame": round(trained.best, 4),
    }
    samples = [
        Stack(frames, args.channels).clip(np.random.default_rng(2), 6)[0]
        for frames, _ in kept.values()
    ]
    model = export(architecture, trained.weights, samples, provenance=provenance)
    target = args.out / ("grey.tzm" if args.channels == 1 else "rgb.tzm")
    target.write_bytes(model.to_bytes())
    print(f"{target}: {target.stat().st_size} bytes, digest {model.digest.hex()}")


if __name__ == "__main__":
    main()
