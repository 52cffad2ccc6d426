"""What the commands write: nothing of the user's is lost, nothing half written stays."""

import json
import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

import tezip_h5
from tezip_h5 import cli, placing
from tezip_h5.cli import bench, main, outputs
from tezip_h5.hdf5.changing import recompress
from tezip_h5.hdf5.files.journal import Pages
from tezip_h5.model import store


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_there_in_one_step_or_stays_as_it_was(tmp_path, monkeypatch):
    out = tmp_path / "out.txt"
    outputs.place(out, b"first")
    outputs.place(out, b"second")
    (tmp_path / "link").symlink_to(out)
    outputs.place(tmp_path / "link", b"third")
    assert (tmp_path / "link").is_symlink()
    assert out.read_bytes() == b"third"

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        outputs.place(out, b"fourth")
    assert out.read_bytes() == b"third"
    assert names(tmp_path) == ["link", "out.txt"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a pipe with a name")
def test_a_pipe_keeps_its_place(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE)
    outputs.check_out(pipe, advice="")
    outputs.place(pipe, b"through it")
    assert reader.communicate(timeout=60)[0] == b"through it"
    assert pipe.is_fifo()


# --- references ---


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_references_never_replace_their_file(run_h5, tmp_path, options, capsys):
    before = run_h5.read_bytes()
    (tmp_path / "link.json").symlink_to(run_h5)
    for out in (run_h5, tmp_path / "link.json"):
        assert main(["references", str(run_h5), str(out), *options]) == 1
        assert "is what is read" in capsys.readouterr().err
    assert run_h5.read_bytes() == before


def test_references_replace_a_file_when_told(run_h5, tmp_path, capsys):
    out = tmp_path / "notes.txt"
    out.write_text("mine")
    assert main(["references", str(run_h5), str(out)]) == 1
    assert "notes.txt exists; give another name, or --overwrite" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main(["references", str(run_h5), str(out), "--overwrite"]) == 0
    assert "scan/data/.zarray" in json.loads(out.read_text())["refs"]
    assert names(tmp_path) == ["notes.txt", "run.h5"]
    assert main(["references", str(run_h5), str(tmp_path / "no" / "out.json")]) == 1
    assert "its folder is missing" in capsys.readouterr().err


# --- bench ---


@pytest.fixture
def stack_npy(tmp_path, walk):
    np.save(tmp_path / "x.npy", walk)
    return tmp_path / "x.npy"


def test_rows_replace_no_stack(stack_npy, tmp_path, walk, capsys):
    with h5py.File(tmp_path / "x.csv", "w") as file:  # an odd name, but a stack
        file["x"] = walk
    (tmp_path / "mine.txt").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for path, out, words in [
        (stack_npy, stack_npy, "is what is read"),
        (f"{tmp_path}/x.csv:/x", tmp_path / "x.csv", "is what is read"),
        (stack_npy, tmp_path / "mine.txt", "ends in .csv"),
        (stack_npy, tmp_path / "no" / "x.csv", "its folder is missing"),
        (stack_npy, tmp_path, "it is a folder"),
    ]:
        assert main(["bench", str(path), "--csv", str(out)]) == 1
        printed = capsys.readouterr()
        assert words in printed.err
        assert printed.out == ""
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_rows_replace_rows(stack_npy, tmp_path):
    out = tmp_path / "rows.csv"
    out.write_text("old rows")
    options = ["--bounds", "0", "--only", "tezip fast", "--csv", str(out)]
    assert main(["bench", str(stack_npy), *options]) == 0
    assert out.read_text().startswith("stack,shape,dtype")
    assert names(tmp_path) == ["rows.csv", "x.npy"]


def test_rows_of_two_stacks_of_a_file_have_different_names(tmp_path, walk):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["a"], file["b"] = walk[:4], walk[4:8]
    stacks = [f"{tmp_path}/in.h5:/a", f"{tmp_path}/in.h5:/b"]
    options = ["--bounds", "0", "--only", "tezip fast", "--csv", f"{tmp_path}/rows.csv"]
    assert main(["bench", *stacks, *options]) == 0
    assert [row.stack for row in bench.saved(tmp_path / "rows.csv")] == ["in", stacks[1]]


# --- models ---


def test_an_embedded_model_is_named_once_the_file_is_closed(run_h5, monkeypatch, capsys):
    def full(pages):
        raise tezip_h5.InputError("no space left")

    monkeypatch.setattr(Pages, "commit", full)
    assert main(["model", "embed", str(run_h5), "default"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "no space left" in printed.err
    monkeypatch.undo()
    assert main(["model", "embed", str(run_h5), "default"]) == 0
    assert capsys.readouterr().out.count("/tezip/models/") == 2


def test_one_of_several_models_is_exported(tmp_path, capsys):
    out = tmp_path / "x.tzm"
    digests = [store.default(channels).digest.hex() for channels in (1, 3)]
    for options in ([], ["--digest", "0" * 12]):
        assert main(["model", "export", "default", str(out), *options]) == 1
        error = capsys.readouterr().err
        assert all(digest[:12] in error for digest in digests)
        assert "--digest" in error
    assert main(["model", "export", "default", str(out), "--digest", digests[1][:12].upper()]) == 0
    assert out.read_bytes()[4:36].hex() == digests[1]


# --- standard output ---

BUFFERED = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
PRINTING = """
import sys
from tezip_h5 import cli, placing
sys.exit(cli.guarded("tezip-h5", lambda: print("line\\n" * int(sys.argv[1]))))
"""


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell")
def test_a_closed_standard_output_is_a_failure(run_h5):
    command = '"$0" -m tezip_h5 inspect "$1" >&-'
    result = subprocess.run(
        ["sh", "-c", command, sys.executable, str(run_h5)],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "standard output is closed" in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell")
def test_who_reads_may_have_seen_enough():
    """`head` ends before there is anything to read, or in the middle of more than a pipe holds."""
    for lines in (1, 100_000):
        program = subprocess.Popen(
            [sys.executable, "-c", PRINTING, str(lines)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=BUFFERED,
        )
        program.stdout.close()
        assert program.communicate(timeout=60)[1] == b""
        assert program.returncode == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is full")
def test_what_was_printed_and_not_kept_is_a_failure():
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-c", PRINTING, "1"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=BUFFERED,
            text=True,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "No space left" in result.stderr


def test_another_broken_pipe_is_said(capsys):
    def run():
        raise BrokenPipeError(32, "of a cluster")

    assert cli.guarded("tezip-h5", run) == 1
    assert "of a cluster" in capsys.readouterr().err


# --- ended in the middle ---


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_terminated_it_cleans_up(run_h5, tmp_path, number, monkeypatch, capsys):
    number = getattr(signal, number)
    before = signal.signal(number, signal.SIG_DFL)  # what runs in the background may ignore it

    def terminated(*_):
        assert len(names(tmp_path)) == 2
        os.kill(os.getpid(), number)
        time.sleep(5)

    monkeypatch.setattr(recompress, "_copy", terminated)
    assert main(["recompress", str(run_h5), str(tmp_path / "out.h5")]) == 130
    assert capsys.readouterr().err == "tezip-h5: interrupted\n"
    assert names(tmp_path) == ["run.h5"]
    assert signal.signal(number, before) is signal.SIG_DFL


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_signal_that_is_ignored_stays_so(capsys):
    """As nohup asks."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert cli.guarded("tezip-h5", lambda: os.kill(os.getpid(), signal.SIGTERM)) == 0
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


# --- advice ---


def test_advice_is_in_flags(run_h5, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.zeros((4, 8, 9), "u2"))
    out = tmp_path / "images"
    assert main(["decompress", str(run_h5), str(out)]) == 0
    for command in (
        ["compress", "none", str(tmp_path / "x.npy"), str(run_h5)],
        ["decompress", str(run_h5), str(out)],
    ):
        assert main(command) == 1
        error = capsys.readouterr().err
        assert "--overwrite" in error
        assert "overwrite=True" not in error
    for axes, words in [([], "--axes 'TCYX'"), (["--axes", "TYX"], "--axes 'TYX' for an array")]:
        np.save(tmp_path / "x.npy", np.zeros((4, 5, 8, 9), "u2"))
        assert main(["compress", "none", f"{tmp_path}/x.npy", f"{tmp_path}/y.h5", *axes]) == 1
        assert words in capsys.readouterr().err


def test_what_is_replaced_goes_when_the_other_is_on_the_disk(tmp_path, monkeypatch):
    path, seen = tmp_path / "x", []
    fsync = os.fsync

    def noted(descriptor):
        seen.append((path.read_bytes(), os.fstat(descriptor).st_size))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    placing.place(path, b"new")
    assert seen == []  # there was nothing to lose: of many images none waits
    placing.place(path, b"newer")
    assert seen == [(b"new", 5)]
    assert path.read_bytes() == b"newer"
    assert list(tmp_path.iterdir()) == [path]
