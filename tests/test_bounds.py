from fractions import Fraction

import numpy as np
import pytest

from tezip_h5 import ErrorBound, InputError
from tezip_h5.bounds import ChunkBound


@pytest.mark.parametrize(
    ("keywords", "mode"),
    [
        ({}, "lossless"),
        ({"absolute": 2}, "abs"),
        ({"relative": 0.1}, "rel"),
        ({"absolute": 2, "relative": 0.1}, "absrel"),
        ({"pointwise_relative": 0.1}, "pwrel"),
        ({"absolute": 0}, "lossless"),
        ({"absolute": 5, "relative": 0}, "lossless"),
        ({"pointwise_relative": 0.0}, "lossless"),
    ],
)
def test_mode(keywords, mode):
    assert ErrorBound(**keywords).mode == mode


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "2", True, 1j, np.complex64(1)])
def test_a_bound_that_is_no_bound_is_refused(value):
    with pytest.raises(InputError, match="absolute"):
        ErrorBound(absolute=value)


def test_pointwise_excludes_the_others():
    with pytest.raises(InputError, match="pointwise_relative"):
        ErrorBound(absolute=1, pointwise_relative=0.1)


def test_the_manuals_modes():
    assert ErrorBound.from_mode("absrel", [5, 0.1]) == ErrorBound(absolute=5, relative=0.1)
    assert ErrorBound.from_mode("pwrel", [0.1]) == ErrorBound(pointwise_relative=0.1)
    assert ErrorBound.from_mode(None) == ErrorBound()


@pytest.mark.parametrize(
    ("mode", "values", "words"),
    [
        ("abs", [], "takes one bound after -b, but -b is missing; .* -m abs -b 2$"),
        ("abs", [1, 2], "takes one bound after -b, but 2 were given"),
        ("absrel", [1], "takes two bounds.* -m absrel -b 2 0.001$"),
        ("maximum", [1], "unknown error bound mode"),
        (None, [1], "without a mode"),
    ],
)
def test_the_manuals_mistakes(mode, values, words):
    with pytest.raises(InputError, match=words):
        ErrorBound.from_mode(mode, values)


def test_relative_is_per_frame_and_channel():
    frames = np.zeros((2, 3, 4, 2))
    frames[0, 0, 0] = 10, 20
    frames[1, 1, 1] = 30, 40
    bounds = ErrorBound(relative=0.1, absolute=2.5).of_frames(frames).absolute
    np.testing.assert_allclose(bounds, [[1, 2], [2.5, 2.5]])


def test_relative_ignores_what_is_not_finite():
    frames = np.array([1.0, 3.0, np.nan, np.inf], np.float32).reshape(1, 2, 2, 1)
    assert ErrorBound(relative=0.5).of_frames(frames).absolute[0, 0] == 1
    frames[:] = np.nan
    assert ErrorBound(relative=0.5).of_frames(frames).absolute[0, 0] == 0


def test_relative_of_the_widest_integers():
    frames = np.array([-(2**31), 2**31 - 1], np.int32).reshape(1, 1, 2, 1)
    assert ErrorBound(relative=1).of_frames(frames).absolute[0, 0] == 2**32 - 1


@pytest.mark.parametrize("dtype", ["i8", "u8"])
@pytest.mark.parametrize("width", [3, 799, 2**53 + 1, 2**54 + 3, 2**63 - 1])
def test_relative_of_integers_that_float64_does_not_tell_apart(dtype, width):
    low = (2**64 if dtype == "u8" else 2**63) - 1 - width
    frames = np.array([low, low + width], dtype).reshape(1, 1, 2, 1)
    [allowed] = ErrorBound(relative=1).of_frames(frames).absolute[0]
    assert np.nextafter(np.float64(width), 0) <= allowed
    assert int(allowed) <= width
    frames = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype).reshape(1, 1, 2, 1)
    assert int(ErrorBound(relative=1).of_frames(frames).absolute[0, 0]) < 2**64


