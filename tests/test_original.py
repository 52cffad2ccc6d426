"""Networks that the original TEZip trained: read without Keras, exported, used."""

import json

import h5py
import numpy as np
import pytest
from models import random_weights

import tezip_h5
from tezip_h5 import ModelError
from tezip_h5.cli import main
from tezip_h5.model import original, store
from tezip_h5.model.export import judge
from tezip_h5.prediction.architecture import Architecture

ARCHITECTURE = Architecture(3, (4, 6), (3, 4, 6), patch=1, skip=False)


@pytest.fixture
def weights():
    return random_weights(ARCHITECTURE, gain=0.5, seed=5)


@pytest.fixture
def frames():
    """uint8 (5, 24, 32, 3), a smooth pattern that moves."""
    t, y, x, c = np.indices((5, 24, 32, 3))
    return (120 + 60 * np.sin((x + 2 * t) / 5) + 40 * np.cos(y / 4 + c)).astype(np.uint8)


def save(folder, weights, *, text=np.bytes_, root=None, **changes):
    """The files that Keras 2.2 writes for the original's model."""
    folder.mkdir()
    stack = (ARCHITECTURE.channels, *ARCHITECTURE.targets)
    config = {
        "name": "prednet_1",
        "stack_sizes": list(stack),
        "R_stack_sizes": list(ARCHITECTURE.states),
        "A_filt_sizes": [3, 3],
        "Ahat_filt_sizes": [3, 3, 3],
        "R_filt_sizes": [3, 3, 3],
        "pixel_max": 1.0,
        "error_activation": "relu",
        "A_activation": "relu",
        "LSTM_activation": "tanh",
        "LSTM_inner_activation": "hard_sigmoid",
        **changes,
    }
    layers = [
        {"class_name": "InputLayer", "config": {"name": "input_1"}},
        {"class_name": "PredNet", "config": config},
        {"class_name": "TimeDistributed", "config": {"name": "time_distributed_1"}},
    ]
    document = {"class_name": "Model", "config": {"layers": layers}, "keras_version": "2.2.4"}
    (folder / "prednet_model.json").write_text(json.dumps(document))
    ordered = [(f"a_{n}", weights[f"a{n + 1}"]) for n in range(2)]
    ordered += [(f"ahat_{n}", weights[f"ahat{n}"]) for n in range(3)]
    for gate, place in (("c", 2), ("f", 1), ("i", 0), ("o", 3)):
        for n in range(3):
            parts = [np.split(part, 4, -1)[place] for part in weights[f"gates{n}"]]
            ordered.append((f"{gate}_{n}", parts))
    with h5py.File(folder / "prednet_weights.hdf5", "w") as file:
        group = file.create_group(root) if root else file
        group.attrs["layer_names"] = np.array(
            [text(n) for n in ("input_1", "prednet_1", "time_distributed_1")],
            dtype=None if text is np.bytes_ else h5py.string_dtype(),
        )
        names = []
        layer = group.create_group("prednet_1")
        for name, (kernel, bias) in ordered:
            for part, values in (("kernel", kernel), ("bias", bias)):
                path = f"prednet_1/layer_{name}/{part}:0"
                layer[path] = values
                names.append(path)
        kind = None if text is np.bytes_ else h5py.string_dtype()
        layer.attrs["weight_names"] = np.array([text(n) for n in names], dtype=kind)
        group.create_group("input_1").attrs["weight_names"] = np.zeros(0, "S1")
        # The layer that averages errors over layers and time has weights too, of rank 2.
        last = group.create_group("time_distributed_1")
        last["time_distributed_1/kernel:0"] = np.ones((3, 1), np.float32)
        last.attrs["weight_names"] = np.array([b"time_distributed_1/kernel:0"])
    return folder


