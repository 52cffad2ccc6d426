"""The C plugin: HDF5's own tools, a C program, and h5py without tezip_h5 read stacks."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import require_tool
from models import random_model

import tezip_h5
from tezip_h5.cli import main
from tezip_h5.hdf5.pipeline import plugin
from tezip_h5.model import store
from tezip_h5.prediction.architecture import Architecture
from tezip_h5.simulate import detector_sequence

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "filters" / "tezip.c"


def tool(name):
    """The path of a system's tool."""
    require_tool(name)
    return shutil.which(name)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Variables with which HDF5 finds the plugin, built by the one command of filters/README.md."""
    tool("cc")
    folder = tmp_path_factory.mktemp("plugin")
    [command] = re.findall(r"^cc .*$", (ROOT / "filters" / "README.md").read_text(), re.MULTILINE)
    words = command.replace("libh5tezip.so", str(folder / "libh5tezip.so")).split()
    subprocess.run([*words, "-Wall", "-Wextra", "-Werror"], cwd=SOURCE.parent, check=True)
    return {
        **os.environ,
        "HDF5_PLUGIN_PATH": str(folder),
        "TEZIP_PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture(scope="module")
def stack():
    return detector_sequence(20, 64, 64)


@pytest.fixture(scope="module")
def path(tmp_path_factory, stack):
    path = tmp_path_factory.mktemp("stacks") / "run.h5"
    tezip_h5.write(stack, path, absolute=2, level="fast", chunk_frames=4)
    return path


def run(environment, *words, **changes):
    return subprocess.run(
        [str(word) for word in words],
        env={**environment, **changes},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_h5dump_writes_the_samples(environment, path, tmp_path):
    raw = tmp_path / "raw.bin"
    done = run(environment, tool("h5dump"), "-d", "scan/data", "-b", "LE", "-o", raw, path)
    assert done.returncode == 0, done.stderr
    expected = tezip_h5.read(path)
    np.testing.assert_array_equal(np.fromfile(raw, "<u2").reshape(expected.shape), expected)
    assert "tezip:" not in done.stderr


def test_h5ls_shows_samples(environment, path):
    done = run(environment, tool("h5ls"), "-d", f"{path}/scan/data")
    assert done.returncode == 0
    assert str(tezip_h5.read(path)[0, 0, 0]) in done.stdout


def test_h5repack_decodes_and_h5diff_agrees(environment, path, tmp_path):
    plain = tmp_path / "plain.h5"
    done = run(environment, tool("h5repack"), "-f", "scan/data:NONE", path, plain)
    assert done.returncode == 0, done.stderr
    with h5py.File(plain) as file:
        assert file["scan/data"].id.get_create_plist().get_nfilters() == 0
        np.testing.assert_array_equal(file["scan/data"][:], tezip_h5.read(path))
    done = run(environment, tool("h5diff"), "-v", path, plain, "/scan/data", "/scan/data")
    assert done.returncode == 0, done.stdout
    assert "0 differences found" in done.stdout


def test_h5copy_keeps_chunks(environment, path, tmp_path):
    out = tmp_path / "copy.h5"
    words = ["-i", path, "-o", out, "-s", "/scan/data", "-d", "/data"]
    assert run(environment, tool("h5copy"), *words).returncode == 0
    with h5py.File(out) as file:
        np.testing.assert_array_equal(file["data"][:], tezip_h5.read(path))


def test_encoding_is_refused(environment, path, tmp_path, stack):
    plain = tmp_path / "plain.h5"
    with h5py.File(plain, "w") as file:
        file.create_dataset("data", data=stack, chunks=(4, 64, 64))
    out = tmp_path / "out.h5"
    done = run(environment, tool("h5repack"), "-f", "data:UD=36471,0,0", plain, out)
    assert done.returncode != 0 or not out.exists() or "tezip" not in filters_of(out)


def filters_of(path):
    with h5py.File(path) as file:
        plist = file["data"].id.get_create_plist()
        return str([plist.get_filter(i) for i in range(plist.get_nfilters())])


def test_a_c_program_reads_a_stack(environment, path, tmp_path):
    program = tmp_path / "read_stack"
    subprocess.run(
        [tool("h5cc"), "-o", str(program), str(ROOT / "examples" / "read_stack.c")],
        cwd=tmp_path,
        check=True,
    )
    done = run(environment, program, path, "scan/data")
    assert done.returncode == 0, done.stderr
    means = [float(line.split()[-1]) for line in done.stdout.splitlines()]
    np.testing.assert_allclose(means, tezip_h5.read(path).mean((1, 2)), atol=1e-6)


PLAIN = """
import sys, h5py
with h5py.File(sys.argv[1]) as file:
    print(int(file["scan/data"][:].sum()))
assert "tezip_h5" not in sys.modules
"""


def test_h5py_reads_without_tezip_h5(environment, path):
    done = run(environment, sys.executable, "-c", PLAIN, path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == tezip_h5.read(path).sum()


def test_a_model_in_the_file_is_found(environment, tmp_path, stack):
    model = store.register(random_model(Architecture(1, (4,), (3, 5))))
    path = tmp_path / "network.h5"
    tezip_h5.write(stack, path, predictor="prednet", model=model)
    done = run(environment, sys.executable, "-c", PLAIN, path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == stack.sum(dtype=np.int64)
    with h5py.File(path, "a") as file:
        del file["tezip"]
        del file["scan/model"]
    done = run(environment, sys.executable, "-c", PLAIN, path)
    assert done.returncode != 0
    assert model.digest.hex() in done.stderr


KILLED = """
import os, signal, subprocess, sys, threading, time, h5py
with h5py.File(sys.argv[1]) as file:
    data = file["scan/data"]
    total = int(data[:4].sum())
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(os.getpid())], text=True,
                              stdout=subprocess.PIPE).stdout.split()
    for child in children:
        try:
            os.kill(int(child), signal.SIGKILL)
        except ProcessLookupError:
            pass
    total += int(data[4:].sum())
