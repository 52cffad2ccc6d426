"""Training: the float network, its integer twin on a foreign engine, and all that may go wrong."""

import functools
import importlib.util
import itertools
import json
import os
import shutil
import types

import h5py
import numpy as np
import pytest
from conftest import require_training
from models import random_model, random_weights

import tezip_h5
from tezip_h5 import InputError, ModelError, TezipError
from tezip_h5.cli import legacy, main
from tezip_h5.cli import train as cli_train
from tezip_h5.model import batches as batching
from tezip_h5.model import hickle, learning, store, unfinished, weights
from tezip_h5.model.batches import clip_of
from tezip_h5.model.export import _convolution, export, floating, judge
from tezip_h5.model.floating import FloatPredNet
from tezip_h5.prediction.architecture import Architecture
from tezip_h5.prediction.integer import ACCUMULATOR
from tezip_h5.prediction.reference import Reference

require_training()

import keras  # noqa: E402
from foreign import Foreign  # noqa: E402 (needs TensorFlow)

from tezip_h5.model import network, training  # noqa: E402

GREY = Architecture(1, (5,), (3, 7))
ARCHITECTURES = [
    GREY,
    Architecture(),
    Architecture(1, (), (6,), patch=1),
    Architecture(3, (6, 5), (4, 5, 6)),
    Architecture(1, (5,), (3, 7), patch=4),
    Architecture(3, (6, 9), (3, 6, 9), patch=1, skip=False),
]


# --- the same network, three times ----------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_keras_computes_what_numpy_does(architecture):
    """float32 against float32: what is trained is what export calibrates and judges."""
    weights = random_weights(architecture, seed=4)
    side = 2 * architecture.multiple
    frames = np.random.default_rng(1).random((4, side, side + architecture.multiple, 1))
    frames = (frames * np.linspace(0.4, 1, architecture.channels)).astype(np.float32)
    net = network.PredNet(architecture, quantised=False)
    net.set_weights_by_name(weights)
    found = np.asarray(net(frames[None]))[0]
    plain = FloatPredNet(architecture, weights, np.moveaxis(frames, 3, 1).shape[1:])
    expected = np.stack([plain.step(frame) for frame in np.moveaxis(frames[:-1], 3, 1)])
    np.testing.assert_allclose(found, np.moveaxis(expected, 1, 3), rtol=0, atol=1e-5)


def random_frames(shape, top, offset, shift, count=4):
    rng = np.random.default_rng(7)
    most = min(top, int(offset + 300 * 2.0**shift)) + 1
    frames = rng.integers(0, most, (count, *shape)).astype(np.int32)
    frames[1] = frames[0]  # no change at all,
    frames[2] = rng.choice([0, most - 1], shape)  # and as much as there can be
    return frames


def require_agreement(model, scale, *, compiled=False):
    """The definition and TensorFlow's float32, bit for bit."""
    shape = (model.architecture.channels, 22, 29)
    expected = Reference(model, shape, *scale)
    found = Foreign(model, shape, *scale, compiled=compiled)
    for frame in random_frames(shape, *scale):
        expected.observe(frame)
        found.observe(frame)
        np.testing.assert_array_equal(found.predict(), expected.predict())


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("scale", [(255, 0, 0), (65535, 1000, 7), (2**30, -5, 20), (9, 0, -4)])
def test_float32_elsewhere_is_exact(architecture, scale):
    """The argument that makes decoding portable (all sums below 2**24) holds in TensorFlow."""
    require_agreement(random_model(architecture), scale)


@pytest.mark.parametrize("compiled", [False, True])
def test_float32_elsewhere_is_exact_at_the_limits(compiled):
    model = random_model(GREY, gain=40.0)
    assert max(conv.bounds.max() for conv in model.convolutions.values()) > ACCUMULATOR // 2
    require_agreement(model, (255, 0, 0), compiled=compiled)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("compiled", [False, True])
