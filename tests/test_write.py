"""Whole stacks in and out of files: sources, bounds, tiles, existing files, in place."""

import dask.array
import h5py
import numpy as np
import pytest

import tezip_h5
from tezip_h5 import BoundError, InputError
from tezip_h5.hdf5.contents import container
from tezip_h5.hdf5.writing import checked, plan
from tezip_h5.simulate import colour_sequence, float_field


def left_over(folder):
    """Files in a folder that should not be there."""
    return [p.name for p in folder.iterdir() if p.suffix != ".h5" or p.name.startswith(".")]


@pytest.mark.parametrize(
    "bound",
    [
        {},
        {"absolute": 2},
        {"relative": 0.1},
        {"absolute": 3, "relative": 0.2},
        {"pointwise_relative": 0.1},
    ],
)
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", ">i2", "u4", "i4", "f4", ">f8"])
def test_bounds_hold_for_every_dtype(tmp_path, walk, dtype, bound):
    stack = (walk - 450).astype(dtype) if dtype != "u1" else (walk - 450).clip(0, 255).astype("u1")
    summary = tezip_h5.write(stack, tmp_path / "run.h5", verify=True, **bound)
    back = tezip_h5.read(tmp_path / "run.h5")
    assert back.dtype == stack.dtype.newbyteorder("=")
    error = np.abs(back.astype(float) - stack.astype(float))
    assert error.max() == summary.max_error
    if not bound:
        np.testing.assert_array_equal(back, stack)
    else:
        assert summary.max_error > 0
    assert "largest error" in str(summary)


@pytest.mark.parametrize(
    "source",
    [
        lambda x: x,
        list,
        iter,
        lambda x: (frame for frame in x),
        lambda x: dask.array.from_array(x, chunks=(3, 20, 56)),
        lambda x: np.asfortranarray(x),
        lambda x: x[::-1][::-1],
    ],
)
def test_sources(tmp_path, walk, source):
    tezip_h5.write(source(walk), tmp_path / "run.h5")
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "run.h5"), walk)


def test_an_hdf5_dataset_as_source(tmp_path, walk):
    with h5py.File(tmp_path / "in.h5", "w") as f:
        data = f.create_dataset("x", data=walk, chunks=(1, 40, 56), compression="gzip")
        tezip_h5.write(data, tmp_path / "run.h5", verify=True)
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "run.h5"), walk)


@pytest.mark.parametrize("axes", ["YXT", "TXY", "CTYX", "TYXC"])
def test_axes(tmp_path, axes):
    stack = (
        colour_sequence(5, 12, 16)[..., :3] if "C" in axes else colour_sequence(5, 12, 16)[..., 0]
    )
    order = ["TYXC".index(letter) for letter in axes]
    tezip_h5.write(stack.transpose(order), tmp_path / "run.h5", axes=axes)
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "run.h5"), stack)


@pytest.mark.parametrize(
    ("stack", "words"),
    [
        (np.zeros((4, 4), "u1"), r"frame\[None\]"),
        (np.zeros((2, 4, 4, 5), "u1"), "axes="),
        (np.zeros((2, 2, 4, 4, 3), "u1"), "folding"),
        (np.zeros((0, 4, 4), "u1"), "no samples"),
        (np.zeros((2, 4, 4), np.longdouble), "float64"),
        (np.zeros((2, 4, 4), complex), "real and imaginary"),
        (np.zeros((2, 4, 4), "S3"), "cannot be stored"),
        ([], "no frame"),
        ([np.zeros((4, 4)), np.zeros((4, 5))], "frame 1"),
        (7, "no stack"),
        (b"abc", "no stack"),
    ],
)
def test_what_is_no_stack(tmp_path, stack, words):
    with pytest.raises(InputError, match=words):
        tezip_h5.write(stack, tmp_path / "run.h5")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"absolute": -1}, "absolute"),
        ({"relative": float("nan")}, "relative"),
        ({"window": 3, "mse_threshold": 0.1}, "-w"),
        ({"warmup": 30}, "only 20"),
        ({"warmup": 16, "chunk_frames": 16}, "leaves no frame"),
        ({"threads": 0}, "threads"),
        ({"chunk_frames": 0}, "chunk_frames"),
        ({"tile": (0, 5)}, "tile"),
        ({"tile": (20, 20), "mse_threshold": 0.1}, "tiles"),
        ({"axes": "XYZ"}, "axes"),
        ({"quality": 5}, "unknown option"),
        ({"name": "../x"}, "cannot name"),
        ({"name": "tezip/x"}, "cannot name"),
    ],
)
def test_options_that_cannot_be(tmp_path, walk, options, words):
    with pytest.raises(InputError, match=words):
        tezip_h5.write(walk, tmp_path / "run.h5", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tile", [(16, 16), (40, 7), (1, 56), (39, 55)])
@pytest.mark.parametrize("bound", [{}, {"relative": 0.02}])
def test_tiles(tmp_path, walk, tile, bound):
    summary = tezip_h5.write(
        walk, tmp_path / "run.h5", tile=tile, chunk_frames=6, verify=True, **bound
    )
    with h5py.File(tmp_path / "run.h5") as f:
        assert f["scan/data"].chunks == (6, *tile)
        whole = f["scan/data"][:]
        rows = f["scan/frames"][()]
    assert rows["max_error"].max() == summary.max_error == np.abs(whole.astype(int) - walk).max()
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "run.h5"), whole)
    limit = (bound.get("relative", 0) * np.ptp(walk.astype(int), axis=(1, 2)))[:, None, None]
    assert (np.abs(whole.astype(int) - walk) <= limit).all()


