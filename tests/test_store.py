"""Models that are missing, damaged, foreign or dishonest: each is refused, and says why."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
from models import random_model, random_weights

import tezip_h5
from tezip_h5 import ModelError, Settings
from tezip_h5.cli import main
from tezip_h5.efforts import EFFORTS
from tezip_h5.errors import DamagedModelError
from tezip_h5.hdf5.contents import networks
from tezip_h5.hdf5.writing import choices, steps
from tezip_h5.model import embedding, store, weights
from tezip_h5.prediction.architecture import Architecture
from tezip_h5.prediction.integer import IntegerModel

ARCHITECTURE = Architecture(1, (4,), (3, 5))


@pytest.fixture
def model():
    return random_model(ARCHITECTURE, seed=11)


@pytest.fixture
def moving():
    """uint8 (6, 16, 24)"""
    t, y, x = np.indices((6, 16, 24))
    return (120 + 60 * np.sin((x + 2 * t) / 5) + 40 * np.cos(y / 4)).astype(np.uint8)


def rewritten(file, model, part, change):
    """Store an embedded model's array anew, as another type."""
    path = f"{embedding.MODELS}/{model.digest.hex()}/{part}"
    array = change(file[path][()])
    del file[path]
    file[path] = array


# --- integer models -------------------------------------------------------------------------


def test_a_model_that_predicts_otherwise_than_it_states_is_refused(tmp_path, model, moving):
    liar = replace(model, conformance=model.conformance + 1)
    (tmp_path / "liar.tzm").write_bytes(liar.to_bytes())
    for use in (
        lambda: tezip_h5.load_model(tmp_path / "liar.tzm"),
        lambda: store.register(liar),
        lambda: tezip_h5.write(moving, tmp_path / "run.h5", model=liar),
    ):
        with pytest.raises(ModelError, match="predicts something else here"):
            use()
    assert not (tmp_path / "run.h5").exists()


def test_a_model_whose_stated_bounds_are_not_its_own_is_refused(model):
    arrays = model.arrays()
    arrays["gates0/bound"] = arrays["gates0/bound"] - 1
    with pytest.raises(ModelError, match="bounds are not those the model states"):
        IntegerModel.from_arrays(model.description, arrays)


def test_a_model_whose_accumulators_may_overflow_is_refused(model):
    arrays = model.arrays()
    arrays["gates0/kernel"] = arrays["gates0/kernel"].astype("<i4") * 1000
    with pytest.raises(ModelError, match="below 16777216 it would be exact"):
        IntegerModel.from_arrays(model.description, arrays)


def test_a_model_under_anothers_digest_is_refused(tmp_path, model):
    other = random_model(ARCHITECTURE, seed=12)
    data = model.to_bytes()
    (tmp_path / "model.tzm").write_bytes(data[:4] + other.digest + data[36:])
    with pytest.raises(ModelError, match=f"digest is {model.digest.hex()}"):
        tezip_h5.load_model(tmp_path / "model.tzm")


@pytest.mark.parametrize("size", [0, 3, 30, 300])
def test_truncated_model_files_are_refused(tmp_path, model, moving, size, capsys):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / store.INTEGER_FILE).write_bytes(model.to_bytes()[:size])
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["x"] = moving
    code = 1 if size < 4 else 2  # it does not begin as a model, or is a damaged one
    compressing = ["compress", str(folder), f"{tmp_path}/in.h5:/x", f"{tmp_path}/out.h5"]
    for command in (compressing, ["model", "show", str(folder / store.INTEGER_FILE)]):
        assert main(command) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert "integer model" in line
        assert str(folder / store.INTEGER_FILE) in line
    assert not (tmp_path / "out.h5").exists()


def test_a_large_file_that_is_no_model_is_not_read(tmp_path, moving, capsys):
    with open(tmp_path / "huge.h5", "wb") as file:
        file.truncate(1 << 42)
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["x"] = moving
    huge = str(tmp_path / "huge.h5")
    assert main(["model", "show", huge]) == 1
    assert "no HDF5 file" in capsys.readouterr().err
    assert main(["compress", huge, f"{tmp_path}/in.h5:/x", f"{tmp_path}/out.h5"]) == 1
    assert "no integer model" in capsys.readouterr().err