def test_the_models_that_ship_are_exact_elsewhere(channels, compiled):
    require_agreement(store.default(channels), (255, 0, 0), compiled=compiled)
    if not compiled:
        require_agreement(store.default(channels), (4095, 30, 4))


# --- training -------------------------------------------------------------------------------

TINY = {
    "architecture": Architecture(1, (), (4,)),
    "epochs": 2,
    "steps": 3,
    "rate": 5e-3,
    "batch": 2,
    "length": 3,
    "side": 16,
    "scenes": 0.0,
}
FLOAT_FILES = {"prednet_model.json", "prednet_weights.hdf5"}
FILES = FLOAT_FILES | {"prednet_integer.tzm", "training.json", "training.png"}


def blobs(channels=1, count=14, dtype=np.uint8):
    """(count, 24, 32, channels): a bright blob that moves steadily."""
    t, y, x, c = np.indices((count, 24, 32, channels))
    blob = np.exp(-((x - 4 - 1.5 * t) ** 2 + (y - 6 - t) ** 2) / 20)
    return (20 + 200 * blob * (1 - 0.2 * c)).astype(dtype)


@pytest.fixture
def stack(tmp_path):
    """A file with one stack of blobs."""
    with h5py.File(tmp_path / "blobs.h5", "w") as file:
        file["data"] = blobs()[..., 0]
    return tmp_path / "blobs.h5"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a network that knows the blobs, and what was said meanwhile."""
    folder, said = tmp_path_factory.mktemp("trained"), []
    with h5py.File(folder / "blobs.h5", "w") as file:
        file["data"] = blobs()[..., 0]
    options = {**TINY, "architecture": GREY, "length": 6, "epochs": 4, "steps": 20}
    model = tezip_h5.train(
        folder / "model",
        folder / "blobs.h5",
        validation=folder / "blobs.h5",
        **options,
        verbose=True,
        say=said.append,
    )
    return folder / "model", model, said


FEW = ["--epochs", "1", "--steps", "2"]


# --- what is learned from -------------------------------------------------------------------


def counted(count, context=0):
    """A stack whose frame t is t everywhere, but for what tells places apart."""
    frames = np.arange(count)[:, None, None, None] + np.zeros((1, 24, 24, 1), int)
    frames[:, 0, 0] = frames[:, 0, 5] = 255
    return batching.Stack(frames, 1, context)


def batch_of(source, length, **options):
    clips = batching.Clips([source], [1.0], batch=4, length=length, side=24, **options)
    return clips(0)


def test_a_short_clip_is_not_filled_with_time_running_backwards():
    batch = batch_of(counted(4), length=7)
    assert batch.frames.shape == (4, 7, 24, 24, 1)
    steps = np.diff(batch.frames[:, :, 12, 12, 0], axis=1)
    assert (steps[:, :3] > 0).all()
    assert (steps[:, 3:] == 0).all()
    weights = batch.weights[..., 0, 0, 0]
    assert (weights[:, :3] > 0).all()
    assert (weights[:, 3:] == 0).all()
    full = batch_of(counted(4), length=4).weights
    np.testing.assert_allclose(weights.mean(1), full[..., 0, 0, 0].mean(1), rtol=0.3)


def test_a_network_is_judged_by_frames_it_has_not_seen_after_those_it_has():
    seen, kept = learning._split([blobs(count=20)], None, 10)
    assert (seen[0].shape[0], kept[0].shape[0], kept[0].context) == (16, 10, 6)
    np.testing.assert_array_equal(kept[0][0:10], blobs(count=20)[10:])
    batch = batch_of(counted(10, context=6), length=10)
    weights = batch.weights[..., 0, 0, 0]
    assert (weights[:, :5] == 0).all()
    assert (weights[:, 5:] > 0).all()  # predictions of frames 6 to 9
    # Where enough is kept, one frame before it is all that is needed.
    _, kept = learning._split([blobs(count=100)], None, 10)
    assert (kept[0].shape[0], kept[0].context) == (21, 1)


@pytest.mark.parametrize(
    ("symmetry", "kinds"), [("none", 1), ("mirror", 2), ("flips", 4), ("turns", 4), ("all", 8)]
)
def test_symmetries_are_as_many_as_they_should_be(symmetry, kinds):
    corner = np.zeros((2, 24, 24, 1), int)
    corner[1:] = 9
    corner[:, :3, :9] = 255
    source, found = batching.Stack(corner, 1), set()
    clips = batching.Clips([source], [1.0], batch=8, length=2, side=24, symmetry=symmetry)
    for step in range(12):
        found |= {frame.tobytes() for frame in clips(step).frames[:, 0] > 0.45}
    assert len(found) == kinds
    if symmetry == "turns":  # a turn never makes a left hand a right hand
        mirrored = np.ascontiguousarray(corner[0, :, ::-1] > 100)
        assert mirrored.tobytes() not in found


def test_a_shipped_model_in_floating_point_is_exported_as_itself():
    for channels in (1, 3):
        model = store.default(channels)
        again = export(
            model.architecture,
            floating(model),
            [blobs(channels).astype(np.int64)],
            provenance=model.provenance,
            allowed_loss=1,
        )
        assert again.digest == model.digest


@pytest.fixture
def small(monkeypatch):
    """The command line has no option for the network's size: a small one, for tests."""
    monkeypatch.setattr(learning, "train", functools.partial(learning.train, **TINY))


