"""Shared fixtures. Real stacks are found through TEZIP_TEST_DATA; without it they are skipped.

Tests of CUDA kernels run on a GPU where there is one, else in numba's simulator; numba reads
which when it is imported, so it is decided here, for this process and those it starts.
NUMBA_ENABLE_CUDASIM=1 asks for the simulator in any case.
"""

import ctypes
import importlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import tezip_h5


def _gpus():
    """How many GPUs the driver knows."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


# What this process starts knows already: a worker of dask imports this file late.
if "NUMBA_ENABLE_CUDASIM" not in os.environ and not _gpus():
    assert "numba" not in sys.modules, "numba was imported before it could know of no GPU"
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"

# What runs in the background may have been told to ignore Ctrl-C, and passes that on to what it
# starts; tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--regenerate", action="store_true", help="write the golden files anew")


@pytest.fixture
def regenerate(request):
    return request.config.getoption("--regenerate")


def real_stacks():
    """Paths of the real stacks, or one skipped case."""
    folder = os.environ.get("TEZIP_TEST_DATA")
    if not folder:
        return [pytest.param(None, marks=pytest.mark.skip("TEZIP_TEST_DATA is not set"))]
    paths = sorted(Path(folder).glob("*.h5"))
    assert paths, f"TEZIP_TEST_DATA={folder} holds no stack"
    return [pytest.param(path, id=path.stem) for path in paths]


def require_tool(name):
    """The path of a system tool; without it skip, or fail where TEZIP_REQUIRE_TOOLS is set."""
    if shutil.which(name) is None:
        if os.environ.get("TEZIP_REQUIRE_TOOLS"):
            pytest.fail(f"{name} is not installed, but TEZIP_REQUIRE_TOOLS is set")
        pytest.skip(f"{name} is not installed")
    return shutil.which(name)


def require_package(*names):
    """Import optional packages and return the last; without one of them skip, or fail as
    `require_tool` does."""
    module = None
    for name in names:
        if os.environ.get("TEZIP_REQUIRE_TOOLS") and sys.version_info >= (3, 11):
            module = importlib.import_module(name)
        else:
            module = pytest.importorskip(name, exc_type=ImportError)
    return module


def require_training():
    """Skip a module without Keras and TensorFlow; fail where TEZIP_REQUIRE_TRAINING is set."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if os.environ.get("TEZIP_REQUIRE_TRAINING"):
        import keras  # noqa: F401
        import tensorflow  # noqa: F401
    else:
        pytest.importorskip("tensorflow", exc_type=ImportError)
        pytest.importorskip("keras", exc_type=ImportError)


@pytest.fixture
def no_fallback(monkeypatch):
    """Chunks keep their coder, though they are so small that shuffled zstd would win."""
    monkeypatch.setattr("tezip_h5.codec._fallback_may_win", lambda *_: False)


@pytest.fixture
def walk():
    """A small stack with motion and noise: uint16 (20, 40, 56), values about 500."""
    rng = np.random.default_rng(1)
    steps = rng.integers(-3, 4, (20, 40, 56))
    return (np.cumsum(steps, axis=0) + 500).astype(np.uint16)


@pytest.fixture
def run_h5(tmp_path, walk):
    """A file with the stack of `walk`, lossless, in two chunks."""
    path = tmp_path / "run.h5"
    tezip_h5.write(walk, path, chunk_frames=16)
    return path


@pytest.fixture(autouse=True)
def _fresh_cache():
    """No test sees chunks that another decoded."""
    from tezip_h5.hdf5.pipeline import cache, filter

    cache._cache.reset()
    filter._read_frames = filter._ReadFrames()
    yield
    cache.configure(cache_bytes=cache.DEFAULT_BYTES)


@pytest.fixture
def in_fresh_process():
    """Run code in a new Python process; returns what it printed."""

    def run(code, **environment):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
