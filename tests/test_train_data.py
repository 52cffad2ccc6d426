"""`train-data`: folders of images to the original's training data."""

import shutil

import numpy as np
import pytest
from PIL import Image

from tezip_h5.cli import main
from tezip_h5.cli.train_data import main as train_data_create
from tezip_h5.errors import InputError
from tezip_h5.model import hickle, traindata
from tezip_h5.model.sequences import open_sequences

FOUR = ["X_train.hkl", "X_val.hkl", "sources_train.hkl", "sources_val.hkl"]


def save(folder, frames, mode=None):
    folder.mkdir(parents=True, exist_ok=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).convert(mode or None).save(folder / f"img_{i}.png")


@pytest.fixture
def images(tmp_path):
    """Sequences s1, s2, s3, s10 of grey 16x24 images, as many as their number plus one."""
    for number in (1, 2, 3, 10):
        frames = [np.full((16, 24), 10 * number + i, np.uint8) for i in range(number + 1)]
        save(tmp_path / "in" / f"s{number}", frames)
    return tmp_path / "in"


def x_of(folder, part):
    with hickle.opened(folder / f"X_{part}.hkl") as file:
        return hickle.open_array(file)[...]


def listing(folder):
    return sorted(p.name for p in folder.iterdir())


def test_four_files(images, tmp_path, capsys):
    out = tmp_path / "out/here"
    assert main(["train-data", str(images), str(out)]) == 0
    assert "X_train.hkl: 16 frames of 16x24, 1 channel" in capsys.readouterr().out
    assert listing(out) == FOUR
    assert x_of(out, "train")[:, 0, 0, 0].tolist() == [10, 11, 20, 21, 22, *range(100, 111)]
    assert x_of(out, "val")[:, 5, 5, 0].tolist() == [30, 31, 32, 33]
    names = ["train-s1"] * 2 + ["train-s2"] * 3 + ["train-s10"] * 11
    assert hickle.read_names(out / "sources_train.hkl") == names
    assert hickle.read_names(out / "sources_val.hkl") == ["val-s3"] * 4
    assert [len(s) for s in open_sequences(out)] == [2, 3, 11, 4]


def test_the_manuals_program(images, tmp_path):
    assert train_data_create([str(images), str(tmp_path / "out")]) == 0
    assert listing(tmp_path / "out") == FOUR


def test_nothing_is_put_beside_the_sequences(images, capsys):
    before = sorted(images.iterdir())
    assert train_data_create([str(images), str(images)]) == 1
    assert "give another folder" in capsys.readouterr().err
    assert sorted(images.iterdir()) == before


def test_validation_by_name(images, tmp_path):
    out = tmp_path / "out"
    assert main(["train-data", str(images), str(out), "-v", "s2", "-v", "s10"]) == 0
    assert set(hickle.read_names(out / "sources_val.hkl")) == {"val-s2", "val-s10"}
    assert set(hickle.read_names(out / "sources_train.hkl")) == {"train-s1", "train-s3"}


@pytest.mark.parametrize(("count", "kept"), [(2, 1), (9, 1), (10, 1), (19, 1), (20, 2), (100, 10)])
def test_a_tenth_is_for_validation(count, kept):
    names = [f"s{i}" for i in range(count)]
    assert len(traindata.choose_validation(names)) == kept
    assert traindata.choose_validation(names) == traindata.choose_validation(names)


def test_smaller_images_are_padded_and_grey_becomes_rgb(tmp_path):
    grey = np.arange(5 * 7, dtype=np.uint8).reshape(5, 7)
    colour = np.random.default_rng(0).integers(0, 256, (9, 6, 4), np.uint8)
    save(tmp_path / "in/grey", [grey, grey])
    save(tmp_path / "in/rgba", [colour, colour])
    shapes = traindata.create(tmp_path / "in", tmp_path / "out", validation=["rgba"])
    assert shapes == {"train": (2, 16, 8, 3), "val": (2, 16, 8, 3)}
    for channel in range(3):
        expected = np.pad(grey, ((0, 11), (0, 1)), mode="edge")
        np.testing.assert_array_equal(x_of(tmp_path / "out", "train")[1, ..., channel], expected)
    np.testing.assert_array_equal(x_of(tmp_path / "out", "val")[0, :9, :6], colour[..., :3])


