"""Stacks in single files: TIFF with many pages, OME-TIFF, .npy, .npz."""

import argparse
import contextlib
import logging
import os
import threading
import zipfile

import h5py
import numpy as np
import pytest
from conftest import require_package
from PIL import Image

import tezip_h5
from tezip_h5 import InputError
from tezip_h5.cli import compress, main
from tezip_h5.settings import Settings
from tezip_h5.stacks.stackfiles import open_file

FAST = {"level": "fast"}


@pytest.fixture
def tifffile():
    return require_package("tifffile")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.h5"


def panels(walk):
    return np.stack([walk, walk + 5, walk * 2], axis=1)


@pytest.mark.parametrize("fortran", [False, True])
def test_npy(tmp_path, out, walk, fortran):
    path = tmp_path / "x.npy"
    np.save(path, np.asfortranarray(walk) if fortran else walk)
    tezip_h5.write(path, out, verify=True, **FAST)
    np.testing.assert_array_equal(tezip_h5.read(out), walk)
    tezip_h5.verify(out, str(path))
    np.save(path, panels(walk))
    with pytest.raises(InputError, match="axes="):
        tezip_h5.write(path, out, "more", **FAST)
    tezip_h5.write(str(path), out, "more", axes="TMYX", **FAST)
    np.testing.assert_array_equal(tezip_h5.read(out, name="more"), panels(walk))


def test_npz(tmp_path, out, walk):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, frames=walk)
    tezip_h5.write(path, out, **FAST)
    np.savez(path, frames=walk, other=walk[:3] + 1)
    with pytest.raises(InputError, match="holds frames, other; name one"):
        tezip_h5.write(path, out, "b", **FAST)
    tezip_h5.write(f"{path}:other", out, "b", **FAST)
    np.testing.assert_array_equal(tezip_h5.read(out, name="scan"), walk)
    np.testing.assert_array_equal(tezip_h5.read(out, name="b"), walk[:3] + 1)


def test_numpy_files_that_are_wrong(tmp_path, out, walk):
    np.save(tmp_path / "whole.npy", walk)
    whole = (tmp_path / "whole.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(whole[:-9])
    (tmp_path / "text.npy").write_text("text")
    (tmp_path / "text.npz").write_text("text")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "objects.npy", np.array([{}, 3], object))
    np.save(tmp_path / "flat.npy", walk[0])
    np.save(tmp_path / "complex.npy", walk.astype("c8"))
    header = whole[: whole.index(b"\n") + 1].replace(b"(20, 40, 56)", b"(2000000, 40000, 5600)")
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("x.npy", header + bytes(100))
    with zipfile.ZipFile(tmp_path / "none.npz", "w"):
        pass
    names = ["short.npy", "text.npy", "text.npz", "empty.npz", "objects.npy", "flat.npy"]
    for name in [*names, "complex.npy", "bomb.npz", "none.npz", "whole.npy:x", "none.npz:x"]:
        with pytest.raises(InputError):
            tezip_h5.write(f"{tmp_path}/{name}", out, **FAST)
        assert not out.exists()


def test_numpy_files_that_are_damaged(tmp_path, out, walk):
    """Whatever a reader makes of the damage: zlib's errors, a parser's, an integer too large."""
    np.save(tmp_path / "x.npy", walk)
    np.savez_compressed(tmp_path / "x.npz", x=walk)
    npy, npz = ((tmp_path / f"x.{kind}").read_bytes() for kind in ("npy", "npz"))
    flags = bytearray(npz)
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # where "encrypted" is said
        flags[flags.index(mark) + at] |= 1
    method = bytearray(npz)
    for mark, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        method[method.index(mark) + at] = 99
    damaged = {
        "stream.npz": npz[:300] + bytes(255 ^ b for b in npz[300:310]) + npz[310:],
        "locked.npz": bytes(flags),
        "method.npz": bytes(method),
        "open.npy": npy.replace(b"), }", b"    "),
        "negative.npy": npy.replace(b"(20, 40, 56)", b"(-20,40, 56)"),
        "huge.npy": npy.replace(b"(20, 40, 56), }" + 15 * b" ", b"(4000000000000, 160000, 16), }"),
    }
    for name, data in damaged.items():
        assert data not in (npy, npz)
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name}.* cannot be read: .*restore it"):
            tezip_h5.write(tmp_path / name, out, **FAST)
        assert not out.exists()


@pytest.mark.parametrize("how", [{}, {"compression": "zlib"}, {"bigtiff": True}])
@pytest.mark.parametrize("dtype", ["<u2", ">u2", "u1", "f4"])
def test_tiff(tmp_path, out, walk, tifffile, how, dtype):
    path = tmp_path / "x.tif"
    stack = walk.astype(dtype)
    tifffile.imwrite(path, stack, photometric="minisblack", **how)
    tezip_h5.write(path, out, verify=True, **FAST)
    np.testing.assert_array_equal(tezip_h5.read(out), stack)
    tezip_h5.verify(out, path)