def test_default_layout():
    choose = plan.Layout.choose
    assert choose((1024, 1024), 1).chunk == (16, 1024, 1024)
    chosen = choose((2048, 2048), 2)
    assert chosen.chunk == (16, 1024, 512)
    assert len(chosen.tiles) == 8
    assert choose((512, 640), 1, count=5).chunk == (5, 512, 640)
    assert choose((1, 5_000_000), 1).chunk[1] == 1
    for shape in ((1000, 1000, 3), (7, 3_000_001), (4321, 1234), (100_000, 2)):
        for itemsize in (1, 2, 4, 8):
            assert np.prod(choose(shape, itemsize).chunk) * itemsize <= 16 << 20
    huge = choose((8192, 8192), 2)
    assert huge.chunk[0] * 8192 * 8192 * 2 <= 512 << 20


@pytest.mark.parametrize(
    ("count", "size", "frames"),
    [
        (16, 500, 16),  # one chunk
        (24, 500, 12),
        (40, 500, 20),  # two chunks, not three
        (40, 1024, 10),  # two would have more than 16 MiB, so four
        (40, 2048, 14),  # tiles keep threads busy anyway
        (72, 500, 18),  # four, not five
        (200, 500, 16),  # not a short stack any more
    ],
)
def test_a_short_stack_keeps_two_threads_busy(count, size, frames):
    assert plan.Layout.choose((size, size), 1, count=count, even=2).chunk[0] == frames


def test_chunks_of_a_short_stack_come_in_pairs():
    for count in range(17, 129):
        frames = plan.Layout.choose((500, 500), 1, count=count, even=2).chunk[0]
        assert 9 <= frames <= 24
        assert -(-count // frames) % 2 == 0
        assert count % frames == 0 or count % frames > frames // 2, "a last chunk of a few frames"


def test_error_driven_windows_see_whole_frames(tmp_path):
    stack = np.zeros((3, 800, 800), np.uint16)
    tezip_h5.write(stack, tmp_path / "run.h5", mse_threshold=0.1)
    with h5py.File(tmp_path / "run.h5") as f:
        assert f["scan/data"].chunks == (3, 800, 800)


def test_a_new_file_appears_only_when_complete(tmp_path, walk):
    def frames():
        for i, frame in enumerate(walk):
            assert not (tmp_path / "run.h5").exists()
            if i == 18:
                raise RuntimeError("the camera is gone")
            yield frame

    with pytest.raises(RuntimeError, match="camera"):
        tezip_h5.write(frames(), tmp_path / "run.h5")
    assert list(tmp_path.iterdir()) == []


def test_stacks_share_a_file(tmp_path, walk):
    path = tmp_path / "run.h5"
    with h5py.File(path, "w") as f:
        f["notes"] = "mine"
    tezip_h5.write(walk, path, "a")
    tezip_h5.write(walk + 1, path, "deep/b", absolute=1)
    with h5py.File(path) as f:
        assert set(f) == {"a", "deep", "notes"}
        assert f["notes"].asstr()[()] == "mine"
        np.testing.assert_array_equal(f["a/data"][:], walk)
        np.testing.assert_array_equal(f["deep/b/keyframes"][0], f["deep/b/data"][0])
        assert container.tables_of(f["deep/b/data"]) == f["deep/b"]
    with pytest.raises(InputError, match="several stacks"):
        tezip_h5.read(path)
    np.testing.assert_array_equal(tezip_h5.read(path, name="a"), walk)
    with pytest.raises(InputError, match=r"no stack c.*a, deep/b"):
        tezip_h5.read(path, name="c")


def test_a_name_is_not_taken_twice(run_h5, walk):
    with pytest.raises(InputError, match="overwrite=True"):
        tezip_h5.write(walk + 1, run_h5)
    np.testing.assert_array_equal(tezip_h5.read(run_h5), walk)
    summary = tezip_h5.write(walk + 1, run_h5, overwrite=True)
    np.testing.assert_array_equal(tezip_h5.read(run_h5), walk + 1)
    assert summary.reclaimable_bytes > 0
    assert left_over(run_h5.parent) == []


def test_a_failed_addition_leaves_the_file_alone(run_h5, walk):
    before = run_h5.read_bytes()

    def frames():
        yield walk[0]
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError):
        tezip_h5.write(frames(), run_h5, "other")
    assert run_h5.read_bytes() == before
    assert left_over(run_h5.parent) == []


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all"])
def test_a_file_that_is_no_hdf5_is_left_alone(tmp_path, walk, content):
    path = tmp_path / "run.h5"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no HDF5 file"):
        tezip_h5.write(walk, path)
    assert path.read_bytes() == content
    with pytest.raises(InputError, match="cannot be a file"):
        tezip_h5.write(walk, tmp_path)
    with pytest.raises(InputError, match="cannot be a file"):
        tezip_h5.write(walk, tmp_path / "no" / "run.h5")


