"""Training a PredNet: Keras 3, any backend.

The loss is the mean absolute error of all predictions of a clip, each one frame ahead, divided by
that of the previous frame. A loss of 1 means that the network is no better than the previous
frame. The weights with the lowest validation error are kept. An interrupted training can be
continued, and Ctrl-C keeps what was learned.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from keras import ops

from tezip_h5.errors import InputError, ModelError
from tezip_h5.model import weights as files
from tezip_h5.model.batches import Batch, Clips
from tezip_h5.model.network import PredNet
from tezip_h5.model.unfinished import UNFINISHED, go_on, require_space
from tezip_h5.placing import place
from tezip_h5.prediction.architecture import Architecture

__all__ = ["HISTORY", "Options", "Trained", "fit", "on_gpu"]

HISTORY = "training.json"


@dataclass(frozen=True)
class Options:
    """The options of a training.

    Parameters
    ----------
    epochs, steps : int
        Largest number of epochs, and the number of batches in each.
    rate : float
        Adam's first learning rate; it falls to a fiftieth along a cosine (Loshchilov, Hutter,
        ICLR 2017).
    patience : int
        Stop after this number of epochs without a lower validation error.
    seed : int

    Raises
    ------
    InputError
        For a number that is out of range.
    """

    epochs: int = 40
    steps: int = 250
    rate: float = 2e-3
    patience: int = 10
    seed: int = 0

    def __post_init__(self):
        for name in ("epochs", "steps", "patience"):
            if getattr(self, name) < 1:
                raise InputError(f"{getattr(self, name)} {name} train nothing; give at least 1")
        if not 0 < self.rate < np.inf:
            raise InputError(f"a learning rate of {self.rate}; give a small positive one")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"a seed of {self.seed}; give one from 0 to {2**32 - 1}")


@dataclass
class Trained:
    """The result of a training.

    Attributes
    ----------
    weights : dict of (kernel, bias)
        The best ones.
    history : list of dict
        Per epoch: ``epoch``, ``loss``, ``validation`` (errors relative to the previous
        frame's), ``seconds``.
    best : float
        The lowest validation error; infinite before there is one.
    """

    weights: dict
    history: list = field(default_factory=list)
    best: float = float("inf")

    def since_best(self) -> int:
        """Number of epochs since the best one."""
        values = [row["validation"] for row in self.history]
        return len(values) - 1 - int(np.argmin(values))


class PredictionErrors(keras.Model):
    """The network, with its weighted errors as output."""

    def __init__(self, net: PredNet):
        super().__init__()
        self.net = net

    def call(self, frames):
        return self.net(frames) - frames[:, 1:]


class _MeanAbsolute(keras.losses.Loss):
    def call(self, weights, errors):
        return ops.mean(ops.abs(errors) * weights)


class _Batches(keras.utils.PyDataset):
    """`Clips` in the form that Keras takes; every epoch has other batches.

    A thread of the backend makes the batches, and replaces any exception by its own. `error` is the
    exception that was raised here.
    """

    def __init__(self, clips: Clips, steps: int, first_epoch: int):
        super().__init__()
        self._clips, self._steps, self._epoch = clips, steps, first_epoch
        self.error: Exception | None = None

    def __len__(self):
        return self._steps

    def __getitem__(self, index):
        try:
            batch = self._clips(self._epoch * self._steps + index)
        except Exception as error:
            self.error = error
            raise
        return batch.frames, batch.weights

    def on_epoch_end(self):
        self._epoch += 1


class _Keeper(keras.callbacks.Callback):
    """After every epoch: validate, keep the best weights on disk and in memory, stop early."""

    def __init__(self, folder, net, validation, options, trained, verbose, say):
        super().__init__()
        self._folder, self._net, self._validation = folder, net, validation
        self._options, self.trained = options, trained
        self._verbose, self._say = verbose, say
        self._started = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        trained = self.trained
        row = {
            "epoch": epoch + 1,
            "loss": float((logs or {}).get("loss", np.nan)),
            "validation": self.judge(),
            "seconds": round(time.monotonic() - self._started, 1),
        }
        if not (np.isfinite(row["loss"]) and np.isfinite(row["validation"])):
            self._say(f"epoch {epoch + 1}: the training went astray, its error is not finite")
            self.model.stop_training = True
            return
        require_space(self._folder, trained.weights)
        del trained.history[epoch:]  # the epoch may be repeated, after a kill at its end
        trained.history.append(row)
        place(self._folder / HISTORY, json.dumps(trained.history, indent=1).encode())
        if row["validation"] < trained.best:
            self.keep(row["validation"])
        elif trained.since_best() >= self._options.patience:
            self.model.stop_training = True
        if self._verbose:
            self._say(
                f"epoch {epoch + 1}: {row['seconds']:.0f} s, error of the previous frame 1, "
                f"training {row['loss']:.4f}, validation {row['validation']:.4f} "
                f"(best {trained.best:.4f})"
            )

    def judge(self) -> float:
        """The validation error of the present weights."""
        return evaluate(self.model, self._validation)

    def keep(self, value: float) -> None:
        """Keep the present weights as the best ones."""
        self.trained.best, self.trained.weights = value, self._net.get_weights_by_name()
        files.save(self._folder, self._net.architecture, self.trained.weights)


class _Backup(keras.callbacks.BackupAndRestore):
    """The backup from which a training can be continued; ModelError if it is damaged."""

    def __init__(self, folder: Path):
        super().__init__(str(folder), double_checkpoint=True)

    def on_train_begin(self, logs=None):
        try:
            super().on_train_begin(logs)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"the unfinished training in {self.backup_dir} cannot be continued ({error}); "
                "remove it, and what was trained beside it, to begin anew"
            ) from None


def evaluate(model, batches: list[Batch]) -> float:
    """Mean error relative to the previous frame's, over fixed batches."""
    return float(np.mean([model.test_on_batch(b.frames, b.weights) for b in batches]))


def on_gpu() -> bool:
    """Whether Keras computes on a GPU here."""
    if keras.backend.backend() == "torch":  # keras.distribution supports it only in part
        import torch

        return torch.cuda.is_available()
    try:
        return bool(keras.distribution.list_devices("gpu"))
    except RuntimeError:  # JAX raises this if it has no GPU
        return False


def fit(
    folder: str | Path,
    architecture: Architecture,
    clips: Clips,
    validation: list[Batch],
    options: Options,
    *,
    begun: dict | None = None,
    start: dict | None = None,
    verbose: bool = False,
    say=print,
) -> Trained:
    """Train; the best weights are in `folder` at any time.

    Parameters
    ----------
    folder : path
        The folder for the weights and, until training is over, the backup to continue it.
    architecture : Architecture
    clips, validation
        Clips to learn from, and fixed batches for validation.
    options : Options
    begun : dict, optional
        Values that must be the same if this continues an interrupted training.
    start : dict, optional
        Weights to begin with.
    verbose : bool
        Print a line after every epoch.

    Returns
    -------
    Trained

    Raises
    ------
    InputError
        When a file cannot be read any more.
    ModelError
        When an unfinished training in `folder` is of another network, began with other values, or
        is damaged; or when the errors became infinite before anything was learned.
    OSError
        When the disk is too full for the backup of an epoch.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(options.seed)
    net = PredNet(architecture, seed=options.seed)
    model = PredictionErrors(net)
    schedule = keras.optimizers.schedules.CosineDecay(
        options.rate, options.epochs * options.steps, alpha=0.02
    )
    optimizer = keras.optimizers.Adam(schedule, clipnorm=1.0)
    model.compile(optimizer=optimizer, loss=_MeanAbsolute(), jit_compile=False)
    if start is not None:
        net.set_weights_by_name(start)
    model.evaluate(validation[0].frames, validation[0].weights, verbose=0)
    trained = Trained(net.get_weights_by_name())
    if (folder / UNFINISHED).is_dir() and (folder / HISTORY).is_file():
        _resume(folder, architecture, trained)
        say(f"going on after epoch {len(trained.history)}")
    go_on(folder, begun or {})
    require_space(folder, trained.weights)
    keeper = _Keeper(folder, net, validation, options, trained, verbose, say)
    batches = _Batches(clips, options.steps, len(trained.history))
    try:
        with warnings.catch_warnings():
            # With clips of two frames, the upper layers' own predictions are not used, so their
            # weights get no gradient.
            warnings.filterwarnings("ignore", message="Gradients do not exist")
            model.fit(
                batches,
                epochs=options.epochs,
                verbose=0 if verbose or not sys.stderr.isatty() else 1,
                callbacks=[keeper, _Backup(folder / UNFINISHED)],
                shuffle=False,  # batches are random already, and must be repeatable
            )
    except KeyboardInterrupt:
        if trained.history:
            say("interrupted: what was learned until the best epoch is kept")
        elif np.isfinite(value := keeper.judge()):
            say("interrupted in the first epoch: what it has learned is kept")
            keeper.keep(value)
    except Exception:
        if batches.error is not None:
            raise batches.error from None
        raise
    if not np.isfinite(trained.best):
        raise ModelError(
            "nothing was learned: the errors became infinite in the first epoch; try a lower "
            f"learning rate than {options.rate}"
        )
    return trained


def _resume(folder: Path, architecture: Architecture, trained: Trained) -> None:
    """Read history and best weights of the interrupted training in `folder`."""
    found, weights = files.load(folder)
    if found != architecture:
        raise ModelError(
            f"{folder} holds an unfinished training of another network: {found}, not "
            f"{architecture}; give another folder, or remove that one to begin anew"
        )
    try:
        trained.history.extend(json.loads((folder / HISTORY).read_text()))
        trained.best = min(row["validation"] for row in trained.history)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder / HISTORY} is damaged ({error}); remove {folder} to begin anew"
        ) from None
    trained.weights = weights
