"""The integer PredNet: exact everywhere, near the float one, refused when it is not sound."""

from functools import partial

import h5py
import numpy as np
import pytest
from models import random_model, random_weights

from tezip_h5 import FormatError, ModelError, codec
from tezip_h5.bounds import ErrorBound
from tezip_h5.model.export import export, judge
from tezip_h5.prediction.architecture import ORIGINAL, Architecture, to_patches, to_pixels
from tezip_h5.prediction.integer import ACCUMULATOR, Convolution, IntegerModel
from tezip_h5.prediction.prednet import PredNet
from tezip_h5.prediction.reference import Reference, conformance, rescale
from tezip_h5.settings import Settings

ARCHITECTURES = [
    Architecture(),
    Architecture(1, (), (6,), patch=1),
    Architecture(1, (5,), (3, 7), patch=4),
    Architecture(3, (6, 5), (4, 5, 6)),
    Architecture(2, (9,), (2, 3), patch=1, skip=False),
    Architecture(3, (6, 9), (3, 6, 9), patch=1, skip=False),
]


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
@pytest.mark.parametrize(
    ("top", "offset", "shift"), [(255, 0, 0), (65535, 1000, 7), (9, 0, -4), (2**30, -5, 20)]
)
def test_the_kernels_are_the_definition(architecture, top, offset, shift):
    rng = np.random.default_rng(3)
    model = random_model(architecture)
    shape = (architecture.channels, 37, 21)
    predictors = [make(model, shape, top, offset, shift) for make in (Reference, PredNet)]
    most = min(top, int(offset + 255 * 2.0**shift)) + 1
    for _ in range(4):
        frame = rng.integers(0, most, shape).astype(np.int32)
        for predictor in predictors:
            predictor.observe(frame)
        expected, found = (predictor.predict() for predictor in predictors)
        np.testing.assert_array_equal(found, expected)
        assert expected.min() >= 0
        assert expected.max() <= top


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (8, 8), (7, 9)])
def test_any_frame_size(shape):
    model = random_model(Architecture(1, (4,), (3, 5)))
    frames = np.random.default_rng(0).integers(0, 256, (3, 1, *shape)).astype(np.int32)
    a, b = (make(model, (1, *shape), 255, 0, 0) for make in (Reference, PredNet))
    for frame in frames:
        a.observe(frame)
        b.observe(frame)
        np.testing.assert_array_equal(a.predict(), b.predict())


def test_extreme_frames_stay_exact():
    """Accumulators at their limits: the proof, not luck, keeps float32 exact."""
    architecture = Architecture(1, (4,), (6, 6))
    model = random_model(architecture, gain=40.0)
    assert max(conv.bounds.max() for conv in model.convolutions.values()) > ACCUMULATOR // 2
    a, b = (make(model, (1, 16, 16), 255, 0, 0) for make in (Reference, PredNet))
    rng = np.random.default_rng(1)
    for _ in range(6):
        frame = rng.choice([0, 255], (1, 16, 16)).astype(np.int32)
        a.observe(frame)
        b.observe(frame)
        np.testing.assert_array_equal(a.predict(), b.predict())


def test_the_originals_size_is_exact_too():
    model = random_model(ORIGINAL)
    frame = np.random.default_rng(0).integers(0, 256, (3, 16, 24)).astype(np.int32)
    a, b = (make(model, frame.shape, 255, 0, 0) for make in (Reference, PredNet))
    for _ in range(2):
        a.observe(frame)
        b.observe(frame)
    np.testing.assert_array_equal(a.predict(), b.predict())


@pytest.mark.parametrize("threads", [2, 3, 64])
def test_threads_do_not_matter(threads):
    model = random_model(Architecture(1, (4,), (6, 6)))
    frames = np.random.default_rng(2).integers(0, 256, (3, 1, 130, 150)).astype(np.int32)
    alone, together = (PredNet(model, frames[0].shape, 255, 0, 0) for _ in range(2))
    together.threads = threads
    for frame in frames:
        alone.observe(frame)
        together.observe(frame)
        np.testing.assert_array_equal(alone.predict(), together.predict())


def test_rescale_rounds_half_up():
    values = np.array([-3, -2, -1, 0, 1, 2, 3])
    np.testing.assert_array_equal(rescale(values, 1), [-1, -1, 0, 0, 1, 1, 2])
    np.testing.assert_array_equal(rescale(values, 0), values)
    np.testing.assert_array_equal(rescale(values, -2), 4 * values)