def test_verify_finds_what_was_written_wrong(tmp_path, walk, monkeypatch):
    original = checked.encode_chunk

    def wrong(frames, *args, **options):
        return original(frames + 1, *args, **options)

    monkeypatch.setattr(checked, "encode_chunk", wrong)
    with pytest.raises(BoundError, match="outside the bound"):
        tezip_h5.write(walk, tmp_path / "run.h5", absolute=0.5, verify=True)
    assert list(tmp_path.iterdir()) == []


def test_verify_needs_a_stack_that_is_read_twice(tmp_path, walk):
    with pytest.raises(InputError, match="read twice"):
        tezip_h5.write(iter(walk), tmp_path / "run.h5", verify=True)


def test_in_place(tmp_path, walk):
    path = tmp_path / "in.h5"
    with h5py.File(path, "w") as f:
        data = f.create_dataset("entry/images", data=walk, chunks=(1, 40, 56))
        data.attrs["unit"] = "counts"
        data.attrs["origin"] = np.array([1.5, 2.5])
        f["elsewhere"] = data
        f["soft"] = h5py.SoftLink("/entry/images")
        f["time"] = np.arange(20.0)
        f["time"].make_scale("time")
        data.dims[0].attach_scale(f["time"])
        data.dims[1].label = "row"
        summary = tezip_h5.write(data, relative=0.01)
    assert summary.reclaimable_bytes >= walk.nbytes
    assert "h5repack" in str(summary)
    with h5py.File(path) as f:
        data = f["entry/images"]
        assert container.is_tezip(data)
        assert data == f["elsewhere"] == f["soft"]
        assert data.attrs["unit"] == "counts"
        np.testing.assert_array_equal(data.attrs["origin"], [1.5, 2.5])
        assert data.dims[0]["time"] == f["time"]
        assert data.dims[1].label == "row"
        limit = 0.01 * np.ptp(walk.astype(int), axis=(1, 2))[:, None, None]
        assert (np.abs(data[:].astype(int) - walk) <= limit).all()
        tables = container.tables_of(data)
        assert tables.name == "/tezip/stacks/entry/images"
        np.testing.assert_array_equal(tables["keyframes"][0], data[0])
        assert len(tables["frames"]) == 20
        assert set(f["tezip"]) == {"stacks"}
    report = tezip_h5.inspect(path)
    assert [stack.name for stack in report.stacks] == ["entry/images"]
    tezip_h5.verify(path)


def test_in_place_keeps_attributes_of_any_name(tmp_path, walk):
    """CLASS and NAME are of dimension scales, and anybody's elsewhere."""
    with h5py.File(tmp_path / "in.h5", "w") as f:
        data = f.create_dataset("images", data=walk)
        f["other"] = 1
        data.attrs.update({"NAME": "detector 4", "CLASS": np.bytes_("raw"), "units": "counts"})
        data.attrs["beside"] = f["other"].ref
        data.attrs["corner"] = data.regionref[0, :2, :2]
        data.attrs["nothing"] = h5py.Empty("f4")
        tezip_h5.write(data, level="fast")
    with h5py.File(tmp_path / "in.h5") as f:
        attributes = f["images"].attrs
        assert attributes["NAME"] == "detector 4"
        assert attributes["CLASS"] == b"raw"
        assert attributes["units"] == "counts"
        assert f[attributes["beside"]] == f["other"]
        assert attributes["corner"]
        assert isinstance(attributes["nothing"], h5py.Empty)


