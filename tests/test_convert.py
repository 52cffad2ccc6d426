"""A whole NeXus file converted: its stacks compressed, everything else as it was."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import require_tool

import tezip_h5
from tezip_h5 import BoundError, InputError
from tezip_h5.cli import main
from tezip_h5.simulate import detector_sequence

ROOT = Path(__file__).parents[1]
FRAMES = detector_sequence(20, 64, 64)


def nexus(path, frames=FRAMES):
    """A file with all that NeXus files have."""
    rng = np.random.default_rng(3)
    with h5py.File(path, "w") as f:
        f.attrs["default"] = "entry"
        entry = f.create_group("entry", track_order=True)
        entry.attrs["NX_class"] = "NXentry"
        entry["title"] = "a scan, überall"
        detector = entry.create_group("instrument/detector")
        images = detector.create_dataset(
            "data", data=frames, chunks=(1, 64, 64), compression="gzip", shuffle=True
        )
        images.attrs["units"] = "counts"
        images.attrs["long_name"] = np.array(["x", "yz"], dtype="S8")
        modules = np.stack([frames, frames[::-1] // 2, frames + 3], axis=1)
        detector.create_dataset("modules", data=modules, maxshape=(None, 3, 64, 64))
        detector.create_dataset("mask", data=np.zeros((64, 64), "u4"), fletcher32=True)
        detector.create_dataset("lines", data=np.arange(60.0).reshape(3, 4, 5))
        entry["time"] = np.linspace(0, 1, len(frames))
        entry["time"].make_scale("time of the frame")
        images.dims[0].attach_scale(entry["time"])
        images.dims[0].label = "t"
        plot = entry.create_group("plot")
        plot.attrs.update(NX_class="NXdata", signal="data")
        plot["data"] = images  # a hard link, as NeXus has them
        plot["soft"] = h5py.SoftLink("/entry/instrument/detector/data")
        plot["nowhere"] = h5py.SoftLink("/not/there")
        plot["outside"] = h5py.ExternalLink("other.h5", "/x")
        entry["see"] = images.ref
        entry["all"] = np.array([images.ref, entry["time"].ref], dtype=h5py.ref_dtype)
        plot.attrs["target"] = images.ref
        both = np.dtype([("n", "i4"), ("ref", h5py.ref_dtype)])
        table = entry.create_dataset("table", (2,), both)
        table[:] = np.array([(1, images.ref), (2, entry["time"].ref)], both)
        entry["region"] = np.array([images.regionref[2:4, :5, :]], dtype=h5py.regionref_dtype)
        lists = entry.create_dataset("lists", (2,), h5py.vlen_dtype(h5py.ref_dtype))
        lists[0] = np.array([images.ref, entry.ref], h5py.ref_dtype)
        entry.create_dataset("ragged", (2,), h5py.vlen_dtype("i4"))[1] = np.arange(5)
        f["types/pixel"] = np.dtype([("x", "f4"), ("y", "f4")])
        f["types"].create_dataset("pixels", (3,), dtype=f["types/pixel"])
        entry.attrs["colour"] = np.array([(1.0, 2.0)], np.dtype([("a", "f4"), ("b", "f8")]))
        entry.attrs["empty"] = h5py.Empty("f4")
        flag = h5py.enum_dtype({"OFF": 0, "ON": 1}, basetype="u1")
        entry.create_dataset("flags", data=rng.integers(0, 2, 9).astype("u1"), dtype=flag)
        entry["round"] = f["/"]
        layout = h5py.VirtualLayout((4, 64, 64), frames.dtype)
        layout[:] = h5py.VirtualSource(images)[:4]
        entry.create_virtual_dataset("few", layout)
    return path


@pytest.fixture
def paths(tmp_path):
    return nexus(tmp_path / "in.nxs"), tmp_path / "out.nxs"


def test_everything_is_there_and_the_stacks_are_smaller(paths):
    done = tezip_h5.convert(*paths, level="fast")
    assert {s.path for s in done.stacks} == {
        "/entry/instrument/detector/data",
        "/entry/instrument/detector/modules",
    }
    assert "times smaller" in str(done)
    assert not done.lost
    assert sorted(os.listdir(paths[0].parent)) == ["in.nxs", "out.nxs"]
    with h5py.File(paths[0]) as a, h5py.File(paths[1]) as b:
        data = b["entry/instrument/detector/data"]
        assert tezip_h5.hdf5.contents.container.is_tezip(data)
        np.testing.assert_array_equal(data[:], FRAMES)
        assert b["entry/plot/data"] == data
        assert b["entry/plot"].get("soft", getlink=True).path == "/entry/instrument/detector/data"
        assert b["entry/plot"].get("outside", getlink=True).filename == "other.h5"
        assert b["entry/plot"].get("nowhere", getlink=True).path == "/not/there"
        assert b[b["entry/see"][()]] == data
        assert b[b["entry/all"][1]] == b["entry/time"]
        assert b[b["entry/plot"].attrs["target"]] == data
        assert b[b["entry/table"]["ref"][0]] == data
        assert b["entry/table"]["n"].tolist() == [1, 2]
        assert b[b["entry/lists"][0][1]] == b["entry"]
        region = b["entry/region"][0]
        assert b[region] == data
        np.testing.assert_array_equal(data[region], a["entry/instrument/detector/data"][2:4, :5])
        assert data.dims[0].label == "t"
        assert data.dims[0][0] == b["entry/time"]
        assert b["entry/round"] == b["/"]
        modules = b["entry/instrument/detector/modules"]
        assert modules.chunks == (20, 1, 64, 64)
        np.testing.assert_array_equal(modules[:], a["entry/instrument/detector/modules"][:])
        np.testing.assert_array_equal(modules[3:7, 1], tezip_h5.read(modules, np.s_[3:7, 1]))
        np.testing.assert_array_equal(b["entry/few"][:], FRAMES[:4])
        assert b["types/pixels"].dtype == a["types/pixels"].dtype
        assert b["entry/instrument/detector/mask"].fletcher32
        assert list(b["entry"]) == list(a["entry"])
    tezip_h5.verify(paths[1])


def test_h5diff_finds_no_difference(paths, tmp_path):
    """By HDF5's own tool, which reads our chunks through the C plugin."""
    require_tool("h5diff")
    require_tool("cc")
    [command] = re.findall(r"^cc .*$", (ROOT / "filters" / "README.md").read_text(), re.MULTILINE)
    words = command.replace("libh5tezip.so", str(tmp_path / "libh5tezip.so")).split()
    subprocess.run(words, cwd=ROOT / "filters", check=True)
    environment = {
        **os.environ,
        "HDF5_PLUGIN_PATH": str(tmp_path),
        "TEZIP_PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
    }
    tezip_h5.convert(*paths, level="fast")

    def h5diff(*options):
        words = ["h5diff", *options, paths[0], paths[1]]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
        return done.returncode, done.stdout + done.stderr

    # What is ours alone: the tables, and the attribute that leads to them.
    ours = ["--exclude-path=/tezip"]
    code, text = h5diff("-v", *ours)
    stripped = [line for line in text.splitlines() if re.search(r"[1-9]\d* difference", line)]
    assert not stripped, text
    assert "dataset: </entry/instrument/detector/data> and" in text
    with h5py.File(paths[1], "r+") as f:
        del f["entry/instrument/detector/data"].attrs["tezip"]
        del f["entry/instrument/detector/modules"].attrs["tezip"]
    code, text = h5diff("-v", *ours)
    assert code == 0, text
    with h5py.File(paths[1], "r+") as f:
        f["entry/time"][3] = 7
    assert h5diff("-q", *ours)[0] == 1