def test_patches_and_back():
    x = np.arange(2 * 8 * 12).reshape(2, 8, 12)
    np.testing.assert_array_equal(to_pixels(to_patches(x, 4), 4), x)
    np.testing.assert_array_equal(to_patches(x, 2)[:, 0, 0], [0, 96, 1, 97, 12, 108, 13, 109])


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_integers_predict_as_well_as_floats(architecture):
    """On smooth moving frames the rounding costs next to nothing."""
    weights = random_weights(architecture, gain=0.5)
    t, y, x, c = np.indices((5, 24, 32, architecture.channels))
    frames = (120 + 60 * np.sin((x + 2 * t) / 5) + 40 * np.cos(y / 4 + c)).astype(np.int64)
    model = export(architecture, weights, [frames], clipped=False, allowed_loss=0.02)
    exact, floating, _ = judge(model, weights, [frames])
    assert exact == pytest.approx(floating, rel=0.02)


# --- models that are not sound --------------------------------------------------------


def test_export_refuses_nan_and_foreign_shapes():
    architecture = Architecture(1, (4,), (3, 5))
    weights = random_weights(architecture)
    frames = np.zeros((2, 8, 8, 1), np.int64)
    kernel, bias = weights["a1"]
    with pytest.raises(ModelError, match="not finite"):
        export(architecture, weights | {"a1": (kernel * np.nan, bias)}, [frames])
    with pytest.raises(ModelError, match="shape"):
        export(architecture, weights | {"a1": (kernel[..., 1:], bias)}, [frames])
    with pytest.raises(ModelError, match="missing"):
        export(architecture, {k: v for k, v in weights.items() if k != "ahat1"}, [frames])
    with pytest.raises(ModelError, match="exact accumulators"):
        export(architecture, weights | {"a1": (kernel * 1e9, bias)}, [frames])


def test_export_stops_when_too_much_is_lost():
    """A as large as integers cannot hold it: refused, unless it is measured and scaled."""
    architecture = Architecture(1, (4,), (3, 5), patch=1, skip=False)
    t, y, x, _ = np.indices((8, 24, 32, 1))
    frames = (120 + 60 * np.sin((x + 2 * t) / 5) + 40 * np.cos(y / 4)).astype(np.int64)
    weights = random_weights(architecture, gain=3.0)
    weights |= {name: tuple(4 * part for part in weights[name]) for name in ("a1", "ahat1")}
    weights["gates1"][0][:, :, 5:13] /= 4  # what sees A, so that the function is the same
    with pytest.raises(ModelError, match="more than 2% is lost"):
        export(architecture, weights, [frames], clipped=True)
    model = export(architecture, weights, [frames], clipped=False)
    exact, floating, _ = judge(model, weights, [frames])
    assert exact <= 1.02 * floating


def test_a_model_whose_proof_does_not_hold_is_refused():
    model = random_model(Architecture(1, (4,), (3, 5)))
    conv = model.convolutions["a1"]
    louder = Convolution(conv.kernel.astype(np.int32) * 3, conv.bias, conv.shift)
    with pytest.raises(ModelError, match="would be exact"):
        IntegerModel(
            model.architecture,
            model.convolutions | {"a1": louder},
            model.tables,
            model.conformance,
        )


def test_a_model_comes_back_from_its_bytes():
    model = random_model(Architecture(3, (4,), (3, 5)))
    again = IntegerModel.from_bytes(model.to_bytes())
    assert again.digest == model.digest
    np.testing.assert_array_equal(conformance(PredNet, again), model.conformance)


def test_damaged_models_are_refused():
    data = random_model(Architecture(1, (4,), (3, 5))).to_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(data)
        broken[rng.integers(len(data))] ^= 1 << rng.integers(8)
        with pytest.raises(ModelError):
            IntegerModel.from_bytes(bytes(broken))
    for size in (0, 3, 20, 36, 40, len(data) // 2, len(data) - 1):
        with pytest.raises(ModelError):
            IntegerModel.from_bytes(data[:size])


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": 0},
        {"channels": 5},
        {"states": (3,)},
        {"targets": (0,), "states": (3, 3)},
        {"patch": 3},
        {"states": (100000, 20, 24)},
    ],
)
def test_absurd_architectures_are_refused(changes):
    with pytest.raises(ModelError):
        Architecture(**changes)


# --- in the codec ---------------------------------------------------------------------


@pytest.fixture
def moving():
    """uint8 (6, 30, 41), a drifting pattern with some noise."""
    t, y, x = np.indices((6, 30, 41))
    pattern = 120 + 60 * np.sin((x + 1.7 * t) / 4) * np.cos(y / 6)
    return (pattern + np.random.default_rng(0).normal(0, 1, t.shape)).astype(np.uint8)


