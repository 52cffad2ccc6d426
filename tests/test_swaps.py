"""What is replaced stays until the new is in its place, whatever comes in between; and what
`repair` makes of files whose end or mark a killed writer left wrong."""

import os
import shutil
import struct

import h5py
import numpy as np
import pytest

import tezip_h5
from tezip_h5 import FormatError, InputError, Writer
from tezip_h5.hdf5.contents import container
from tezip_h5.hdf5.files import superblock
from tezip_h5.hdf5.writing import inplace, live

FAST = {"level": "fast", "model": None}


@pytest.fixture
def stack():
    return np.random.default_rng(0).poisson(40, (6, 8, 9)).astype("u2")


def interrupt(*_):
    raise KeyboardInterrupt


def test_an_interrupt_while_a_stack_is_replaced(tmp_path, stack, monkeypatch):
    path = tmp_path / "a.h5"
    tezip_h5.write(stack, path, **FAST)
    with monkeypatch.context() as patch:
        patch.setattr(container, "finish_group", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tezip_h5.write(stack + 1, path, overwrite=True, **FAST)
    tezip_h5.write(stack, path, "other", **FAST)
    np.testing.assert_array_equal(tezip_h5.read(path, name="scan"), stack)
    with h5py.File(path) as file:
        assert set(file) == {"scan", "other"}


def test_an_interrupt_before_anything_was_set_aside(tmp_path, stack, monkeypatch):
    path = tmp_path / "a.h5"
    tezip_h5.write(stack, path, **FAST)
    with h5py.File(path, "r+") as file:
        monkeypatch.setattr(h5py.File, "move", interrupt)
        with pytest.raises(KeyboardInterrupt), container.replacing(file, "scan"):
            pass
        np.testing.assert_array_equal(tezip_h5.read(file["scan/data"]), stack)


def moved_and_interrupted(move, patch):
    def once(*datasets):
        patch.setattr(inplace, "_move_scales", move)
        move(*datasets)
        raise KeyboardInterrupt

    return once


def test_an_interrupt_while_a_dataset_is_replaced(tmp_path, stack, monkeypatch):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["entry/images"] = stack
        file["other"] = file["entry/images"]
        file["time"] = np.arange(6.0)
        file["time"].make_scale("time")
        file["other"].dims[0].attach_scale(file["time"])
    with monkeypatch.context() as patch, h5py.File(path, "r+") as file:
        patch.setattr(inplace, "_move_scales", moved_and_interrupted(inplace._move_scales, patch))
        with pytest.raises(KeyboardInterrupt):
            tezip_h5.write(file["entry/images"], **FAST)
    tezip_h5.write(stack, path, "scan", **FAST)
    with h5py.File(path) as file:
        data = file["entry/images"]
        assert data == file["other"]
        assert not container.is_tezip(data)
        np.testing.assert_array_equal(data, stack)
        assert data.dims[0]["time"] == file["time"]


@pytest.mark.parametrize("in_place", [False, True])
def test_links_change_when_what_they_lead_to_is_there(tmp_path, stack, in_place, monkeypatch):
    """A kill in the flush after it must find it in the file."""
    path, seen = tmp_path / "a.h5", tmp_path / "seen.h5"
    with h5py.File(path, "w") as file:
        file["images"] = stack
    replacing = container.replacing

    def noted(file, name):
        if not seen.exists():
            shutil.copy(path, seen)
        return replacing(file, name)

    monkeypatch.setattr(container, "replacing", noted)
    if in_place:
        with h5py.File(path, "r+") as file:
            tezip_h5.write(file["images"], **FAST)
    else:
        tezip_h5.write(stack, path, **FAST)
    with h5py.File(seen) as file, h5py.File(path) as now:
        np.testing.assert_array_equal(file["images"], stack)
        assert ("tezip" in file) == in_place
        chunk = now["images" if in_place else "scan/data"].id.get_chunk_info(0)
        stored = slice(chunk.byte_offset, chunk.byte_offset + chunk.size)
        assert seen.read_bytes()[stored] == path.read_bytes()[stored] != b""


# --- repair ---


def test_a_mark_of_a_writer_that_nobody_could_follow(tmp_path, stack):
    path = tmp_path / "a.h5"
    with Writer(path, "scan", (8, 9), "u2", chunk_frames=4, swmr=True, **FAST) as writer:
        writer.append(stack)
    # What HDF5 writes when it opens a file of this version to change it.
    block = bytearray(path.read_bytes())
    assert superblock.version(path) == 3
    block[11] |= 1
    struct.pack_into("<I", block, 44, superblock.lookup3(block[:44]))
    path.write_bytes(block)
    with pytest.raises(OSError, match="already open for write"):
        h5py.File(path)
    assert tezip_h5.repair(path).unlocked
    np.testing.assert_array_equal(tezip_h5.read(path), stack)


@pytest.mark.parametrize("user_block", [0, 512])
@pytest.mark.parametrize("libver", ["earliest", "v110"])
def test_an_end_that_was_not_noted(tmp_path, stack, libver, user_block):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=(libver, "latest"), userblock_size=user_block) as file:
        file["images"] = stack
    whole = path.read_bytes()
    kind, block = superblock.version(path), bytearray(whole)
    assert kind == {"earliest": 0, "v110": 3}[libver]
    at = user_block + {0: 40, 3: 28}[kind]
    assert struct.unpack_from("<Q", block, at)[0] == len(whole)
    struct.pack_into("<Q", block, at, len(whole) - 200)
    if kind == 3:
        struct.pack_into("<I", block, user_block + 44, superblock.lookup3(block[user_block:][:44]))
    path.write_bytes(block)
    with h5py.File(path) as file, pytest.raises((OSError, KeyError)):
        file["images"][()]
    tezip_h5.repair(path)
    assert path.read_bytes() == whole