def test_a_large_file_that_begins_as_a_model(tmp_path, model, monkeypatch):
    monkeypatch.setattr(store, "MAX_BYTES", 1 << 20)  # of what is read
    with open(tmp_path / "huge.tzm", "wb") as file:
        file.write(model.to_bytes()[:50])
        file.truncate(1 << 42)
    with pytest.raises(DamagedModelError, match=r"huge\.tzm"):
        tezip_h5.load_model(tmp_path / "huge.tzm")


def test_the_search_passes_over_what_is_no_model(tmp_path, model, monkeypatch):
    (tmp_path / "a.tzm").symlink_to(tmp_path / "gone")
    (tmp_path / "b.tzm").mkdir()
    (tmp_path / "c.tzm").touch()
    (tmp_path / "d.tzm").write_bytes(model.to_bytes())
    monkeypatch.setenv(store.SEARCH_PATH, str(tmp_path))
    monkeypatch.setattr(store, "_registered", {})
    assert store.find(model.digest).digest == model.digest


def test_a_model_for_other_channels_is_refused(tmp_path, model, moving):
    colour = np.repeat(moving[..., None], 3, 3)
    for options in ({}, {"predictor": "prednet"}, {"level": "best"}):
        with pytest.raises(ModelError, match=r"is for frames of 1 channel\(s\), these have 3"):
            tezip_h5.write(colour, tmp_path / "run.h5", model=model, **options)
    with pytest.raises(ModelError, match="has none for 2 channels"):
        tezip_h5.write(colour[..., :2], tmp_path / "run.h5", predictor="prednet")
    assert not (tmp_path / "run.h5").exists()


PARTS = ["a1/bias", "gates0/shift", "ahat0/bound", "tables/tanh_cell", "conformance", "description"]


def spoil(file, digest, part):
    """Change one bit of an embedded model."""
    group = file[f"tezip/models/{digest.hex()}"]
    if part == "description":
        text = group[part][()].replace(b"provenance", b"provenancd")
        del group[part]
        group[part] = text
    else:
        data = group[part][()]
        data.reshape(-1)[0] ^= 1
        group[part][...] = data


@pytest.mark.parametrize("part", PARTS)
def test_one_bit_of_an_embedded_model_is_damage(tmp_path, model, part):
    with h5py.File(tmp_path / "run.h5", "w") as file:
        embedding.embed(file, model)
        spoil(file, model.digest, part)
    with (
        h5py.File(tmp_path / "run.h5") as file,
        pytest.raises(DamagedModelError, match=r"embedded in .*run\.h5.*damaged"),
    ):
        embedding.read(file, model.digest)
    assert main(["model", "show", str(tmp_path / "run.h5")]) == 2


@pytest.mark.parametrize("part", PARTS)
def test_one_bit_of_an_embedded_model(tmp_path, model, moving, part, no_fallback, in_fresh_process):
    path = tmp_path / "run.h5"
    tezip_h5.write(moving, path, model=model, predictor="prednet", coder="stages")
    with h5py.File(path, "r+") as file:
        spoil(file, model.digest, part)
    printed = in_fresh_process(
        f"""
        import tezip_h5
        try:
            tezip_h5.read({str(path)!r})
        except tezip_h5.ModelError as error:
            print("refused:", error)
        """
    )
    assert "refused:" in printed


def test_no_other_numbers_go_by_a_models_digest(tmp_path, model):
    """What is digested is integers: 0.25 more would not show."""
    for part, change in [
        ("gates0/kernel", lambda kernel: kernel + 0.25 * (kernel == 0)),
        ("gates0/kernel", lambda kernel: kernel.astype("i8")),
        ("gates0/shift", lambda shift: shift.astype("i2")),
        ("conformance", lambda frames: np.array(["x"] * len(frames), "S1")),
    ]:
        with h5py.File(tmp_path / "x.h5", "w") as file:
            embedding.embed(file, model)
            rewritten(file, model, part, change)
            with pytest.raises(DamagedModelError, match="is damaged"):
                embedding.read(file, model.digest)