@pytest.fixture
def network():
    """A registered random network."""
    from tezip_h5.model import store

    return store.register(random_model(Architecture(1, (4,), (3, 5))))


@pytest.mark.parametrize("feedback", ["reconstruction", "prediction"])
@pytest.mark.parametrize("bound", [{}, {"absolute": 3}])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("window", [None, 3])
def test_chunks_with_a_network_come_back(moving, network, feedback, bound, dtype, window):
    frames = (moving.astype(dtype) * 3 - 200).astype(dtype) if dtype != "uint8" else moving
    limit = bound.get("absolute", 0)
    bound = ErrorBound(**bound).of_frames(frames[..., None])
    settings = Settings(predictor="prednet", feedback=feedback, window=window, coder="stages")
    encoded = codec.encode_chunk(frames, bound, settings, model=network)
    back = codec.decode_chunk(encoded.payload)
    assert np.abs(back.astype(float) - frames).max() <= limit
    if encoded.coder != "fallback":
        assert encoded.model is network


@pytest.mark.parametrize("feedback", ["reconstruction", "prediction"])
@pytest.mark.parametrize("coder", ["stages", "linear", "mixing"])
@pytest.mark.parametrize("windows", [{"window": 5}, {"mse_threshold": 0.02}, {"mse_threshold": 0}])
def test_the_manuals_windows_with_a_network(network, feedback, coder, windows):
    """`-p 3 -w 5` and `-p 3 -t 0.02`: three frames of warm-up, then windows."""
    t, y, x = np.indices((14, 24, 32))
    noise = np.random.default_rng(0).normal(0, 4, t.shape)  # else the fallback is smaller
    frames = (120 + 90 * np.sin((x + 3 * t) / 4) * np.cos(y / 6) + noise).astype(np.uint8)
    settings = Settings(predictor="prednet", feedback=feedback, warmup=3, coder=coder, **windows)
    bound = ErrorBound(absolute=2).of_frames(frames[..., None])
    encoded = codec.encode_chunk(frames, bound, settings, model=network)
    back = codec.decode_chunk(encoded.payload)
    assert np.abs(back.astype(int) - frames).max() <= 2
    kinds = "".join(record.kind.name[0] for record in encoded.frames)
    assert kinds.startswith("WWWK")
    if "window" in windows:
        assert kinds == "WWWKPPPPKPPPPK"
    elif windows["mse_threshold"] == 0:
        assert kinds == "WWW" + "K" * 11


def test_a_network_is_used_only_where_it_pays(moving, network):
    settings = Settings(level="best")
    bound = ErrorBound().of_frames(moving[..., None])
    without = codec.encode_chunk(moving, bound, settings)
    tried = codec.encode_chunk(moving, bound, settings, model=network)
    assert len(tried.payload) <= len(without.payload)


@pytest.mark.parametrize("level", ["balanced", "best"])
def test_a_network_that_clearly_pays_is_not_measured_again(moving, network, level, monkeypatch):
    """Where a sample says so; and what is kept to spare changes nothing of the chunk."""
    monkeypatch.setattr(codec, "_fallback_may_win", lambda *_: False)
    bound = ErrorBound().of_frames(moving[..., None])
    settings = Settings(level=level)
    worth = settings.effort.network_worth
    without = codec.encode_chunk(moving, bound, settings)
    encode = partial(codec.encode_chunk, moving, bound, settings, model=network)
    clear = encode(saving=2 * worth)
    assert clear.model is network
    assert clear.without is None
    spare = encode(saving=2 * worth, spare=True)
    assert spare.payload == clear.payload
    assert spare.without.payload == without.payload
    unclear = encode(saving=0.9 * worth)  # so both are encoded, and compared
    smaller = len(clear.payload) < (1 - worth) * len(without.payload)
    assert unclear.payload == (clear if smaller else without).payload
    hopeless = encode(saving=0.5 * worth, spare=True)
    assert hopeless.payload == without.payload
    assert hopeless.model is None


def test_a_network_is_not_tried_where_another_predictor_is_pinned(moving, network, monkeypatch):
    monkeypatch.setattr(codec, "_fallback_may_win", lambda *_: False)
    bound = ErrorBound().of_frames(moving[..., None])
    encode = partial(codec.encode_chunk, moving, bound, Settings(predictor="previous"))
    found = encode(model=network, saving=1.0)
    assert found.model is None
    assert found.payload == encode().payload