def listing(folder):
    return {path.name for path in folder.iterdir()}


def weights_in(folder):
    _, found = weights.load(folder)
    return np.concatenate([part.ravel() for pair in found.values() for part in pair])


def history_in(folder):
    return json.loads((folder / "training.json").read_text())


def interrupt(patch, after):
    """Ctrl-C behind so many batches."""
    done = itertools.count(1)

    def on_train_batch_end(self, batch, logs=None):
        if next(done) == after:
            raise KeyboardInterrupt

    patch.setattr(training._Keeper, "on_train_batch_end", on_train_batch_end)


def test_training_learns(trained, tmp_path, no_fallback):
    folder, model, said = trained
    assert listing(folder) == FILES
    history = history_in(folder)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["validation"] < 0.8  # of the previous frame's error
    assert [line.split(":")[0] for line in said[:-1]] == [f"epoch {n}" for n in (1, 2, 3, 4)]
    assert model.digest.hex()[:16] in said[-1]
    assert model.provenance["epochs"] == 4
    assert model.provenance["trained on"] == ["blobs.h5:/data"]  # it may be passed on: no folder
    assert tezip_h5.load_model(folder).digest == model.digest
    path = tmp_path / "run.h5"
    tezip_h5.write(blobs(), path, model=folder, predictor="prednet", coder="stages", verify=True)
    with h5py.File(path) as file:
        assert list(file["tezip/models"]) == [model.digest.hex()]


def test_the_exported_model_predicts_as_the_network_does(trained):
    folder, model, _ = trained
    frames = [blobs().astype(np.int64)]
    exact, floating, previous = judge(model, weights.load(folder)[1], frames)
    assert exact <= 1.02 * floating
    assert exact < 0.9 * previous


def test_training_that_cannot_be_exported_writes_no_model(tmp_path, stack, monkeypatch):
    monkeypatch.setattr(
        learning, "export", lambda *args, **options: export(*args, **options, allowed_loss=-0.99)
    )
    with pytest.raises(ModelError, match="is lost"):
        tezip_h5.train(tmp_path / "model", stack, **TINY, say=print)
    assert listing(tmp_path / "model") == FLOAT_FILES | {"training.json"}


