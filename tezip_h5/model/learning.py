"""`train`: train a network on stacks and export it, in one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tezip_h5.errors import InputError, ModelError
from tezip_h5.model import store, weights
from tezip_h5.model.batches import SYMMETRIES, Clips, Scenes, Stack
from tezip_h5.model.export import export, floating, judge
from tezip_h5.model.sequences import open_sequences
from tezip_h5.model.unfinished import UNFINISHED
from tezip_h5.placing import place
from tezip_h5.prediction.architecture import Architecture
from tezip_h5.prediction.integer import IntegerModel
from tezip_h5.stacks import dataset_paths

if TYPE_CHECKING:
    from tezip_h5.signatures import PathLike

__all__ = ["on_gpu", "require", "train"]

_VALIDATION = 0.2  # this last share of every sequence validates, if no validation data are named
_BATCHES = 12  # number of fixed batches for validation
_SAMPLES = 8  # number of clips that calibrate and judge the integer model


class _Part:
    """Frames start..stop of a sequence."""

    def __init__(self, frames, start: int, stop: int, context: int = 0):
        self._frames, self._start, self.context = frames, start, context
        self.shape = (stop - start, *frames.shape[1:])

    def __getitem__(self, part: slice):
        return self._frames[self._start + part.start : self._start + part.stop]


def train(
    out: PathLike,
    data: PathLike | Sequence[PathLike],
    *,
    validation: PathLike | Sequence[PathLike] | None = None,
    architecture: Architecture | None = None,
    network: dict | None = None,
    epochs: int = 40,
    steps: int = 250,
    rate: float = 2e-3,
    patience: int = 10,
    batch: int = 8,
    length: int = 10,
    side: int = 64,
    scenes: float = 0.1,
    symmetry: str = "all",
    start: PathLike | None = None,
    keep: float | None = None,
    seed: int = 0,
    verbose: bool = False,
    say: Callable[[str], object] = print,
) -> IntegerModel:
    """Train a PredNet on stacks and export it.

    Parameters
    ----------
    out : path
        A new or empty folder for the model: ``prednet_model.json`` and ``prednet_weights.hdf5``
        (floating point), ``prednet_integer.tzm`` (what compression uses), ``training.json`` and,
        with matplotlib, ``training.png``. An interrupted training in it is continued.
    data, validation : paths, or one path
        HDF5 files or datasets in them, folders of images, training data; see
        `model.sequences.open_sequences`. Without `validation`, training data's own validation
        part, else the last fifth of every sequence.
    architecture : Architecture, optional
        Default: three layers, as the models that ship, for as many channels as the data have.
    network : dict, optional
        Sizes that differ from that default: `targets`, `states`, `patch`, `skip`.
    epochs, steps, rate, patience, seed
        See `model.training.Options`.
    batch, length, side : int
        Clips per batch, frames per clip, and their height and width in pixels.
    scenes : float
        Share of simulated scenes among the clips; they prevent overfitting on a small data set.
    symmetry : "none" | "mirror" | "flips" | "turns" | "all"
        Transforms that turn a clip into another realistic one: none, left to right, also upside
        down, quarter turns, all of these.
    start : path, optional
        Folder with trained weights to begin with (its architecture is taken), or "default" for
        those of the model that ships. That helps if there is time for a few hundred batches only.
    keep : float, optional
        Share of those weights in the result, which is their average with the learned weights
        (Wortsman et al., *Robust fine-tuning of zero-shot models*, CVPR 2022). Default: half if
        the network overfits (it predicts the training data better than the validation data), and
        nothing otherwise.
    verbose : bool
        Print a line after every epoch.
    say : callable
        Called with each of these lines.

    Returns
    -------
    IntegerModel
        Registered, so that `write(..., model=...)` takes it.

    Raises
    ------
    InputError
        When `out` holds other files, there is no data to train on, an option is out of range, or
        Keras is missing.
    ModelError
        When `start` or an unfinished training in `out` is damaged; when that training began with
        other options; when nothing was learned; or when the integer model predicts too badly.
    """
    sequences = require(out, data)
    training = _training()
    options = training.Options(epochs, steps, rate, patience, seed)
    if batch < 1 or length < 2 or side < 1:
        raise InputError(
            f"batches of {batch} clips, of {length} frames, of {side} pixels to a side; give at "
            "least 1 clip of 2 frames"
        )
    if not 0 <= scenes <= 1:
        raise InputError(f"a share of scenes of {scenes}; give one from 0 to 1")
    if keep is not None and (start is None or not 0 <= keep < 1):
        raise InputError(f"keep={keep} of the weights of {start}; give a share from 0 to below 1")
    if symmetry not in SYMMETRIES:
        raise InputError(f"symmetry={symmetry!r} is unknown; choose one of {', '.join(SYMMETRIES)}")
    if network and (architecture is not None or start is not None):
        raise InputError("the network's sizes were given besides a network; give only one of them")
    out = Path(out)
    for sequence in sequences:
        _require_numbers(sequence)
    channels = {s.shape[3] for s in sequences}
    start_weights = None
    if start is not None:
        architecture, start_weights = _begun(start, max(channels))
        if architecture.channels not in channels:
            raise ModelError(
                f"the network in {start} is for {architecture.channels} channel(s), the data have "
                f"{' or '.join(map(str, sorted(channels)))}; begin without it"
            )
    architecture = architecture or Architecture(max(channels), **(network or {}))
    seen, kept = _split(sequences, validation, length)
    side = max(side // architecture.multiple, 2) * architecture.multiple
    sizes = {"batch": batch, "length": length, "side": side}
    clips = _clips(seen, architecture.channels, scenes, seed=seed, symmetry=symmetry, **sizes)
    fixed = _clips(kept, architecture.channels, 0.0, seed=seed + 1, symmetry="none", **sizes)
    how = {
        "start": "nothing" if start is None else os.path.basename(start),
        "seed": seed,
        "steps": steps,
        "rate": rate,
        **sizes,
        "scenes": scenes,
        "symmetry": symmetry,
    }
    trained = training.fit(
        out,
        architecture,
        clips,
        [fixed(step) for step in range(_BATCHES)],
        options,
        begun={"data": _names(sequences), "frames": _shapes([*seen, *kept]), **how},
        start=start_weights,
        verbose=verbose,
        say=say,
    )
    keep = 0.0 if start is None else _share_kept(trained.history) if keep is None else keep
    learned = _average(start_weights, trained.weights, keep) if keep else trained.weights
    if keep:
        weights.save(out, architecture, learned)
    rng = np.random.default_rng(seed)
    samples = [
        _middle(Stack(kept[i % len(kept)], architecture.channels).clip(rng, length)[0])
        for i in range(_SAMPLES)
    ]
    provenance = {
        "trained on": _names(sequences),
        "trained with": {**how, "keep": keep},
        "epochs": len(trained.history),
        "validation error relative to the previous frame": round(trained.best, 4),
    }
    model = export(architecture, learned, samples, provenance=provenance)
    place(out / store.INTEGER_FILE, model.to_bytes())
    _plot(out, trained.history)
    exact, _, previous = judge(model, learned, samples)
    say(
        f"{out}: mean error of prediction {exact / max(previous, 1e-12):.3f} of the previous "
        f"frame's, model of {len(model.to_bytes())} bytes, digest {model.digest.hex()[:16]}…"
    )
    return store.register(model)


def require(out, data) -> list:
    """Check `out` and `data`, and return the sequences of `data`.

    This happens before Keras is imported, which takes seconds.
    """
    out = Path(out)
    if str(out) in ("default", "none"):
        raise InputError(f"{out} is no name for a model: compress takes it for another; rename it")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder for the model")
    there = [entry.name for entry in out.iterdir()] if out.exists() else []
    there = sorted(name for name in there if not name.startswith("."))
    if there and UNFINISHED not in there:
        raise InputError(
            f"{out} holds {', '.join(there[:3])}{', …' if there[3:] else ''}, which training would "
            "replace or mix with its own; give a new folder (--start takes weights that are there)"
        )
    return open_sequences(data)


def _begun(start, channels: int) -> tuple[Architecture, dict]:
    """Architecture and weights to begin with."""
    if str(start) != "default":
        try:
            return weights.load(Path(start))
        except ModelError as error:
            raise ModelError(
                f"training cannot begin with {start} ({error}); give a folder that tezip-h5 train "
                "made, or default"
            ) from None
    shipped = store.default(channels)
    if shipped is None:
        raise ModelError(f"no model for {channels} channels ships; begin without it")
    return shipped.architecture, floating(shipped)


def _share_kept(history: list) -> float:
    """The default of `keep`, the share of the first weights in the result of a training."""
    if not history:
        return 0.0
    best = min(history, key=lambda row: row["validation"])
    return 0.5 if best["loss"] < best["validation"] else 0.0


def _average(start: dict, learned: dict, keep: float) -> dict:
    """The weighted average of two networks' weights."""
    return {
        name: tuple(
            (keep * old + (1 - keep) * new).astype(np.float32)
            for old, new in zip(start[name], pair, strict=True)
        )
        for name, pair in learned.items()
    }