def test_in_place_a_scale_stays_one(tmp_path, walk):
    with h5py.File(tmp_path / "in.h5", "w") as f:
        f["images"], f["depths"] = walk, walk
        f["depths"].make_scale("depth")
        f["images"].dims[0].attach_scale(f["depths"])
        tezip_h5.write(f["depths"], level="fast")
    with h5py.File(tmp_path / "in.h5") as f:
        assert container.is_tezip(f["depths"])
        assert f["images"].dims[0]["depth"] == f["depths"]


def test_in_place_refusals(tmp_path, walk, run_h5):
    with h5py.File(tmp_path / "in.h5", "w") as f:
        f["x"] = walk
    with h5py.File(tmp_path / "in.h5") as f, pytest.raises(InputError, match="read-only"):
        tezip_h5.write(f["x"])
    with h5py.File(run_h5, "r+") as f, pytest.raises(InputError, match="already"):
        tezip_h5.write(f["scan/data"])
    with pytest.raises(InputError, match="no path"):
        tezip_h5.write(walk)


def test_in_place_keeps_the_original_when_it_fails(tmp_path, walk, monkeypatch):
    from tezip_h5.hdf5.reading import verifying

    def broken(*args):
        raise BoundError("outside the bound")

    monkeypatch.setattr(verifying, "compare", broken)
    with h5py.File(tmp_path / "in.h5", "w") as f:
        data = f.create_dataset("x", data=walk)
        data.attrs["a"] = 1
        with pytest.raises(BoundError):
            tezip_h5.write(data)
        assert set(f) == {"x"}
        np.testing.assert_array_equal(f["x"][:], walk)
        assert f["x"].attrs["a"] == 1


@pytest.mark.parametrize(
    "selection",
    [
        None,
        3,
        -1,
        np.int64(4),
        slice(3, 9),
        slice(5, 3),
        slice(None, None, 3),
        slice(None, None, 2),
        (slice(2, 19), 7, slice(-9, None)),
        (..., 5),
        (3, ...),
        (1, 2, 3),
        (..., slice(7, 20)),
        (3, ..., 5),
        [1, 5, 17],
        (slice(None), [3, 4]),
    ],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_selections_read_as_h5py_reads_them(tmp_path, walk, selection, threads):
    path = tmp_path / "run.h5"
    tezip_h5.write(walk, path, tile=(25, 30), chunk_frames=7)
    back = tezip_h5.read(path, selection, threads=threads)
    with h5py.File(path) as f:
        expected = f["scan/data"][() if selection is None else selection]
    np.testing.assert_array_equal(back, expected)
    assert np.shape(back) == np.shape(expected)


@pytest.mark.parametrize("selection", [20, -21, (0, 40), (..., 56), [3, 20]])
def test_selections_that_lie_outside(run_h5, selection):
    with pytest.raises(IndexError, match="selects nothing of /scan/data") as error:
        tezip_h5.read(run_h5, selection)
    assert isinstance(error.value, InputError)


@pytest.mark.parametrize(
    "selection", [(0, 0, 0, 0), 1.5, {"a": 1}, (0, "x"), np.ones(3, bool), np.s_[0.5:]]
)
def test_selections_that_cannot_be(run_h5, selection):
    with pytest.raises(InputError, match=r"selects nothing of /scan/data, which is .20, 40, 56"):
        tezip_h5.read(run_h5, selection)
    with h5py.File(run_h5) as f, pytest.raises(InputError, match="selects nothing"):
        tezip_h5.read(f["scan/data"], selection)


def test_a_name_in_the_place_of_a_selection(run_h5):
    with pytest.raises(InputError, match=r"'scan' is a text; did you mean name='scan'\?"):
        tezip_h5.read(run_h5, "scan")


def test_reading_what_was_never_written(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as f:
        data = f.create_dataset(
            "x", (20, 8, 8), "u2", chunks=(4, 8, 8), fillvalue=9, **tezip_h5.TEZip()
        )
        data[4:8] = 5
        f.flush()
        expected = np.full((20, 8, 8), 9)
        expected[4:8] = 5
        np.testing.assert_array_equal(tezip_h5.read(data), expected)


def test_reading_other_datasets_is_h5pys_work(tmp_path, walk):
    with h5py.File(tmp_path / "x.h5", "w") as f:
        data = f.create_dataset("x", data=walk.astype(">u2"))
        back = tezip_h5.read(data, slice(2, 4))
        assert back.dtype == np.dtype("u2")
        np.testing.assert_array_equal(back, walk[2:4])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"window": 4, "chunk_frames": 8}, [0, 4, 8, 12, 16]),
        ({"window": 100}, [0]),
        ({"window": 100, "chunk_frames": 16}, [0, 16]),
        ({"window": 3, "chunk_frames": 8, "warmup": 1}, [1, 4, 7, 9, 12, 15, 17]),
    ],
)
def test_keyframes_can_be_browsed(tmp_path, walk, options, expected):
    tezip_h5.write(walk, tmp_path / "run.h5", **options)
    with h5py.File(tmp_path / "run.h5") as f:
        rows = f["scan/frames"][()]
        if "fallback_chunks" in f["scan"].attrs and not f["scan"].attrs["fallback_chunks"]:
            assert np.flatnonzero(rows["kind"] == 0).tolist() == expected
        keyframes = np.flatnonzero(rows["kind"] == 0)
        np.testing.assert_array_equal(f["scan/keyframes"][:], walk[keyframes])
        np.testing.assert_array_equal(np.unique(rows["window"]), np.arange(len(keyframes)))


