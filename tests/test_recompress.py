"""Stacks encoded anew: the same samples, tables that stay true, everything else copied."""

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import random_model

import tezip_h5
from tezip_h5 import FormatError, InputError, Settings, codec, recoding
from tezip_h5.bounds import ChunkBound, ErrorBound
from tezip_h5.cli import main
from tezip_h5.model import embedding
from tezip_h5.prediction.architecture import Architecture

BOUNDS = [{}, {"absolute": 2}, {"relative": 0.1}, {"pointwise_relative": 0.01}]


@pytest.fixture
def paths(tmp_path):
    return tmp_path / "in.h5", tmp_path / "out.h5"


def holes(stack):
    values = stack.astype("f4") / 7
    values[3, 5:9, 5] = np.nan
    values[4, 0, 0] = -np.inf
    values[5, 2, 2] = -0.0
    return values


def raw(array):
    return np.ascontiguousarray(array).tobytes()


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("how", [{"level": "fast"}, {"coder": "stages"}, {"coder": "fallback"}])
@pytest.mark.parametrize("dtype", ["u1", "i2", "f8", "holes"])
def test_samples_stay_bit_for_bit(paths, walk, dtype, how, bound):
    stack = holes(walk) if dtype == "holes" else (walk - 430).clip(0, 255).astype(dtype)
    before = tezip_h5.write(stack, paths[0], **bound, **how)
    done = tezip_h5.recompress(*paths)
    assert raw(tezip_h5.read(paths[1])) == raw(tezip_h5.read(paths[0]))
    tezip_h5.verify(paths[1], stack)
    (old,), (new,) = (tezip_h5.inspect(path).stacks for path in paths)
    assert new.payload_bytes <= old.payload_bytes == before.payload_bytes
    assert (new.bound, new.max_error) == (old.bound, old.max_error)
    assert (old.level, new.level) == (how.get("level", "balanced"), "best")
    assert new.complete
    assert done.stacks[0].bytes_after == new.payload_bytes
    if how.get("level") == "fast" and not bound:
        assert new.payload_bytes < old.payload_bytes
    with h5py.File(paths[0]) as a, h5py.File(paths[1]) as b:
        np.testing.assert_array_equal(a["scan/frames"]["max_error"], b["scan/frames"]["max_error"])


@pytest.mark.parametrize("bound", [{"absolute": 2}, {"absolute": 8}])
def test_lossy_stages_and_grids_become_smaller(paths, walk, bound):
    floats = walk + np.linspace(0, 1, walk.size, dtype="f4").reshape(walk.shape)
    floats *= bound["absolute"] / 2
    for stack, how in ((walk, {"coder": "stages"}), (floats, {"level": "fast"})):
        tezip_h5.write(np.repeat(np.repeat(stack, 3, 1), 3, 2), paths[0], **bound, **how)
        (stack,) = tezip_h5.recompress(*paths).stacks
        assert stack.kept_chunks < stack.chunks
        assert stack.bytes_after < stack.bytes_before
        for path in paths:
            path.unlink()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["u1", "u2", "i4", "u4", "f4", "f8"]),
    st.sampled_from([*BOUNDS, {"absolute": 0.4}, {"absolute": 3000.0}]),
    st.sampled_from(["stages", "linear", "mixing", None]),
    st.sampled_from(["fast", "balanced"]),
    st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 12), st.integers(1, 3)),
)
def test_a_chunk_anew_decodes_to_the_same(no_fallback, seed, dtype, bound, coder, level, shape):
    rng = np.random.default_rng(seed)
    frames = (rng.normal(0, 10.0 ** rng.integers(0, 5), shape)).astype(dtype)
    limits = ErrorBound(**bound).of_frames(frames)
    larger = (shape[0] + 1, *shape[1:])
    payload = codec.encode_chunk(
        frames, limits, Settings(level="balanced", coder=coder), shape=larger
    ).payload
    decoded = codec.decode_chunk(payload)
    anew = recoding.recode(payload, decoded[: shape[0]], Settings(level=level))
    assert raw(codec.decode_chunk(anew.payload)) == raw(decoded)
    assert len(anew.payload) <= len(payload)
    assert len(anew.frames) == shape[0]