print(total)
"""


def test_a_killed_decoder_is_started_again(environment, path):
    tool("ps")
    done = run(environment, sys.executable, "-c", KILLED, path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == tezip_h5.read(path).sum()


THREADS = """
import os, sys, threading, h5py
file = h5py.File(sys.argv[1])
data = file["scan/data"]
found = []
threads = [threading.Thread(target=lambda t=t: found.append(int(data[t].sum()))) for t in range(20)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(sum(found))
file.close()
sys.stdout.flush()
for _ in range(2):  # a forked process needs a decoder of its own
    if os.fork() == 0:
        with h5py.File(sys.argv[1]) as file:
            text = f"{int(file['scan/data'][:].sum())}\\n"
        os.write(1, text.encode())  # at once: two processes write
        os._exit(0)
[os.wait() for _ in range(2)]
"""


def test_threads_and_forked_processes(environment, path):
    done = run(environment, sys.executable, "-W", "ignore", "-c", THREADS, path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == 3 * [str(tezip_h5.read(path).sum())]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"TEZIP_PYTHON": "/nonexistent/python"}, "cannot be run: /nonexistent/python"),
        ({"PYTHONPATH": "", "TEZIP_PYTHON": "EMPTY"}, "is the Python package tezip_h5 installed"),
    ],
)
def test_what_is_missing_is_said(environment, path, tmp_path, changes, message):
    if changes["TEZIP_PYTHON"] == "EMPTY":  # a Python without any package
        script = tmp_path / "python"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
        script.chmod(0o755)
        changes = {**changes, "TEZIP_PYTHON": str(script)}
    done = run(environment, sys.executable, "-c", PLAIN, path, **changes)
    assert done.returncode != 0
    assert message in done.stderr
    assert done.stderr.count("TEZIP_PYTHON") == 1


def test_a_damaged_chunk_is_an_error(environment, path, tmp_path):
    broken = tmp_path / "broken.h5"
    shutil.copy(path, broken)
    with h5py.File(broken, "a") as file:
        data = file["scan/data"]
        _, chunk = data.id.read_direct_chunk((4, 0, 0))
        damaged = bytearray(chunk)
        damaged[len(chunk) // 2] ^= 1
        data.id.write_direct_chunk((4, 0, 0), bytes(damaged))
    done = run(environment, sys.executable, "-c", PLAIN, broken)
    assert done.returncode != 0
    assert "tezip: " in done.stderr
    assert "checksum" in done.stderr


def test_no_decoder_is_left_behind(environment, path, tmp_path):
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\necho $$ > {tmp_path}/pid\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    done = run(environment, sys.executable, "-c", PLAIN, path, TEZIP_PYTHON=str(script))
    assert done.returncode == 0, done.stderr
    decoder = Path("/proc") / (tmp_path / "pid").read_text().strip()
    deadline = time.monotonic() + 5
    while decoder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not decoder.exists()


def test_the_example_runs(environment, tmp_path):
    for name in ("h5dump", "h5ls", "h5repack", "h5diff"):
        tool(name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = ROOT / "examples" / "h5dump.sh"
    done = subprocess.run(
        ["sh", str(script)],
        cwd=tmp_path,
        env={**environment, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "holds the same samples" in done.stdout
    frame = tezip_h5.read(tmp_path / "run.h5", 7)
    assert f"(7,1,0): {', '.join(map(str, frame[1, :8]))}" in done.stdout
    raw = np.fromfile(tmp_path / "run.raw", "<u2")
    np.testing.assert_array_equal(raw, tezip_h5.read(tmp_path / "run.h5").ravel())


def test_nothing_leaks(environment, path):
    valgrind = tool("valgrind")
    lost = {}
    for frames in (4, 20):
        words = ["-d", "scan/data", "-s", "0,0,0", "-c", f"{frames},1,1", path]
        done = run(environment, valgrind, "--leak-check=full", tool("h5dump"), *words)
        assert done.returncode == 0, done.stderr
        found = re.search(r"definitely lost: ([\d,]+) bytes", done.stderr)
        lost[frames] = int(found[1].replace(",", "")) if found else 0
        assert "libh5tezip" not in done.stderr, done.stderr  # no error of ours, no leak
    assert lost[20] == lost[4]


def test_plugin_path(capsys, monkeypatch, tmp_path):
    assert tezip_h5.PLUGIN_PATH.endswith("plugins")
    monkeypatch.setattr(plugin, "PLUGIN_PATH", str(tmp_path))
    assert main(["plugin", "path"]) == 1
    assert "compiler" in capsys.readouterr().err
    (tmp_path / "libh5tezip.so").touch()
    assert main(["plugin", "path"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path)


def test_the_plugin_is_looked_for_where_it_is_built():
    """`setup` puts it into the package's folder of plugins."""
    assert Path(tezip_h5.PLUGIN_PATH) == Path(tezip_h5.__file__).parent / "plugins"
