"""Files that others have, too: links into them, other writers, readers, and what was there."""

import errno
import os
import signal
import stat
import threading
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from h5py import _objects

import tezip_h5
from tezip_h5 import FormatError, InputError, Writer
from tezip_h5.hdf5.changing import convert, repair
from tezip_h5.hdf5.contents import direct
from tezip_h5.hdf5.files import finished, journal, opening
from tezip_h5.hdf5.writing import live

STACK = np.random.default_rng(0).integers(0, 50, (12, 16, 16)).astype("u2")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.h5"


def left_over(path):
    return [other.name for other in path.parent.iterdir() if other.name.startswith(".")]


def write(path, name="scan", **options):
    return tezip_h5.write(STACK, path, name, level="fast", **options)


# --- links into other files ---


@pytest.fixture
def linked(path):
    """A file that leads into another one, which holds a stack and a group."""
    other = path.with_name("other.h5")
    write(other)
    with h5py.File(other, "a") as file:
        file["entry/value"] = 7
    with h5py.File(path, "w") as file:
        file["linked"] = h5py.ExternalLink("other.h5", "/scan")
        file["ext"] = h5py.ExternalLink("other.h5", "/entry")
        file["soft"] = h5py.SoftLink("/ext")
        file["entry/value"] = 1
    return path, other


@pytest.mark.parametrize(
    "change",
    [
        lambda path: Writer(path, "linked", append=True),
        lambda path: write(path, "ext/scan"),
        lambda path: write(path, "soft/scan"),
        lambda path: Writer(path, "ext/scan", (16, 16), "u2"),
        lambda path: Writer(path, "scan", (16, 16), "u2", metadata={"/ext/value@note": "x"}),
        lambda path: Writer(path, "scan", (16, 16), "u2", metadata={"/soft/new": 3}),
    ],
)
def test_what_leads_into_another_file_is_refused_by_its_name(linked, change):
    path, other = linked
    before = other.read_bytes()
    with pytest.raises(InputError, match=r"leads into another file.*other\.h5"):
        change(path)
    assert other.read_bytes() == before
    with h5py.File(path) as file:
        assert sorted(file) == ["entry", "ext", "linked", "soft"]
        assert list(file["entry"]) == ["value"]
        assert len(file["entry/value"].attrs) == 0
    assert left_over(path) == []


def test_links_that_nobody_follows_do_no_harm(linked):
    path, other = linked
    before = other.read_bytes()
    with Writer(path, "scan", (16, 16), "u2", metadata={"/entry/value@note": "x"}) as writer:
        writer.append(STACK)
    write(path, "more")
    assert other.read_bytes() == before
    with h5py.File(path) as file:
        assert file["ext/value"][()] == 7
        assert file["entry/value"].attrs["note"] == "x"
    np.testing.assert_array_equal(tezip_h5.read(path, name="more"), STACK)


def test_who_follows_one_while_a_file_is_changed_changes_nothing(linked):
    path, _ = linked
    before = path.read_bytes()

    def following():
        with opening.changing(path, 100) as file:
            file["new"] = 1
            file["ext/value"]

    with pytest.raises(OSError, match="leads from a file"):
        following()
    assert path.read_bytes() == before


# --- others that write at the same time ---


@pytest.mark.parametrize("swmr", [False, True])
def test_a_writer_that_comes_second_adds_to_the_file_of_the_first(path, monkeypatch, swmr):
    real = live.new_file

    def overtaken(place, for_readers):
        monkeypatch.setattr(live, "new_file", real)
        with Writer(path, "first", (16, 16), "u2", swmr=swmr) as first:
            first.append(STACK)
        return real(place, for_readers)

    monkeypatch.setattr(live, "new_file", overtaken)
    with Writer(path, "second", (16, 16), "u2", swmr=swmr) as second:
        second.append(STACK)
    for name in ("first", "second"):
        np.testing.assert_array_equal(tezip_h5.read(path, name=name), STACK)


def test_what_was_made_meanwhile_is_not_replaced_and_nothing_is_lost(path):
    write(path, "other")

    def frames():
        for number, frame in enumerate(STACK):
            if number == 5:
                with h5py.File(path, "a") as file:
                    file["scan/precious"] = 7
            yield frame

    with pytest.raises(InputError, match="The finished stack is in") as raised:
        tezip_h5.write(frames(), path)
    with h5py.File(path) as file:
        assert file["scan/precious"][()] == 7
    kept = str(raised.value).rpartition(" is in ")[2]
    np.testing.assert_array_equal(tezip_h5.read(kept), STACK)
    assert left_over(path) == []


