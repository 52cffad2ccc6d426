"""Files that are changed all at once: what a death leaves at any moment, and what is made of it."""

import contextlib
import errno
import os
import shutil
import stat
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest

import tezip_h5
from tezip_h5 import FormatError, InputError
from tezip_h5.cli import main
from tezip_h5.hdf5.files import finished, journal, opening, superblock
from tezip_h5.hdf5.files.journal import Pages, journal_of, recover


@pytest.fixture(params=["earliest", "latest"])
def mine(tmp_path, request, walk):
    """A file with what a user would not lose, and a stack."""
    path = tmp_path / "mine.h5"
    with h5py.File(path, "w", libver=request.param) as file:
        for i in range(30):
            file[f"user/g{i % 3}/d{i}"] = np.full(50, i)
            file[f"user/g{i % 3}/d{i}"].attrs["i"] = i
    tezip_h5.write(walk, path, "kept", level="fast")
    return path


def assert_mine(path, walk):
    with h5py.File(path) as file:
        for i in range(30):
            assert (file[f"user/g{i % 3}/d{i}"][:] == i).all()
            assert file[f"user/g{i % 3}/d{i}"].attrs["i"] == i
        np.testing.assert_array_equal(file["kept/data"][:], walk)


class Death(BaseException):
    """What nothing catches."""


def dying(monkeypatch, after):
    """The disk takes so many writes of a journal's pages, then the process is gone."""
    left = [after]

    class File:
        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)

        def write(self, data):
            if not left[0]:
                raise Death
            left[0] -= 1
            return self._file.write(data)

    whole = journal._carry_out
    monkeypatch.setattr(journal, "_carry_out", lambda file, *rest: whole(File(file), *rest))


# --- the file that h5py sees ---


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 10_000])
def test_pages_are_a_file(tmp_path, size):
    """Against the same bytes in memory: any writes, reads and ends."""
    rng = np.random.default_rng(size)
    path, before = tmp_path / "x", rng.bytes(size)
    path.write_bytes(before)
    expected = bytearray(before)
    with Pages(path) as pages:
        for _ in range(300):
            start, count = int(rng.integers(size + 9000)), int(rng.integers(1, 9000))
            if rng.random() < 0.5:
                data = rng.bytes(count)
                pages.seek(start)
                assert pages.write(data) == count
                expected.extend(bytes(max(0, start + count - len(expected))))
                expected[start : start + count] = data
            else:
                pages.seek(start)
                assert pages.read(count) == bytes(expected[start : start + count])
                assert pages.tell() == min(start + count, max(len(expected), start))
            assert pages.seek(0, os.SEEK_END) == len(expected)
            assert path.read_bytes()[:size] == before
        end = int(rng.integers(size + 1, size + 20_000))
        pages.truncate(end)
        expected = expected[:end].ljust(end, b"\0")
        pages.commit()
    assert path.read_bytes() == expected
    assert os.listdir(tmp_path) == ["x"]


def test_a_file_may_become_shorter(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(10_000))
    with Pages(path) as pages:
        pages.write(b"abc")
        pages.truncate(5000)
        assert path.stat().st_size == 10_000
        pages.commit()
    assert path.read_bytes() == b"abc".ljust(5000, b"\0")


def test_what_is_not_committed_never_was(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"x" * 5000)
    with Pages(path) as pages:
        pages.reserve(9000)
        pages.write(b"y" * 9000)
    assert path.read_bytes() == b"x" * 5000


def test_what_could_not_be_written_is_not_committed(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"x" * 5000)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Pages(path) as pages:
        monkeypatch.setattr(Pages, "_write_from", full)
        assert pages.write(b"y" * 9000) == 9000
        with pytest.raises(OSError, match="No space"):
            pages.commit()
    assert path.read_bytes() == b"x" * 5000


def test_hdf5_can_close_what_it_could_not_write(run_h5, in_fresh_process):
    """Or it crashes as the program ends, after all that was said."""
    before = run_h5.read_bytes()
    code = f"""
        import errno, numpy as np, tezip_h5
        from tezip_h5.hdf5.files.journal import Pages
        def full(*_):
            raise OSError(errno.ENOSPC, "full")
        Pages._write_from = full
        try:
            tezip_h5.write(np.zeros((4, 8, 8), "u1"), {str(run_h5)!r}, "more", level="fast")
        except OSError as error:
            print(error)
    """
    assert in_fresh_process(code) == f"[Errno {errno.ENOSPC}] full\n"
    assert run_h5.read_bytes() == before