def test_tables_tiles_names_and_keyframes(paths, walk):
    stack = np.tile(walk, (1, 2, 2))
    names = [f"a{i}.png" for i in range(len(stack))]
    options = {"window": 4, "warmup": 1, "tile": (40, 60), "chunk_frames": 8, "absolute": 1}
    with tezip_h5.Writer(
        paths[0], "deep/er", stack.shape[1:], "u2", level="fast", **options
    ) as writer:
        for frame, name in zip(stack, names, strict=True):
            writer.append(frame, filename=name)
    tezip_h5.recompress(*paths, level="balanced", threads=2)
    tezip_h5.verify(paths[1], stack)
    with h5py.File(paths[0]) as a, h5py.File(paths[1]) as b:
        a, b = a["deep/er"], b["deep/er"]
        for column in ("kind", "window", "max_error"):
            np.testing.assert_array_equal(a["frames"][column], b["frames"][column])
        assert (a["filenames"][()] == b["filenames"][()]).all()
        np.testing.assert_array_equal(a["keyframes"][()], b["keyframes"][()])
        assert set(a) == set(b)
        assert set(a.attrs) == set(b.attrs)
        assert b.attrs["level"] == "balanced"
        assert b.attrs["max_error"] == a.attrs["max_error"]
        total = b["frames"]["keyframe_bytes"].sum() + b["frames"]["residual_bytes"].sum()
        assert 0.5 * b.attrs["payload_bytes"] < total <= b.attrs["payload_bytes"]
        assert b["preview"].attrs["frames"].tolist() == a["preview"].attrs["frames"].tolist()


def test_everything_else_is_copied(paths, walk):
    tezip_h5.write(walk, paths[0], "scan", level="fast")
    tezip_h5.write(walk[:5], paths[0], "other", level="fast", absolute=1)
    with h5py.File(paths[0], "r+") as f:
        f.attrs["title"] = "a day"
        f["scan"].attrs["sample"] = ["x", "y"]
        f["scan/data"].attrs["units"] = "counts"
        f["scan/time"] = np.arange(20.0)
        f["scan/time"].make_scale("t")
        f["scan/data"].dims[0].attach_scale(f["scan/time"])
        f["scan/data"].dims[0].label = "time"
        f["notes/text"] = "hello"
        f["notes"].attrs["nothing"] = h5py.Empty("f4")
        f["notes/again"] = f["notes/text"]
        f["notes/hard"] = f["scan/data"]
        f["notes/soft"] = h5py.SoftLink("/scan/data")
        f["notes/outside"] = h5py.ExternalLink("missing.h5", "/x")
        f["notes/round"] = f["/"]
        f["notes"].attrs["see"] = f["scan/data"].ref
        f["notes/refs"] = np.array([f["scan"].ref, f["notes/text"].ref], h5py.ref_dtype)
        f.create_dataset("notes/zipped", data=walk, chunks=(1, 40, 56), compression="gzip")
        f["notes/type"] = np.dtype("f4")
        f["in/place"] = walk
        tezip_h5.write(f["in/place"], absolute=3)
        f["linked"] = f["in/place"]
    done = tezip_h5.recompress(*paths)
    assert len(done.stacks) == 3
    tezip_h5.verify(paths[1])
    with h5py.File(paths[0]) as a, h5py.File(paths[1]) as b:
        assert set(b) == set(a)
        assert b.attrs["title"] == "a day"
        assert list(b["scan"].attrs["sample"]) == ["x", "y"]
        assert b["scan/data"].attrs["units"] == "counts"
        assert b["scan/data"].dims[0][0] == b["scan/time"]
        assert b["scan/data"].dims[0].label == "time"
        assert b["notes/text"][()] == b"hello"
        assert isinstance(b["notes"].attrs["nothing"], h5py.Empty)
        assert b["notes/again"] == b["notes/text"]
        assert b["notes/hard"] == b["scan/data"] == b[b["notes"].attrs["see"]]
        assert b["notes"].get("soft", getlink=True).path == "/scan/data"
        assert b["notes"].get("outside", getlink=True).filename == "missing.h5"
        assert b["notes/round"] == b["/"]
        assert b[b["notes/refs"][0]] == b["scan"]
        assert b[b["notes/refs"][1]] == b["notes/text"]
        assert b["notes/zipped"].compression == "gzip"
        assert isinstance(b["notes/type"], h5py.Datatype)
        assert b["linked"] == b["in/place"]
        np.testing.assert_array_equal(a["in/place"][()], b["in/place"][()])
        assert set(b["tezip/stacks/in/place"]) == set(a["tezip/stacks/in/place"])
        assert b[b["in/place"].attrs["tezip"]] == b["tezip/stacks/in/place"]
        np.testing.assert_array_equal(
            b["tezip/stacks/in/place/keyframes"][()], a["tezip/stacks/in/place/keyframes"][()]
        )