@pytest.mark.parametrize("text", [np.bytes_, str])
@pytest.mark.parametrize("root", [None, "model_weights"])
def test_weights_come_in_the_originals_order(tmp_path, weights, text, root):
    folder = save(tmp_path / "model", weights, text=text, root=root)
    assert original.is_original(folder)
    architecture, found = original.load(folder)
    assert architecture == ARCHITECTURE
    assert set(found) == set(weights)
    for name, pair in weights.items():
        for expected, value in zip(pair, found[name], strict=True):
            np.testing.assert_array_equal(value, expected)


def test_imported_it_predicts_as_it_did(tmp_path, weights, frames):
    model = store.load(save(tmp_path / "model", weights), lambda: frames)
    exact, floating, _ = judge(model, weights, [frames])
    assert exact == pytest.approx(floating, rel=0.02)


def test_it_compresses(tmp_path, weights, frames, in_fresh_process):
    folder = save(tmp_path / "model", weights)
    path = tmp_path / "run.h5"
    tezip_h5.write(frames, path, model=folder, predictor="prednet", coder="stages", verify=True)
    out = in_fresh_process(f"import tezip_h5; print(int(tezip_h5.read({str(path)!r}).sum()))")
    assert int(out) == int(frames.sum())


def test_the_command_line_imports_it(tmp_path, weights, frames, capsys):
    folder = save(tmp_path / "model", weights)
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        file["x"] = frames
    assert main(["model", "import", str(folder), f"{tmp_path}/frames.h5:/x"]) == 0
    assert main(["model", "show", str(folder)]) == 0
    assert "imported" in capsys.readouterr().out
    assert (folder / store.INTEGER_FILE).is_file()


def test_imported_again_it_is_calibrated_again(tmp_path, weights, frames, capsys):
    folder = save(tmp_path / "model", weights)
    np.save(tmp_path / "dark.npy", frames // 8)
    np.save(tmp_path / "right.npy", frames)
    (folder / store.INTEGER_FILE).write_bytes(b"damaged")
    made = []
    for name in ("dark", "right", "right"):
        assert main(["model", "import", str(folder), f"{tmp_path}/{name}.npy"]) == 0
        made.append((folder / store.INTEGER_FILE).read_bytes())
    assert made[0] != made[1] == made[2]
    assert main(["model", "import", str(folder), str(tmp_path / "gone")]) == 1
    assert "gone" in capsys.readouterr().err
    assert (folder / store.INTEGER_FILE).read_bytes() == made[1]


def test_without_frames_it_says_what_to_do(tmp_path, weights):
    with pytest.raises(ModelError, match="model import"):
        store.load(save(tmp_path / "model", weights))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"A_filt_sizes": [5, 3]}, "sides"),
        ({"LSTM_activation": "relu"}, "LSTM_activation"),
        ({"stack_sizes": [3, 4, 7]}, "shape"),
        ({"R_stack_sizes": [3, 4]}, "no PredNet has the sizes"),
    ],
)
def test_other_networks_are_refused(tmp_path, weights, changes, words):
    folder = save(tmp_path / "model", weights, **changes)
    with pytest.raises(ModelError, match=words):
        original.load(folder)


def test_damaged_files_are_refused(tmp_path, weights, frames):
    folder = save(tmp_path / "model", weights)
    data = (folder / "prednet_weights.hdf5").read_bytes()
    (folder / "prednet_weights.hdf5").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="no weights"):
        store.load(folder, lambda: frames)
    (folder / "prednet_weights.hdf5").write_bytes(data)
    (folder / "prednet_model.json").write_text("{}")
    with pytest.raises(ModelError, match="no PredNet"):
        store.load(folder, lambda: frames)


def test_weights_that_are_not_finite_are_refused(tmp_path, weights, frames):
    kernel, bias = weights["a1"]
    folder = save(tmp_path / "model", weights | {"a1": (kernel * np.nan, bias)})
    with pytest.raises(ModelError, match="not finite"):
        store.load(folder, lambda: frames)
    assert not (folder / store.INTEGER_FILE).exists()
