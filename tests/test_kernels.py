"""Every kernel against its obvious version, bit for bit."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import naive
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tezip_h5 import kernels
from tezip_h5.residual import quantize, ranks, spatial

# --- how they are compiled ---


def _one(x):
    return x


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A folder for compiled kernels, and what compiles `_one`."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path, lambda: kernels.load("compiling").kernel("i8(i8)")(_one)


def _is_made_anew(compiled):
    assert compiled()(3) == 3
    assert compiled().stats.cache_hits
    return True


@pytest.mark.parametrize("size", [0, 30, 1000])
def test_a_cache_that_is_torn_is_made_anew(cache, size):
    """As a power cut leaves it."""
    folder, compiled = cache
    compiled()
    os.truncate(next(folder.rglob("*.kernel")), size)
    assert compiled().stats.cache_misses
    assert _is_made_anew(compiled)


@pytest.mark.parametrize("place", [0, 40, -1])
def test_a_kernel_that_another_wrote_is_made_anew(cache, place):
    """Of other sources, of another name in the place of this one, or damaged."""
    folder, compiled = cache
    compiled()
    path = next(folder.rglob("*.kernel"))
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    assert compiled().stats.cache_misses
    assert _is_made_anew(compiled)
    assert len(list(folder.rglob("*.kernel"))) == 1


def test_kernels_that_check_bounds_are_others(cache, monkeypatch):
    """NUMBA_BOUNDSCHECK=1 must not be served a kernel that checks nothing, nor the other way."""
    _, compiled = cache
    compiled()
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", 1)
    assert compiled().stats.cache_misses
    assert compiled().stats.cache_hits
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", None)
    assert compiled().stats.cache_hits


def test_a_disk_that_is_full_of_kernels(cache, monkeypatch):
    """Neither reading nor an acquisition ends where only a home has no room."""
    folder, compiled = cache

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    assert compiled()(3) == 3
    assert not list(folder.rglob("*.kernel*"))


def test_another_numba(cache, monkeypatch):
    """What is used of it has no documentation; without it nothing is kept, or taken for kept."""
    folder, compiled = cache
    compiled()
    monkeypatch.delattr("numba.core.caching.CompileResultCacheImpl.rebuild")
    assert compiled().stats.cache_misses
    monkeypatch.delattr("numba.core.caching.CompileResultCacheImpl.reduce")
    assert compiled()(3) == 3
    monkeypatch.delattr("numba.core.caching.CompileResultCacheImpl")
    assert compiled()(3) == 3
    assert kernels.load("compiling").cache_folder() is None
    assert not list(folder.rglob("*.nb*"))


def test_old_files_are_removed(cache):
    folder, compiled = cache
    compiled()
    keeping = kernels.load("keeping")
    kept = next(folder.rglob("*.kernel"))
    stale, recent = kept.with_name("a-b-1.kernel"), kept.with_name("a-b-2.kernel")
    torn, numbas = kept.with_name("a-b-3.kernel.f00"), kept.with_name("a.nbi")
    for path in (stale, recent, torn, numbas):
        path.write_bytes(b"of another age")
    for path in (kept, stale, torn):
        os.utime(path, (1, 1))
    keeping._sweep.cache_clear()
    keeping._sweep(kept.parent)
    assert set(kept.parent.iterdir()) == {kept, recent}


def _closed_over(value):
    def scaled(x):
        return x * value

    return scaled


def _taken(value):
    values = np.array([1, value])

    def taken(x):
        return values[x]

    return taken


def test_kernels_that_differ_in_what_they_are_closed_over(cache):
    folder, _ = cache
    kernel = kernels.load("compiling").kernel
    for _ in range(2):
        two, three = kernel("i8(i8)")(_closed_over(2)), kernel("i8(i8)")(_closed_over(3))
        assert (two(5), three(5)) == (10, 15)
    assert two.stats.cache_hits
    assert len(list(folder.rglob("*.kernel"))) == 2
    five, six = kernel("i8(i8)")(_taken(5)), kernel("i8(i8)")(_taken(6))
    assert (five(1), six(1)) == (5, 6)
    assert len(list(folder.rglob("*.kernel"))) == 4
    other = kernel("i8(i8)")(_closed_over(np.int16(7)))  # not told apart, so not kept
    assert other(2) == 14
    assert len(list(folder.rglob("*.kernel"))) == 4


_CODE = """
import sys
from pathlib import Path