def test_only_named_stacks(paths, walk):
    for name in ("a", "b", "c"):
        tezip_h5.write(walk, paths[0], name, level="fast")
    argv = ["recompress", *map(str, paths), "--level", "balanced", "--name", "a", "c"]
    assert main(argv) == 0
    levels = {s.name: s.level for s in tezip_h5.inspect(paths[1]).stacks}
    assert levels == {"a": "balanced", "b": "fast", "c": "balanced"}
    tezip_h5.verify(paths[1])
    with h5py.File(paths[1]) as f:
        assert f[f["b/data"].attrs["tezip"]] == f["b"]
        np.testing.assert_array_equal(f["b/keyframes"][0], walk[0])


def test_datasets_of_the_filter(paths, walk):
    with h5py.File(paths[0], "w") as f:
        lossy = {"chunks": (16, 32, 32), **tezip_h5.TEZip(absolute=2, coder="stages")}
        f.create_dataset("x", data=walk.astype(">f4"), maxshape=(None, 40, 56), **lossy)
        f.create_dataset("flat", data=walk[0], chunks=(40, 56), **tezip_h5.TEZip(level="fast"))
        f.create_dataset("y", walk.shape, "u2", chunks=(4, 40, 56), **tezip_h5.TEZip())[4:8] = 7
        f.create_dataset("two", data=walk, fletcher32=True, chunks=True, **tezip_h5.TEZip())
        f["x"].attrs["units"] = "counts"
    tezip_h5.recompress(*paths, level="balanced")
    with h5py.File(paths[0]) as a, h5py.File(paths[1]) as b:
        for name in ("x", "flat", "y", "two"):
            assert a[name].dtype == b[name].dtype
            assert a[name].maxshape == b[name].maxshape
            assert b[name].id.get_storage_size() <= a[name].id.get_storage_size()
            np.testing.assert_array_equal(a[name][()], b[name][()])
        assert b["x"].attrs["units"] == "counts"
        assert b["x"].id.get_storage_size() < a["x"].id.get_storage_size()
        assert b["y"].id.get_num_chunks() == 1


def test_an_embedded_model_comes_along(paths, walk, in_fresh_process):
    model = random_model(Architecture(1, (4,), (3, 5)))
    t, y, x = np.indices((20, 30, 41))
    pattern = 120 + 60 * np.sin((x + 1.7 * t) / 4) * np.cos(y / 6)
    stack = (pattern + np.random.default_rng(0).normal(0, 1, t.shape)).astype("u1")
    tezip_h5.write(stack, paths[0], "a", model=model, predictor="prednet", coder="stages")
    tezip_h5.write(stack, paths[0], "b", level="fast")
    tezip_h5.recompress(*paths, level="fast", name="b")
    other = paths[1].with_name("other.h5")
    tezip_h5.recompress(*paths[:1], other, level="fast", name="a")
    for path in (paths[1], other):
        code = f"""
            import tezip_h5
            print(tezip_h5.verify({str(path)!r}).chunks)
        """
        assert in_fresh_process(code).strip() == "2"
        np.testing.assert_array_equal(tezip_h5.read(path, name="a"), stack)
    with h5py.File(paths[1]) as f:
        assert f["a"].attrs["model"] == model.digest.hex()
        assert f["a/model"] == f[f"{embedding.MODELS}/{model.digest.hex()}"]
        assert "model" not in f["b"].attrs