def test_the_same_seed_gives_the_same_weights(tmp_path, stack):
    first, second, other = (
        tezip_h5.train(tmp_path / name, stack, **TINY, seed=seed)
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert first.digest == second.digest != other.digest
    np.testing.assert_array_equal(weights_in(tmp_path / "a"), weights_in(tmp_path / "b"))


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_train_with_the_same_code(tmp_path, stack, backend, in_fresh_process):
    """JAX must be there where training is required; PyTorch is large, and taken if there is one."""
    if importlib.util.find_spec(backend) is None:
        if backend == "jax" and os.environ.get("TEZIP_REQUIRE_TRAINING"):
            pytest.fail("JAX is not installed, but TEZIP_REQUIRE_TRAINING is set")
        pytest.skip(f"{backend} is not installed")
    options = {**TINY, "architecture": None, "network": {"states": (4,), "targets": ()}}
    printed = in_fresh_process(
        f"""
        import sys, keras, tezip_h5
        print(keras.backend.backend(), "tensorflow" in sys.modules)
        args = {str(tmp_path / "model")!r}, {str(stack)!r}
        print(tezip_h5.train(*args, **{options}, say=lambda text: None).digest.hex())
        """,
        KERAS_BACKEND=backend,
        JAX_PLATFORMS="cpu",
    ).splitlines()
    assert printed[0] == f"{backend} False"
    assert tezip_h5.load_model(tmp_path / "model").digest.hex() == printed[1]
    history = history_in(tmp_path / "model")
    assert len(history) == 2
    assert history[1]["loss"] < history[0]["loss"] < 1.2


# --- interrupted ----------------------------------------------------------------------------


def test_an_interrupted_training_goes_on_as_if_nothing_had_been(tmp_path, stack):
    options = {**TINY, "epochs": 4, "validation": stack}
    whole = tezip_h5.train(tmp_path / "whole", stack, **options)
    said = []
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=3 + 3 + 2)
        early = tezip_h5.train(tmp_path / "parts", stack, **options, say=said.append)
    assert "interrupted" in said[0]
    assert len(history_in(tmp_path / "parts")) == 2
    assert tezip_h5.load_model(tmp_path / "parts").digest == early.digest
    assert listing(tmp_path / "parts") == FILES | {"unfinished"}
    said.clear()
    late = tezip_h5.train(tmp_path / "parts", stack, **options, say=said.append)
    assert said[0] == "going on after epoch 2"
    assert listing(tmp_path / "parts") == FILES
    np.testing.assert_array_equal(weights_in(tmp_path / "parts"), weights_in(tmp_path / "whole"))
    for ours, theirs in zip(
        history_in(tmp_path / "parts"), history_in(tmp_path / "whole"), strict=True
    ):
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
    assert late.digest == whole.digest


def test_interrupted_in_the_first_epoch_there_is_a_model(tmp_path, stack, monkeypatch):
    interrupt(monkeypatch, after=2)
    said = []
    model = tezip_h5.train(tmp_path / "model", stack, **TINY, say=said.append)
    assert "first epoch" in said[0]
    assert tezip_h5.load_model(tmp_path / "model").digest == model.digest
    assert listing(tmp_path / "model") == FILES - {"training.json"} | {"unfinished"}
    assert np.isfinite(weights_in(tmp_path / "model")).all()


def test_an_unfinished_training_of_another_network_is_refused(tmp_path, stack):
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=3 + 1)
        tezip_h5.train(tmp_path / "model", stack, **{**TINY, "epochs": 4})
    before = weights_in(tmp_path / "model")
    with h5py.File(tmp_path / "rgb.h5", "w") as file:
        file["data"] = blobs(3)
    options = {**TINY, "architecture": Architecture(3, (), (4,))}
    with pytest.raises(ModelError, match="unfinished training of another network"):
        tezip_h5.train(tmp_path / "model", tmp_path / "rgb.h5", **options)
    np.testing.assert_array_equal(weights_in(tmp_path / "model"), before)
    # A kill while it was saved: the state before; then nothing to go on from.
    for name, words in [
        ("unfinished/latest.weights.h5", "cannot be continued"),
        ("training.json", "damaged"),
        ("prednet_weights.hdf5", "no trained network"),
    ]:
        for path in (tmp_path / "model").glob(f"{name}*"):
            path.write_bytes(path.read_bytes()[:50])
        with pytest.raises(ModelError, match=words):
            tezip_h5.train(tmp_path / "model", stack, **{**TINY, "epochs": 4})