def test_what_is_no_model_among_the_embedded(tmp_path, model):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = embedding.embed(file, model)
        file[f"{embedding.MODELS}/notes"] = 1
        assert embedding.embedded(file) == [model.digest]
        huge = group.create_dataset("huge", (1 << 33,), "u1", chunks=(1 << 20,))  # takes no room
        with pytest.raises(DamagedModelError, match="huge makes it larger than"):
            embedding.read(file, model.digest)
        del group["huge"], huge
        group["again"] = group
        group["description"][()] = "[" * 100_000
        with pytest.raises(DamagedModelError, match="is damaged"):
            embedding.read(file, model.digest)
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file[embedding.MODELS] = 1
        assert embedding.embedded(file) == []


def test_another_open_file_may_have_what_is_damaged_in_one(tmp_path, monkeypatch):
    other = random_model(ARCHITECTURE, seed=12)
    with h5py.File(tmp_path / "x.h5", "w") as damaged, h5py.File(tmp_path / "y.h5", "w") as sound:
        embedding.embed(damaged, other)
        rewritten(damaged, other, "conformance", lambda frames: frames + 0.5)
        monkeypatch.setattr(store, "_registered", {})
        monkeypatch.setattr(embedding, "open_files", lambda: [damaged, sound])
        with pytest.raises(DamagedModelError, match=r"x.h5"):
            store.find(other.digest)
        embedding.embed(sound, other)
        assert store.find(other.digest).digest == other.digest


@pytest.mark.parametrize("missing", ["a1/bias", "tables/tanh_cell", "conformance", "description"])
def test_an_embedded_model_that_lacks_a_part(tmp_path, model, missing):
    with h5py.File(tmp_path / "run.h5", "w") as file:
        del embedding.embed(file, model)[missing]
        with pytest.raises(ModelError):
            embedding.read(file, model.digest)


# --- floating-point networks, as training keeps them --------------------------------------------


@pytest.fixture
def folder(tmp_path):
    weights.save(tmp_path, ARCHITECTURE, random_weights(ARCHITECTURE))
    return tmp_path


def test_weights_come_back(folder):
    architecture, found = weights.load(folder)
    assert architecture == ARCHITECTURE
    for name, pair in random_weights(ARCHITECTURE).items():
        for expected, value in zip(pair, found[name], strict=True):
            np.testing.assert_array_equal(value, expected)
    assert sorted(p.name for p in folder.iterdir()) == [weights.MODEL_FILE, weights.WEIGHTS_FILE]


def test_a_folder_without_its_integer_model_says_what_to_do(folder):
    with pytest.raises(ModelError, match=r"did not come to its end.*call tezip-h5 train"):
        tezip_h5.load_model(folder)
    (folder / weights.WEIGHTS_FILE).unlink()
    with pytest.raises(ModelError, match="give a folder that training made"):
        tezip_h5.load_model(folder)


@pytest.mark.parametrize("name", [weights.MODEL_FILE, weights.WEIGHTS_FILE])
@pytest.mark.parametrize("size", [None, 0, 20, 100])
def test_missing_and_truncated_weights_are_refused(folder, name, size):
    data = (folder / name).read_bytes()
    (folder / name).unlink()
    if size is not None:
        (folder / name).write_bytes(data[:size])
    with pytest.raises(ModelError):
        weights.load(folder)


def test_weights_of_another_shape_are_refused(folder):
    (folder / weights.MODEL_FILE).write_text(Architecture(1, (4,), (3, 6)).to_json())
    with pytest.raises(ModelError, match=r"holds weights of shape .* its architecture has"):
        weights.load(folder)
    (folder / weights.MODEL_FILE).write_text(Architecture(1, (4, 4), (3, 5, 5)).to_json())
    with pytest.raises(ModelError, match="no trained network"):
        weights.load(folder)


def test_weights_that_are_not_finite_are_refused(folder):
    found = random_weights(ARCHITECTURE)
    found["a1"][1][2] = np.nan
    weights.save(folder, ARCHITECTURE, found)
    with pytest.raises(ModelError, match="a1 that are not finite"):
        weights.load(folder)


def test_an_architecture_of_something_else_is_refused(folder):
    (folder / weights.MODEL_FILE).write_text(json.dumps({"class_name": "Model", "config": {}}))
    with pytest.raises(ModelError, match="no architecture"):
        weights.load(folder)


def test_a_disk_that_is_full_keeps_the_weights_that_were_there(folder, monkeypatch):
    before = (folder / weights.WEIGHTS_FILE).read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights.np, "asarray", full)
    with pytest.raises(OSError, match="No space"):
        weights.save(folder, ARCHITECTURE, random_weights(ARCHITECTURE, seed=1))
    assert (folder / weights.WEIGHTS_FILE).read_bytes() == before


