"""Image files through a stack and back: same name, mode, samples, palette."""

import numpy as np
import pytest
from PIL import Image

import tezip_h5
from tezip_h5 import InputError
from tezip_h5.images import ImageFolder, ImageFormat, natural_key, write_images


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    return path


def image(mode, seed=0, size=(13, 9)):
    rng = np.random.default_rng(seed)
    width, height = size
    if mode == "1":
        return Image.fromarray(rng.integers(0, 2, (height, width), dtype=np.uint8) * 255).convert(
            "1"
        )
    if mode == "P":
        made = Image.frombytes("P", size, rng.integers(0, 7, width * height, np.uint8).tobytes())
        made.putpalette(rng.integers(0, 256, 21, np.uint8).tobytes())
        return made
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (height, width), dtype=np.uint16))
    if mode == "I":
        return Image.fromarray(rng.integers(-70000, 70000, (height, width)).astype(np.int32))
    if mode == "F":
        return Image.fromarray(rng.normal(size=(height, width)).astype(np.float32))
    bands = len(Image.new(mode, (1, 1)).getbands())
    samples = rng.integers(0, 256, height * width * bands, dtype=np.uint8)
    return Image.frombytes(mode, size, samples.tobytes())


ROUND_TRIPS = [
    *[(mode, "png") for mode in ("1", "L", "P", "LA", "RGB", "RGBA", "I;16")],
    *[(mode, "tif") for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F")],
    *[(mode, "bmp") for mode in ("1", "L", "P", "RGB")],
    ("L", "pgm"),
    ("RGB", "ppm"),
    ("P", "gif"),
]


@pytest.mark.parametrize(("mode", "suffix"), ROUND_TRIPS)
def test_files_come_back_as_they_were(folder, tmp_path, mode, suffix):
    names = [f"shot_{i}.{suffix}" for i in (1, 2, 10)]
    for i, name in enumerate(names):
        image(mode, i).save(folder / name)
    tezip_h5.write(folder, tmp_path / "run.h5", verify=True)
    renamed = tezip_h5.extract(tmp_path / "run.h5", tmp_path / "out")
    assert renamed == {}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(names)
    for name in names:
        with Image.open(folder / name) as a, Image.open(tmp_path / "out" / name) as b:
            assert a.mode == b.mode
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
            if mode == "P":
                np.testing.assert_array_equal(np.asarray(a.convert("RGB")), b.convert("RGB"))


def test_transparent_palettes_come_back(folder, tmp_path):
    for i in range(2):
        image("P", i).save(folder / f"{i}.png", transparency=bytes([0, 255, 128]))
    tezip_h5.write(folder, tmp_path / "run.h5")
    tezip_h5.extract(tmp_path / "run.h5", tmp_path / "out")
    for i in range(2):
        with Image.open(folder / f"{i}.png") as a, Image.open(tmp_path / "out" / f"{i}.png") as b:
            np.testing.assert_array_equal(np.asarray(a.convert("RGBA")), b.convert("RGBA"))


def test_a_bound_expands_what_samples_only_stand_for(folder, tmp_path):
    image("P").save(folder / "a.png")
    summary = tezip_h5.write(folder, tmp_path / "run.h5", absolute=3)
    assert summary.shape == (1, 9, 13, 3)
    expected = np.asarray(image("P").convert("RGB")).astype(int)
    assert np.abs(tezip_h5.read(tmp_path / "run.h5")[0] - expected).max() <= 3
    tezip_h5.verify(tmp_path / "run.h5", folder)


def test_order_is_natural(folder):
    for number in (1, 2, 10, 100):
        image("L", number).save(folder / f"img_{number}.png")
    assert ImageFolder(folder, expand=False).filenames == [f"img_{n}.png" for n in (1, 2, 10, 100)]
    padded = [f"a{n:04}.png" for n in (3, 20, 100)]
    assert sorted(padded, key=natural_key) == sorted(padded)


def test_litter_is_passed_over(folder):
    image("L").save(folder / "a.png")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / name).write_bytes(b"x")
    assert len(ImageFolder(folder, expand=False)) == 1


def test_lossy_names_become_png_and_are_reported(folder, tmp_path):
    image("RGB").save(folder / "a.jpg")
    image("RGB", 1).save(folder / "b.jpg")
    original = ImageFolder(folder, expand=False)
    tezip_h5.write(folder, tmp_path / "run.h5")
    renamed = tezip_h5.extract(tmp_path / "run.h5", tmp_path / "out")
    assert renamed == {"a.jpg": "a.png", "b.jpg": "b.png"}
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "b.png")), original[1])