# --- what is refused ------------------------------------------------------------------------


def refused(tmp_path, stack):
    """Data and options that teach nothing, and what is said."""
    with h5py.File(tmp_path / "bad.h5", "w") as file:
        file["one"] = blobs(count=1)[..., 0]
        file["nan"] = np.full((6, 16, 16), np.nan, np.float32)
        file["infinite"] = np.full((6, 16, 16), -np.inf)
    bad = f"{tmp_path}/bad.h5"
    yield f"{bad}:/one", {}, "sequence of 1 frame"
    yield f"{bad}:/nan", {}, "nothing but NaN"
    yield f"{bad}:/infinite", {}, "nothing but NaN"
    yield [stack, f"{bad}:/nan"], {}, "nothing but NaN"
    yield tmp_path / "absent", {}, "does not exist"
    yield stack, {"validation": tmp_path / "absent"}, "does not exist"
    yield [], {}, "no data"
    yield stack, {"start": tmp_path / "absent"}, "no trained network"
    yield stack, {"epochs": 0}, "epochs"
    yield stack, {"steps": 0}, "steps"
    yield stack, {"patience": 0}, "patience"
    yield stack, {"rate": 0.0}, "learning rate"
    yield stack, {"rate": float("nan")}, "learning rate"
    yield stack, {"seed": -1}, "seed"
    yield stack, {"batch": 0}, "0 clips"
    yield stack, {"length": 1}, "1 frames"
    yield stack, {"side": 0}, "0 pixels"
    yield stack, {"scenes": 1.5}, "scenes"
    yield stack, {"symmetry": "some"}, "symmetry"
    yield stack, {"keep": 0.5}, "keep=0.5"
    yield stack, {"start": "default", "keep": 1.0}, "keep=1.0"
    yield stack, {"network": {"states": (4,)}}, "only one of them"
    yield stack, {"architecture": None, "network": {"states": (4,)}}, "no PredNet has the sizes"


def test_what_teaches_nothing_is_refused(tmp_path, stack):
    for data, changes, words in refused(tmp_path, stack):
        with pytest.raises(TezipError, match=words):
            tezip_h5.train(tmp_path / "model", data, **{**TINY, **changes})
        assert not (tmp_path / "model").exists()
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(InputError, match="is a file"):
        tezip_h5.train(tmp_path / "file", stack, **TINY)
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_missing_samples_are_no_obstacle(tmp_path):
    """Masked pixels and a frame that was lost: they count as the lowest value."""
    frames = blobs(dtype=np.float32)[..., 0] / 7 - 3
    frames[:, :3, :5], frames[4], frames[6, 7, 8] = np.nan, np.nan, np.inf
    with h5py.File(tmp_path / "floats.h5", "w") as file:
        file["data"] = frames
    model = tezip_h5.train(tmp_path / "model", tmp_path / "floats.h5", **TINY)
    assert np.isfinite(weights_in(tmp_path / "model")).all()
    assert model.digest == tezip_h5.load_model(tmp_path / "model").digest


def test_a_file_that_breaks_while_it_is_read_is_named(tmp_path, stack, monkeypatch):
    make, made = batching.Stack.clip, itertools.count(1)

    def clip(self, rng, length):
        if next(made) > 12 * 2 + 2:  # behind the validation's and the first batch
            raise InputError("blobs.h5 cannot be read")
        return make(self, rng, length)

    monkeypatch.setattr(batching.Stack, "clip", clip)
    with pytest.raises(InputError, match=r"^blobs.h5 cannot be read$"):
        tezip_h5.train(tmp_path / "model", stack, **TINY)
    assert not listing(tmp_path / "model") - {"unfinished", *FLOAT_FILES, "training.json"}


