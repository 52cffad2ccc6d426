"""Sequences to learn from, wherever they lie."""

import h5py
import numpy as np
import pytest
from PIL import Image

import tezip_h5
from tezip_h5.errors import InputError
from tezip_h5.model import hickle
from tezip_h5.model.sequences import open_sequences


def training_data(folder, part, names, frames=None):
    """X and sources files; returns the frames."""
    folder.mkdir(exist_ok=True)
    if frames is None:
        frames = np.random.default_rng(3).integers(0, 256, (len(names), 8, 12, 3), np.uint8)
    with hickle.ArrayWriter(folder / f"X_{part}.hkl", frames.shape) as out:
        out.append(frames)
    hickle.write_names(folder / f"sources_{part}.hkl", names)
    return frames


def image_folder(folder, frames):
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"img_{i}.png")
    return folder


def test_the_stacks_of_an_hdf5_file(tmp_path, walk):
    path = tmp_path / "run.h5"
    colour = np.zeros((5, 9, 10, 3), ">f4")
    with h5py.File(path, "w") as f:
        f["entry/data"] = walk
        f["entry/colour"] = colour
        f["entry/alias"] = f["entry/data"]
        f["entry/frame"] = walk[0]
        f["entry/one"] = walk[:1]
        f["entry/spectra"] = np.zeros((9, 3, 100))
        f["entry/many"] = np.zeros((4, 16, 16, 7))
        f["entry/words"] = np.full((3, 16, 16), b"x")
        f["entry/complex"] = np.zeros((3, 16, 16), "c8")
        f["entry/empty"] = h5py.Empty("u1")
    found = {s.name: s for s in open_sequences(path)}
    assert [name.split(":/")[1] for name in found] == ["entry/alias", "entry/colour"]
    stack, colours = found.values()
    assert stack.shape == (20, 40, 56, 1)
    assert stack.dtype == np.uint16
    assert not stack.validation
    assert len(stack) == 20
    np.testing.assert_array_equal(stack[3:7], walk[3:7, ..., None])
    np.testing.assert_array_equal(stack[18:40], walk[18:, ..., None])
    assert stack[5:5].shape == stack[7:5].shape == (0, 40, 56, 1)
    assert colours[1:3].dtype == colours.dtype == np.dtype("=f4")
    assert colours[1:3].dtype.isnative
    assert colours[:].shape == (5, 9, 10, 3)


def test_a_compressed_stack_is_taken_once(tmp_path, walk):
    path = tmp_path / "run.h5"
    tezip_h5.write(walk, path)
    with h5py.File(path, "a") as f:
        f.create_dataset("plain", data=walk, chunks=(5, 40, 56))
        tezip_h5.write(f["plain"])
    names = [s.name.split(":/")[1] for s in open_sequences(str(path))]
    assert sorted(names) == ["plain", "scan/data"]
    for sequence in open_sequences(path):
        np.testing.assert_array_equal(sequence[4:9], walk[4:9, ..., None])


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".nxs", ".H5"])
@pytest.mark.parametrize("inside", [":/a/data", ":a/data", ":/a"])
def test_a_dataset_by_name(tmp_path, walk, suffix, inside):
    path = tmp_path / f"run{suffix}"
    with h5py.File(path, "w") as f:
        f["a/data"] = walk
        f["b/data"] = walk
    (only,) = open_sequences(f"{path}{inside}")
    np.testing.assert_array_equal(only[:], walk[..., None])


def test_training_data(tmp_path):
    names = ["a", "a", "a", "b", "b", "a", "a"]
    frames = training_data(tmp_path / "data", "train", names)
    kept = training_data(tmp_path / "data", "val", ["v", "v"])
    found = open_sequences(tmp_path / "data")
    assert [s.shape[0] for s in found] == [3, 2, 2, 2]
    assert [s.name.split(":")[1] for s in found] == ["a", "b", "a", "v"]
    assert [s.validation for s in found] == [False, False, False, True]
    np.testing.assert_array_equal(found[1][0:2], frames[3:5])
    np.testing.assert_array_equal(found[2][1:9], frames[6:7])
    np.testing.assert_array_equal(found[3][:], kept)
    (tmp_path / "data/X_val.hkl").unlink()
    assert len(open_sequences(tmp_path / "data")) == 3


def test_one_x_file(tmp_path):
    frames = training_data(tmp_path, "train", ["a", "a", "b", "b", "b"])
    assert [len(s) for s in open_sequences(tmp_path / "X_train.hkl")] == [2, 3]
    (tmp_path / "X_train.hkl").rename(tmp_path / "other.hkl")
    (whole,) = open_sequences(tmp_path / "other.hkl")
    np.testing.assert_array_equal(whole[:], frames)