@pytest.mark.parametrize("links", [True, False])
def test_two_new_stacks_in_one_new_file(path, monkeypatch, links):
    real = os.link

    def overtaken(*names):
        monkeypatch.setattr(os, "link", real)
        write(path, "first")
        if not links:
            raise OSError(errno.EPERM, "no hard links here")
        return real(*names)

    monkeypatch.setattr(os, "link", overtaken)
    write(path, "second")
    for name in ("first", "second"):
        np.testing.assert_array_equal(tezip_h5.read(path, name=name), STACK)
    assert left_over(path) == []


def test_files_without_hard_links_get_their_names(path, monkeypatch):
    def refused(*names):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refused)
    write(path)
    np.testing.assert_array_equal(tezip_h5.read(path), STACK)
    other = path.with_name("other")
    other.write_bytes(b"mine")
    assert not finished.put(path, other)
    assert other.read_bytes() == b"mine"


def test_threads_that_read_keep_nobody_from_writing(path):
    write(path)
    stop, failed = threading.Event(), []

    def reading():
        while not stop.is_set():
            try:
                tezip_h5.read(path, name="scan", threads=1)
            except Exception as error:
                failed.append(error)

    reader = threading.Thread(target=reading)
    reader.start()
    try:
        for number in range(10):
            write(path, f"more/{number}", threads=1)
    finally:
        stop.set()
        reader.join()
    assert failed == []


def test_nobody_else_is_in_hdf5_while_a_chunk_is_read_or_stored():
    """As h5py's own methods see to only since 3.16."""
    held = []

    def look():
        free = _objects.phil.acquire(blocking=False)
        held.append(not free)
        if free:
            _objects.phil.release()

    def looked(*_):
        other = threading.Thread(target=look)
        other.start()
        other.join()

    info = SimpleNamespace(size=1)
    chunks = {"read_direct_chunk": looked, "write_direct_chunk": looked}
    dataset = SimpleNamespace(id=SimpleNamespace(get_chunk_info_by_coord=lambda _: info, **chunks))
    looked()
    direct.store_chunk(dataset, (0, 0, 0), b"")
    direct.stored_chunk(dataset, (0, 0, 0))
    assert held == [False, True, True]


def test_who_keeps_the_file_open_hears_of_it_before_the_first_frame(path, monkeypatch):
    write(path)
    taken = []
    monkeypatch.setattr(opening.check_changeable, "__defaults__", ((), 0.1))
    with h5py.File(path), pytest.raises(BlockingIOError, match="in this process; close it"):
        tezip_h5.write((taken.append(1) or frame for frame in STACK), path, "more")
    assert len(taken) <= 1  # one is looked at, to know what they are


@pytest.mark.parametrize("way", ["write", "Writer"])
def test_nothing_is_added_to_a_file_that_this_process_writes_for_readers(path, way):
    with Writer(path, "live", (16, 16), "u2", swmr=True) as writer:
        writer.append(STACK)
        with pytest.raises(InputError, match="SWMR"):
            write(path) if way == "write" else Writer(path, "scan", (16, 16), "u2", swmr=True)
    with h5py.File(path) as file:
        assert list(file) == ["live"]


@pytest.mark.skipif(not hasattr(live.fcntl, "F_SETLEASE"), reason="no leases on this system")
def test_another_program_that_writes_for_readers_is_not_repaired_away(path):
    reached, go_on = os.pipe()
    if (child := os.fork()) == 0:
        with h5py.File(path, "w", libver="latest") as file:
            file["x"] = np.arange(5)
            file.swmr_mode = True
            os.write(go_on, b"x")
            threading.Event().wait(20)
        os._exit(0)
    try:
        os.read(reached, 1)
        with pytest.raises(InputError, match="in use by another process"):
            tezip_h5.repair(path)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(reached)
        os.close(go_on)
    assert tezip_h5.repair(path).unlocked
    with h5py.File(path, "r+") as file:
        assert file["x"][4] == 4


def test_a_child_that_was_forked_meanwhile_does_not_keep_the_lock(path):
    write(path)
    with opening.changing(path, 100) as file:
        file["new"] = 1
        if (child := os.fork()) == 0:
            threading.Event().wait(20)
            os._exit(0)
    try:
        with h5py.File(path, "r+") as file:
            assert file["new"][()] == 1
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_a_child_does_not_wait_for_what_its_parents_threads_held(path):
    write(path)
    held, let_go = threading.Event(), threading.Event()

    def hold():
        with opening._lock_of(path):
            held.set()
            let_go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        if (child := os.fork()) == 0:
            signal.alarm(10)
            opening.open_existing(path).close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        let_go.set()
        thread.join()