def test_a_full_disk_is_one_line(tmp_path, stack, small, monkeypatch, capsys):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "save", full)
    assert main(["train", str(tmp_path / "model"), str(stack), *FEW]) == 1
    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]
    assert listing(tmp_path / "model") <= {"training.json", "unfinished"}


def test_a_disk_without_room_for_an_epoch_is_known_before_it(tmp_path, monkeypatch):
    weights = {"a": (np.zeros(1000, np.float32), np.zeros(0, np.float32))}
    unfinished.require_space(tmp_path, weights)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=250_000))
    with pytest.raises(OSError, match="No space left on device"):
        unfinished.require_space(tmp_path, weights)


def test_a_training_goes_on_only_as_it_began(tmp_path):
    unfinished.go_on(tmp_path, {"rate": 1.0, "frames": [(3, 4)]})
    unfinished.go_on(tmp_path, {"rate": 1.0, "frames": [(3, 4)]})
    with pytest.raises(ModelError, match=r"began with rate 1.0, not 2.0; give another folder"):
        unfinished.go_on(tmp_path, {"rate": 2.0, "frames": [(3, 4)]})
    (tmp_path / "unfinished/begun.json").write_text("{")
    with pytest.raises(ModelError, match="is damaged"):
        unfinished.go_on(tmp_path, {"rate": 1.0})


def test_nothing_that_is_there_is_trained_over(tmp_path, stack):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/.DS_Store").touch()
    learning.require(tmp_path / "model", stack)
    (tmp_path / "model/prednet_weights.hdf5").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"holds prednet_weights.hdf5, which training would repl"):
        tezip_h5.train(tmp_path / "model", stack)
    assert (tmp_path / "model/prednet_weights.hdf5").read_bytes() == b"mine"
    for name in ("default", "none"):
        with pytest.raises(InputError, match="is no name for a model"):
            tezip_h5.train(name, stack)


@pytest.mark.parametrize("scale", [5e-324, 1e-44, 1e38, 1.5e308])
def test_any_range_of_floats_comes_to_the_grid(scale):
    frames = np.linspace(-1, 1, 24).reshape(2, 3, 4, 1) * scale
    clip = clip_of(frames, 0, 2, 1)
    assert clip.min() == 0
    assert clip.max() in (0, 4095)
    assert not clip_of(np.full((2, 3, 4, 1), scale), 0, 2, 1).any()
    with_gaps = np.where(np.arange(24).reshape(frames.shape) % 5, frames, np.nan)
    assert clip_of(with_gaps, 0, 2, 1).min() == 0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([-(2**63), 2**63 - 1, 0]), [0, 2**24 - 1, 2**23]),
        (np.array([0, 2**64 - 1, 2**63], "u8"), [0, 2**24 - 1, 2**23]),
        (np.array([-(2**31), 2**31 - 1, 0], "i4"), [0, 2**24 - 1, 2**23]),
        (np.array([5, 300, 7]), [0, 295, 2]),
        (np.array([False, True, True]), [0, 1, 1]),
    ],
)
def test_wide_integers_come_to_24_bits(values, expected):
    assert clip_of(values.reshape(3, 1, 1, 1), 0, 3, 1).ravel().tolist() == expected


def test_weights_beyond_all_integers_are_an_error():
    with pytest.raises(ModelError, match="train with smaller weights"):
        _convolution(np.full((3, 3, 1, 1), 1e30), np.zeros(1), np.ones(1), np.ones(1), np.zeros(1))


def test_many_names_are_cut_short():
    names = [types.SimpleNamespace(name=f"/home/me/s{n:02}/X_train.hkl:{n:02}") for n in range(25)]
    found = learning._names(names)
    assert found[:2] == ["X_train.hkl:00", "X_train.hkl:01"]
    assert found[20:] == ["and 5 more"]


