"""Where a stack is written: what is there already, links, the size of the file, other datasets."""

import os

import h5py
import numpy as np
import pytest

import tezip_h5
from tezip_h5 import InputError, Writer
from tezip_h5.errors import FormatError
from tezip_h5.hdf5.contents import container

FAST = {"level": "fast", "model": None}


@pytest.fixture
def stack():
    return np.random.default_rng(0).poisson(40, (6, 8, 9)).astype("u2")


def test_a_group_that_is_no_stack_is_not_replaced(tmp_path, stack):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["scan/mine"] = stack
    with pytest.raises(InputError, match="holds no stack, and is not replaced"):
        tezip_h5.write(stack, path, overwrite=True, **FAST)
    with pytest.raises(InputError, match="holds no stack, and is not replaced"):
        Writer(path, "scan", (8, 9), "u2", overwrite=True, **FAST)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["scan/mine"], stack)


def test_a_group_in_which_a_dataset_was_compressed_is_not_replaced(tmp_path, stack):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["entry/scan/data"], file["entry/scan/angles"] = stack, np.arange(6)
        tezip_h5.write(file["entry/scan/data"], **FAST)
    with pytest.raises(InputError, match="holds no stack, and is not replaced"):
        tezip_h5.write(stack, path, "entry/scan", overwrite=True, **FAST)
    with h5py.File(path) as file:
        assert set(file["entry/scan"]) == {"data", "angles"}


@pytest.mark.parametrize("inner", ["scan/inner", "scan/far/within"])
def test_a_stack_in_which_another_lies_is_not_replaced(tmp_path, stack, inner):
    path = tmp_path / "a.h5"
    tezip_h5.write(stack, path, **FAST)
    tezip_h5.write(stack[:4], path, inner, **FAST)
    with pytest.raises(InputError, match=f"/{inner}/data, lies in its group"):
        tezip_h5.write(stack + 1, path, overwrite=True, **FAST)
    with pytest.raises(InputError, match=f"/{inner}/data, lies in its group"):
        Writer(path, "scan", (8, 9), "u2", overwrite=True, **FAST)
    np.testing.assert_array_equal(tezip_h5.read(path, name=inner), stack[:4])
    tezip_h5.write(stack, path, inner, overwrite=True, **FAST)
    np.testing.assert_array_equal(tezip_h5.read(path, name="scan"), stack)


def test_what_a_killed_writer_had_set_aside_stays(tmp_path, stack):
    path = tmp_path / "a.h5"
    tezip_h5.write(stack, path, **FAST)
    with h5py.File(path, "r+") as file:
        file[f"{container.REPLACED}/data"] = stack
    with Writer(path, "scan", (8, 9), "u2", overwrite=True, **FAST) as writer:
        writer.append(stack[:2])
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file[f"{container.REPLACED}/data"], stack)


@pytest.mark.parametrize("options", [{"overwrite": True}, {}])
def test_a_writer_that_does_not_begin_leaves_what_was(tmp_path, stack, options):
    path = tmp_path / "a.h5"
    tezip_h5.write(stack, path, **FAST)
    with pytest.raises(InputError):
        Writer(path, "scan", (8, 9), "u2", metadata={"x": object()}, **options, **FAST)
    np.testing.assert_array_equal(tezip_h5.read(path), stack)
    with h5py.File(path) as file:
        assert list(file) == ["scan"]
        assert len(file["scan/keyframes"]) > 0


def test_a_writer_replaces(tmp_path, stack):
    path = tmp_path / "a.h5"
    tezip_h5.write(stack, path, **FAST)
    with Writer(path, "scan", (8, 9), "u2", overwrite=True, **FAST) as writer:
        writer.append(stack[:2])
    np.testing.assert_array_equal(tezip_h5.read(path), stack[:2])
    with h5py.File(path) as file:
        assert list(file) == ["scan"]


def test_files_are_as_long_as_hdf5_needs(tmp_path, stack):
    whole, added, written = (tmp_path / name for name in ("whole.h5", "added.h5", "written.h5"))
    tezip_h5.write(stack, whole, **FAST)
    for name in ("a", "b"):
        tezip_h5.write(stack, added, name, **FAST)
    with Writer(written, "scan", (8, 9), "u2", **FAST) as writer:
        writer.append(stack)
    smaller = tmp_path / "smaller.h5"
    tezip_h5.recompress(added, smaller, level="fast")
    for path in (whole, added, written, smaller):
        size = path.stat().st_size
        h5py.File(path, "r+").close()  # cuts off what does not belong to it
        assert path.stat().st_size == size