import numpy as np
from tezip_h5.kernels import sizes

room = Path(sizes.__file__).parent
assert room.parent.parent == Path.cwd()
if "upgraded" in sys.argv:
    (room / "bits.py").write_text((room / "bits.py").read_text() + "# a change")
from tezip_h5.kernels import masks

mask = np.zeros((4, 99), np.uint8)
mask[2, 2:-1:3] = 1
counters = np.full(masks.ROWS + masks.SAMPLES, 1 << 31, np.uint32)
coder, stream = np.array([0, 2**32 - 1, 0, 0]), np.zeros(99, np.uint8)
masks.code_mask(False, mask, np.zeros_like(mask), 0, counters, coder, stream)
hits, misses = masks.code_mask.stats.cache_hits, masks.code_mask.stats.cache_misses
print(stream.tobytes().hex(), "kept" if hits else "compiled" if misses else "")
"""


@pytest.fixture
def copied(tmp_path):
    """The kernels of a copy of the package, and what codes a mask with them in a new process."""
    room = tmp_path / "tezip_h5"
    source = Path(kernels.__file__).parent
    shutil.copytree(source, room / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    (room / "__init__.py").write_text("")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for name in ("NUMBA_CACHE_DIR", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"):
        environment.pop(name, None)

    def run(*arguments):
        command = [sys.executable, "-c", _CODE, *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    return room / "kernels", run


def _change(path, old, new):
    """Change a source, which stays as old as it was: so some installers leave it."""
    times, text = path.stat(), path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_kernel_is_compiled_anew_where_what_it_calls_has_changed(copied):
    """Constants of other files are in its machine code: the old one would make other bytes."""
    room, run = copied
    first, how = run()
    assert how == "compiled"
    assert run() == [first, "kept"]
    _change(room / "arithmetic.py", "65536 // (n + 2)", "65536 // (n + 12)")
    second, how = run()
    assert second != first
    assert how == "compiled"
    assert run() == [second, "kept"]
    assert len(list(room.rglob("*.kernel"))) == 1  # written over


def test_what_python_takes_for_unchanged_is_not_kept(copied):
    """It compares sources by size, and by time to the second."""
    room, run = copied
    first, _ = run()
    _change(room / "arithmetic.py", "65536 // (n + 2)", "65536 // (n + 9)")
    assert run() == [first, "compiled"]  # by Python's mistake
    os.utime(room / "arithmetic.py", (1, 1))
    second, how = run()
    assert second != first
    assert how == "compiled"


def test_what_began_before_an_upgrade_neither_keeps_nor_takes_kernels(copied):
    room, run = copied
    before = (room / "bits.py").read_text()
    found, how = run("upgraded")
    assert how == "compiled"
    assert not list(room.rglob("*.kernel"))
    assert run() == [found, "compiled"]
    assert run() == [found, "kept"]
    (room / "bits.py").write_text(before)
    assert run("upgraded") == [found, "compiled"]  # though there is one of the new sources


@pytest.mark.parametrize("name", ["cpu", "bits", "mixing.coarse", "linear.fit", "masks", "network"])
def test_kernels_are_kept(name):
    """None falls back to being compiled in every process."""
    module = kernels.load(name)
    found = [value for value in vars(module).values() if not getattr(value, "_can_compile", True)]
    assert found
    assert {type(kernel._cache) for kernel in found} == {kernels.load("keeping").Kept}


# --- what they do ---

TOPS = st.sampled_from([0, 1, 7, 255, 4095, 65535, 2**31 - 2])


def width_of(top):
    return 1 if top < 256 else 2 if top < 65536 else 4


@st.composite
def frames(draw):
    """(levels, prediction, tolerance, top): two small frames of one channel."""
    top = draw(TOPS)
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=7))
    near = st.sampled_from([0, min(1, top), top // 2, max(top - 1, 0), top])
    elements = st.one_of(near, st.integers(0, top))
    frame = hnp.arrays(np.int32, shape, elements=elements)
    tolerance = draw(st.sampled_from([0, 0, 1, 2, 5, 300]))
    return draw(frame), draw(frame), min(tolerance, top), top


@given(frames())
@settings(max_examples=200, deadline=None)
def test_uniform(case):
    levels, prediction, tolerance, top = case
    width = width_of(top)
    symbols, out = quantize.quantize("uniform", levels, prediction, tolerance, top, width)
    expected = naive.uniform(levels, prediction, tolerance, top, width)
    np.testing.assert_array_equal((symbols, out), expected)
    assert np.abs(levels.astype(int) - out).max() <= tolerance
    back = np.empty_like(out)
    quantize.dequantize("uniform", symbols, prediction, tolerance, top, width, back)
    np.testing.assert_array_equal(back, out)


@given(frames())
@settings(max_examples=200, deadline=None)
def test_run_merging(case):
    levels, prediction, tolerance, top = case
    width = width_of(top)
    symbols, out = quantize.quantize("run-merging", levels, prediction, tolerance, top, width)
    expected = naive.merged(levels, prediction, tolerance, top, width)
    np.testing.assert_array_equal((symbols, out), expected)
    assert np.abs(levels.astype(int) - out).max() <= tolerance
    back = np.empty_like(out)
    quantize.dequantize("run-merging", symbols, prediction, tolerance, top, width, back)
    np.testing.assert_array_equal(back, out)


@given(frames())
@settings(max_examples=200, deadline=None)
def test_keyframe(case):
    levels, _, tolerance, top = case
    width = width_of(top)
    symbols, out = quantize.quantize_keyframe(levels, tolerance, top, width)
    np.testing.assert_array_equal((symbols, out), naive.keyframe(levels, tolerance, top, width))
    back = np.empty_like(out)
    quantize.dequantize_keyframe(symbols, tolerance, top, width, back)
    np.testing.assert_array_equal(back, out)


@given(hnp.arrays(np.int32, (5, 6)), hnp.arrays(np.int32, (5, 6)))
@settings(max_examples=100, deadline=None)
def test_wide_levels_wrap(levels, prediction):
    """Bit patterns of floats use all 32 bits; everything wraps and comes back."""
    top = 2**32 - 1
    symbols, _ = quantize.quantize("uniform", levels, prediction, 0, top, 4)
    back = np.empty_like(levels)
    quantize.dequantize("uniform", symbols, prediction, 0, top, 4, back)
    np.testing.assert_array_equal(back, levels)
    symbols, _ = quantize.quantize_keyframe(levels, 0, top, 4)
    quantize.dequantize_keyframe(symbols, 0, top, 4, back)
    np.testing.assert_array_equal(back, levels)


SYMBOLS = st.sampled_from([1, 2, 4]).flatmap(
    lambda width: st.tuples(
        st.just(width),
        hnp.arrays(f"i{width}", st.integers(1, 40)).map(lambda a: a.astype(np.int32)),
    )
)


@given(SYMBOLS)
@settings(deadline=None)
def test_spatial(case):
    width, symbols = case
    differences = spatial.encode(symbols, width)
    assert differences.tolist() == naive.differences(symbols.tolist(), width)
    spatial.decode(differences, width, differences)  # in place
    np.testing.assert_array_equal(differences, symbols)


@given(SYMBOLS)
@settings(deadline=None)
def test_ranks(case):
    width, symbols = case
    narrow = symbols.astype(f"i{width}")
    table = ranks.table(narrow)
    assert table.tolist() == naive.ranked(symbols.tolist())
    ranked = ranks.encode(symbols, table)
    assert ranked.tolist() == [table.tolist().index(s) for s in symbols.tolist()]
    ranks.decode(ranked, table, ranked)
    np.testing.assert_array_equal(ranked, symbols)


@given(SYMBOLS)
@settings(deadline=None)
def test_packing(case):
    width, symbols = case
    kernel = kernels.load()
    planes = np.empty((width, symbols.size), np.uint8)
    kernel.pack_signed(symbols, width, planes)
    weights = 256 ** np.arange(width)
    assert (planes.T @ weights).tolist() == [naive.folded(s) for s in symbols.tolist()]
    back = np.empty_like(symbols)
    kernel.unpack_signed(planes, width, back)
    np.testing.assert_array_equal(back, symbols)
    positive = np.abs(symbols.astype(np.int64) % (1 << 8 * width - 1)).astype(np.int32)
    kernel.pack_unsigned(positive, width, planes)
    kernel.unpack_unsigned(planes, width, back)
    np.testing.assert_array_equal(back, positive)


def test_no_kernel_compiles_a_second_signature():
    kernel = kernels.load()
    for name in kernel.__all__:
        assert len(getattr(kernel, name).signatures) == 1