def test_previews_are_small_and_need_no_filter(tmp_path):
    stack = float_field(40, 300, 200)
    stack[:, :50] = np.nan
    tezip_h5.write(stack, tmp_path / "run.h5", absolute=0.01, window=1)
    with h5py.File(tmp_path / "run.h5") as f:
        preview = f["scan/preview"]
        assert preview.dtype == np.uint8
        assert preview.shape == (20, 60, 40)  # 40 keyframes: every second one
        assert preview.compression == "gzip"
        assert preview.attrs["frames"].tolist() == list(range(0, 40, 2))
        assert preview[0, 20:].std() > 20
    tezip_h5.write(colour_sequence(3, 40, 50), tmp_path / "rgb.h5", preview=True)
    with h5py.File(tmp_path / "rgb.h5") as f:
        assert f["scan/preview"].shape[1:] == (40, 50, 3)
    tezip_h5.write(stack, tmp_path / "none.h5", preview=False)
    with h5py.File(tmp_path / "none.h5") as f:
        assert "preview" not in f["scan"]


def test_reports(tmp_path, walk, run_h5):
    report = tezip_h5.inspect(run_h5)
    (stack,) = report.stacks
    assert (stack.name, stack.dataset, stack.shape) == ("scan", "scan/data", walk.shape)
    assert sum(stack.kinds.values()) == 20
    assert sum(stack.bytes_of.values()) == stack.payload_bytes
    assert stack.ratio == walk.nbytes / stack.payload_bytes
    assert "scan" in str(report)
    assert report.to_dict()["stacks"][0]["complete"] is True
    text = str(tezip_h5.verify(run_h5, walk))
    assert "are intact" in text
    other = walk.copy()
    other[3, 2, 1] += 1
    with pytest.raises(BoundError, match="frame 3"):
        tezip_h5.verify(run_h5, other)
    with pytest.raises(InputError, match="the original is"):
        tezip_h5.verify(run_h5, walk[:, :20])
    with h5py.File(tmp_path / "plain.h5", "w") as f:
        f["x"] = walk
    for call in (tezip_h5.inspect, tezip_h5.verify):
        with pytest.raises(InputError, match="no dataset"):
            call(tmp_path / "plain.h5")
        with pytest.raises(InputError, match="is no file"):
            call(tmp_path / "missing.h5")
        with pytest.raises(InputError, match=r"to choose a stack of .*run\.h5, say name='scan'"):
            call(f"{run_h5}:/scan")
    (tmp_path / "text.h5").write_text("x")
    with pytest.raises(InputError, match="no HDF5"):
        tezip_h5.inspect(tmp_path / "text.h5")


def test_verify_finds_missing_chunks_and_rows(run_h5, walk, tmp_path):
    from tezip_h5 import FormatError

    with h5py.File(run_h5, "r+") as f:
        f["scan/frames"].resize(19, axis=0)
    with pytest.raises(FormatError, match="its table 19"):
        tezip_h5.verify(run_h5)
    path = tmp_path / "hole.h5"
    tezip_h5.write(walk, path)
    with h5py.File(path, "r+") as f:
        f["scan/data"].resize(40, axis=0)
        f["scan/frames"].resize(40, axis=0)
    with pytest.raises(FormatError, match="frames are missing"):
        tezip_h5.verify(path)


def test_configure_refuses_nonsense():
    with pytest.raises(InputError, match="cache_bytes"):
        tezip_h5.configure(cache_bytes=-1)