# --- what embedding costs -------------------------------------------------------------------


@pytest.fixture(scope="module")
def foreign():
    """A network that predicts well, but does not ship: the one that does, under another name."""
    shipped = store.default(1)
    return store.register(replace(shipped, provenance={"from": "a test"}))


@pytest.fixture(scope="module")
def drifting():
    """uint8 (16, 44, 38), a stack that this network predicts better than the frame before."""
    t, y, x = np.indices((16, 44, 38))
    frames = 120 + 60 * np.sin((x + 0.7 * t) / 4) * np.cos((y - t) / 6)
    return (frames + np.random.default_rng(0).normal(0, 1, t.shape)).astype(np.uint8)


def test_the_size_of_an_embedded_model(tmp_path, foreign):
    sizes = []
    for models in ([], [foreign]):
        with h5py.File(tmp_path / "file.h5", "w") as file:
            for model in models:
                embedding.embed(file, model)
        sizes.append((tmp_path / "file.h5").stat().st_size)
    assert embedding.size(foreign) == pytest.approx(sizes[1] - sizes[0], abs=4096)
    assert embedding.size(foreign) >= len(foreign.to_bytes())


def written(path, frames, model):
    tezip_h5.write(frames, path, model=model, coder="mixing", preview=False)
    with h5py.File(path) as file:
        return (
            path.stat().st_size,
            "tezip/models" in file,
            int(file["scan"].attrs["network_chunks"]),
        )


def test_a_file_is_not_larger_for_a_model_that_did_not_pay(
    tmp_path, drifting, foreign, monkeypatch
):
    """The first chunks promised savings that did not come: all is written without the model."""
    eager = replace(EFFORTS["balanced"], tries_shipped_network=True)
    monkeypatch.setitem(EFFORTS, "balanced", eager)
    without = written(tmp_path / "without.h5", drifting, None)
    assert written(tmp_path / "ships.h5", drifting, "default")[2] == 1  # as a network, it pays
    assert written(tmp_path / "own.h5", drifting, foreign) == without
    monkeypatch.setattr(choices.NetworkChoice, "_worth_embedding", lambda self, saved: True)
    assert written(tmp_path / "regretted.h5", drifting, foreign) == without
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "regretted.h5"), drifting)
    # An iterator cannot be read again; and who asks for the model gets it.
    size, has_model, chunks = written(tmp_path / "once.h5", iter(drifting), foreign)
    assert (has_model, chunks) == (True, 1)
    assert size > without[0]
    options = {"coder": "stages", "embed_model": True}
    tezip_h5.write(drifting, tmp_path / "asked.h5", model=foreign, **options)
    with h5py.File(tmp_path / "asked.h5") as file:
        assert "tezip/models" in file


def test_where_the_network_that_ships_is_tried(foreign):
    """At `best`, or pinned. `balanced` tries one of the user's own, however it is named."""
    shipped, own = store.default(1), foreign
    assert networks.model_to_try(Settings(level="best"), 1) is shipped
    assert networks.model_to_try(Settings(predictor="prednet"), 1) is shipped
    for model in ("default", shipped.digest.hex()):
        assert networks.model_to_try(Settings(model=model), 1) is None
    assert networks.model_to_try(Settings(model=own.digest.hex()), 1) is own
    assert networks.model_to_try(Settings(model=own.digest.hex(), level="fast"), 1) is None


@pytest.mark.parametrize("level", ["fast", "balanced"])
def test_recompressing_tries_no_network_that_its_level_does_not(
    tmp_path, drifting, monkeypatch, level
):
    """Chunks that a network predicted may be kept nevertheless, and keep their link to it."""
    options = {"predictor": "prednet", "level": "best", "coder": "mixing"}
    tezip_h5.write(drifting, tmp_path / "old.h5", **options)
    monkeypatch.setattr(steps, "network_saving", None)
    tezip_h5.recompress(tmp_path / "old.h5", tmp_path / "new.h5", level=level)
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "new.h5"), drifting)
    with h5py.File(tmp_path / "new.h5") as file:
        assert file["scan"].attrs["network_chunks"] == 1