def test_locks_are_asked_for_as_hdf5_does(path, monkeypatch):
    write(path)
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", "false")  # which HDF5 does not know
    with journal.Pages(path), pytest.raises(BlockingIOError):
        journal.Pages(path)


# --- what goes wrong within ---


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_what_happens_within_hdf5_comes_out_as_it_was(path, monkeypatch, error):
    write(path)
    before, written = path.read_bytes(), []
    real = journal.Pages._write_from

    def failing(self, view):
        written.append(1)
        if len(written) == 3:
            raise error
        return real(self, view)

    monkeypatch.setattr(journal.Pages, "_write_from", failing)
    with pytest.raises(type(error)) as raised:
        write(path, "more")
    assert raised.value is error
    assert path.read_bytes() == before


def test_folders_that_cannot_be_synced(path, monkeypatch):
    write(path)
    real = os.fsync

    def refused(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no folders here")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", refused)
    write(path, "more")
    np.testing.assert_array_equal(tezip_h5.read(path, name="more"), STACK)
    assert left_over(path) == []


def test_a_journal_that_could_not_be_finished_is_taken_away(path, monkeypatch):
    write(path)
    before = path.read_bytes()

    def failing(folder):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(journal, "sync_folder", failing)
    with pytest.raises(OSError, match="broken"):
        write(path, "more")
    assert path.read_bytes() == before
    assert left_over(path) == []


def test_a_repair_that_fails_changes_nothing(path, monkeypatch):
    with Writer(path, "scan", (16, 16), "u2", chunk_frames=4) as writer:
        writer.append(STACK)
    with h5py.File(path, "r+") as file:
        file["scan"].attrs["complete"] = False
        del file["scan/preview"]
    before = path.read_bytes()

    def failing(*_):
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patched:
        patched.setattr(repair, "link_keyframes", failing)
        with pytest.raises(FormatError, match="broken"):
            tezip_h5.repair(path)
    assert path.read_bytes() == before
    assert tezip_h5.repair(path).stacks[0].frames == 12


def test_a_named_type_is_not_replaced(path):
    with h5py.File(path, "w") as file:
        file["scan"] = np.dtype("f4")
    with pytest.raises(InputError, match="is a named type"):
        write(path, overwrite=True)
    with h5py.File(path) as file:
        assert file["scan"].dtype == "f4"


@pytest.mark.parametrize("wrong", [None, "", 3])
def test_what_is_no_path_is_nothing_to_read_lazily(wrong):
    with pytest.raises(InputError, match="cannot be the name of a file"):
        tezip_h5.to_dask(wrong)


def test_a_damaged_file_is_said_to_be_that(path):
    write(path)
    damaged = bytearray(path.read_bytes())
    damaged[24:60] = b"\xff" * 36
    path.write_bytes(damaged)
    with pytest.raises(FormatError, match=r"run\.h5 is damaged"):
        tezip_h5.read(path)


# --- converting where it stands ---


@pytest.fixture
def plain(path):
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((8, 64, 64), "u2") + np.arange(64, dtype="u2")
    return path


def test_a_file_that_is_open_is_not_replaced(plain):
    with h5py.File(plain, "r+") as file:
        with pytest.raises(InputError, match="open in this process, to be written"):
            tezip_h5.convert(plain, in_place=True)
        file["after"] = 1
    with h5py.File(plain) as file:
        assert sorted(file) == ["after", "images"]


def test_a_file_that_was_changed_meanwhile_is_not_replaced(plain, monkeypatch):
    before, real = plain.read_bytes(), convert._encode

    def overtaken(*arguments):
        with open(plain, "ab") as file:  # another program
            file.write(b"more")
        return real(*arguments)

    monkeypatch.setattr(convert, "_encode", overtaken)
    with pytest.raises(InputError, match="was changed meanwhile"):
        tezip_h5.convert(plain, in_place=True)
    assert plain.read_bytes() == before + b"more"
    assert left_over(plain) == []


def test_the_new_file_belongs_to_whom_the_old_one_did(plain, monkeypatch):
    plain.chmod(0o640)
    noted, modes, real = {}, [], convert._encode
    owners, owner = [], plain.stat()
    try:
        os.setxattr(plain, "user.note", b"mine")
        noted["user.note"] = b"mine"
    except OSError:
        pass  # a file system without

    def looking(data, job, new):
        modes.append(stat.S_IMODE(os.stat(new.filename).st_mode))
        return real(data, job, new)

    monkeypatch.setattr(convert, "_encode", looking)
    monkeypatch.setattr(os, "chown", lambda _, *whose: owners.append(whose))
    tezip_h5.convert(plain, in_place=True)
    assert owners == [(owner.st_uid, owner.st_gid)]
    assert modes == [0o600]  # nobody else could read it meanwhile
    assert stat.S_IMODE(plain.stat().st_mode) == 0o640
    assert {name: os.getxattr(plain, name) for name in noted} == noted