def test_a_training_that_goes_astray_is_an_error(tmp_path, stack):
    with pytest.raises(ModelError, match="lower learning rate"):
        tezip_h5.train(tmp_path / "model", stack, **{**TINY, "rate": 1e38, "steps": 8})
    assert listing(tmp_path / "model") == set()


def test_training_begins_with_what_another_learned(trained, tmp_path, stack):
    folder, _, _ = trained
    options = {**TINY, "architecture": None, "epochs": 1, "steps": 1, "rate": 1e-9}
    tezip_h5.train(tmp_path / "model", stack, **options, start=folder)
    np.testing.assert_allclose(
        weights_in(tmp_path / "model"), weights_in(folder), rtol=0, atol=1e-6
    )
    with h5py.File(tmp_path / "rgb.h5", "w") as file:
        file["data"] = blobs(3)
    with pytest.raises(ModelError, match=r"is for 1 channel\(s\), the data have 3"):
        tezip_h5.train(tmp_path / "rgb", tmp_path / "rgb.h5", **options, start=folder)
    assert not (tmp_path / "rgb").exists()


def test_training_begins_with_the_model_that_ships(tmp_path, stack):
    options = {**TINY, "architecture": None, "epochs": 1, "steps": 1, "rate": 1e-9}
    model = tezip_h5.train(tmp_path / "model", stack, **options, start="default")
    assert model.architecture == store.default(1).architecture
    assert model.provenance["trained with"]["start"] == "default"
    expected = [part.ravel() for pair in floating(store.default(1)).values() for part in pair]
    found = weights_in(tmp_path / "model")
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=0, atol=1e-6)
    with h5py.File(tmp_path / "four.h5", "w") as file:
        file["data"] = blobs(4)
    with pytest.raises(ModelError, match="no model for 4 channels ships"):
        tezip_h5.train(tmp_path / "four", tmp_path / "four.h5", **options, start="default")


def test_what_was_learnt_by_heart_is_averaged_with_what_it_began_with(trained, tmp_path, stack):
    folder, _, _ = trained
    options = {**TINY, "architecture": None, "epochs": 1, "start": folder}
    tezip_h5.train(tmp_path / "new", stack, **options, keep=0.0)
    model = tezip_h5.train(tmp_path / "mixed", stack, **options, keep=0.25)
    expected = 0.25 * weights_in(folder) + 0.75 * weights_in(tmp_path / "new")
    found = weights_in(tmp_path / "mixed")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert np.abs(found - weights_in(folder)).max() > 1e-4
    assert model.provenance["trained with"]["keep"] == 0.25
    better, worse = {"loss": 0.7, "validation": 0.8}, {"loss": 0.9, "validation": 0.85}
    assert learning._share_kept([worse, better]) == 0.5  # that is the best epoch
    assert learning._share_kept([worse]) == 0.0
    assert learning._share_kept([]) == 0.0


def test_the_network_has_the_channels_of_the_data(tmp_path):
    channels = 4
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["data"] = blobs(channels)
    options = {**TINY, "architecture": None, "epochs": 1, "steps": 1}
    model = tezip_h5.train(tmp_path / "model", tmp_path / "data.h5", **options)
    assert model.architecture.channels == channels
    frames = blobs(channels)
    tezip_h5.write(frames, tmp_path / "run.h5", model=model, predictor="prednet", coder="stages")
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "run.h5"), frames)


# --- the command line -----------------------------------------------------------------------


def training_data(folder, channels=3):
    """The original's four files: two sequences to learn from, one for validation."""
    folder.mkdir()
    for part, names in (("train", ["a"] * 7 + ["b"] * 7), ("val", ["v"] * 7)):
        frames = blobs(channels, count=len(names))
        with hickle.ArrayWriter(folder / f"X_{part}.hkl", frames.shape) as out:
            out.append(frames)
        hickle.write_names(folder / f"sources_{part}.hkl", names)
    return folder