def test_a_new_name_never_meets_a_recorded_one(tmp_path):
    frames = [np.full((4, 4), i, np.uint8) for i in range(4)]
    renamed = write_images(tmp_path, frames, ["a.jpg", "a.png", "b.tif", "b.tif"])
    assert renamed == {"a.jpg": "a_1.png", "b.tif": "b_1.tif"}
    for i, name in enumerate(["a_1.png", "a.png", "b.tif", "b_1.tif"]):
        assert (np.asarray(Image.open(tmp_path / name)) == i).all()


def test_frames_without_names(tmp_path):
    write_images(tmp_path / "a", [np.zeros((4, 5), np.uint16)] * 2)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "frame_000000.png",
        "frame_000001.png",
    ]
    values = np.random.default_rng(0).normal(size=(4, 5))
    renamed = write_images(tmp_path / "b", [values])
    assert renamed == {"frame_000000.png": "frame_000000.npy"}
    np.testing.assert_array_equal(np.load(tmp_path / "b" / "frame_000000.npy"), values)


@pytest.mark.parametrize(
    "name", ["../x.png", "/etc/x.png", "a/b.png", "..", "", "a\\b.png", "a\0.png"]
)
def test_names_cannot_leave_the_folder(tmp_path, name):
    with pytest.raises(InputError, match="plain file name"):
        write_images(tmp_path / "out", [np.zeros((2, 2), np.uint8)], [name])
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_is_overwritten_unasked(tmp_path):
    (tmp_path / "a.png").write_bytes(b"precious")
    with pytest.raises(InputError, match="there already"):
        write_images(tmp_path, [np.zeros((2, 2), np.uint8)], ["a.png"])
    assert (tmp_path / "a.png").read_bytes() == b"precious"
    write_images(tmp_path, [np.zeros((2, 2), np.uint8)], ["a.png"], overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def text(folder):
    (folder / "notes.txt").write_text("hello")
    return "notes.txt is no image"


def truncated(folder):
    image("RGB", size=(90, 90)).save(folder / "z.png")
    data = (folder / "z.png").read_bytes()
    image("RGB", size=(90, 90)).save(folder / "a.png")
    (folder / "z.png").write_bytes(data[: len(data) // 2])
    return "z.png cannot be read"


def other_size(folder):
    image("L", size=(13, 8)).save(folder / "b.png")
    return "b.png is L 13x8"


def other_mode(folder):
    image("RGB").save(folder / "b.png")
    return "b.png is RGB"


def animation(folder):
    first, second = image("P", 0), image("P", 1)
    first.save(folder / "b.gif", save_all=True, append_images=[second])
    return "b.gif holds 2 images"


def inner_folder(folder):
    (folder / "more").mkdir()
    return "holds a folder, 'more'"


@pytest.mark.parametrize(
    "spoil", [text, truncated, other_size, other_mode, animation, inner_folder]
)
def test_folders_that_make_no_stack(folder, tmp_path, spoil):
    if spoil is not truncated:
        image("L").save(folder / "a.png")
    words = spoil(folder)
    with pytest.raises(InputError, match=words):
        tezip_h5.write(folder, tmp_path / "run.h5")
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]


def test_missing_and_empty_folders(folder, tmp_path):
    with pytest.raises(InputError, match="holds no image"):
        tezip_h5.write(folder, tmp_path / "run.h5")
    with pytest.raises(InputError, match="is no folder"):
        tezip_h5.write(folder / "nowhere", tmp_path / "run.h5")


def png_16_bit_rgb(path):
    """A 16-bit RGB PNG, which Pillow reads at 8 bits."""
    import struct
    import zlib

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + bytes(range(12)) for _ in range(2))
    head = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def test_samples_are_never_narrowed_silently(folder, tmp_path):
    png_16_bit_rgb(folder / "deep.png")
    with pytest.raises(InputError, match="16 bits per channel"):
        tezip_h5.write(folder, tmp_path / "run.h5")


def test_the_format_survives_as_text():
    made = ImageFormat("P", ("AAAA", "BBBB"), (3,))
    assert ImageFormat.from_json(made.to_json()) == made
    for text in ("", "[]", "{}", '{"mode": "X"}', '{"mode": "L", "colour": [1]}'):
        with pytest.raises(InputError):
            ImageFormat.from_json(text)
