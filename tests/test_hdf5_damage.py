"""What is said where HDF5 cannot find its way in a file, and where names are no text."""

import io
import sys

import h5py
import numpy as np
import pytest

import tezip_h5
from tezip_h5 import FormatError, InputError, cli
from tezip_h5.hdf5.contents import container

HDF5_SAYS = "Unable to synchronously open object (incorrect metadata checksum)"


def raising(error):
    def fails(*_, **__):
        raise error

    return fails


@pytest.mark.parametrize("kind", [RuntimeError, KeyError, ValueError, OSError])
def test_a_tree_that_cannot_be_visited(run_h5, monkeypatch, kind):
    monkeypatch.setattr(h5py.Group, "visititems", raising(kind(HDF5_SAYS)))
    with pytest.raises(FormatError, match=r"run.h5 is damaged, HDF5 says: Unable .*; restore it"):
        tezip_h5.inspect(run_h5)


@pytest.mark.parametrize("error", [InputError("ours"), OSError(5, "Input/output error")])
def test_errors_that_are_no_damage_pass(run_h5, monkeypatch, error):
    monkeypatch.setattr(h5py.Group, "visititems", raising(error))
    with h5py.File(run_h5) as file, pytest.raises(type(error)) as raised:
        container.visit_all(file, lambda *_: None)
    assert raised.value is error


def test_links_that_cannot_be_changed(run_h5, monkeypatch):
    monkeypatch.setattr(h5py.Group, "move", raising(ValueError("Unable to move link (bad heap)")))
    with h5py.File(run_h5, "r+") as file:
        replacing = container.replacing(file, "scan")
        with pytest.raises(FormatError, match="bad heap"), replacing:
            pass
    monkeypatch.undo()
    monkeypatch.setattr(h5py.Group, "__delitem__", raising(KeyError("Couldn't delete link (no)")))
    with h5py.File(run_h5, "r+") as file:
        replacing = container.replacing(file, "scan")
        with pytest.raises(FormatError, match="Couldn't delete"), replacing:
            file.create_group("scan")


def test_an_attribute_whose_name_is_no_text(tmp_path, run_h5):
    with h5py.File(run_h5, "r+") as file:
        space = h5py.h5s.create(h5py.h5s.SCALAR)
        new = h5py.h5a.create(file["scan"].id, b"caf\xe9", h5py.h5t.STD_I32LE, space)
        new.write(np.array(7, "i4"))
        file["beside"] = 1
        h5py.h5a.create(file["/"].id, b"caf\xe9", h5py.h5t.STD_I32LE, space).write(
            np.array(8, "i4")
        )
    tezip_h5.recompress(run_h5, tmp_path / "new.h5", level="fast")
    with h5py.File(tmp_path / "new.h5") as file:
        assert h5py.h5a.open(file["/"].id, b"caf\xe9").dtype == np.dtype("i4")


@pytest.mark.parametrize("kind", [OSError, KeyError, ValueError, RuntimeError])
def test_the_command_line_says_damage(capsys, kind):
    """Only what h5py raised: where the error's innermost frame lies tells it."""
    names = {"kind": kind, "text": HDF5_SAYS}
    exec(compile("def fails():\n raise kind(text)", "h5py/h5o.pyx", "exec"), names)
    assert cli.guarded("tezip-h5", names["fails"]) == 2
    said = capsys.readouterr().err
    assert said == f"tezip-h5: a file is damaged, HDF5 says: {HDF5_SAYS}; restore it\n"


def test_a_name_that_is_no_text_is_printed(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.guarded("tezip-h5", lambda: print("caf\udce9.tif")) == 0
    assert out.buffer.getvalue().decode() == "caf\\udce9.tif\n"


@pytest.mark.parametrize("name", ["s.cxi", "s.hdf", "no_suffix"])
def test_a_dataset_of_an_hdf5_file_of_any_name(tmp_path, walk, name):
    with h5py.File(tmp_path / name, "w") as file:
        file["entry/data"] = walk
    out = tmp_path / "out.h5"
    words = ["compress", "none", f"{tmp_path}/{name}:/entry/data", str(out), "--level", "fast"]
    assert cli.main(words) == 0
    np.testing.assert_array_equal(tezip_h5.read(out), walk)