@pytest.mark.parametrize("kind", ["ome", "imagej", "plain"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_with_more_axes(tmp_path, out, walk, tifffile, kind, compression):
    stack = np.stack([panels(walk), panels(walk)[::-1]], axis=1)  # T, Z, C, Y, X
    if kind == "imagej" and compression:
        pytest.skip("ImageJ's hyperstacks are not compressed")
    path = tmp_path / ("x.ome.tif" if kind == "ome" else "x.tif")
    options = {"ome": {"ome": True}, "imagej": {"imagej": True}, "plain": {}}[kind]
    options["photometric"] = "minisblack"
    tifffile.imwrite(path, stack, metadata={"axes": "TZCYX"}, compression=compression, **options)
    done = tezip_h5.write(path, out, verify=True, **FAST)
    assert done.shape == stack.shape
    np.testing.assert_array_equal(tezip_h5.read(out), stack)
    with h5py.File(out) as f:
        assert f["scan/data"].chunks[1:] == (1, 1, 40, 56)
    tezip_h5.verify(out, path)


def test_tiff_without_a_time_axis(tmp_path, out, walk, tifffile):
    path = tmp_path / "z.ome.tif"
    tifffile.imwrite(path, walk, metadata={"axes": "ZYX"})
    assert tezip_h5.write(path, out, **FAST).shape == walk.shape
    colours = np.stack([walk, walk, walk], -1).astype("u1")
    tifffile.imwrite(path, colours, photometric="rgb", compression="zlib")
    assert tezip_h5.write(path, out, "b", **FAST).shape == colours.shape
    np.testing.assert_array_equal(tezip_h5.read(out, name="b"), colours)
    tifffile.imwrite(path, walk[0])
    assert tezip_h5.write(path, out, "one", **FAST).shape == (1, 40, 56)


def test_several_series(tmp_path, out, walk, tifffile):
    path = tmp_path / "x.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(walk, photometric="minisblack")
        tiff.write(walk[:4, :30], photometric="minisblack")
    for name in ("", ":", ":2", ":x", ":-1", ":٣"):
        with pytest.raises(InputError, match=r"2 series.*; name one of them as .*:0 to .*:1$"):
            tezip_h5.write(f"{path}{name}", out, **FAST)
    tezip_h5.write(f"{path}:1", out, **FAST)
    np.testing.assert_array_equal(tezip_h5.read(out), walk[:4, :30])


def test_tiff_files_that_are_wrong(tmp_path, out, walk, tifffile):
    path = tmp_path / "x.tif"
    path.write_text("text")
    with pytest.raises(InputError, match="cannot be read as TIFF"):
        tezip_h5.write(path, out, **FAST)
    tifffile.imwrite(path, walk, photometric="minisblack", compression="zlib")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(40):  # anything but a crash, or samples that are not there
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 3):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged[: rng.integers(8, len(whole))])
        with contextlib.suppress(InputError):
            made = tezip_h5.write(path, out, overwrite=True, **FAST)
            assert tezip_h5.read(out).shape == made.shape
    assert sorted(os.listdir(tmp_path)) in (["out.h5", "x.tif"], ["x.tif"])


def test_the_command_line(tmp_path, out, walk, capsys):
    np.save(tmp_path / "x.npy", panels(walk))
    mask = np.zeros((3, 40, 56), bool)
    mask[1, 3] = True
    np.save(tmp_path / "mask.npy", mask)
    with h5py.File(tmp_path / "m.h5", "w") as f:
        f["mask"] = mask.astype("u4")
    words = ["compress", "none", str(tmp_path / "x.npy"), str(out), "--level", "fast"]
    words += ["--axes", "tmyx", "-m", "abs", "-b", "3"]
    assert main([*words, "--mask", str(tmp_path / "mask.npy")]) == 0
    assert main([*words, "--mask", f"{tmp_path / 'm.h5'}:/mask", "--name", "again"]) == 0
    for name in ("scan", "again"):
        back = tezip_h5.read(out, name=name)
        np.testing.assert_array_equal(back[:, mask], panels(walk)[:, mask])
        assert 0 < np.abs(back.astype(int) - panels(walk)).max() <= 3
    assert main(["verify", str(out), "--name", "scan", "--against", str(tmp_path / "x.npy")]) == 0
    capsys.readouterr()
    assert main([*words, "--mask", str(tmp_path), "--name", "c"]) == 1
    assert "names no mask" in capsys.readouterr().err
    (tmp_path / "x.txt").write_text("x")
    assert main(["compress", "none", str(tmp_path / "x.txt"), str(out)]) == 1
    assert ".npz" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x.tif:3", "x.tif:x", "x.tif:"])