def test_what_a_link_leads_to_is_written(tmp_path, stack):
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there" / "real.h5", tmp_path / "link.h5"
    link.symlink_to(real)
    tezip_h5.write(stack, link, **FAST)
    assert link.is_symlink()
    np.testing.assert_array_equal(tezip_h5.read(real), stack)
    copy, to_copy = tmp_path / "there" / "copy.h5", tmp_path / "to_copy.h5"
    to_copy.symlink_to(copy)
    tezip_h5.recompress(link, to_copy, level="fast")
    assert to_copy.is_symlink()
    np.testing.assert_array_equal(tezip_h5.read(copy), stack)


def test_converting_in_place_follows_links(tmp_path):
    real, link = tmp_path / "real.h5", tmp_path / "link.h5"
    with h5py.File(real, "w") as file:
        file["entry/images"] = np.zeros((4, 64, 64), "u2")
    link.symlink_to(real)
    tezip_h5.convert(link, in_place=True, level="fast")
    assert link.is_symlink()
    with h5py.File(real) as file:
        assert container.is_tezip(file["entry/images"])


def test_images_of_other_datasets(tmp_path, stack):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["plain"] = stack
        file["number"] = 3
        file["text"] = np.full((3, 4, 5), b"x")
    tezip_h5.extract(path, tmp_path / "out", name="plain")
    assert len(os.listdir(tmp_path / "out")) == len(stack)
    for name in ("number", "text"):
        with pytest.raises(InputError, match="frames are numbers in"):
            tezip_h5.extract(path, tmp_path / "other", name=name)


@pytest.mark.parametrize("filename", [3, b"x", [b"x"], [None], "a\0b", ["a.png", "b.png"]])
def test_what_is_no_file_name(tmp_path, filename):
    with Writer(tmp_path / "a.h5", "scan", (8, 9), "u2", **FAST) as writer:
        with pytest.raises(InputError):
            writer.append(np.zeros((8, 9), "u2"), filename=filename)
        writer.append(np.zeros((8, 9), "u2"), filename="a.png")
    assert tezip_h5.read(tmp_path / "a.h5").shape == (1, 8, 9)


@pytest.mark.parametrize("name", [5, [], [5], "other"])
def test_what_is_no_stack_to_recompress(tmp_path, stack, name):
    tezip_h5.write(stack, tmp_path / "a.h5", **FAST)
    with pytest.raises(InputError):
        tezip_h5.recompress(tmp_path / "a.h5", tmp_path / "b.h5", name=name)
    assert os.listdir(tmp_path) == ["a.h5"]


@pytest.mark.parametrize("queue_frames", ["a", 2.5, np.inf, [512], True])
def test_what_is_no_queue(tmp_path, queue_frames):
    with pytest.raises(InputError, match="queue_frames="):
        Writer(tmp_path / "a.h5", "scan", (8, 9), "u2", queue_frames=queue_frames, **FAST)
    assert not os.listdir(tmp_path)


def test_all_of_the_images_or_none(tmp_path, stack):
    """Without recorded names too a name that is taken shows before anything is written."""
    path, folder = tmp_path / "a.h5", tmp_path / "out"
    tezip_h5.write(stack, path, **FAST)
    folder.mkdir()
    (folder / "frame_000004.png").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"frame_000004\.png"):
        tezip_h5.extract(path, folder)
    assert os.listdir(folder) == ["frame_000004.png"]


def test_a_damaged_structure(tmp_path, stack, monkeypatch):
    path = tmp_path / "a.h5"
    tezip_h5.write(stack, path, **FAST)

    def fails(*_):
        raise RuntimeError("Object visitation failed")

    monkeypatch.setattr(h5py.File, "visititems", fails)
    with pytest.raises(FormatError, match="is damaged, HDF5 says: Object visitation failed"):
        tezip_h5.inspect(path)


def test_names_that_cannot_be(tmp_path, stack):
    path = tmp_path / "a.h5"
    with Writer(path, "scan", (8, 9), "u2", **FAST) as writer:
        writer.append(stack, filename=[f"{t}.png" for t in range(6)])
    with h5py.File(path, "r+") as file:
        file["scan/filenames"].resize(2**40, axis=0)
    with pytest.raises(FormatError, match=r"filenames of .* is damaged"):
        tezip_h5.extract(path, tmp_path / "out")


@pytest.mark.parametrize("path", [None, 5, "", "a\0.h5", "a\ud800.h5"])
def test_what_is_no_path(tmp_path, stack, path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (
        lambda: Writer(path, "scan", (8, 9), "u2", **FAST),
        lambda: tezip_h5.read(path),
        lambda: tezip_h5.inspect(path),
        lambda: tezip_h5.recompress(path, "b.h5"),
        lambda: tezip_h5.convert(path, "b.h5"),
        lambda: tezip_h5.repair(path),
    ):
        with pytest.raises(InputError):
            call()
    if path is not None:
        with pytest.raises(InputError):
            tezip_h5.write(stack, path, **FAST)
    assert not os.listdir(tmp_path)
