"""Tables and attributes of a stack that another program changed: errors of ours, or no matter."""

import shutil

import h5py
import numpy as np
import pytest
from PIL import Image

import tezip_h5
from tezip_h5 import FormatError, TezipError

STACK = (np.arange(6 * 16 * 16).reshape(6, 16, 16) % 251).astype("u1")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "images").mkdir()
    for t, frame in enumerate(STACK):
        Image.fromarray(frame).save(folder / "images" / f"{t}.png")
    tezip_h5.write(folder / "images", folder / "x.h5", name="scan", chunk_frames=4, level="fast")
    return folder / "x.h5"


@pytest.fixture
def path(original, tmp_path):
    return shutil.copy(original, tmp_path / "x.h5")


def inspected(path):
    assert f"{path.name}:" in str(tezip_h5.inspect(path, frames=True, chunks=True))


def verified(path):
    assert tezip_h5.verify(path).frames == len(STACK)


def read(path):
    np.testing.assert_array_equal(tezip_h5.read(path), STACK, strict=True)


def extracted(path):
    tezip_h5.extract(path, path.parent / "out")
    frames = [np.asarray(Image.open(image)) for image in sorted((path.parent / "out").iterdir())]
    np.testing.assert_array_equal(frames, STACK)


def recompressed(path):
    tezip_h5.recompress(path, path.with_name("y.h5"), level="balanced")
    read(path.with_name("y.h5"))


def referred(path):
    assert "scan/data/.zarray" in tezip_h5.references(path)["refs"]


def repaired(path):
    tezip_h5.repair(shutil.copy(path, path.with_name("r.h5")))
    read(path.with_name("r.h5"))


def appended(path):
    longer = shutil.copy(path, path.with_name("a.h5"))
    with tezip_h5.Writer(longer, "scan", append=True) as writer:
        writer.append(STACK[0])
    np.testing.assert_array_equal(tezip_h5.read(longer), [*STACK, STACK[0]])


USES = (inspected, verified, read, extracted, recompressed, referred, repaired, appended)


def refusals(path):
    """Who looks at tables and raises an error of ours; the others do what they are for."""
    refused = {}
    for use in USES:
        try:
            use(path)
        except TezipError as error:
            refused[use] = str(error)
    assert all(refused.values())
    return refused


def test_nobody_refuses_what_nobody_changed(path):
    assert refusals(path) == {}


VALUES = {
    "number": 5,
    "text": "text",
    "numbers": np.arange(3),
    "texts": np.array([b"a", b"b"]),
    "none": h5py.Empty("f4"),
}


@pytest.mark.parametrize("value", list(VALUES))
@pytest.mark.parametrize(
    "place",
    [
        *("scan", "scan@complete", "scan@max_error", "scan@model", "scan@network_chunks"),
        *("scan@fallback_chunks", "scan@tezip_h5", "scan/frames", "scan/filenames"),
        *("scan/filenames@image_format", "scan/preview", "scan/preview@frames"),
        *("scan/preview@range", "scan/keyframes", "scan/data@tezip", "/@NX_class"),
    ],
)
def test_values_of_other_kinds(path, place, value):
    name, _, attribute = place.partition("@")
    with h5py.File(path, "r+") as f:
        if attribute:
            f[name].attrs[attribute] = VALUES[value]
        else:
            attributes = dict(f[name].attrs) if name != "scan" else {}
            del f[name]
            f[name] = VALUES[value]
            f[name].attrs.update(attributes)
    refused = refusals(path)
    assert set(refused) == set(USES) if place == "scan" else read not in refused


@pytest.mark.parametrize("how", ["soft", "group", "gone"])
@pytest.mark.parametrize("name", ["frames", "filenames", "preview", "keyframes"])
def test_tables_that_are_other_objects(path, name, how):
    with h5py.File(path, "r+") as f:
        del f["scan"][name]
        if how == "soft":
            f["scan"][name] = h5py.SoftLink(f"/scan/{name}")
        elif how == "group":
            f["scan"].create_group(name)
    assert read not in refusals(path)


def test_what_is_wrong_is_named(path):
    with h5py.File(path, "r+") as f:
        f["scan"].attrs["max_error"] = "small"
    with pytest.raises(FormatError, match="attribute 'max_error' of /scan"):
        tezip_h5.inspect(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [("frames", "most of which are not stored"), ("filenames", "filenames of .* damaged")],
)
def test_rows_that_are_nowhere_are_not_read(path, name, words):
    """More than any memory has: HDF5 stores nothing for what was never written."""
    with h5py.File(path, "r+") as f:
        f["scan"][name].resize(1 << 45, axis=0)
    with pytest.raises(FormatError, match=words):
        tezip_h5.Writer(path, "scan", append=True)


def test_pictures_of_another_size_make_way(path):
    with h5py.File(path, "r+") as f:
        attributes = dict(f["scan/preview"].attrs)
        del f["scan/preview"]
        f["scan/preview"] = np.zeros((len(attributes["frames"]), 5, 5))
        f["scan/preview"].attrs.update(attributes)
    with tezip_h5.Writer(path, "scan", append=True) as writer:
        writer.append(STACK)
    with h5py.File(path) as f:
        assert f["scan/preview"].shape[1:] == (16, 16)


def test_attributes_that_hdf5_cannot_decode(path):
    with h5py.File(path, "r+") as f:
        del f["scan/keyframes"]  # virtual: HDF5 needs the heap to open it
    stored = path.read_bytes()
    assert b"GCOL" in stored
    path.write_bytes(stored.replace(b"GCOL", b"GONE"))  # where texts of any length lie
    with pytest.raises(FormatError, match="attribute"):
        tezip_h5.inspect(path)
    with pytest.raises(FormatError, match="attribute"):
        tezip_h5.recompress(path, path.with_name("y.h5"), level="balanced")
    assert not path.with_name("y.h5").exists()
    np.testing.assert_array_equal(tezip_h5.read(path), STACK)
