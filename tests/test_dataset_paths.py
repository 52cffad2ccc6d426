"""FILE.h5:/DATASET: one parser, for whoever takes such names."""

import ntpath
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

import tezip_h5
from tezip_h5.cli import main, sources
from tezip_h5.errors import InputError
from tezip_h5.hdf5.reading.sources import open_source
from tezip_h5.model.sequences import open_sequences
from tezip_h5.stacks import dataset_paths


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make(path, walk):
    with h5py.File(path, "w") as file:
        file["entry/data"] = walk
        file["a:b"] = walk[:9]
        file["type"] = np.dtype("u2")
        file.create_group("empty")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run.h5", ("run.h5", None)),
        ("run.h5:/entry/data", ("run.h5", "entry/data")),
        ("run.h5:entry/data/", ("run.h5", "entry/data")),
        ("run.NXS:", ("run.NXS", "")),
        ("run.hdf5:/", ("run.hdf5", "")),
        ("run.h5:/a:b", ("run.h5", "a:b")),
        ("run.h5:/x.h5:/y", ("run.h5", "x.h5:/y")),
        ("run.h5:/a\nb", ("run.h5", "a\nb")),
        ("to:day/run.h5:/x", ("to:day/run.h5", "x")),
        ("frames.npz:NAME", ("frames.npz:NAME", None)),
        ("12:30", ("12:30", None)),
        ("", ("", None)),
    ],
)
def test_names_of_what_is_not_there(here, text, expected):
    assert dataset_paths.split(text) == expected


def test_what_is_there_decides(here, walk):
    for name in ("no_suffix", "x.cxi", "a:b.h5", "a.h5:b"):
        make(name, walk)
        assert dataset_paths.split(name) == (name, None)
        assert dataset_paths.split(f"{name}:/entry/data") == (name, "entry/data")
        assert dataset_paths.split(f"{name}:/a:b") == (name, "a:b")
    os.mkdir("run.h5:c")
    assert dataset_paths.split("run.h5:c") == ("run.h5:c", None)
    with open("text", "w") as file:
        file.write("no HDF5")
    assert dataset_paths.split("text:/x") == ("text:/x", None)


@pytest.mark.parametrize("drive", ["C:", "c:\\data\\", "\\\\host\\share\\"])
def test_drives_of_windows(here, monkeypatch, drive):
    for splitdrive in (os.path.splitdrive, ntpath.splitdrive):
        monkeypatch.setattr(os.path, "splitdrive", splitdrive)
        assert dataset_paths.split(f"{drive}run.h5") == (f"{drive}run.h5", None)
        assert dataset_paths.split(f"{drive}run.h5:/x") == (f"{drive}run.h5", "x")
        assert dataset_paths.split(f"{drive}images") == (f"{drive}images", None)


def test_a_drive_is_no_file(here, walk, monkeypatch):
    make("C", walk)
    monkeypatch.setattr(os.path, "splitdrive", ntpath.splitdrive)
    assert dataset_paths.split("C:/entry/data") == ("C:/entry/data", None)


def of_compress(text):
    with open_source(text) as data:
        return data[()]


def of_training(text):
    (sequence,) = open_sequences(text)
    return sequence[:][..., 0]


TAKERS = {"compress": of_compress, "bench": lambda text: sources.load(text)[1]}
TAKERS["train"] = of_training


@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
def test_whoever_takes_them_takes_the_same(here, walk, take):
    for name in ("run.h5", "x.cxi", "a:b.h5"):
        make(name, walk)
        np.testing.assert_array_equal(take(f"{name}:/entry/data"), walk)
        np.testing.assert_array_equal(take(f"{name}:entry"), walk)  # the data of a group
        np.testing.assert_array_equal(take(f"{name}:/a:b"), walk[:9])
        for wrong in ("missing", "empty", "type", "entry/data/deeper"):
            with pytest.raises(InputError, match=f"{name} holds no dataset '/{wrong}'"):
                take(f"{name}:/{wrong}")
    with pytest.raises(InputError, match=r"absent\.h5 (is no file|does not exist)"):
        take("absent.h5:/entry/data")


def test_the_only_stack_of_a_file_needs_no_name(here, walk, capsys):
    tezip_h5.write(walk, "run.h5", window=4)
    with h5py.File("run.h5", "r+") as file:
        file["a/table"] = np.zeros((3, 4))
    assert main(["compress", "none", "run.h5", "out.h5"]) == 0
    np.testing.assert_array_equal(tezip_h5.read("out.h5"), walk)
    tezip_h5.write(walk[:3], "run.h5", "more")
    capsys.readouterr()
    assert main(["compress", "none", "run.h5", "other.h5"]) == 1
    said = capsys.readouterr().err
    assert "run.h5 holds 2 stacks: /more/data, /scan/data; name one, such as run.h5:/more/d" in said
    with h5py.File("none.h5", "w") as file:
        file["image"] = walk[0]
    assert main(["compress", "none", "none.h5", "other.h5"]) == 1
    assert "none.h5 holds no stack" in capsys.readouterr().err


def test_writing_takes_names(here, walk):
    make("run.h5", walk)
    os.mkdir("kept")
    tezip_h5.write(walk, "kept/one.h5", window=4)
    for number, text in enumerate(
        ("run.h5:/entry/data", Path("run.h5:/entry/data"), "kept/one.h5", Path("kept/one.h5"))
    ):
        out = f"out{number}.h5"
        tezip_h5.write(text, out, level="fast", verify=True)
        np.testing.assert_array_equal(tezip_h5.read(out), walk)
        assert tezip_h5.verify(out, text).max_error == 0
    os.remove("run.h5")  # it is closed
    for text in ("run.h5:/entry/data", "run.h5"):
        with pytest.raises(InputError, match=r"run\.h5 is (no file|not there)"):
            tezip_h5.write(text, "other.h5")
    assert not os.path.exists("other.h5")


def test_writing_closes_what_it_opened(here, walk):
    make("run.h5", walk)
    with pytest.raises(InputError, match="unknown option"):
        tezip_h5.write("run.h5:/entry/data", "out.h5", foo=1)
    with h5py.File("run.h5", "r+") as file:  # which another opening to be read would not allow
        del file["entry"]


def test_writing_needs_one_stack_and_another_file(here, walk):
    make("run.h5", walk)
    with pytest.raises(InputError, match=r"holds 2 stacks: /a:b, /entry/data; name one"):
        tezip_h5.write("run.h5", "out.h5")
    with pytest.raises(InputError, match=r"no path was given for what .* of 'run\.h5:/entry/"):
        tezip_h5.write("run.h5:/entry/data")
    os.symlink("run.h5", "link.h5")
    before = Path("run.h5").read_bytes()
    for target in ("run.h5", "link.h5"):
        with pytest.raises(InputError, match="is the file that is read; give another one"):
            tezip_h5.write("run.h5:/entry/data", target)
    assert Path("run.h5").read_bytes() == before
    Path("text.txt").write_text("no stack")
    with pytest.raises(InputError, match=r"text\.txt is a file of another kind"):
        tezip_h5.write("text.txt", "out.h5")
    with pytest.raises(InputError, match="the name of the images is empty"):
        tezip_h5.write("", "out.h5")
    assert not os.path.exists("out.h5")


def test_the_command_line_says_what_is_missing(here, walk, capsys):
    make("run.h5", walk)
    assert main(["compress", "none", "run.h5:/missing", "out.h5"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("tezip-h5: run.h5 holds no dataset '/missing'; name one")
    assert said.count("\n") == 1