def test_a_superblock_whose_checksum_is_wrong_is_left_alone(tmp_path, stack):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file["images"] = stack
    damaged = bytearray(path.read_bytes())
    damaged[28] ^= 64
    path.write_bytes(damaged + b"more")
    superblock.extend_to_end(path)
    assert path.read_bytes() == damaged + b"more"


# --- files that are being written ---


def live_writer(path, stack):
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file["images"] = np.zeros((8, 64, 64), "u2")
    writer = Writer(path, "scan", (8, 9), "u2", chunk_frames=2, swmr=True, threads=1, **FAST)
    writer.append(stack)
    writer.flush()
    return writer


def test_a_file_that_is_being_written_is_not_converted_in_place(tmp_path, stack):
    path = tmp_path / "a.h5"
    with live_writer(path, stack) as writer:
        with pytest.raises(InputError, match="being written"):
            tezip_h5.convert(path, in_place=True, level="fast")
        writer.append(stack)
    np.testing.assert_array_equal(tezip_h5.read(path, name="scan"), [*stack, *stack])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("there", [None, "fewer"])
def test_another_file_took_the_place_of_the_writers(tmp_path, stack, there):
    path = tmp_path / "a.h5"
    writer = live_writer(path, stack)
    path.rename(tmp_path / "moved.h5")
    tezip_h5.write(stack[:4], path, "scan" if there else "other", **FAST)
    before = path.read_bytes()
    with pytest.raises(OSError, match="replaced by another file"):
        writer.close()
    assert path.read_bytes() == before
    tezip_h5.repair(tmp_path / "moved.h5")
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "moved.h5", name="scan"), stack)


def test_a_child_does_not_keep_the_mark(tmp_path, stack):
    fcntl = pytest.importorskip("fcntl")
    path = tmp_path / "a.h5"
    writer = live_writer(path, stack)
    childs = os.dup(writer._live._descriptor)  # what a fork leaves in the child
    writer.close()
    try:
        assert not live.in_use(path)
        with h5py.File(path) as file:
            assert "keyframes" in file["scan"]
    finally:
        fcntl.flock(childs, fcntl.LOCK_UN)
        os.close(childs)


def test_rows_that_came_while_a_live_file_was_verified(tmp_path, stack, monkeypatch):
    path = tmp_path / "a.h5"
    tezip_h5.write(stack, path, **FAST)
    with h5py.File(path, "r+") as file:
        file["scan/frames"].resize(7, axis=0)
    with pytest.raises(FormatError, match="its table 7"):
        tezip_h5.verify(path)
    with h5py.File(path) as file:
        monkeypatch.setattr(h5py.File, "swmr_mode", True)
        container.check_table(file["scan/data"], file["scan"])


def test_tables_that_have_no_name_yet(tmp_path, stack):
    """A killed writer left the compressed dataset in its place, and its tables without a link."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["images"] = stack
        tezip_h5.write(file["images"], **FAST)
        tables = container.tables_of(file["images"])
        del file["tezip/stacks/images"]
        assert tables.name is None
        assert list(container.find_stacks(file)) == ["images"]