def test_a_part_of_a_tiff_file_that_has_one(tmp_path, out, walk, tifffile, name):
    tifffile.imwrite(tmp_path / "x.tif", walk)
    with pytest.raises(InputError, match=r"x.tif holds 1 series, .*'; give .*x.tif$"):
        tezip_h5.write(f"{tmp_path}/{name}", out, **FAST)


@pytest.mark.parametrize("name", ["x.npy", "x.npz:frames", "x.tif", "x.tif:0", "x.TIFF"])
def test_a_file_that_is_not_there(tmp_path, out, name):
    with pytest.raises(InputError, match=r"/x.\w+ is not there; give a"):
        tezip_h5.write(tmp_path / name, out, **FAST)
    link = tmp_path / name.partition(":")[0]
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"/x.\w+ is a link to .*nowhere, which is not there"):
        tezip_h5.write(tmp_path / name, out, **FAST)


def test_a_folder_may_be_named_like_a_file(tmp_path, out, walk):
    for name in ("x.npy", "x.tif:1"):
        (tmp_path / name).mkdir()
        Image.fromarray(walk[0]).save(tmp_path / name / "a.png")
        assert tezip_h5.write(tmp_path / name, out, overwrite=True, **FAST).shape == (1, 40, 56)


@pytest.mark.parametrize(
    "name", ["junk.npy", "junk.npz", "array.npz", "objects.npz", "objects.npy"]
)
def test_what_holds_no_numbers_is_not_to_be_trusted(tmp_path, out, walk, name):
    for junk in ("junk.npy", "junk.npz"):
        (tmp_path / junk).write_text("anything at all")
    with open(tmp_path / "array.npz", "wb") as file:
        np.save(file, walk)
    np.savez(tmp_path / "objects.npz", a=np.array([{}, 3], object))
    np.save(tmp_path / "objects.npy", np.array([{}, 3], object))
    with pytest.raises(
        InputError, match=r"file of numbers|holds? Python objects|Python objects in"
    ):
        tezip_h5.write(tmp_path / name, out, **FAST)
    with pytest.raises(InputError, match=r"(?s)^((?!pickle).)*$"):
        tezip_h5.write(tmp_path / name, out, **FAST)


# TIFF files of which a part is missing

KINDS = {
    "zlib": {"compression": "zlib"},
    "big-endian": {"compression": "zlib", "byteorder": ">"},
    "bigtiff": {"compression": "zlib", "bigtiff": True},
    "tiled": {"compression": "zlib", "tile": (16, 16)},
    "lzw": {"compression": "lzw"},
    "strips": {"compression": "zlib", "rowsperstrip": 7},
    "no metadata": {"compression": "zlib", "metadata": None},
    "ome": {"compression": "zlib", "ome": True, "metadata": {"axes": "TYX"}},
    "imagej": {"compression": "zlib", "imagej": True, "metadata": {"axes": "TYX"}},
    "jpeg": {"compression": "jpeg"},
    "plain": {},
    "plain pages": {"metadata": None, "contiguous": False},
    "plain ome": {"ome": True, "metadata": {"axes": "TYX"}},
    "plain imagej": {"imagej": True, "metadata": {"axes": "TYX"}},
}


def frames_of(path):
    return np.asarray(open_file(path)[0][:])


@pytest.fixture(params=KINDS)
def whole(request, tmp_path, walk, tifffile):
    """A TIFF file, and its samples as they read back."""
    if request.param in ("lzw", "jpeg"):
        require_package("imagecodecs")
    path = tmp_path / "x.tif"
    stack = (walk - walk.min()).astype("u1") if request.param == "jpeg" else walk
    tifffile.imwrite(path, stack, photometric="minisblack", **KINDS[request.param])
    frames = frames_of(path)
    assert frames.shape == walk.shape
    return path, frames


@pytest.mark.parametrize("level", [logging.NOTSET, logging.CRITICAL])
def test_a_truncated_tiff_file_is_refused(whole, caplog, level, monkeypatch):
    path, frames = whole
    data = path.read_bytes()
    logger = logging.getLogger("tifffile")
    monkeypatch.setattr(logger, "level", level)
    for part in (0.2, 0.5, 0.8, 0.97):
        short = data[: int(part * len(data))]
        path.write_bytes(short)
        if part < 0.97:
            with pytest.raises(InputError, match=r"x\.tif"):
                frames_of(path)
        with contextlib.suppress(InputError):  # the last bytes may say nothing of samples
            np.testing.assert_array_equal(frames_of(path), frames)
        assert path.read_bytes() == short
    assert caplog.records == []  # nor would any be printed
    assert (logger.level, logger.filters) == (level, [])