def test_a_writer_that_died(paths, walk):
    with tezip_h5.Writer(paths[0], "scan", (40, 56), "u2", level="fast") as w:
        w.append(walk)
        w.flush()
    with h5py.File(paths[0], "r+") as f:
        f["scan"].attrs["complete"] = False
        del f["scan/keyframes"]
    tezip_h5.recompress(*paths)
    (stack,) = tezip_h5.inspect(paths[1]).stacks
    assert not stack.complete
    np.testing.assert_array_equal(tezip_h5.read(paths[1]), walk)


def test_what_is_refused(paths, run_h5, walk, capsys):
    out = paths[1]
    with pytest.raises(InputError, match="file to read"):
        tezip_h5.recompress(run_h5, run_h5)
    with pytest.raises(InputError, match="no stack nope"):
        tezip_h5.recompress(run_h5, out, name=["scan", "nope"])
    with pytest.raises(InputError, match="level"):
        tezip_h5.recompress(run_h5, out, level="wrong")
    with pytest.raises(InputError, match="threads"):
        tezip_h5.recompress(run_h5, out, threads=0)
    with pytest.raises(InputError, match="no file"):
        tezip_h5.recompress(out, paths[0])
    with pytest.raises(InputError, match="folder"):
        tezip_h5.recompress(run_h5, out.parent / "missing" / "out.h5")
    with h5py.File(paths[0], "w") as f:
        f["plain"] = walk
    with pytest.raises(InputError, match="holds no dataset"):
        tezip_h5.recompress(paths[0], out)
    with h5py.File(run_h5, "r+") as f:
        f["plain"] = walk
    with pytest.raises(InputError, match="not compressed"):
        tezip_h5.recompress(run_h5, out, name="plain")
    before = paths[0].read_bytes()
    assert main(["recompress", str(run_h5), str(paths[0])]) == 1
    assert "there already" in capsys.readouterr().err
    assert paths[0].read_bytes() == before
    assert sorted(p.name for p in out.parent.iterdir()) == ["in.h5", "run.h5"]


@pytest.mark.parametrize("tables", [True, False])
def test_damage_leaves_nothing_behind(paths, run_h5, tables):
    with h5py.File(run_h5, "r+") as f:
        data = f["scan/data"]
        if not tables:  # as plain h5py makes a dataset
            del data.attrs["tezip"]
        _, payload = data.id.read_direct_chunk((16, 0, 0))
        data.id.write_direct_chunk((16, 0, 0), payload[:-9] + bytes(9))
    with pytest.raises(FormatError, match=r"\(16, 0, 0\)"):
        tezip_h5.recompress(run_h5, paths[1])
    assert [p.name for p in run_h5.parent.iterdir()] == ["run.h5"]


def test_exceptions_beyond_the_payloads_levels(paths):
    """A lossy chunk takes fewer values than its sentinels need to be found again."""
    rng = np.random.default_rng(0)
    stack = (50 + 10 * rng.random((4, 40, 44))).astype("f4")
    stack[:, 10:13] = 1e20
    stack[2, 30, 4:9] = [np.nan, np.inf, -1e20, 1e20, np.nan]
    for bound in ({"absolute": 1}, {"absolute": 100}, {"pointwise_relative": 0.1}):
        tezip_h5.write(stack, paths[0], level="fast", **bound)
        tezip_h5.recompress(*paths)
        assert raw(tezip_h5.read(paths[1])) == raw(tezip_h5.read(paths[0]))
        tezip_h5.verify(paths[1], stack)
        for path in paths:
            path.unlink()


def test_what_decodes_to_other_samples_is_not_taken(walk, monkeypatch):
    payload = codec.encode_chunk(walk, ChunkBound(), Settings(level="fast")).payload
    wrong = codec.encode_chunk(np.zeros_like(walk), ChunkBound(), Settings(level="fast"))
    assert len(wrong.payload) < len(payload)
    monkeypatch.setattr(recoding, "encode_chunk", lambda *_, **__: wrong)
    anew = recoding.recode(payload, walk, Settings(level="best"))
    assert isinstance(anew, recoding.Kept)
    assert anew.payload == payload
