"""Viewers open files on the images: silx's own rules, and what h5web is served by h5grove."""

import json

import h5py
import numpy as np
import pytest
from conftest import require_package

import tezip_h5
from tezip_h5.simulate import colour_sequence, detector_sequence

STACK = detector_sequence(8, 32, 48)


def write_whole(path, name):
    tezip_h5.write(STACK, path, name=name, level="fast")


def write_frames(path, name):
    with tezip_h5.Writer(path, name, STACK.shape[1:], STACK.dtype, level="fast") as writer:
        writer.append(STACK)


@pytest.fixture(params=[write_whole, write_frames], ids=["write", "Writer"])
def written(request, tmp_path):
    """A function that writes STACK to a file under a name, and returns the path."""

    def write(name="scan", path=tmp_path / "run.h5"):
        request.param(path, name)
        return path

    return write


@pytest.mark.parametrize("name", ["scan", "entry/scan", "entry/detector/scan"])
def test_silx_opens_on_the_images(written, name):
    nxdata = require_package("silx.io.nxdata")
    with h5py.File(written(name)) as file:
        found = nxdata.get_default(file)
        assert found is not None
        assert found.is_valid, found.issues
        assert found.group.name == f"/{name}"
        assert found.interpretation == "image"
        assert found.is_stack or found.is_image
        np.testing.assert_array_equal(found.signal[3], STACK[3])
        # A stack that is to satisfy NeXus itself is named inside an NXentry.
        assert nxdata.is_NXroot_with_default_NXdata(file) == (name == "entry/scan")


def test_silx_sees_colours(tmp_path):
    nxdata = require_package("silx.io.nxdata")
    colours = colour_sequence(4, 32, 48)
    tezip_h5.write(colours, tmp_path / "run.h5", level="fast")
    with h5py.File(tmp_path / "run.h5") as file:
        found = nxdata.get_default(file)
        assert found.is_valid, found.issues
        assert found.interpretation == "rgb-image"
        np.testing.assert_array_equal(found.signal[1], colours[1])


def test_further_stacks_and_other_files_keep_their_default(written, tmp_path):
    path = written("entry/scan")
    tezip_h5.write(STACK, path, name="entry/more", level="fast")
    tezip_h5.write(STACK, path, name="other/scan", level="fast")
    with h5py.File(path) as file:
        assert file.attrs["default"] == "entry"
        assert file["entry"].attrs["default"] == "scan"
        assert file["other"].attrs["default"] == "scan"
        assert file["other"].attrs["NX_class"] == "NXentry"
    foreign = tmp_path / "foreign.h5"
    with h5py.File(foreign, "w") as file:
        file.create_group("entry")
    tezip_h5.write(STACK, foreign, name="entry/scan", level="fast")
    with h5py.File(foreign) as file:
        assert not file.attrs
        assert not file["entry"].attrs


def test_a_dataset_compressed_in_place_keeps_its_marks(tmp_path):
    nxdata = require_package("silx.io.nxdata")
    path = tmp_path / "nexus.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update(NX_class="NXroot", default="entry")
        entry = file.create_group("entry")
        entry.attrs.update(NX_class="NXentry", default="plot")
        entry["images"] = STACK
        entry["images"].attrs["units"] = "counts"
        plot = entry.create_group("plot")
        plot.attrs.update(NX_class="NXdata", signal="signal", interpretation="image")
        plot["signal"] = entry["images"]
        tezip_h5.write(entry["images"], level="fast")
        assert dict(entry["images"].attrs).keys() == {"units", "tezip"}
        tables = file[entry["images"].attrs["tezip"]]
        assert tables.attrs["NX_class"] == "NXcollection"
        assert "signal" not in tables.attrs
        np.testing.assert_array_equal(nxdata.get_default(file).signal[2], STACK[2])


def served(path, inside, selection="0"):
    """Metadata, attributes and some values of an object, as h5grove sends them to h5web."""
    content = require_package("h5grove.content")
    encode = require_package("h5grove.encoders").encode

    def fail(code, message=None):
        raise AssertionError(f"{code}: {message}")

    with content.get_content_from_file(path, inside, fail) as found:
        attributes = json.loads(encode(found.attributes(), "json").content)
        metadata = json.loads(encode(found.metadata(), "json").content)
        data = None
        if metadata["kind"] == "dataset":
            compound = "members" in metadata["type"]
            values = found.data(selection, flatten=True, dtype="origin" if compound else "safe")
            sent = encode(values, "json" if compound else "bin").content
            data = json.loads(sent) if compound else np.frombuffer(sent, values.dtype)
        return metadata, attributes, data


def test_h5web_is_led_to_the_images(written):
    """The steps that h5web takes: `default` from the root on, NXdata, its signal, its samples."""
    path = written("entry/scan")
    place = ""
    for _ in range(8):
        metadata, attributes, _ = served(path, place or "/")
        assert metadata["kind"] == "group"
        if attributes.get("NX_class") == "NXdata":
            break
        place += f"/{attributes['default']}"
    assert place == "/entry/scan"
    metadata, about, data = served(path, f"{place}/{attributes['signal']}", "1")
    assert metadata["shape"] == list(STACK.shape)
    assert about["interpretation"] == "image"
    np.testing.assert_array_equal(data, STACK[1].ravel())


def test_everything_in_a_file_can_be_served(written):
    path = written()
    names = ["/"]
    with h5py.File(path) as file:
        file.visit(lambda name: names.append(f"/{name}"))
    assert {"/scan/data", "/scan/frames", "/scan/preview", "/scan/keyframes"} <= set(names)
    for name in names:
        served(path, name)


WITHOUT_PLUGIN = """
import h5py, sys
with h5py.File(sys.argv[1]) as file:
    preview = file["scan/preview"]
    print(preview.shape, preview.dtype, int(preview[0].max()), preview.attrs["interpretation"])
    try:
        file["scan/data"][0]
    except OSError:
        print("no plugin")
assert "tezip_h5" not in sys.modules
"""


def test_the_preview_needs_no_plugin(written, in_fresh_process):
    path = written()
    code = WITHOUT_PLUGIN.replace("sys.argv[1]", repr(str(path)))
    shown = in_fresh_process(code, HDF5_PLUGIN_PATH="")
    assert shown.split("\n")[:2] == ["(1, 32, 48) uint8 255 image", "no plugin"]