def test_half_a_tiff_file_is_said_to_be(tmp_path, out, walk, tifffile):
    path = tmp_path / "x.tif"
    words = "pages are missing: .*invalid page offset"
    for compression in ("zlib", None):
        tifffile.imwrite(path, walk, photometric="minisblack", compression=compression)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(InputError, match=rf"x.tif is truncated.*{words}.*; restore"):
            tezip_h5.write(path, out, **FAST)
        assert not out.exists()


def test_a_tiff_file_is_opened_for_reading_only(tmp_path, out, walk, tifffile):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, walk, photometric="minisblack")
    os.chmod(path, 0o444)
    before = path.read_bytes(), path.stat().st_mtime_ns
    array, _ = open_file(path)
    assert not array.flags.writeable
    tezip_h5.write(path, out, **FAST)
    np.testing.assert_array_equal(tezip_h5.read(out), walk)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_frames_that_metadata_promise(tmp_path, walk, tifffile):
    path = tmp_path / "x.ome.tif"
    tifffile.imwrite(path, walk, ome=True, metadata={"axes": "TYX"}, compression="zlib")
    xml = tifffile.TiffFile(path).ome_metadata
    more = xml.replace('SizeT="20"', 'SizeT="25"')
    assert more != xml
    tifffile.imwrite(path, walk, description=more, metadata=None, compression="zlib")
    with pytest.raises(InputError, match="missing 5 frames"):
        open_file(path)
    path = tmp_path / "x.tif"
    shape = '{"shape": [20, 40, 56]}'
    tifffile.imwrite(path, walk[:, :20, :28], description=shape, metadata=None, compression="zlib")
    with pytest.raises(InputError, match=r"20 pages, but its metadata|shaped series"):
        open_file(path)
    tifffile.imwrite(path, walk[:, :30], description=shape, metadata=None, compression="zlib")
    np.testing.assert_array_equal(frames_of(path), walk[:, :30])  # old metadata, but all pages


def test_a_warning_alone_refuses_no_file(tmp_path, walk, tifffile, monkeypatch, caplog):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, walk, photometric="minisblack", compression="zlib")
    plain = tifffile.TiffFile.__init__

    def warns(self, *args, **options):
        logging.getLogger("tifffile").warning("<TiffFile> GDAL metadata cannot be parsed")
        thread = threading.Thread(
            target=logging.getLogger("tifffile").error, args=["another's: invalid page offset 7"]
        )
        thread.start()
        thread.join()
        plain(self, *args, **options)

    monkeypatch.setattr(tifffile.TiffFile, "__init__", warns)
    np.testing.assert_array_equal(frames_of(path), walk)
    assert [record.msg for record in caplog.records] == ["another's: invalid page offset 7"]


# The command line


@pytest.mark.parametrize("suffix", ["h5", "hdf5", "nxs", "NXS"])
def test_datasets_of_files_of_any_suffix(tmp_path, out, walk, suffix, capsys):
    path = tmp_path / f"in.{suffix}"
    with h5py.File(path, "w") as f:
        f["entry/data:1"] = walk
    words = ["--level", "fast"]
    assert main(["compress", "none", f"{path}:/entry/data:1", str(out), *words]) == 0
    np.testing.assert_array_equal(tezip_h5.read(out), walk)
    assert main(["compress", "none", f"{path}:/other", str(out), "--name", "b"]) == 1
    assert f"in.{suffix} holds no dataset '/other'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x.npy", "--mask", ""], "--mask names no file"),
        (["x.npy", "--axes", ""], "--axes is empty"),
        ([""], "the name of the images is empty"),
        (["x.npy", "-w", "4294967296"], "window=4294967296 is no .* from 1 to 2147483647"),
        (["x.npy", "-p", "2147483648"], "warmup=2147483648 is no .* from 0 to 2147483647"),
    ],
)
def test_options_that_cannot_be_meant(tmp_path, walk, monkeypatch, words, message):
    np.save(tmp_path / "x.npy", walk)
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()  # a bare one: the command itself must refuse them
    compress.add_parser(parser.add_subparsers())
    source, *options = words
    args = parser.parse_args(["compress", "none", source, "out.h5", *options])
    with pytest.raises(InputError, match=message):
        args.run(args)
    assert os.listdir(tmp_path) == ["x.npy"]


@pytest.mark.parametrize(
    "value", [0, -1, 2.5, 2**31, 10**400, "5", "x", float("inf"), float("nan")]
)
def test_numbers_of_frames(value):
    with pytest.raises(
        InputError, match=r"window=.* is no number of frames; give an int from 1 to"
    ):
        Settings(window=value)
    assert Settings(window=2**31 - 1, warmup=2**31 - 1).window == 2**31 - 1
