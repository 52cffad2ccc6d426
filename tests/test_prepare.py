"""What is compiled, and when: told once, timed apart, done by `prepare` before the first frame."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

import tezip_h5
from tezip_h5 import InputError, Writer, kernels
from tezip_h5.cli import main

LOAD = """
from tezip_h5 import kernels
before = kernels.compile_seconds()
kernels.load("mixing.mean"), kernels.load("mixing.mean")
print(before, kernels.compile_seconds())
"""


def load(cache):
    """Seconds of compiling before and after a process has loaded a kernel, and what it said."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    words = [sys.executable, "-c", LOAD]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=True)
    return *map(float, done.stdout.split()), done.stderr


def test_compiling_is_told_once_and_timed(tmp_path):
    before, after, said = load(tmp_path)
    assert before == 0 < after
    assert said == "compiling for this processor, once; this takes a minute or two\n"
    assert load(tmp_path) == (0, 0, "")


def test_compiling_in_every_process_is_told_so(monkeypatch, caplog):
    watching = kernels.load("watching")
    monkeypatch.setattr(watching, "cache_folder", lambda: None)
    compiles = watching.Compiles()
    for _ in range(2):
        with compiles:
            compile_one()
    assert [record.getMessage() for record in caplog.records] == [
        "compiling for this processor, in every process (`tezip-h5 doctor` says why); this takes "
        "a minute or two"
    ]
    assert compiles.seconds > 0


def test_what_others_compile_is_theirs(caplog):
    compiles = kernels.load("watching").Compiles()
    with compiles:
        compile_one("elsewhere")
    assert not caplog.records
    assert compiles.seconds == 0


def compile_one(module="tezip_h5.kernels.x"):
    import numba

    def one():
        return 1

    one.__module__ = module
    numba.njit(one)()


def test_compiling_is_not_in_the_speed(tmp_path, walk, monkeypatch):
    for name in ("warm.h5", "run.h5"):
        summary = tezip_h5.write(walk, tmp_path / name, level="fast")
    assert summary.compile_seconds == 0
    assert "of compiling" not in str(summary)
    spent = iter([0.0])
    monkeypatch.setattr(kernels, "compile_seconds", lambda: next(spent, 1e3))
    summary = tezip_h5.write(walk, tmp_path / "first.h5", level="fast")
    assert (summary.seconds, summary.compile_seconds) == (0, 1e3)
    assert "\n  besides, 1000.0 s of compiling" in str(summary)


# --- prepare ---

AFTERWARDS = """
import sys, numpy as np, tezip_h5
from tezip_h5 import kernels
from tezip_h5.simulate import detector_sequence
level, dtype, channels, bound = sys.argv[1], sys.argv[2], int(sys.argv[3]), eval(sys.argv[4])
tezip_h5.prepare(dtype, channels=channels, level=level, **bound)
prepared = set(kernels._loaded)
rng = np.random.default_rng(0)
scene = detector_sequence(20, 96, 80)
still, noise = scene[:1].repeat(20, 0), rng.integers(0, 60, scene.shape)
for stack in (scene, still, noise):
    stack = np.stack([stack] * channels, -1).astype(dtype)
    if channels == 1:
        stack = stack[..., 0]
    if stack.dtype.kind == "f":
        stack = stack * stack.dtype.type(1.37)
        stack[3:, 5:9, 7] = np.nan
    mask = np.zeros(stack.shape[1:3], bool)
    mask[3, 5] = True
    path = sys.argv[5]
    with tezip_h5.Writer(path, frame_shape=stack.shape[1:], dtype=dtype, mask=mask, level=level,
                         overwrite=True, **bound) as w:
        w.append(stack)
    tezip_h5.read(path)
print(*sorted(set(kernels._loaded) - prepared))
"""


@pytest.mark.parametrize(
    ("level", "dtype", "channels", "bound"),
    [
        ("fast", "uint16", 1, {"relative": 1e-3}),
        ("balanced", "uint16", 1, {"relative": 1e-3}),
        ("balanced", "uint8", 3, {}),
        ("balanced", "float32", 1, {"absolute": 0.5}),
        ("balanced", "int32", 1, {"noise": 0.5}),
        ("best", "uint16", 1, {"absolute": 3}),
        ("best", "float64", 1, {}),
    ],
)
def test_nothing_is_left_to_compile(tmp_path, level, dtype, channels, bound):
    words = [sys.executable, "-c", AFTERWARDS, level, dtype, channels, bound, tmp_path / "x.h5"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"dtype": "complex64"}, "complex64"),
        ({"channels": 5}, "channels=5"),
        ({"channels": 0}, "channels=0"),
        ({"dtype": "float32", "noise": 1}, "for counts"),
        ({"absolute": -1}, "absolute"),
        ({"level": "quick"}, "level"),
        ({"device": "tpu"}, "device"),
        ({"chunk_frames": 3}, "for other calls"),
    ],
)
def test_what_cannot_be_prepared_for(given, words):
    with pytest.raises(InputError, match=words):
        tezip_h5.prepare(**given)


def test_the_command_prepares(capsys):
    words = ["prepare", "uint8", "--level", "fast", "--absolute", "2"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("ready for uint8, absolute 2, level fast: ")
    assert main(words) == 0
    assert capsys.readouterr().out.endswith("level fast: all was compiled already\n")
    assert main(["prepare", "text"]) == 1
    assert "'text' is no dtype" in capsys.readouterr().err


def test_a_writer_has_the_name_that_write_has(tmp_path, walk):
    with Writer(tmp_path / "x.h5", frame_shape=walk.shape[1:], dtype=walk.dtype) as w:
        w.append(walk)
    with h5py.File(tmp_path / "x.h5") as f:
        np.testing.assert_array_equal(f["scan/data"][()], walk)