def test_folders_of_images(tmp_path, walk):
    image_folder(tmp_path / "in/s2", walk[:3])
    image_folder(tmp_path / "in/s10", walk[:12])
    (tmp_path / "in/.hidden").write_bytes(b"")
    found = open_sequences(tmp_path / "in")
    assert [s.shape for s in found] == [(3, 40, 56, 1), (12, 40, 56, 1)]
    np.testing.assert_array_equal(found[1][9:12], walk[9:12, ..., None])
    (one,) = open_sequences(tmp_path / "in/s2")
    np.testing.assert_array_equal(one[:], walk[:3, ..., None])


def test_several_paths(tmp_path, walk):
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f["x"] = walk
    folder = image_folder(tmp_path / "images", walk[:4])
    assert [len(s) for s in open_sequences([tmp_path / "a.h5", str(folder)])] == [20, 4]


def test_frames_are_read_as_they_are_sliced(tmp_path, walk, monkeypatch):
    folder = image_folder(tmp_path / "images", walk)
    (sequence,) = open_sequences(folder)
    for i in range(5, 20):
        (folder / f"img_{i}.png").unlink()
    np.testing.assert_array_equal(sequence[0:5], walk[:5, ..., None])
    with pytest.raises(InputError):
        sequence[4:6]


@pytest.mark.parametrize("part", [3, slice(0, 4, 2), slice(None, None, -1), (slice(0, 2), 1)])
def test_only_time_is_sliced(tmp_path, walk, part):
    (sequence,) = open_sequences(image_folder(tmp_path / "images", walk[:5]))
    with pytest.raises(TypeError):
        sequence[part]


def wrong(tmp_path, walk):
    """Paths that hold no sequence, and what is said."""
    with h5py.File(tmp_path / "run.h5", "w") as f:
        f["one"] = walk[:1]
        f["frame"] = walk[0]
        f["many"] = np.zeros((3, 9, 9, 5))
        f["words"] = np.full((3, 9, 9), b"x")
        f["empty"] = h5py.Empty("u1")
        f["group/x"] = 1
        f["lost"] = h5py.ExternalLink("gone.h5", "/x")
    run = f"{tmp_path}/run.h5"
    yield [], "no data to learn from"
    yield tmp_path / "absent", "does not exist"
    yield tmp_path / "absent.h5", "does not exist"
    yield f"{tmp_path}/absent.h5:/data", "absent.h5 does not exist"
    yield run, "holds no stack"
    yield f"{run}:/one", "sequence of 1 frame"
    yield f"{run}:/frame", "one frame"
    yield f"{run}:/many", "5 channels"
    yield f"{run}:/words", "dtype"
    yield f"{run}:/empty", "empty dataset"
    yield f"{run}:/group", "no dataset '/group'"
    yield f"{run}:/absent", "no dataset '/absent'"
    yield f"{run}:/lost", "no dataset '/lost'"
    (tmp_path / "text.h5").write_text("text")
    yield tmp_path / "text.h5", "no HDF5 file"
    (tmp_path / "text.hkl").write_text("text")
    yield tmp_path / "text.hkl", "no HDF5 file"
    (tmp_path / "text.txt").write_text("text")
    yield tmp_path / "text.txt", "no data to learn from"
    (tmp_path / "empty").mkdir()
    yield tmp_path / "empty", "no image"
    yield image_folder(tmp_path / "one", walk[:1]), "sequence of 1 frame"
    image_folder(tmp_path / "mixed/a", walk[:2])
    (tmp_path / "mixed/b.png").write_bytes(b"")
    yield tmp_path / "mixed", "beside folders"
    image_folder(tmp_path / "sizes/a", [walk[0], walk[1, :20]])
    yield tmp_path / "sizes", "images of one kind"
    training_data(tmp_path / "stray", "train", ["a", "a", "b"])
    yield tmp_path / "stray", ":b is a sequence of 1 frame"
    training_data(tmp_path / "short", "train", ["a", "a"])
    hickle.write_names(tmp_path / "short/sources_train.hkl", ["a"] * 3)
    yield tmp_path / "short", "names the sequences of 3 frames"
    training_data(tmp_path / "nameless", "train", ["a", "a"])
    (tmp_path / "nameless/sources_train.hkl").unlink()
    yield tmp_path / "nameless", "but not sources_train.hkl"
    training_data(tmp_path / "vals", "val", ["a", "a"])
    yield tmp_path / "vals", "no X_train.hkl"


def test_everything_else_is_refused(tmp_path, walk):
    for path, message in wrong(tmp_path, walk):
        with pytest.raises(InputError, match=message):
            open_sequences(path)


def test_a_damaged_chunk_is_an_input_error(tmp_path, walk):
    path = tmp_path / "run.h5"
    with h5py.File(path, "w") as f:
        f.create_dataset("x", data=walk, chunks=(20, 40, 56), fletcher32=True)
        offset = f["x"].id.get_chunk_info(0).byte_offset
    with open(path, "r+b") as file:
        file.seek(offset + 100)
        file.write(b"damage")
    (sequence,) = open_sequences(path)
    with pytest.raises(InputError, match="cannot be read"):
        sequence[0:2]