def test_other_names_of_the_file_are_warned_of(plain, caplog):
    os.link(plain, plain.with_name("other.h5"))
    tezip_h5.convert(plain, in_place=True)
    assert "other names" in caplog.text


def test_a_part_that_a_kill_tore_is_begun_anew(plain, monkeypatch):
    target, real, calls = plain.with_name("new.h5"), convert._encode, []

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(convert, "_encode", killed)
        with pytest.raises(KeyboardInterrupt):
            tezip_h5.convert(plain, target)
    assert left_over(plain) == [".new.h5.part"]

    def torn(*arguments):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("addr overflow")
        return real(*arguments)

    monkeypatch.setattr(convert, "_encode", torn)
    tezip_h5.convert(plain, target)
    assert len(calls) == 2
    np.testing.assert_array_equal(tezip_h5.read(target, name="images"), h5py.File(plain)["images"])


@pytest.mark.parametrize("make", ["convert", "recompress"])
def test_the_longest_names(tmp_path, make):
    source, target = (tmp_path / (letter * 252 + ".h5") for letter in "ab")
    if make == "convert":
        with h5py.File(source, "w") as file:
            file["images"] = np.zeros((8, 64, 64), "u2")
        tezip_h5.convert(source, target)
    else:
        write(source)
        tezip_h5.recompress(source, target)
    assert sorted(tmp_path.iterdir()) == [source, target]


# --- a writer's file, whatever has its name later ---


def keyframes_of(path):
    with h5py.File(path) as file:
        return len(file["scan/keyframes"]), file["scan/keyframes"][0, 0, 0]


def written(path, frames, count):
    with Writer(path, "scan", (16, 16), "u2") as writer:
        for frame in frames[:count]:
            writer.append(frame)


def test_a_writer_ends_the_file_that_it_began(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    written(second / "run.h5", STACK + 100, 12)
    before = keyframes_of(second / "run.h5")
    monkeypatch.chdir(first)
    writer = Writer("run.h5", "scan", (16, 16), "u2")
    writer.append(STACK[:8])
    monkeypatch.chdir(second)
    writer.close()
    assert keyframes_of(first / "run.h5")[1] == STACK[0, 0, 0]
    assert keyframes_of(second / "run.h5") == before


def test_a_link_that_leads_elsewhere_meanwhile(tmp_path):
    current, (first, second) = tmp_path / "current.h5", (tmp_path / "1.h5", tmp_path / "2.h5")
    written(second, STACK + 100, 12)
    before = keyframes_of(second)
    first.touch()
    first.unlink()
    current.symlink_to(first)
    writer = Writer(current, "scan", (16, 16), "u2")
    writer.append(STACK[:8])
    current.unlink()
    current.symlink_to(second)
    writer.close()
    assert keyframes_of(first)[1] == STACK[0, 0, 0]
    assert keyframes_of(second) == before


def test_a_file_that_was_moved_keeps_its_frames(path, caplog):
    writer = Writer(path, "scan", (16, 16), "u2")
    writer.append(STACK)
    path.rename(path.with_name("moved.h5"))
    writer.close()
    assert "was moved" in caplog.text
    assert writer.summary.shape == STACK.shape
    assert writer.summary.file_bytes > writer.summary.payload_bytes
    assert not path.exists()
    np.testing.assert_array_equal(tezip_h5.read(path.with_name("moved.h5")), STACK)


def test_a_file_that_was_replaced_is_left_alone(path):
    writer = Writer(path, "scan", (16, 16), "u2")
    writer.append(STACK)
    path.rename(path.with_name("moved.h5"))
    write(path)
    before = path.read_bytes()
    with pytest.raises(OSError, match="was replaced by another file"):
        writer.close()
    assert path.read_bytes() == before
    np.testing.assert_array_equal(tezip_h5.read(path.with_name("moved.h5")), STACK)


def test_a_stack_that_was_replaced_in_the_same_file_is_left_alone(path, monkeypatch):
    """Between the last frame and what is added at the end."""
    real = live.complete

    def overtaken(*arguments):
        write(path, overwrite=True)
        with h5py.File(path, "r+") as file:
            del file["scan/frames"]
        return real(*arguments)

    monkeypatch.setattr("tezip_h5.hdf5.writing.writer.live.complete", overtaken)
    writer = Writer(path, "scan", (16, 16), "u2")
    writer.append(STACK)
    with pytest.raises(OSError, match="was replaced"):
        writer.close()
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["scan/data"], STACK)