@pytest.mark.parametrize("mode", ["1", "P", "LA", "L"])
def test_modes_of_images(tmp_path, mode):
    frame = np.where(np.arange(64).reshape(8, 8) % 3 == 0, 255, 0).astype(np.uint8)
    for name in ("a", "b"):
        save(tmp_path / "in" / name, [frame, frame], mode)
    traindata.create(tmp_path / "in", tmp_path / "out")
    for channel in np.moveaxis(x_of(tmp_path / "out", "train")[0], 2, 0):
        np.testing.assert_array_equal(channel, frame)


def test_cmyk_becomes_rgb(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "in" / name / f"{i}.tif")
    traindata.create(tmp_path / "in", tmp_path / "out")
    assert x_of(tmp_path / "out", "train")[0, 0, 0].tolist() == [0, 255, 255]


def one_sequence(folder):
    for name in ("s1", "s2", "s3"):
        shutil.rmtree(folder / name)


def no_folder(folder):
    shutil.rmtree(folder)


def stray_file(folder):
    (folder / "notes.txt").write_text("notes")


def one_image(folder):
    (folder / "s1/img_1.png").unlink()


def two_sizes(folder):
    Image.new("L", (24, 17)).save(folder / "s2/img_1.png")


def sixteen_bits(folder):
    save(folder / "s2", [np.zeros((16, 24), np.uint16)] * 3)


def an_empty_folder(folder):
    (folder / "s4").mkdir()


def a_damaged_image(folder):
    path = folder / "s10/img_9.png"
    path.write_bytes(path.read_bytes()[:45])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (one_sequence, "1 sequence"),
        (no_folder, "is no folder"),
        (stray_file, "holds notes.txt"),
        (one_image, "holds one image"),
        (two_sizes, "images of one kind"),
        (sixteen_bits, "uint16"),
        (an_empty_folder, "holds no image"),
        (a_damaged_image, "img_9.png"),
    ],
)
def test_errors_leave_nothing_half_written(images, tmp_path, spoil, message, capsys):
    spoil(images)
    assert main(["train-data", str(images), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.strip().splitlines()[-1].startswith("tezip-h5: ")
    assert not (tmp_path / "out").exists()


def test_an_error_keeps_what_was_there(images, tmp_path):
    out = tmp_path / "out"
    traindata.create(images, out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    a_damaged_image(images)
    with pytest.raises(InputError, match="img_9"):
        traindata.create(images, out)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


@pytest.mark.parametrize("names", [["s4"], ["s1", "s2", "s3", "s10"], []])
def test_validation_that_cannot_be(images, tmp_path, names):
    with pytest.raises(InputError, match="validat"):
        traindata.create(images, tmp_path / "out", validation=names)


def test_no_space(images, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(traindata.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"0.0 GB are free; make room"):
        traindata.create(images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way(images, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="is a file"):
        traindata.create(images, tmp_path / "out")


def test_the_real_hickle_loads_it(images, tmp_path):
    real = pytest.importorskip("hickle", minversion="5")
    traindata.create(images, tmp_path / "out")
    frames = real.load(str(tmp_path / "out/X_train.hkl"))
    np.testing.assert_array_equal(frames, x_of(tmp_path / "out", "train"))
    names = real.load(str(tmp_path / "out/sources_train.hkl"))
    assert names == hickle.read_names(tmp_path / "out/sources_train.hkl")
    assert all(type(name) is str for name in names)


def test_blocks_of_frames(images, tmp_path, monkeypatch):
    monkeypatch.setattr(traindata, "_BLOCK_BYTES", 3 * 16 * 24)
    traindata.create(images, tmp_path / "out", validation=["s10"])
    assert x_of(tmp_path / "out", "val")[:, 0, 0, 0].tolist() == list(range(100, 111))
