"""Stacks in single files: TIFF with many pages, OME-TIFF, .npy, .npz."""

import contextlib
import os
import zipfile

import h5py
import numpy as np
import pytest
from conftest import require_package

import tezip_h5
from tezip_h5 import InputError
from tezip_h5.cli import main

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
    with pytest.raises(InputError, match="2 series"):
        tezip_h5.write(path, out, **FAST)
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
            tezip_h5.write(path, out, overwrite=True, **FAST)
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
    assert "holds no mask" in capsys.readouterr().err
    (tmp_path / "x.txt").write_text("x")
    assert main(["compress", "none", str(tmp_path / "x.txt"), str(out)]) == 1
    assert ".npz" in capsys.readouterr().err