def test_relative_leaves_out_what_is_masked():
    rng, mask = np.random.default_rng(0), np.zeros((8, 9), bool)
    mask[2:4, 3:] = True
    frames = rng.integers(0, 9, (3, 8, 9, 2)).astype("u4")
    frames[:, mask] = 5000
    frames[1, 0, 0] = 2**32 - 1  # no measurement, among the others
    plain = np.where(frames < 100, frames, 4).reshape(3, -1, 2)
    limits = ErrorBound(relative=0.5).of_frames(frames, mask).absolute
    np.testing.assert_array_equal(limits, 0.5 * np.ptp(plain, axis=1))
    everything = ErrorBound(relative=0.5, absolute=7).of_frames(frames, np.ones_like(mask))
    np.testing.assert_array_equal(everything.absolute, np.zeros((3, 2)))


def test_frames_without_an_axis_of_channels():
    frames = np.arange(24.0).reshape(2, 3, 4)
    for bound in (ErrorBound(absolute=2), ErrorBound(relative=0.5), ErrorBound(noise=1)):
        one, other = bound.of_frames(frames), bound.of_frames(frames[..., None])
        np.testing.assert_array_equal(one.absolute, other.absolute)
    for shape in ((3, 4), (4,), (1, 2, 3, 4, 5)):
        with pytest.raises(InputError, match=r"expected \(g, H, W\) or \(g, H, W, C\)"):
            ErrorBound(absolute=2).of_frames(np.zeros(shape))


@pytest.mark.filterwarnings("error")
def test_no_warning_of_numpy_reaches_the_user():
    widest = np.array([-1.7e308, 1.7e308]).reshape(1, 1, 2, 1)
    limits = ErrorBound(relative=1e308).of_frames(widest)
    assert limits.absolute[0, 0] == np.inf
    assert not limits.check(widest[0], widest[0], 0)[1].any()
    signalling = np.array([0x7F800001, 0x3F800000], "u4").view("f4").reshape(1, 1, 2, 1)
    limits = ErrorBound(relative=0.5, absolute=1).of_frames(signalling)
    assert not limits.check(signalling[0], signalling[0], 0)[1].any()
    assert not ChunkBound(noise=1.0).check(signalling[0], signalling[0], 0)[1].any()


def test_bounds_beyond_all_numbers():
    for value in (10**400, 10**5000, Fraction(10**400)):  # the second Python does not print
        with pytest.raises(InputError, match="noise is beyond"):
            ErrorBound(noise=value)


@pytest.mark.parametrize(
    "bound",
    [ChunkBound(pointwise=0.1), ChunkBound(noise=0.1), ChunkBound(absolute=np.full((1, 1), 9.0))],
)
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_nothing_is_near_what_is_no_number(bound, value):
    """A part of infinity is infinite, too: no error would be larger."""
    frame = np.full((1, 2, 1), value, "f4")
    decoded = np.array([value, 5], "f4").reshape(1, 2, 1)
    error, bad = bound.check(frame, decoded, 0)
    assert error == 0
    assert bad.reshape(-1).tolist() == [False, True]


def test_check_is_strict():
    frame = np.array([[[10.0], [np.nan], [np.inf]]])
    limits = ChunkBound(absolute=np.array([[1.0]]))
    error, bad = limits.check(frame, np.array([[[11.0], [np.nan], [np.inf]]]), 0)
    assert (error, bad.any()) == (1.0, False)
    _, bad = limits.check(frame, np.array([[[11.0000001], [0.0], [-np.inf]]]), 0)
    assert bad.all()
    _, bad = ChunkBound().check(np.array([[[0.0]]]), np.array([[[-0.0]]]), 0)
    assert bad.all(), "lossless means the bits"


def test_frozen_frames_are_exact():
    limits = ChunkBound(absolute=np.array([[1.0], [1.0]])).exact_where(np.array([True, False]))
    assert limits.absolute.tolist() == [[0.0], [1.0]]
    assert ChunkBound(pointwise=0.1).exact_where(np.array([True, False])).lossless