def test_an_end_behind_the_file_is_not_believed(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"x" * 5000)
    with Pages(path, lambda _: 9000) as pages:
        assert pages.seek(0, os.SEEK_END) == 5000
    assert path.read_bytes() == b"x" * 5000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_child_that_closes_them_too_changes_nothing(tmp_path):
    """It does when it drops what other threads had; the lock and the end are its parent's."""
    path = tmp_path / "x"
    path.write_bytes(b"x" * 5000)
    with Pages(path) as pages:
        pages.seek(5000)
        pages.write(b"y" * 100)
        if (child := os.fork()) == 0:
            pages.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert path.read_bytes()[5000:] == b"y" * 100
        with pytest.raises(BlockingIOError):
            Pages(path)
        pages.commit()
    assert path.read_bytes() == b"x" * 5000 + b"y" * 100


def test_an_interruption_comes_when_all_is_there(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"x" * 5000)
    whole, calls = journal._carry_out, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise KeyboardInterrupt
        whole(*arguments)

    monkeypatch.setattr(journal, "_carry_out", interrupted)
    with Pages(path) as pages:
        pages.write(b"y" * 5000)
        with pytest.raises(KeyboardInterrupt):
            pages.commit()
    assert path.read_bytes() == b"y" * 5000
    assert os.listdir(tmp_path) == ["x"]


@pytest.fixture
def steps(monkeypatch):
    """What is brought to the disk, and when names change, in order."""
    steps = []

    def noted(module, function, describe):
        real = getattr(module, function)

        def called(*arguments, **options):
            steps.append(describe(*arguments))
            return real(*arguments, **options)

        monkeypatch.setattr(module, function, called)

    def synced(descriptor):
        there = os.fstat(descriptor)
        if stat.S_ISDIR(there.st_mode):
            return "folder"
        return f"{there.st_ino} synced"

    noted(os, "fsync", synced)
    noted(os, "replace", lambda old, new: f"{os.stat(old).st_ino} named {os.path.basename(new)}")
    noted(os, "link", lambda old, new: f"{os.stat(old).st_ino} named {os.path.basename(new)}")
    noted(journal, "_carry_out", lambda *_: "pages")
    noted(Path, "unlink", lambda path: path.name if path.exists() else "")
    return steps


def without_numbers(steps, **names):
    """Steps with names for numbers of files, without files that were not there to be removed."""
    known = {str(number): name for name, number in names.items()}
    words = [[known.get(word, word) for word in step.split()] for step in steps if step]
    return [" ".join("journal" if word.isdigit() else word for word in step) for step in words]


@pytest.mark.skipif(not hasattr(os, "O_DIRECTORY"), reason="folders are not synced here")
def test_what_a_step_needs_is_on_the_disk_before_it(tmp_path, steps):
    """Of what a power failure leaves nothing else tells."""
    path = tmp_path / "x"
    path.write_bytes(b"x" * 5000)
    with Pages(path) as pages:
        pages.write(b"y" * 6000)
        pages.commit()
    assert without_numbers(steps, x=path.stat().st_ino) == [
        "x synced",  # what was added, which the pages will lead to
        "journal synced",
        "journal named .x.tezip-journal",
        "folder",
        "pages",
        "x synced",
        ".x.tezip-journal",  # removed
    ]


@pytest.mark.skipif(not hasattr(os, "O_DIRECTORY"), reason="folders are not synced here")
@pytest.mark.parametrize("there", [False, True])
def test_a_finished_file_is_on_the_disk_before_it_has_its_name(tmp_path, steps, there):
    made, path = tmp_path / "made", tmp_path / "x"
    made.write_bytes(b"new")
    if there:
        path.write_bytes(b"old")
        finished.replace(made, path)
    else:
        assert finished.put(made, path)
    found = without_numbers(steps, made=path.stat().st_ino)
    assert [step for step in found if step != "made"] == ["made synced", "made named x", "folder"]
    assert path.read_bytes() == b"new"


# --- deaths ---


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("after", [0, 1])
def test_a_journal_is_finished(mine, walk, monkeypatch, after, overwrite):
    name = "kept" if overwrite else "deep/new"
    with monkeypatch.context() as patch:
        dying(patch, after)
        with pytest.raises(Death):
            tezip_h5.write(walk[::-1], mine, name, level="fast", overwrite=overwrite)
    assert journal_of(mine).exists()
    np.testing.assert_array_equal(tezip_h5.read(mine, name=name), walk[::-1])
    assert os.listdir(mine.parent) == ["mine.h5"]
    tezip_h5.verify(mine)
    if not overwrite:
        assert_mine(mine, walk)


