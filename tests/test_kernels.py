"""Every kernel against its obvious version, bit for bit."""

import errno
import os

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


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("size", [0, 30])
def test_a_cache_that_is_torn_is_made_anew(cache, ending, size):
    """As a power cut leaves it."""
    folder, compiled = cache
    compiled()
    os.truncate(next(folder.rglob(f"*.{ending}")), size)
    assert compiled()(3) == 3
    assert compiled().stats.cache_misses
    assert compiled().stats.cache_hits


def test_a_disk_that_is_full_of_kernels(cache, monkeypatch):
    """Neither reading nor an acquisition ends where only a home has no room."""
    folder, compiled = cache

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    assert compiled()(3) == 3
    assert not list(folder.rglob("*.nb*"))


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