def on_gpu() -> bool:
    """Whether `train` would compute on a GPU; InputError when Keras is missing."""
    return _training().on_gpu()


def _training():
    """Import the module that needs Keras; InputError if that fails."""
    try:
        from tezip_h5.model import training
    except ImportError as error:
        raise InputError(
            f"training needs Keras and a backend ({error}); install them with "
            "pip install 'tezip_h5[train]', or the backend that KERAS_BACKEND names"
        ) from None
    except ValueError as error:
        raise InputError(f"Keras cannot be used ({error}); unset KERAS_BACKEND") from None
    return training


def _require_numbers(sequence) -> None:
    """Raise InputError for a sequence with only missing samples. Otherwise missing samples count
    as the lowest value."""
    if sequence.dtype.kind != "f":
        return
    last = len(sequence) - 1
    if not any(np.isfinite(sequence[t : t + 1]).any() for t in (0, last // 2, last)):
        raise InputError(
            f"{sequence.name} holds nothing but NaN or infinities in its first, middle and last "
            "frame; leave it out"
        )


def _shapes(sequences) -> list:
    """Shapes of the sequences, which show whether an unfinished training had other data."""
    return [list(map(int, sequence.shape)) for sequence in sequences]


def _names(sequences, most: int = 20) -> list[str]:
    """The names of the training data for a model's provenance, without folders, because the model
    may be given to others."""
    found = set()
    for sequence in sequences:
        file, _ = dataset_paths.split(sequence.name)
        found.add(os.path.basename(file) + sequence.name[len(file) :])
    names = sorted(found)
    rest = [f"and {len(names) - most} more"] if len(names) > most else []
    return names[:most] + rest


def _split(sequences, validation, length: int) -> tuple[list, list]:
    """Split sequences into parts for training and for validation.

    If a part for validation is short, the frames before it fill the network's memory.
    """
    if validation is not None:
        return sequences, open_sequences(validation)
    own = [s for s in sequences if getattr(s, "validation", False)]
    if own:
        return [s for s in sequences if s not in own], own
    seen, kept = [], []
    for sequence in sequences:
        count = sequence.shape[0]
        cut = count - max(2, round(count * _VALIDATION))
        if cut < 2:
            seen.append(sequence)
            kept.append(sequence)
            continue
        seen.append(_Part(sequence, 0, cut))
        context = min(cut, max(length - (count - cut), 1))
        kept.append(_Part(sequence, cut - context, count, context))
    return seen, kept


def _clips(sequences, channels, scenes, *, length, side, seed, **how) -> Clips:
    sources = [Stack(s, channels, getattr(s, "context", 0)) for s in sequences if s.shape[0] >= 2]
    if not sources:
        raise InputError("no sequence of at least 2 frames to train on; give longer ones")
    shares = [(1 - scenes) / len(sources)] * len(sources)
    if scenes > 0:
        sources.append(Scenes(channels, max(96, side), length, seed=seed))
        shares.append(scenes)
    return Clips(sources, shares, length=length, side=side, seed=seed, **how)


def _middle(clip: np.ndarray, most: int = 256) -> np.ndarray:
    """The middle part of a clip's frames, for a quick judgement."""
    h, w = clip.shape[1:3]
    y, x = max(0, (h - most) // 2), max(0, (w - most) // 2)
    return clip[:, y : y + most, x : x + most]


def _plot(out: Path, history: list) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    epochs = [row["epoch"] for row in history]
    axes.plot(epochs, [row["loss"] for row in history], label="training")
    axes.plot(epochs, [row["validation"] for row in history], label="validation")
    axes.axhline(1.0, color="0.5", linestyle="--", label="previous frame")
    axes.set(xlabel="epoch", ylabel="mean absolute error / previous frame's")
    axes.legend()
    figure.savefig(out / "training.png", dpi=120)