def test_named_datasets_a_bound_and_the_command_line(paths, capsys):
    name = "/entry/instrument/detector/data"
    assert main(["convert", *map(str, paths), "--dataset", name, "-m", "abs", "-b", "2"]) == 0
    assert name in capsys.readouterr().out
    with h5py.File(paths[1]) as f:
        assert np.abs(f[name][:].astype(int) - FRAMES).max() <= 2
        assert not tezip_h5.hdf5.contents.container.is_tezip(f["entry/instrument/detector/modules"])
    [stack] = tezip_h5.inspect(paths[1]).stacks
    assert (stack.bound, stack.complete) == ("absolute 2", True)
    # Once more, for what is left.
    third = paths[1].with_name("third.nxs")
    assert main(["convert", str(paths[1]), str(third), "--level", "fast"]) == 0
    assert len(tezip_h5.inspect(third).stacks) == 2
    tezip_h5.verify(third)
    with h5py.File(paths[1]) as a, h5py.File(third) as b:
        np.testing.assert_array_equal(a[name][:], b[name][:])
        assert b[b[name].attrs["tezip"]].name == f"/tezip/stacks{name}"
        assert "keyframes" in b[f"/tezip/stacks{name}"]


def test_in_place(paths):
    os.chmod(paths[0], 0o640)
    size = paths[0].stat().st_size
    done = tezip_h5.convert(paths[0], in_place=True, level="fast")
    assert done.bytes_after == paths[0].stat().st_size < size == done.bytes_before
    assert paths[0].stat().st_mode & 0o777 == 0o640
    assert os.listdir(paths[0].parent) == ["in.nxs"]
    with h5py.File(paths[0]) as f:
        np.testing.assert_array_equal(f["entry/plot/data"][:], FRAMES)


KILLED = """
    import sys, tezip_h5
    from tezip_h5.hdf5.writing import encoder
    write, seen = encoder.StackEncoder._write, []
    def slow(self, step):
        write(self, step)
        seen.append(step.start)
        print(len(seen), flush=True)
        if len(seen) == int(sys.argv[3]):
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
    encoder.StackEncoder._write = slow
    tezip_h5.convert(sys.argv[1], sys.argv[2], level="fast", chunk_frames=4)
"""


