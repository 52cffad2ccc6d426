"""Image files through frames and back: same name, mode, samples, palette, transparency."""

import errno
import io
import os
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import PIL
import pytest
from conftest import require_package
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

import tezip_h5
from tezip_h5 import InputError
from tezip_h5.stacks.images import ImageFolder, ImageFormat, natural_key, write_images

SAME_FOLDER = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    return path


def image(mode, seed=0, size=(13, 9)):
    rng = np.random.default_rng(seed)
    width, height = size
    if mode == "1":
        bits = rng.integers(0, 2, (height, width), dtype=np.uint8)
        return Image.fromarray(bits * 255).convert("1")
    if mode in ("P", "PA"):
        indices = rng.integers(0, 7, width * height, np.uint8).tobytes()
        made = Image.frombytes("P", size, indices)
        made.putpalette(rng.integers(0, 256, 21, np.uint8).tobytes())
        return made.convert(mode)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (height, width), dtype=np.uint16))
    if mode == "I":
        return Image.fromarray(rng.integers(-70000, 70000, (height, width)).astype(np.int32))
    if mode == "F":
        return Image.fromarray(rng.normal(size=(height, width)).astype(np.float32))
    bands = len(Image.new(mode, (1, 1)).getbands())
    samples = rng.integers(0, 256, height * width * bands, dtype=np.uint8)
    return Image.frombytes(mode, size, samples.tobytes())


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(depth, colour):
    """A PNG file of 2x2 pixels, of a bit depth that Pillow may not write."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    rows = b"".join(b"\0" + bytes(range(2 * channels * depth // 8)) for _ in range(2))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(samples, bits, kind=1, photometric=1, extra=(), planar=1, orientation=1):
    """A little-endian TIFF file of samples (H, W, C), of a kind that Pillow may not write."""
    height, width, channels = samples.shape
    planes = samples if planar == 1 else np.moveaxis(samples, 2, 0)
    lists, start = b"", 8
    tags = [(256, [width]), (257, [height]), (258, [bits] * channels), (259, [1])]
    tags += [(262, [photometric]), (273, None), (274, [orientation]), (277, [channels])]
    tags += (
        [(278, [height]), (279, None), (284, [planar])]
        + [(338, list(extra))] * bool(extra)
        + [(339, [kind] * channels)]
    )
    strips = 1 if planar == 1 else channels
    size = samples.nbytes // strips
    after = start + 2 + 12 * len(tags) + 4
    pixels = after + 200
    values = {
        273: [pixels + i * size for i in range(strips)],
        279: [size] * strips,
    }
    entries = b""
    for tag, numbers in tags:
        numbers = values.get(tag, numbers)
        data = struct.pack(f"<{len(numbers)}H", *numbers)
        if len(data) > 4:
            data, lists = struct.pack("<I", after + len(lists)), lists + data
        entries += struct.pack("<HHI", tag, 3, len(numbers)) + data.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<IH", start, len(tags)) + entries + bytes(4)
    return head + lists.ljust(200, b"\0") + planes.tobytes()


def saved(made, kind, **options):
    buffer = io.BytesIO()
    made.save(buffer, kind, **options)
    return buffer.getvalue()


def big_endian(made):
    return Image.frombytes("I;16B", made.size, np.asarray(made).astype(">u2").tobytes())


def assert_same_file(one, other):
    with Image.open(one) as a, Image.open(other) as b:
        assert (a.mode, a.size) == (b.mode, b.size)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
        assert a.getpalette() == b.getpalette()
        assert a.info.get("transparency") == b.info.get("transparency")


def through(folder, out):
    """Write what is read, without a codec between."""
    images = ImageFolder(folder, expand=False)
    text = images.image_format.to_json()
    return write_images(out, images, images.filenames, ImageFormat.from_json(text))


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# What comes back as it was

MODES = ("1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16", "I", "F")
ROUND_TRIPS = [
    *[(mode, "png") for mode in ("1", "L", "P", "LA", "RGB", "RGBA", "I;16")],
    *[(mode, "tif") for mode in MODES],
    *[(mode, "bmp") for mode in ("1", "L", "P", "RGB")],
    *[(mode, "tga") for mode in ("1", "L", "P", "LA", "RGB", "RGBA")],
    *[("1", "pbm"), ("L", "pgm"), ("RGB", "ppm"), ("I;16", "pgm"), ("F", "pfm"), ("P", "gif")],
    *[("RGB", "sgi"), ("P", "pcx"), ("RGB", "TIFF")],
]


@pytest.mark.parametrize(("mode", "suffix"), ROUND_TRIPS)
def test_files_come_back_as_they_were(folder, tmp_path, mode, suffix):
    names = [f"shot_{i}.{suffix}" for i in (1, 2, 10)]
    for i, name in enumerate(names):
        image(mode, i, size=(16, 9)).save(folder / name)
    images = ImageFolder(folder, expand=False)
    bands = {"LA": (2,), "RGB": (3,), "RGBA": (4,), "CMYK": (4,)}.get(mode, ())
    assert images.shape == (3, 9, 16, *bands)
    assert images.dtype == {"I;16": "u2", "I": "i4", "F": "f4"}.get(mode, "u1")
    for i, frame in enumerate(images):
        assert frame.shape == images.shape[1:]
        assert frame.dtype == images.dtype
        np.testing.assert_array_equal(frame, np.asarray(image(mode, i, size=(16, 9))))
    assert through(folder, tmp_path / "out") == {}
    assert names_in(tmp_path / "out") == sorted(names)
    for name in names:
        assert_same_file(folder / name, tmp_path / "out" / name)


@pytest.mark.parametrize(("mode", "suffix"), [(mode, "tif") for mode in MODES] + [("P", "gif")])
def test_files_come_back_from_a_stack(folder, tmp_path, mode, suffix):
    names = [f"shot_{i}.{suffix}" for i in (1, 2, 10)]
    for i, name in enumerate(names):
        image(mode, i).save(folder / name)
    tezip_h5.write(folder, tmp_path / "run.h5", verify=True)
    assert tezip_h5.extract(tmp_path / "run.h5", tmp_path / "out") == {}
    for name in names:
        assert_same_file(folder / name, tmp_path / "out" / name)


TRANSPARENT = [
    ("P", "png", [bytes([0, 255, 128]), bytes([7, 7])]),
    ("P", "png", [3, 4]),
    ("P", "gif", [2, 2]),
    ("L", "png", [17, 18]),
    ("1", "png", [255, 0]),
    ("I;16", "png", [40000, 2]),
    ("RGB", "png", [(1, 2, 3), (65535, 0, 9)]),
    ("RGB", "png", [(1, 2, 3), None]),
]


@pytest.mark.parametrize(("mode", "suffix", "values"), TRANSPARENT)
def test_transparency_comes_back(folder, tmp_path, mode, suffix, values):
    for i, value in enumerate(values):
        options = {} if value is None else {"transparency": value}
        image(mode, i).save(folder / f"{i}.{suffix}", **options)
    assert through(folder, tmp_path / "out") == {}
    for i, value in enumerate(values):
        with Image.open(tmp_path / "out" / f"{i}.{suffix}") as back:
            assert back.info.get("transparency") == value
        assert_same_file(folder / f"{i}.{suffix}", tmp_path / "out" / f"{i}.{suffix}")


def test_one_palette_is_kept_once(folder):
    for i in range(3):
        image("P", 5).save(folder / f"{i}.png")
    assert len(ImageFolder(folder, expand=False).image_format.palettes) == 1
    image("P", 6).save(folder / "3.png")
    assert len(ImageFolder(folder, expand=False).image_format.palettes) == 4


@pytest.mark.skipif(PIL.__version__ < "13", reason="Pillow 13 reads such a palette first")
def test_alphas_within_a_palette_are_kept(folder, tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (7, 4), np.uint8)
    indices = (np.arange(20, dtype=np.uint8) % 7).reshape(4, 5)
    head = struct.pack("<BBBHHBHHHHBB", 0, 1, 1, 0, 7, 32, 0, 0, 5, 4, 8, 0x20)
    (folder / "a.tga").write_bytes(head + colours[:, [2, 1, 0, 3]].tobytes() + indices.tobytes())
    expanded = ImageFolder(folder, expand=True)
    np.testing.assert_array_equal(expanded[0], colours[indices])
    assert expanded.image_format == ImageFormat("RGBA")
    assert through(folder, tmp_path / "out") == {"a.tga": "a.png"}
    with Image.open(tmp_path / "out" / "a.png") as back:
        np.testing.assert_array_equal(np.asarray(back), indices)
        np.testing.assert_array_equal(np.asarray(back.convert("RGBA")), colours[indices])


def test_every_index_comes_back_though_the_palette_is_short(tmp_path):
    frame = np.arange(200, dtype=np.uint8).reshape(10, 20)
    write_images(tmp_path, [frame], ["a.png"], ImageFormat("P", (bytes(6),)))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), frame)


def test_floats_come_back_to_the_bit(tmp_path):
    bits = np.array([[0x7FC00001, 0xFFC12345, 0x80000000, 1, 0x7F800000]], np.uint32)
    write_images(tmp_path, [bits.view(np.float32)], ["a.tif"])
    np.testing.assert_array_equal(ImageFolder(tmp_path, expand=False)[0].view(np.uint32), bits)


# What samples mean


def test_a_bound_expands_what_samples_only_stand_for(folder, tmp_path):
    image("P").save(folder / "a.png")
    summary = tezip_h5.write(folder, tmp_path / "run.h5", absolute=3)
    assert summary.shape == (1, 9, 13, 3)
    expected = np.asarray(image("P").convert("RGB")).astype(int)
    assert np.abs(tezip_h5.read(tmp_path / "run.h5")[0] - expected).max() <= 3
    tezip_h5.verify(tmp_path / "run.h5", folder)


@pytest.mark.parametrize(
    ("mode", "suffix", "options", "expanded"),
    [
        ("1", "png", {}, "L"),
        ("P", "png", {}, "RGB"),
        ("P", "png", {"transparency": bytes([9, 99])}, "RGBA"),
        ("P", "gif", {"transparency": 2}, "RGBA"),
        ("L", "png", {}, "L"),
        ("PA", "tif", {}, "RGBA"),
    ],
)
def test_expanded_samples(folder, tmp_path, mode, suffix, options, expanded):
    image(mode).save(folder / f"a.{suffix}", **options)
    images = ImageFolder(folder, expand=True)
    assert images.image_format == ImageFormat(expanded)
    with Image.open(folder / f"a.{suffix}") as original:
        np.testing.assert_array_equal(images[0], np.asarray(original.convert(expanded)))
    assert images.shape[3:] == {"L": (), "RGB": (3,), "RGBA": (4,)}[expanded]
    write_images(tmp_path / "out", images, images.filenames, images.image_format)
    written = ImageFolder(tmp_path / "out", expand=False)
    assert written.image_format.mode == expanded
    np.testing.assert_array_equal(written[0], images[0])


def test_palettes_with_alpha_are_always_expanded(folder):
    image("PA").save(folder / "a.tif")
    assert ImageFolder(folder, expand=False).image_format.mode == "RGBA"


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.png", png(16, 0), [[0x0001, 0x0203], [0x0001, 0x0203]]),
        ("a.pgm", b"P5 2 1 65535\n\x01\x02\xff\xfe", [[0x0102, 0xFFFE]]),
        ("a.pgm", b"P2 2 1 65535\n258 65534\n", [[258, 65534]]),
        ("a.tif", tiff(np.array([[[1], [65535]]], "<u2"), 16), [[1, 65535]]),
        ("a.tif", saved(big_endian(image("I;16")), "TIFF"), np.asarray(image("I;16"))),
    ],
)
def test_16_bit_grey_stays_16_bit(folder, tmp_path, name, data, expected):
    (folder / name).write_bytes(data)
    images = ImageFolder(folder, expand=False)
    assert (images.dtype, images.image_format.mode) == (np.uint16, "I;16")
    np.testing.assert_array_equal(images[0], expected)
    assert through(folder, tmp_path / "out") == {}
    np.testing.assert_array_equal(ImageFolder(tmp_path / "out", expand=False)[0], expected)


@pytest.mark.parametrize(
    "data",
    [
        b"P5 2 1 255\n\x05\xff",
        b"P2 2 1 255\n5 255\n",
        tiff(np.array([[[5], [255]]], "u1"), 8, orientation=0),  # which is none
        tiff(np.array([[[5], [255]]], "<u2"), 16, photometric=0),  # which Pillow leaves alone
    ],
)
def test_samples_come_as_they_lie_in_the_file(folder, data):
    (folder / "a.image").write_bytes(data)
    np.testing.assert_array_equal(ImageFolder(folder, expand=False)[0], [[5, 255]])


@pytest.mark.parametrize("data", [b"P1 2 1\n1 0\n", b"P4 2 1\n\x80"])
def test_bits_are_black_and_white(folder, data):
    (folder / "a.pbm").write_bytes(data)
    np.testing.assert_array_equal(ImageFolder(folder, expand=False)[0], [[0, 1]])


def test_signed_samples_keep_their_sign(folder):
    samples = np.array([[[-5], [32767]]], "<i2")
    (folder / "a.tif").write_bytes(tiff(samples, 16, kind=2))
    images = ImageFolder(folder, expand=False)
    assert images.dtype == np.int32
    np.testing.assert_array_equal(images[0], samples[..., 0])


def sgi16():
    head = struct.pack(">HBBHHHHII", 474, 0, 2, 3, 2, 2, 3, 0, 65535)
    return head.ljust(512, b"\0") + bytes(range(24))


def deep_jp2():
    """A JPEG 2000 file whose SIZ marker claims 12 bits for each channel."""
    data = bytearray(saved(image("RGB", size=(32, 32)), "JPEG2000"))
    at = data.index(b"\xff\x4f\xff\x51") + 42
    data[at : at + 9 : 3] = bytes([11] * 3)
    return bytes(data)


def samples(dtype, channels):
    return np.arange(4 * channels, dtype=dtype).reshape(2, 2, channels)


LOSSES = {
    "16-bit RGB PNG": (png(16, 2), "16 bits per channel"),
    "16-bit LA PNG": (png(16, 4), "16 bits per channel"),
    "16-bit RGBA PNG": (png(16, 6), "16 bits per channel"),
    "16-bit RGB TIFF": (tiff(samples("<u2", 3), 16, photometric=2), "16 bits per channel"),
    "16-bit planar TIFF": (
        tiff(samples("<u2", 3), 16, photometric=2, planar=2),
        "16 bits per channel",
    ),
    "16-bit CMYK TIFF": (tiff(samples("<u2", 4), 16, photometric=5), "16 bits per channel"),
    "10-bit PPM": (b"P6 1 1 1023\n" + bytes(6), "10 bits per channel"),
    "plain 16-bit PPM": (b"P3 1 1 65535\n1 2 3\n", "16 bits per channel"),
    "16-bit SGI": (sgi16(), "16 bits per channel"),
    "unsigned 32-bit TIFF": (tiff(samples("<u4", 1), 32), "unsigned samples of 32 bits"),
    "signed 8-bit TIFF": (tiff(samples("i1", 1), 8, kind=2), "signed samples of 8 bits"),
    "fourth channel": (tiff(samples("u1", 4), 8, photometric=2, extra=[0]), "beside the 3"),
    "12-bit PGM": (b"P5 2 1 4095\n" + bytes(4), "samples of 0 to 4095, .* to 65535"),
    "7-bit PGM": (b"P5 2 1 100\n" + bytes(2), "samples of 0 to 100, .* to 255"),
    "7-bit PPM": (b"P6 1 1 100\n" + bytes(3), "samples of 0 to 100"),
    "plain 12-bit PGM": (b"P2 2 1 4095\n5 4095\n", "samples of 0 to 4095"),
    "plain 7-bit PPM": (b"P3 1 1 100\n1 2 3\n", "samples of 0 to 100"),
    "white is 0": (tiff(samples("u1", 1), 8, photometric=0), "0 is white, .* the TIFF file itself"),
    "premultiplied": (
        tiff(samples("u1", 4), 8, photometric=2, extra=[1]),
        "multiplied by alpha",
    ),
}
for way in range(2, 9):
    turned = tiff(samples("<u2", 1), 16, orientation=way)
    LOSSES[f"orientation {way}"] = turned, f"the orientation {way}, .* the TIFF file itself"
if features.check("jpg_2000"):
    LOSSES["12-bit JPEG 2000"] = deep_jp2(), "12 bits per channel"


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float16", "uint64", "int64", "complex64"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_samples_that_no_image_holds_are_named(folder, dtype, big):
    tifffile = require_package("tifffile")
    tifffile.imwrite(folder / "a.tif", np.ones((4, 5), dtype), bigtiff=big)
    words = rf"a.tif has {dtype} samples, .*; compress the TIFF file itself"
    with pytest.raises(InputError, match=words):
        ImageFolder(folder, expand=False)
    (folder / "a.tif").write_bytes((folder / "a.tif").read_bytes()[:20])
    with pytest.raises(InputError, match="header is damaged"):
        ImageFolder(folder, expand=False)


@pytest.mark.parametrize("case", LOSSES)
def test_samples_are_never_narrowed_silently(folder, case):
    data, words = LOSSES[case]
    (folder / "deep.image").write_bytes(data)
    with pytest.raises(InputError, match=f"deep.image has .*{words}.*as an array"):
        ImageFolder(folder, expand=False)


# Which files, in which order


def test_order_is_natural(folder):
    for number in (1, 2, 10, 100):
        image("L", number).save(folder / f"img_{number}.png")
    images = ImageFolder(folder, expand=False)
    assert images.filenames == [f"img_{n}.png" for n in (1, 2, 10, 100)]
    assert len(images) == 4
    for number, frame in zip((1, 2, 10, 100), images, strict=True):
        np.testing.assert_array_equal(frame, np.asarray(image("L", number)))


PADDED = st.tuples(st.text("aB-._é²٣", min_size=1, max_size=3), st.integers(0, 999))


@given(st.lists(st.lists(PADDED, max_size=3), max_size=5))
def test_order_of_padded_names_is_plain(lists):
    names = ["".join(f"{number:03}{text}" for text, number in parts) for parts in lists]
    assert sorted(names, key=natural_key) == sorted(names)


def test_order_of_equal_numbers_is_plain():
    for names in (["a1", "a001", "a01"], ["a01", "a1", "a001"]):
        assert sorted(names, key=natural_key) == ["a001", "a01", "a1"]


def test_litter_is_passed_over(folder):
    image("L").save(folder / "a.png")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._a.png"):
        (folder / name).write_bytes(b"x")
    assert ImageFolder(folder, expand=False).filenames == ["a.png"]


def test_pixels_are_read_one_frame_at_a_time(folder):
    image("RGB", size=(90, 90)).save(folder / "a.png")
    data = saved(image("RGB", size=(90, 90)), "PNG")
    (folder / "b.png").write_bytes(data[: len(data) // 2])
    images = ImageFolder(folder, expand=False)
    assert images[0].shape == (90, 90, 3)
    with pytest.raises(InputError, match=r"b.png cannot be read as an image: .*; restore it"):
        images[1]


def test_a_file_that_changed_is_refused(folder):
    image("L").save(folder / "a.png")
    images = ImageFolder(folder, expand=False)
    image("RGB").save(folder / "a.png")
    with pytest.raises(InputError, match=r"a.png has changed"):
        images[0]
    (folder / "a.png").unlink()
    with pytest.raises(InputError, match=r"a.png cannot be read"):
        images[0]


def text(folder):
    (folder / "notes.txt").write_text("hello")
    return "notes.txt is no image, .*restore it, or move it"


def nothing(folder):
    (folder / "b.png").touch()
    return "b.png is no image"


def truncated_palette(folder):
    data = saved(image("P", size=(90, 90)), "PNG")
    (folder / "a.png").write_bytes(data[:-30])
    return "a.png cannot be read"


def other_size(folder):
    image("L", size=(13, 8)).save(folder / "b.png")
    return "b.png is L 13x8, but a.png L 13x9"


def other_mode(folder):
    image("L").save(folder / "b.png")
    image("RGB").save(folder / "c.png")
    return "c.png is RGB 13x9, but a.png L 13x9"


def other_expansion(folder):
    image("P").save(folder / "a.png")
    image("L").save(folder / "b.png")
    return "b.png is L 13x9, but a.png P 13x9"


def animation(folder):
    first, second = image("P", 0), image("P", 1)
    first.save(folder / "b.gif", save_all=True, append_images=[second])
    return "b.gif holds 2 images; split"


def animated_png(folder):
    image("L", 0).save(folder / "b.png", save_all=True, append_images=[image("L", 1)])
    return "b.png holds 2 images; split"


def pages(folder):
    image("L", 0).save(folder / "b.tif", save_all=True, append_images=[image("L", 1)] * 2)
    return "b.tif holds 3 images; split .* or compress this file itself"


def inner_folder(folder):
    (folder / "more").mkdir()
    return "more is a folder"


def broken_link(folder):
    (folder / "b.png").symlink_to(folder / "nowhere")
    return "b.png is a link to nothing"


def hdf5(folder):
    h5py.File(folder / "out.h5", "w").close()
    return "out.h5 is HDF5, no image; move it"


def other_format(folder):
    image("L", size=(16, 16)).save(folder / "b.ico", sizes=[(16, 16)])
    return "b.ico is ICO, .*convert"


def other_colours(folder):
    (folder / "a.png").unlink()
    Image.new("LAB", (4, 4)).save(folder / "a.tif")
    return "a.tif has the mode LAB; convert"


def test_a_dataset_of_what_is_no_hdf5_file(tmp_path):
    file = tmp_path / "winds.nc"
    file.write_bytes(b"CDF\x01" + bytes(60))
    with pytest.raises(InputError, match=r"winds\.nc is no HDF5 file; give one"):
        tezip_h5.write(f"{file}:/SST", tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize(
    "spoil",
    [
        *(text, nothing, truncated_palette, other_size, other_mode, other_expansion, animation),
        hdf5,
        *(animated_png, pages, inner_folder, broken_link, other_format, other_colours),
    ],
)
def test_folders_that_make_no_stack(folder, tmp_path, spoil):
    image("L").save(folder / "a.png")
    words = spoil(folder)
    with pytest.raises(InputError, match=words):
        ImageFolder(folder, expand=False)
    with pytest.raises(InputError):
        tezip_h5.write(folder, tmp_path / "run.h5")
    assert names_in(tmp_path) == [folder.name]


def test_missing_and_empty_folders(folder):
    with pytest.raises(InputError, match="images holds no image"):
        ImageFolder(folder, expand=False)
    with pytest.raises(InputError, match="nowhere is not there; give a folder of images or a file"):
        ImageFolder(folder / "nowhere", expand=False)
    image("L").save(folder / "a.png")
    with pytest.raises(InputError, match=r"a.png is no folder"):
        ImageFolder(folder / "a.png", expand=False)


def test_a_bomb_is_refused(folder, monkeypatch):
    image("L").save(folder / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(InputError, match=r"a.png cannot .*bomb.*raise PIL.Image.MAX_IMAGE_PIXELS"):
        ImageFolder(folder, expand=False)
    assert Image.MAX_IMAGE_PIXELS == 20


KINDS = [("P", "PNG"), ("RGB", "PNG"), ("P", "GIF"), ("RGB", "TIFF"), ("P", "BMP"), ("RGB", "JPEG")]
KINDS += [("L", "PPM"), ("P", "TGA"), ("RGB", "WEBP"), ("P", "PCX"), ("RGB", "SGI")]
FILES = [saved(image(mode), kind) for mode, kind in KINDS]


@SAME_FOLDER
@given(st.sampled_from(FILES), st.data())
@pytest.mark.filterwarnings("ignore")
def test_damage_is_refused_or_read(folder, data, draw):
    damaged = bytearray(data)
    if draw.draw(st.booleans()):
        del damaged[draw.draw(st.integers(0, len(data) - 1)) :]
    else:
        for at in draw.draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=3)):
            damaged[at] ^= 1 << draw.draw(st.integers(0, 7))
    (folder / "a.image").write_bytes(damaged)
    try:
        images = ImageFolder(folder, expand=draw.draw(st.booleans()))
        assert images[0].shape == images.shape[1:]
    except InputError as error:
        if "a.image" not in str(error):
            raise


# Under which names


@pytest.mark.parametrize(
    ("mode", "name", "renamed"),
    [
        *[("RGB", f"a.{suffix}", "a.png") for suffix in ("jpg", "JPEG", "webp", "jp2", "gif")],
        *[("CMYK", "a.jpg", "a.tif"), ("CMYK", "a.png", "a.tif"), ("F", "a.gif", "a.tif")],
        *[("I", "a.png", "a.tif"), ("I", "a.pgm", "a.tif"), ("I;16", "a.jp2", "a.png")],
        *[("RGBA", "a.bmp", "a.png"), ("P", "a.ppm", "a.png"), ("P", "a.jpg", "a.png")],
        *[("1", "a.gif", "a.png"), ("L", "a.gif", "a.png"), ("LA", "a.pgm", "a.png")],
        *[("L", "a", "a.png"), ("L", "a.0001", "a.0001.png"), ("L", ".hidden", ".hidden.png")],
    ],
)
def test_names_of_formats_that_lose_are_changed(tmp_path, mode, name, renamed):
    frame = np.asarray(image(mode)).astype("u1" if mode == "1" else np.asarray(image(mode)).dtype)
    palette = bytes(image("P").getpalette()) if mode == "P" else None
    made = ImageFormat(mode, (palette,))
    assert write_images(tmp_path, [frame], [name], made) == {name: renamed}
    assert names_in(tmp_path) == [renamed]
    (tmp_path / renamed).rename(tmp_path / "visible")
    back = ImageFolder(tmp_path, expand=False)
    assert back.image_format == made
    assert back[0].tobytes() == frame.tobytes()


def test_a_palette_of_greys_stays_a_gif(folder, tmp_path):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(ramp).save(folder / "a.gif")
    assert through(folder, tmp_path / "out") == {}
    assert_same_file(folder / "a.gif", tmp_path / "out" / "a.gif")


def test_lossy_files_come_back_as_pillow_reads_them(folder, tmp_path):
    image("RGB").save(folder / "a.jpg")
    image("RGB", 1).save(folder / "b.jpg")
    original = ImageFolder(folder, expand=False)
    tezip_h5.write(folder, tmp_path / "run.h5")
    renamed = tezip_h5.extract(tmp_path / "run.h5", tmp_path / "out")
    assert renamed == {"a.jpg": "a.png", "b.jpg": "b.png"}
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "b.png")), original[1])


def test_a_new_name_never_meets_a_recorded_one(tmp_path):
    frames = [np.full((4, 4), i, np.uint8) for i in range(6)]
    recorded = ["a.jpg", "a.png", "b.tif", "b.tif", "b_1.tif", "B.TIF"]
    renamed = write_images(tmp_path, frames, recorded)
    assert renamed == {"a.jpg": "a_1.png", "b.tif": "b_2.tif", "B.TIF": "B_3.TIF"}
    for i, name in enumerate(["a_1.png", "a.png", "b.tif", "b_2.tif", "b_1.tif", "B_3.TIF"]):
        assert (np.asarray(Image.open(tmp_path / name)) == i).all()


NAMES = st.text("abAB.1_", min_size=1, max_size=4).filter(lambda name: name.strip("."))


@SAME_FOLDER
@given(names=st.lists(st.tuples(NAMES, st.sampled_from(["", ".png", ".jpg", ".TIF", ".gif"]))))
def test_every_frame_gets_a_file(tmp_path_factory, names):
    out = tmp_path_factory.mktemp("out")
    names = ["".join(pair) for pair in names]
    frames = [np.full((1, 2), i, np.uint8) for i in range(len(names))]
    renamed = write_images(out, frames, names)
    written = {path.name: int(np.asarray(Image.open(path))[0, 0]) for path in out.iterdir()}
    assert sorted(written.values()) == list(range(len(names)))
    assert len({name.casefold() for name in written}) == len(names)
    for name, target in renamed.items():
        assert name in names
        assert name != target
        assert names[written[target]] == name
    for name in {*names} - {*renamed}:
        assert names[written[name]] == name


def test_frames_without_a_name_among_others(tmp_path):
    frames = [np.full((2, 2), i, np.uint8) for i in range(5)]
    names = ["frame_000001.png", None, "b.jpg", None, "b.png"]
    assert write_images(tmp_path, frames, names) == {"b.jpg": "b_1.png"}
    read = {path.name: int(np.asarray(Image.open(path))[0, 0]) for path in tmp_path.iterdir()}
    expected = ["frame_000001.png", "frame_000001_1.png", "b_1.png", "frame_000003.png", "b.png"]
    assert read == {name: i for i, name in enumerate(expected)}
    with pytest.raises(InputError, match=r"frame_000001.png is there already"):
        write_images(tmp_path, frames[:2], [None, None])
    assert len(names_in(tmp_path)) == 5


@pytest.mark.parametrize(
    "name",
    [
        *("../x.png", "/etc/x.png", "a/b.png", "a/", "..", ".", "", "a\0.png", "a\\b.png"),
        *("C:x.png", "C:\\x.png", "\\\\host\\share\\x.png", "..\\x.png", "//host/x.png"),
    ],
)
def test_names_cannot_leave_the_folder(tmp_path, name):
    frames = [np.zeros((2, 2), np.uint8)] * 2
    with pytest.raises(InputError) as caught:
        write_images(tmp_path / "out", frames, ["fine.png", name])
    assert f"{name!r} is no plain file name" in str(caught.value)
    assert names_in(tmp_path) == []


@given(st.text(max_size=8))
@SAME_FOLDER
def test_no_name_at_all_leaves_the_folder(tmp_path_factory, name):
    out = tmp_path_factory.mktemp("outer") / "out"
    try:
        write_images(out, [np.zeros((1, 1), np.uint8)], [name])
    except InputError:
        assert not out.exists()
    except (OSError, UnicodeError):  # a name that this system does not take
        assert names_in(out) == []
    else:
        assert len(names_in(out)) == 1
    assert names_in(out.parent) in ([], ["out"])


# Without a record

PLAIN = [
    *[("u1", (), "L", "png"), ("u1", (1,), "L", "png"), ("u1", (2,), "LA", "png")],
    *[("u1", (3,), "RGB", "png"), ("u1", (4,), "RGBA", "png"), ("u2", (), "I;16", "png")],
    *[(">u2", (), "I;16", "png"), ("i4", (), "I", "tif"), ("f4", (), "F", "tif")],
    *[("<f4", (1,), "F", "tif"), (">f4", (), "F", "tif")],
]


@pytest.mark.parametrize(("dtype", "channels", "mode", "suffix"), PLAIN)
def test_frames_without_names(tmp_path, dtype, channels, mode, suffix):
    stack = np.random.default_rng(0).integers(0, 127, (2, 4, 5, *channels)).astype(dtype)
    assert write_images(tmp_path / "out", stack) == {}
    images = ImageFolder(tmp_path / "out", expand=False)
    assert images.filenames == [f"frame_000000.{suffix}", f"frame_000001.{suffix}"]
    assert images.image_format.mode == mode
    for frame, back in zip(stack, images, strict=True):
        np.testing.assert_array_equal(frame.reshape(back.shape), back)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        *[(dtype, (4, 5)) for dtype in ("i1", "i2", "u4", "f2", "f8", "?", "i8", "c8")],
        *[("u2", (4, 5, 3)), ("u1", (4, 5, 5)), ("f4", (4, 5, 3)), ("u1", (7,)), ("u1", (0, 3))],
        *[("u1", (2, 2, 3, 3))],
    ],
)
def test_frames_that_are_no_images(tmp_path, dtype, shape):
    frame = np.random.default_rng(0).integers(0, 99, shape).astype(dtype)
    assert write_images(tmp_path, [frame]) == {}
    back = np.load(tmp_path / "frame_000000.npy")
    assert back.dtype == frame.dtype
    np.testing.assert_array_equal(back, frame)
    assert write_images(tmp_path, [frame], ["a.jpg"]) == {"a.jpg": "a.npy"}


def test_numbers_are_as_wide_as_the_count(tmp_path):
    frame = np.zeros((1, 1), np.uint8)
    write_images(tmp_path / "a", [frame], count=1_000_000)
    write_images(tmp_path / "b", [frame], count=1_000_001)
    assert names_in(tmp_path / "a") == ["frame_000000.png"]
    assert names_in(tmp_path / "b") == ["frame_0000000.png"]
    assert write_images(tmp_path / "c", []) == {}
    assert names_in(tmp_path / "c") == []


# What is refused, and what is left behind


def test_nothing_is_overwritten_unasked(tmp_path):
    (tmp_path / "b.png").write_bytes(b"precious")
    frames = [np.zeros((2, 2), np.uint8)] * 2
    for last in ("b.png", "b.jpg"):
        with pytest.raises(InputError, match=r"b.png is there already; give an empty folder"):
            write_images(tmp_path, frames, ["a.png", last])
    assert names_in(tmp_path) == ["b.png"]
    assert (tmp_path / "b.png").read_bytes() == b"precious"
    write_images(tmp_path, frames, ["a.png", "b.png"], overwrite=True)
    assert names_in(tmp_path) == ["a.png", "b.png"]
    assert Image.open(tmp_path / "b.png").size == (2, 2)


def test_a_link_to_nothing_is_not_overwritten_unasked(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="there already"):
        write_images(tmp_path, np.zeros((1, 3, 4), np.uint8), ["a.png"])
    assert names_in(tmp_path) == ["a.png"]
    assert (tmp_path / "a.png").is_symlink()


def test_numbered_files_are_not_overwritten(tmp_path):
    (tmp_path / "frame_000000.png").write_bytes(b"precious")
    with pytest.raises(InputError, match=r"frame_000000.png is there already"):
        write_images(tmp_path, [np.zeros((2, 2), np.uint8)])
    assert (tmp_path / "frame_000000.png").read_bytes() == b"precious"


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="out is a file; give a folder"):
        write_images(tmp_path / "out", [np.zeros((2, 2), np.uint8)])


@pytest.mark.parametrize("count", [1, 3])
def test_names_and_frames_must_match(tmp_path, count):
    with pytest.raises(InputError, match="there are 2 filenames"):
        write_images(tmp_path, np.zeros((count, 2, 2), np.uint8), ["a.png", "b.png"])


@pytest.mark.parametrize(
    ("frame", "mode"),
    [
        (np.zeros((2, 2), np.uint16), "L"),
        (np.zeros((2, 2), np.int32), "I;16"),
        (np.zeros((2, 2), np.uint8), "RGB"),
        (np.zeros((2, 2, 3), np.uint8), "RGBA"),
        (np.full((2, 2), 2, np.uint8), "1"),
    ],
)
def test_frames_must_be_of_the_mode(tmp_path, frame, mode):
    with pytest.raises(InputError, match=rf"for a.tif, is no image of mode {mode}"):
        write_images(tmp_path, [frame], ["a.tif"], ImageFormat(mode))
    assert names_in(tmp_path) == []


def test_a_frame_unlike_the_first_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"uint16 \(2, 2\), for frame_000001.png"):
        write_images(tmp_path, [np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint16)])


def full(path, data):
    with open(path, "wb") as file:
        file.write(data[:5])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def denied(source, target):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize(
    ("place", "name", "failing"), [(Path, "write_bytes", full), (os, "replace", denied)]
)
@pytest.mark.parametrize("dtype", ["u1", "f8"])
def test_no_half_file_stays(tmp_path, monkeypatch, place, name, failing, dtype):
    monkeypatch.setattr(place, name, failing)
    with pytest.raises(OSError) as caught:
        write_images(tmp_path, np.zeros((2, 20, 20), dtype))
    assert not isinstance(caught.value, InputError)
    assert names_in(tmp_path) == []


def test_what_reads_back_otherwise_is_refused(tmp_path, monkeypatch):
    plain = Image.Image.save

    def forgetful(image, *args, **options):
        plain(image.point(lambda value: value & 254), *args, **options)

    monkeypatch.setattr(Image.Image, "save", forgetful)
    with pytest.raises(InputError, match=r"a.png would not read back"):
        write_images(tmp_path, [np.ones((2, 2), np.uint8)], ["a.png"])
    assert names_in(tmp_path) == []


# The record as text

EXTRAS = st.one_of(st.none(), st.integers(0, 65535), st.binary(max_size=256))


@given(
    st.sampled_from(MODES),
    st.lists(st.none() | st.binary(min_size=3, max_size=768), min_size=1, max_size=4),
    st.lists(EXTRAS | st.tuples(*[st.integers(0, 65535)] * 3), min_size=1, max_size=4),
)
def test_the_format_survives_as_text(mode, palettes, transparencies):
    made = ImageFormat(mode, tuple(palettes), tuple(transparencies))
    assert ImageFormat.from_json(made.to_json()) == made


def test_the_text_is_short():
    assert ImageFormat("L").to_json() == '{"mode": "L"}'
    made = ImageFormat("P", (b"\0\1\2",), (7, b"\xff"))
    assert made.to_json() == '{"mode": "P", "palettes": ["AAEC"], "transparencies": [7, "/w=="]}'


BAD = ["", "[]", "{}", "7", '{"mode": "X"}', '{"mode": []}', '{"mode": "L", "colour": [1]}']
BAD += ['{"mode": "P", "palettes": []}', '{"mode": "P", "palettes": ["?"]}', "[" * 100_000]


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_other_text_is_refused(text):
    with pytest.raises(InputError, match="image format cannot be read"):
        ImageFormat.from_json(text)


def test_a_record_that_ends_early_is_refused(tmp_path):
    made = ImageFormat("P", (bytes(3), bytes(6)))
    with pytest.raises(InputError, match="ends before frame 2"):
        write_images(tmp_path, np.zeros((3, 2, 2), np.uint8), image_format=made)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("ABC=", max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@SAME_FOLDER
@given(st.sampled_from(MODES), JSON, JSON, st.sampled_from(["a.png", "a.tif", "a.gif"]))
@pytest.mark.filterwarnings("ignore")
def test_a_forged_record_raises_nothing_else(tmp_path, mode, palettes, transparencies, name):
    import json

    text = json.dumps({"mode": mode, "palettes": palettes, "transparencies": transparencies})
    frame = np.asarray(image(mode))
    frame = frame.astype(np.uint8) if mode == "1" else frame
    try:
        write_images(tmp_path, [frame], [name], ImageFormat.from_json(text), overwrite=True)
    except InputError:
        assert all(not path.name.startswith(".") for path in tmp_path.iterdir())