def compressed(path):
    tezip_h5.write(blobs()[..., 0], path, absolute=1, level="fast")
    return path


@pytest.mark.parametrize("source", ["plain", "compressed", "inside", "both", "hkl"])
def test_the_command_line_trains(tmp_path, stack, small, source, capsys):
    data = {
        "plain": lambda: [stack],
        "compressed": lambda: [compressed(tmp_path / "run.h5")],
        "inside": lambda: [f"{compressed(tmp_path / 'run.h5')}:/scan"],
        "both": lambda: [stack, compressed(tmp_path / "run.h5")],
        "hkl": lambda: [training_data(tmp_path / "hkl", channels=1)],
    }[source]()
    args = ["train", str(tmp_path / "model"), *map(str, data), *FEW, "-f", "-v"]
    assert main(args) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "CPU MODE"
    assert [line.split(":")[0] for line in printed[1:-1]] == ["epoch 1"]
    assert listing(tmp_path / "model") == FILES
    assert main(["model", "show", str(tmp_path / "model")]) == 0
    assert "trained on" in capsys.readouterr().out


def test_the_command_line_chooses_the_network(tmp_path, stack, capsys):
    args = ["train", str(tmp_path / "model"), str(stack), *FEW, "--side", "16", "--batch", "2"]
    args += ["--states", "3", "5", "--patch", "1", "--length", "3", "--scenes", "0"]
    assert main([*args, "--no-skip", "--symmetry", "turns", "--patience", "3"]) == 0
    model = tezip_h5.load_model(tmp_path / "model")
    assert model.architecture == Architecture(1, (5,), (3, 5), patch=1, skip=False)
    assert model.provenance["trained with"] == {
        "start": "nothing", "keep": 0.0, "seed": 0, "steps": 2, "rate": 2e-3,
        "batch": 2, "length": 3, "side": 16, "scenes": 0.0, "symmetry": "turns",
    }  # fmt: skip
    capsys.readouterr()
    args[1] = str(tmp_path / "another")
    assert main([*args, "--targets", "1", "2"]) == 1
    assert "one state more than targets" in capsys.readouterr().err


def test_the_manuals_learning(tmp_path, small, capsys):
    data = training_data(tmp_path / "train_data", channels=1)
    assert legacy.main(["-l", str(tmp_path / "model"), str(data)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{cli_train.mode(force=False)}\ntrain mode\n")
    assert "epoch" not in printed
    assert listing(tmp_path / "model") == FILES


@pytest.mark.parametrize(("gpus", "said"), [([], "CPU MODE"), (["gpu:0"], "GPU MODE")])
def test_the_mode_is_what_keras_sees(monkeypatch, gpus, said):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind: gpus)
    assert cli_train.mode(force=False) == said


def test_force_hides_gpus_before_keras_looks(in_fresh_process):
    printed = in_fresh_process(
        """
        import os
        from tezip_h5.cli.train import mode
        print(mode(force=True), os.environ["CUDA_VISIBLE_DEVICES"])
        """,
        CUDA_VISIBLE_DEVICES="0",
    )
    assert printed == "CPU MODE -1\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["absent.h5"], "does not exist"),
        (["one.h5"], "holds no stack"),
        (["one.h5:/data"], "sequence of 1 frame"),
        (["blobs.h5", "--epochs", "0"], "epochs"),
        (["blobs.h5", "--start", "absent"], "no trained network"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, stack, monkeypatch, args, words, capsys):
    monkeypatch.chdir(tmp_path)
    with h5py.File("one.h5", "w") as file:
        file["data"] = blobs(count=1)[..., 0]
    assert main(["train", "model", *args]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tezip-h5: ")
    assert words in line
    assert not (tmp_path / "model").exists()