def test_a_payload_with_an_impossible_scale_is_refused(moving, network):
    from tezip_h5 import bitstream
    from tezip_h5.bitstream import Section

    bound = ErrorBound().of_frames(moving[..., None])
    settings = Settings(predictor="prednet", coder="stages")
    parsed = bitstream.unpack(codec.encode_chunk(moving, bound, settings, model=network).payload)
    if Section.MODEL not in parsed.sections:
        pytest.skip("the fallback was smaller")
    for section in (
        network.digest,
        network.digest + b"\0\0\0\0\x7f",
        network.digest + b"\0\0\0\x7f\0",
        network.digest + bytes(6),
    ):
        payload = bitstream.pack(parsed.header, {**parsed.sections, Section.MODEL: section})
        with pytest.raises(FormatError):
            codec.decode_chunk(payload)


def test_a_model_for_other_channels_is_refused(moving, network):
    from tezip_h5 import bitstream
    from tezip_h5.bitstream import Section
    from tezip_h5.model import store

    other = store.register(random_model(Architecture(3, (4,), (3, 5))))
    bound = ErrorBound().of_frames(moving[..., None])
    settings = Settings(predictor="prednet", coder="stages")
    parsed = bitstream.unpack(codec.encode_chunk(moving, bound, settings, model=network).payload)
    section = other.digest + parsed.sections[Section.MODEL][32:]
    payload = bitstream.pack(parsed.header, {**parsed.sections, Section.MODEL: section})
    with pytest.raises(FormatError, match="channels"):
        codec.decode_chunk(payload)


# --- in files -------------------------------------------------------------------------


def test_the_model_travels_with_the_file(tmp_path, moving, in_fresh_process):
    import tezip_h5

    model = random_model(Architecture(1, (4,), (3, 5)), seed=77)
    path = tmp_path / "run.h5"
    tezip_h5.write(moving, path, model=model, predictor="prednet", coder="stages", verify=True)
    with h5py.File(path) as file:
        assert list(file["tezip/models"]) == [model.digest.hex()]
        assert file["scan/model"] == file[f"tezip/models/{model.digest.hex()}"]
    (report,) = tezip_h5.inspect(path).stacks
    assert (report.model, report.embedded) == (model.digest.hex(), True)
    predicts = f"predicts {report.network_chunks} chunks; model {report.model[:16]}…, embedded"
    assert predicts in str(report)
    out = in_fresh_process(
        f"import tezip_h5, h5py; f = h5py.File({str(path)!r}); print(int(f['scan/data'][:].sum()))"
    )
    assert int(out) == int(moving.sum())
    # A second stack with the same model shares it.
    tezip_h5.write(moving, path, "again", model=model, predictor="prednet", coder="stages")
    with h5py.File(path) as file:
        assert len(file["tezip/models"]) == 1
        assert file["again/model"] == file["scan/model"]


def test_an_embedded_model_altered_by_one_bit_is_refused(tmp_path, moving, in_fresh_process):
    import tezip_h5

    model = random_model(Architecture(1, (4,), (3, 5)), seed=78)
    path = tmp_path / "run.h5"
    tezip_h5.write(moving, path, model=model, predictor="prednet", coder="stages")
    with h5py.File(path, "r+") as file:
        kernel = file[f"tezip/models/{model.digest.hex()}/gates0/kernel"]
        kernel[0, 0, 0, 0] ^= 1
    out = in_fresh_process(
        f"""
        import tezip_h5
        try:
            tezip_h5.read({str(path)!r})
        except tezip_h5.ModelError as error:
            print("ModelError:", error)
        """
    )
    assert "ModelError" in out
    assert "damaged" in out


def test_a_missing_model_is_searched_for_and_named(tmp_path, moving, in_fresh_process):
    import tezip_h5

    model = random_model(Architecture(1, (4,), (3, 5)), seed=79)
    path = tmp_path / "run.h5"
    tezip_h5.write(moving, path, model=model, predictor="prednet", coder="stages")
    with h5py.File(path, "r+") as file:
        del file["scan/model"]
        del file["tezip"]
    assert f"model {model.digest.hex()[:16]}…, not in this file" in str(tezip_h5.inspect(path))
    code = f"""
        import tezip_h5
        try:
            print("sum", int(tezip_h5.read({str(path)!r}).sum()))
        except tezip_h5.ModelError as error:
            print(error)
        """
    out = in_fresh_process(code)
    assert model.digest.hex() in out
    assert "TEZIP_MODEL_PATH" in out
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.tzm").write_bytes(model.to_bytes())
    out = in_fresh_process(code, TEZIP_MODEL_PATH=str(tmp_path / "models"))
    assert f"sum {int(moving.sum())}" in out
