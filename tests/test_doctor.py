"""`tezip-h5 doctor`: what is well, and every fault that it knows of."""

import ctypes
import importlib.metadata
import json
import os
import shutil
import tempfile
from dataclasses import replace
from importlib import resources

import h5py
import numba
import pytest

import tezip_h5
from tezip_h5 import devices, kernels
from tezip_h5.cli import checkup, main
from tezip_h5.errors import FormatError, ModelError
from tezip_h5.hdf5.pipeline import filter, plugin
from tezip_h5.model import store


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """Nothing is set, and there is no GPU."""
    for name in (devices.VARIABLE, store.SEARCH_PATH, "HDF5_PLUGIN_PATH", "NUMBA_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices, "_found", devices.Status(False, "there is none", "buy one"))


def findings(part):
    """What a part's check finds, by name."""
    return {found.name: found for found in checkup.examine_part(part)}


def is_wrong(finding, value, advice):
    assert finding.state == checkup.WRONG, finding
    assert value in finding.value
    assert advice in finding.advice


@pytest.fixture
def gpu(monkeypatch):
    """A GPU, as far as `devices` says."""
    found = devices.Status(
        True,
        name="A GPU",
        compute_capability=(9, 0),
        driver="550.1 (CUDA 12.4)",
        runtime="12.4",
        memory_bytes=80 << 30,
        free_bytes=79 << 30,
        numba_cuda="0.30.4",
    )
    monkeypatch.setattr(devices, "_found", found)
    return found


def test_what_is_well(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "\n! " not in printed
    for text in (
        f"tezip_h5: {tezip_h5.__version__}",
        h5py.version.hdf5_version,
        numba.__version__,
        "GPU: none: there is none",
        "a chunk was written and read",
        store.default(1).digest.hex(),
        store.default(3).digest.hex(),
        tempfile.gettempdir(),
    ):
        assert text in printed, text


def test_for_programs(capsys, monkeypatch):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["healthy"]
    assert {f["part"] for f in report["findings"]} == set(checkup.PARTS)
    monkeypatch.setenv(devices.VARIABLE, "gpu")
    assert main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["healthy"]
    assert [f["name"] for f in report["findings"] if f["state"] == "wrong"] == [devices.VARIABLE]


def test_a_wrong_device(monkeypatch, capsys):
    monkeypatch.setenv(devices.VARIABLE, "gpu")
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "! TEZIP_DEVICE: gpu" in printed
    assert "is no device; give one of auto, cpu, cuda; or unset TEZIP_DEVICE" in printed
    assert "1 error" in printed


def test_a_gpu_is_wanted_and_there_is_none(monkeypatch):
    monkeypatch.setenv(devices.VARIABLE, "cuda")
    is_wrong(findings("GPU")[devices.VARIABLE], "cuda", "there is none: buy one")


def test_no_gpu_is_odd_only_where_one_was_meant(monkeypatch):
    assert findings("GPU")["GPU"].state == checkup.OK
    monkeypatch.setattr(devices, "_found", replace(devices._found, numba_cuda="0.30.4"))
    found = findings("GPU")["GPU"]
    assert (found.state, found.advice) == (checkup.ODD, "buy one")


def test_a_gpu_is_tried(gpu, monkeypatch):
    found = findings("GPU")
    assert found["GPU"].value == "A GPU"
    assert found["memory"].value == "79.0 GiB of 80.0 GiB free"
    assert found["trial"].value == "the GPU encodes the same bytes as the CPU"

    encode = tezip_h5.encode_chunk

    def wrong(frames, bound, settings, device):
        made = encode(frames, bound, settings)
        return replace(made, payload=made.payload + b"x") if device == "cuda" else made

    monkeypatch.setattr(tezip_h5, "encode_chunk", wrong)
    is_wrong(findings("GPU")["trial"], "other bytes", "TEZIP_DEVICE=cpu")


def test_a_gpu_that_fails(gpu, monkeypatch):
    encode = tezip_h5.encode_chunk

    def failing(frames, bound, settings, device):
        if device == "cuda":
            devices.give_up("launch failed")
        return encode(frames, bound, settings)

    monkeypatch.setattr(tezip_h5, "encode_chunk", failing)
    is_wrong(findings("GPU")["trial"], "launch failed", "TEZIP_DEVICE=cpu")


def test_the_simulator_is_no_gpu(monkeypatch):
    found = devices.Status(True, simulated=True, name="numba's simulator", numba_cuda="0.30.4")
    monkeypatch.setattr(devices, "_found", found)
    assert findings("GPU")["simulator"].state == checkup.ODD


def test_a_cache_that_cannot_be_written(monkeypatch):
    monkeypatch.setattr(kernels.load("compiling"), "cache_folder", lambda: None)
    is_wrong(findings("kernel cache")["folder"], "no folder can be written", "NUMBA_CACHE_DIR")


def test_a_cache_that_is_not_used(monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", os.devnull + "/there")
    monkeypatch.setattr(numba.config, "CACHE_DIR", os.devnull + "/there")
    found = findings("kernel cache")
    assert os.path.isdir(found["folder"].value)
    assert found["NUMBA_CACHE_DIR"].state == checkup.ODD


def test_kernels_in_the_cache(monkeypatch, tmp_path):
    compiling = kernels.load("compiling")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))  # numba may read it again at any time
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    found = findings("kernel cache")
    assert found["compiled"].state == checkup.ODD
    assert "tezip-h5 prepare" in found["compiled"].advice

    compiling.kernel("i8(i8)")(_one)
    kept = next(tmp_path.rglob("*.kernel"))
    stale = kept.with_name(kept.name.replace("_one", "_two"))
    stale.write_bytes(b"another digest" + kept.read_bytes()[14:])
    kept.with_name(kept.name.replace("_one", "_torn")).write_bytes(b"")
    shutil.copy(kept, kept.with_name(kept.name.replace("-cpython-3", "-cpython-2")))
    found = findings("kernel cache")
    assert found["compiled"].value == "1 kernels"
    assert found["stale"].value.startswith("2 kernels")


def _one(x):
    return x


def test_a_filter_that_is_not_registered():
    h5py.h5z.unregister_filter(tezip_h5.FILTER_ID)
    try:
        is_wrong(findings("HDF5 filter")["registered"], "no", "tezip_h5.register()")
    finally:
        tezip_h5.register()
    assert findings("HDF5 filter")["trial"].state == checkup.OK


def test_a_filter_that_fails(monkeypatch):
    def broken(*arguments):
        raise FormatError("it does not work")

    monkeypatch.setattr(filter, "decode", broken)
    is_wrong(findings("HDF5 filter")["trial"], "it does not work", "pip install")


def test_no_plugin(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(plugin, "PLUGIN_PATH", str(tmp_path))
    found = findings("C plugin")["library"]
    assert found.state == checkup.ODD
    assert "C compiler" in found.advice
    assert main(["doctor"]) == 0  # Python does not need it
    (tmp_path / "libh5tezip.so").write_bytes(b"no library")
    is_wrong(findings("C plugin")["library"], "cannot be loaded", "pip install")


def test_where_hdf5_looks_for_plugins(monkeypatch, tmp_path):
    if plugin.library() is None:
        pytest.skip("no plugin was built")
    ctypes.CDLL(str(plugin.library()))
    assert "export HDF5_PLUGIN_PATH=" in findings("C plugin")["HDF5_PLUGIN_PATH"].advice
    monkeypatch.setenv("HDF5_PLUGIN_PATH", str(tmp_path))
    assert findings("C plugin")["HDF5_PLUGIN_PATH"].state == checkup.ODD
    monkeypatch.setenv("HDF5_PLUGIN_PATH", f"{tmp_path}{os.pathsep}{plugin.PLUGIN_PATH}")
    found = findings("C plugin")["HDF5_PLUGIN_PATH"]
    assert (found.state, found.advice) == (checkup.OK, "")
    monkeypatch.setenv("HDF5_PLUGIN_PATH", str(tmp_path / "gone"))
    is_wrong(findings("C plugin")["HDF5_PLUGIN_PATH"], "no folder", "correct it")


def test_models_on_the_search_path(monkeypatch, tmp_path):
    shipped = resources.files("tezip_h5.model").joinpath("shipped", "grey.tzm").read_bytes()
    good, damaged, junk = (tmp_path / name for name in ("a.tzm", "b.tzm", "c.tzm"))
    good.write_bytes(shipped)
    damaged.write_bytes(shipped[:-9] + bytes([shipped[-9] ^ 1]) + shipped[-8:])
    junk.write_bytes(b"TZ")
    monkeypatch.setenv(store.SEARCH_PATH, f"{tmp_path}{os.pathsep}{tmp_path / 'gone'}")
    found = findings("models")
    assert store.default(1).digest.hex() in found[str(good)].value
    assert found[str(good)].state == checkup.OK
    is_wrong(found[str(damaged)], "damaged", "train or copy it again")
    is_wrong(found[str(junk)], str(junk), "train or copy it again")
    is_wrong(found[str(tmp_path / "gone")], "no such folder", store.SEARCH_PATH)
    assert main(["doctor"]) == 1


def test_a_model_that_does_not_conform(monkeypatch):
    def other(channels):
        if channels == 3:
            return
        raise ModelError("the model predicts something else here")

    monkeypatch.setattr(store, "default", other)
    found = findings("models")
    is_wrong(found["default, grey"], "predicts something else", "pip install")
    is_wrong(found["default, RGB"], "does not ship", "pip install")


def test_a_package_that_is_missing(monkeypatch):
    version = importlib.metadata.version

    def without(name):
        if name in ("zstandard", "keras"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)
    found = findings("versions")
    is_wrong(found["zstandard"], "not installed", "pip install")
    assert found["keras"].state == checkup.OK


def test_folders(monkeypatch):
    usage = shutil.disk_usage(".")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    assert {f.state for f in findings("folders").values()} == {checkup.ODD}

    def nowhere():
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    is_wrong(findings("folders")["temporary"], "no usable", "TMPDIR")


def test_a_check_that_breaks_is_a_finding(monkeypatch):
    def breaks():
        yield "first", "well"
        raise RuntimeError("two\nlines")

    monkeypatch.setitem(checkup.PARTS, "folders", breaks)
    found = findings("folders")
    assert found["first"].state == checkup.OK
    is_wrong(found["check"], "RuntimeError: two lines", "report this")


def test_it_imports_no_keras(in_fresh_process):
    printed = in_fresh_process(
        """
        import sys
        from tezip_h5.cli import main
        main(["doctor"])
        print([name for name in ("keras", "tensorflow", "torch") if name in sys.modules])
        """
    )
    assert printed.splitlines()[-1] == "[]"