def test_a_death_before_the_journal_changes_nothing(mine, walk, monkeypatch):
    before = mine.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(journal, "_write_journal", lambda *_: os._exit(3))
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                tezip_h5.write(walk, mine, "new", level="fast", threads=1)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert mine.read_bytes()[: len(before)] == before
    assert_mine(mine, walk)
    with open(mine, "ab") as file:
        file.write(bytes(1 << 20))  # of a larger stack
    kept = []
    with monkeypatch.context() as patch:
        patch.setattr(Pages, "commit", lambda self: kept.append(len(self._changed)))
        tezip_h5.write(walk, mine, "new", level="fast")
    assert kept[0] < 50  # pages: what is left behind the end is not kept in memory
    assert mine.read_bytes() == before
    tezip_h5.write(walk, mine, "new", level="fast")
    assert mine.stat().st_size < len(before) + walk.nbytes
    assert_mine(mine, walk)
    tezip_h5.verify(mine)


def test_repair_finishes_a_journal(mine, walk, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        dying(patch, 1)
        with pytest.raises(Death):
            tezip_h5.write(walk, mine, "new", level="fast")
    assert main(["repair", str(mine)]) == 0
    assert not journal_of(mine).exists()
    assert_mine(mine, walk)
    with h5py.File(mine) as file:
        np.testing.assert_array_equal(file["new/data"][:], walk)


def test_a_failure_leaves_every_byte(mine, walk, monkeypatch):
    before = mine.read_bytes()

    def fail(group):
        assert group.name == "/new"  # it is in the file by then
        raise OSError("no room")

    monkeypatch.setattr("tezip_h5.hdf5.writing.whole.embedding.relink", fail)
    with pytest.raises(OSError, match="no room"):
        tezip_h5.write(walk, mine, "new", level="fast")
    assert mine.read_bytes() == before
    assert os.listdir(mine.parent) == ["mine.h5"]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no room can be taken here")
def test_without_room_nothing_is_begun(mine):
    before = mine.read_bytes()
    with pytest.raises(OSError), opening.changing(mine, 1 << 60):
        pytest.fail("it was begun")
    assert mine.read_bytes() == before


def test_an_error_that_hdf5_keeps_to_itself_is_one(mine, monkeypatch):
    before, unsaid = mine.read_bytes(), OSError("unsaid")
    monkeypatch.setattr(Pages, "seal", lambda pages: setattr(pages, "error", unsaid))
    with pytest.raises(OSError, match="unsaid"), opening.changing(mine, 1000) as file:
        file["x"] = 1
    assert mine.read_bytes() == before


# --- journals that must not be finished ---


@pytest.fixture
def torn(mine, walk, monkeypatch):
    """The file before, and as a death left it with a journal."""
    before = mine.read_bytes()
    with monkeypatch.context() as patch:
        dying(patch, 1)
        with pytest.raises(Death):
            tezip_h5.write(walk, mine, "new", level="fast")
    return before, mine


@pytest.mark.parametrize("change", ["restored", "replaced", "restored and longer"])
def test_a_journal_of_another_state_is_left_alone(torn, walk, caplog, change):
    before, path = torn
    path.write_bytes(before)
    if change == "replaced":
        path.unlink()
        with h5py.File(path, "w") as file:
            file["kept/data"] = walk
    elif change == "restored and longer":
        with open(path, "ab") as file:
            file.write(bytes(1 << 20))
    now = path.read_bytes()
    with opening.open_existing(path) as file:
        np.testing.assert_array_equal(file["kept/data"][:], walk)
    assert path.read_bytes() == now
    assert "was not applied" in caplog.text
    assert journal_of(path).exists()
    tezip_h5.write(walk, path, "another", level="fast")  # and its own takes its place
    assert not journal_of(path).exists()


@pytest.mark.parametrize("damage", ["empty", "short", "not one", "sizes", "negative"])
def test_a_damaged_journal_is_named(torn, damage):
    _, path = torn
    found = journal_of(path)
    data = found.read_bytes()
    if damage in ("sizes", "negative"):
        with np.load(found) as arrays:
            sizes = arrays["sizes"]
            if damage == "negative":
                sizes[:2] += [sizes[1] + 1, -sizes[1] - 1]  # the sum is as it was
            np.savez(found, **{**arrays, "sizes": sizes - (damage == "sizes")})
        shutil.move(f"{found}.npz", found)
    else:
        found.write_bytes({"empty": b"", "short": data[:-9], "not one": b"\0" * 100}[damage])
    now = path.read_bytes()
    with pytest.raises(FormatError, match="tezip-journal is damaged"):
        tezip_h5.read(path, name="kept")
    assert path.read_bytes() == now


def test_a_journal_where_nothing_may_be_written(torn, monkeypatch):
    _, path = torn

    def refused(file, mode="r", *rest, **options):
        if "+" in mode:
            raise PermissionError(13, "Permission denied", str(file))
        return open(file, mode, *rest, **options)

    monkeypatch.setattr(journal, "open", refused, raising=False)
    with pytest.raises(InputError, match="tezip-h5 repair"):
        tezip_h5.read(path, name="kept")


def test_a_file_that_another_process_changes(torn):
    fcntl = pytest.importorskip("fcntl")
    _, path = torn
    with open(path, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="by another process"):
            recover(path)
    recover(path)
    with open(path, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # a reader
        with pytest.raises(BlockingIOError, match="open in another process"):
            Pages(path)


def test_a_journal_whose_writer_has_just_finished(torn, walk, monkeypatch):
    before, path = torn
    path.write_bytes(before)

    class Locked(journal.Locked):
        def __init__(self, path):
            super().__init__(path)
            journal_of(path).unlink()  # while this waited

    monkeypatch.setattr(journal, "Locked", Locked)
    np.testing.assert_array_equal(tezip_h5.read(path, name="kept"), walk)


def test_a_journal_that_has_no_room_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(bytes(5000))

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with Pages(path) as pages:
        pages.write(b"y")
        with pytest.raises(OSError, match="No space"):
            pages.commit()
    assert path.read_bytes() == bytes(5000)
    assert os.listdir(tmp_path) == ["x"]


# --- other ways to the same file ---


def test_a_file_that_is_open_here_is_changed_as_before(mine, walk):
    with h5py.File(mine, "r+") as file:
        file["mine"] = 1
        tezip_h5.write(walk, mine, "new", level="fast")
        file["mine too"] = 2
        np.testing.assert_array_equal(file["new/data"][:], walk)
    assert_mine(mine, walk)


def test_a_thread_that_reads_waits(mine, walk):
    """HDF5's lock would refuse it."""
    begun, found = threading.Event(), []

    def read():
        begun.wait()
        found.append(tezip_h5.read(mine, name="kept"))

    thread = threading.Thread(target=read)
    thread.start()
    with opening.changing(mine, 1000) as file:
        begun.set()
        thread.join(0.2)
        file["x"] = 1
        assert not found
    thread.join()
    np.testing.assert_array_equal(found[0], walk)


def test_through_a_link(mine, walk, monkeypatch):
    link = mine.parent / "link.h5"
    link.symlink_to(mine)
    with monkeypatch.context() as patch:
        dying(patch, 1)
        with pytest.raises(Death):
            tezip_h5.write(walk, link, "new", level="fast")
    assert journal_of(link) == journal_of(mine)
    np.testing.assert_array_equal(tezip_h5.read(mine, name="new"), walk)
    assert link.is_symlink()


def test_the_longest_names(tmp_path, walk, monkeypatch):
    path = tmp_path / f"{'ü' * 126}.h5"
    assert len(os.fsencode(path.name)) == 255
    for name in ("a", "b"):
        tezip_h5.write(walk, path, name, level="fast")
    with monkeypatch.context() as patch:
        dying(patch, 0)
        with pytest.raises(Death):
            tezip_h5.write(walk, path, "c", level="fast")
    assert len(os.listdir(tmp_path)) == 2
    for name in ("a", "b", "c"):
        np.testing.assert_array_equal(tezip_h5.read(path, name=name), walk)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_user_block_stays(tmp_path, walk, monkeypatch, libver):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", userblock_size=1024, libver=libver) as file:
        file["a"] = 1
    with open(path, "r+b") as stream:
        stream.write(b"mine")
    before = path.read_bytes()
    assert superblock.end(path) == len(before)
    with monkeypatch.context() as patch:
        patch.setattr(Pages, "commit", lambda self: None)
        tezip_h5.write(walk, path, "new", level="fast")
    assert path.read_bytes() == before
    tezip_h5.write(walk, path, "new", level="fast")
    assert path.read_bytes()[:4] == b"mine"
    np.testing.assert_array_equal(tezip_h5.read(path, name="new"), walk)


@pytest.mark.parametrize("swmr", [True, False])
def test_a_file_whose_writer_died_is_repaired_first(tmp_path, walk, swmr):
    """HDF5 opens files that Python objects read without a look at its marks."""
    path = tmp_path / "x.h5"
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            file = h5py.File(path, "w", libver="latest")
            file["a"] = walk
            if swmr:
                file.swmr_mode = True
            file.flush()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    before = path.read_bytes()
    for write in (
        lambda: tezip_h5.write(walk, path, "new"),
        lambda: tezip_h5.Writer(path, "new", walk.shape[1:], walk.dtype),
    ):
        with pytest.raises(InputError, match="tezip-h5 repair"):
            write()
    with pytest.raises(InputError, match="repair"), opening.changing(path, 1000):
        pass
    assert path.read_bytes() == before
    tezip_h5.repair(path)
    tezip_h5.write(walk, path, "new", level="fast")
    np.testing.assert_array_equal(tezip_h5.read(path, name="new"), walk)