def test_an_interrupted_conversion_goes_on(tmp_path, monkeypatch):
    """Killed again and again, it still comes to its end, and does not begin anew."""
    import textwrap

    from tezip_h5.hdf5.writing import encoder

    source, target = nexus(tmp_path / "in.nxs"), tmp_path / "out.nxs"
    for _ in range(3):  # 5 chunks of data, 5 of modules
        code = [sys.executable, "-c", textwrap.dedent(KILLED), str(source), str(target), "3"]
        done = subprocess.run(code, capture_output=True, text=True, timeout=120)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not target.exists()
    chunks = []
    original = encoder.StackEncoder._write

    def counted(self, step):
        original(self, step)
        chunks.append(step.start)

    monkeypatch.setattr(encoder.StackEncoder, "_write", counted)
    tezip_h5.convert(source, target, level="fast", chunk_frames=4)
    assert len(chunks) <= 2
    tezip_h5.verify(target)
    with h5py.File(source) as a, h5py.File(target) as b:
        for name in ("data", "modules"):
            path = f"entry/instrument/detector/{name}"
            np.testing.assert_array_equal(a[path][:], b[path][:])
            tables = b[f"tezip/stacks/{path}"]
            assert len(tables["frames"]) == 20
            assert tables.attrs["chunks"] == (5 if name == "data" else 15)
            assert len(tables["preview"]) == len(tables["keyframes"]) == 5
    assert sorted(os.listdir(tmp_path)) == ["in.nxs", "out.nxs"]


def test_an_interrupted_conversion_comes_to_the_same_chunks(paths, monkeypatch):
    """A last chunk that is not full is no beginning whose frames would be kept as they decode."""
    options = {"datasets": ["/entry/instrument/detector/data"], "chunk_frames": 8, "absolute": 9}
    whole = paths[1].with_name("whole.nxs")
    tezip_h5.convert(paths[0], whole, **options)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tezip_h5.hdf5.changing.convert.verifying.compare", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tezip_h5.convert(*paths, **options)
    tezip_h5.convert(*paths, **options)
    last = []
    for path in (whole, paths[1]):
        with h5py.File(path) as f:
            data = f["entry/instrument/detector/data"]
            last.append(data.id.read_direct_chunk((16, 0, 0)))
    assert last[0] == last[1]


def test_another_conversion_begins_anew(paths, monkeypatch):
    part = paths[1].with_name(".out.nxs.part")
    part.write_bytes(b"not HDF5")
    tezip_h5.convert(*paths, level="fast")
    paths[1].unlink()
    from tezip_h5.hdf5.changing import convert as module

    def fail(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_copy_rest", fail)
        with pytest.raises(OSError, match="No space"):
            tezip_h5.convert(*paths, level="fast")
    assert part.exists()
    tezip_h5.convert(*paths, level="fast", absolute=3)
    assert {s.bound for s in tezip_h5.inspect(paths[1]).stacks} == {"absolute 3"}
    assert not part.exists()


def test_what_does_not_read_back_is_not_kept(paths, monkeypatch):
    from tezip_h5.hdf5.reading import verifying

    def broken(*_):
        raise BoundError("a sample is outside the bound")

    monkeypatch.setattr(verifying, "compare", broken)
    before = paths[0].read_bytes()
    with pytest.raises(BoundError):
        tezip_h5.convert(paths[0], in_place=True, level="fast")
    assert os.listdir(paths[0].parent) == ["in.nxs"]
    assert paths[0].read_bytes() == before


def test_what_is_refused(paths, tmp_path):
    with pytest.raises(InputError, match="either the path"):
        tezip_h5.convert(paths[0])
    with pytest.raises(InputError, match="file to read"):
        tezip_h5.convert(paths[0], paths[0])
    with pytest.raises(InputError, match="holds no dataset /nope"):
        tezip_h5.convert(*paths, "/nope")
    with pytest.raises(InputError, match="one frame"):
        tezip_h5.convert(*paths, "/entry/instrument/detector/mask")
    with pytest.raises(InputError, match="same dataset"):
        tezip_h5.convert(*paths, ["/entry/plot/data", "/entry/instrument/detector/data"])
    with pytest.raises(InputError, match="unknown option"):
        tezip_h5.convert(*paths, nonsense=3)
    with h5py.File(tmp_path / "small.h5", "w") as f:
        f["x"] = np.zeros((3, 4, 5))
    with pytest.raises(InputError, match="no image stack"):
        tezip_h5.convert(tmp_path / "small.h5", paths[1])
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(InputError, match="no HDF5 file"):
        tezip_h5.convert(tmp_path / "text.h5", paths[1])
    assert main(["convert", str(paths[0])]) == 1
    assert sorted(os.listdir(tmp_path)) == ["in.nxs", "small.h5", "text.h5"]


def test_two_at_once(paths):
    """The second is refused; the first is not disturbed."""
    fcntl = pytest.importorskip("fcntl")
    part = paths[1].with_name(".out.nxs.part")
    h5py.File(part, "w").close()
    with open(part) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="running already"):
            tezip_h5.convert(*paths, level="fast")
    assert part.exists()
