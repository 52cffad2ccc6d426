"""Samples that are no measurements: found, kept exactly, and no burden for the others."""

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import tezip_h5
from tezip_h5 import BoundError, ErrorBound, Settings, holes
from tezip_h5.chunk.attempts import Attempts
from tezip_h5.codec import decode_chunk, encode_chunk


def scene(dtype, seed=0, shape=(6, 40, 48, 1)):
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape[1:3])
    surface = 200 + 100 * np.sin(x / 9) * np.cos(y / 7)
    return rng.normal(surface[..., None], 5, shape).astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("u4", [2**32 - 1, 2**32 - 2]),
        ("u2", [65535]),
        ("i4", [-(2**31)]),
        ("i2", [-32768, 32767]),
        ("f4", [1e20]),
        ("f4", [np.nan, np.inf, -9999.0]),
        ("f4", [np.inf, -np.inf, 1e20, 1.1e20, -1e20]),
        ("f8", [9.969209968386869e36, -9999.0]),
        ("f8", [-np.finfo("f8").max, np.finfo("f8").max]),
    ],
)
def test_what_is_found(dtype, values):
    frames = scene(dtype)
    mask = np.zeros(frames.shape, bool)
    mask[:, 10:14] = True
    mask[2, 30, 5] = mask[4, 31, 40] = True
    frames[mask] = np.resize(np.array(values, dtype), mask.sum())
    np.testing.assert_array_equal(holes.find(frames), mask)
    filled = holes.patched(frames).frames
    np.testing.assert_array_equal(filled[~mask], frames[~mask])
    # Only values that are there, and always the same where there is never a measurement.
    assert np.isin(filled[mask], frames[~mask]).all()
    assert (filled[:, 10:14] == filled[:1, 10:14]).all()


@pytest.mark.parametrize("value", [-1e34, np.nan, 1e20])
def test_holes_that_move_beside_holes_that_stay(value):
    """An ocean's gaps beside its coast: neither their values nor zeros leak into what is filled."""
    frames = scene("f4")
    lowest, highest = frames.min(), frames.max()
    mask = np.zeros(frames.shape, bool)
    mask[:, 10:20] = True
    mask[:5, 5:10] = mask[:5, 20:25] = True
    frames[mask] = value
    filled = holes.patched(frames).frames
    assert lowest <= filled.min()
    assert filled.max() <= highest


def test_frames_without_measurements_where_one_looks_first():
    """All of the first one, and both ends of another: what fills them is still measured."""
    frames = scene("f4")
    frames[0] = frames[1, 0] = frames[1, -1] = np.nan
    for stays in (np.s_[:0], np.s_[10:14]):
        frames[:, stays] = np.nan
        assert np.isin(holes.patched(frames).frames, frames[np.isfinite(frames)]).all()


def test_what_stands_for_masked_pixels():
    """One value for a run in a row, what lies across narrow gaps; the median in rows without."""
    frames = np.add.outer(np.arange(40), 100 * np.arange(30))[None].astype("i4")
    mask = np.zeros(frames.shape[1:], bool)
    mask[5, 7] = mask[10:13, 5:20] = mask[20:32, 12:] = True
    filled = holes.fill_still(frames, mask)[0]
    assert abs(filled[5, 7] - frames[0, 5, 7]) <= 1  # a value that is there
    assert (abs(filled[10:13, 5:20] - frames[0, 11, 5:20]) <= 2).all()
    assert (np.ptp(filled[10:13, 5:20], axis=0) == 0).all()
    np.testing.assert_array_equal(filled[20:32, 12:].T, np.tile(frames[0, 20:32, 11], (18, 1)))
    np.testing.assert_array_equal(filled[~mask], frames[0][~mask])
    mask[20:32] = True
    filled = holes.fill_still(frames, mask)[0]
    assert np.unique(filled[20:32]).size == 1
    assert abs(filled[20, 0] - np.median(frames[0][~mask])) <= 1


def test_holes_beside_masked_pixels_and_beside_samples_without_a_level():
    """What is masked hides no holes, and none of the three is forgotten over another."""
    frames = scene("u4")
    mask = np.zeros(frames.shape[1:3], bool)
    mask[3:5] = True
    frames[:, mask] = np.random.default_rng(0).integers(0, 2**32, (6, 96, 1), "u4")
    there = np.repeat(mask[None, ..., None], 6, axis=0)
    there[2, 30, 5] = there[4, 20:25] = True
    frames[2, 30, 5] = frames[4, 20:25] = 2**32 - 1
    found = holes.patched(frames, mask)
    np.testing.assert_array_equal(found.holes, there)
    assert found.frames.max() == frames[~there].max()
    bright = ~there & (frames > 290)
    found = holes.patched(frames, mask, lambda filled: filled > 290)
    np.testing.assert_array_equal(found.holes, there | bright)
    assert found.frames.max() <= 290


@pytest.mark.parametrize("value", [2**62, np.finfo("f8").max, -np.finfo("f8").max])
def test_masked_pixels_beside_the_largest_values(value):
    frames = np.full((3, 6, 20, 1), value)
    mask = np.zeros((6, 20), bool)
    mask[2, 3] = mask[3, 2:15] = mask[5] = True
    np.testing.assert_array_equal(holes.fill_still(frames, mask), frames)
    filled = holes.fill_still(np.full(frames.shape, np.nan), mask)
    assert (filled[:, mask] == 0).all()  # beside no measurement at all


@pytest.mark.parametrize(
    "frames",
    [
        scene("u2"),
        scene("f4"),
        np.full((2, 3, 4, 1), 7, "u4"),
        np.where(scene("u2") > 200, np.uint16(65535), np.uint16(0)),  # a binary mask
        np.minimum(scene("u2") // 40, 15) * np.uint16(4000),  # labels
        np.where(scene("u1") > 250, np.uint8(255), np.uint8(1)),
        np.arange(60, dtype="u4").reshape(3, 4, 5, 1) ** 5,  # a range, not a gap
        np.random.default_rng(0).lognormal(8, 2, (3, 40, 40, 1)).astype("u4"),
        np.zeros((1, 1, 1, 1), "f4"),
        np.resize(np.array([4000, 0], "u2"), (2, 64, 64, 1)),  # a look sees one of the two
        np.resize(np.array([0, 1, 2, 65535], "u2"), (2, 60, 60, 1)),  # a border around labels
    ],
    ids=[
        *("u2", "f4", "constant", "binary", "labels", "u1", "powers", "lognormal", "one", "unseen"),
        "border",
    ],
)
def test_data_is_not_taken_for_holes(frames):
    assert holes.find(frames) is None
    assert holes.patched(frames).frames is frames


@pytest.mark.parametrize(("level", "coder"), [("fast", "linear"), ("balanced", "mixing")])
@pytest.mark.parametrize("bound", [{}, {"absolute": 3}, {"relative": 0.02}])
@pytest.mark.parametrize("dtype", ["u2", "u4", "f4"])
def test_holes_cost_little(level, coder, bound, dtype):
    settings = Settings(level=level, coder=coder)
    plain = scene(dtype, shape=(8, 64, 80, 1))
    frames = plain.copy()
    sentinel = 1e20 if dtype == "f4" else np.iinfo(dtype).max
    frames[:, 20:24] = sentinel
    frames[:, :, 31:33] = sentinel
    limits = ErrorBound(**bound).of_frames(frames)
    encoded = encode_chunk(frames, limits, settings)
    back = decode_chunk(encoded.payload)
    missing = frames == frames.dtype.type(sentinel)
    assert (back[missing] == frames[missing]).all()
    for t, (frame, other) in enumerate(zip(frames, back, strict=True)):
        assert not limits.check(frame, other, t)[1].any()
    without = encode_chunk(plain, ErrorBound(**bound).of_frames(plain), settings)
    assert encoded.coder == without.coder == coder
    assert len(encoded.payload) < 1.02 * len(without.payload) + 150


@pytest.mark.parametrize(
    ("level", "coder", "bound"),
    [("fast", "linear", 0.01), ("balanced", "mixing", 0), ("balanced", "mixing", 0.01)],
)
def test_coders_make_of_holes_what_they_predict(monkeypatch, level, coder, bound):
    """Smooth fields around a wide, ragged hole whose edge moves; a sample says that it pays."""
    t, y, x = np.ogrid[:12, :128, :160]
    field = np.sin((x + 2 * t) / 15) + np.cos((y - t) / 11) + (x - y) / 90
    frames = np.round(field, 4).astype("f4")[..., None]
    frames[(np.hypot(y - 50 - t, x - 70) < 45)[..., None]] = -1e34
    limits = ErrorBound(absolute=bound or None).of_frames(frames)
    settings = Settings(level=level, coder=coder)
    encoded = encode_chunk(frames, limits, settings)
    back = decode_chunk(encoded.payload)
    holes_there = frames == np.float32(-1e34)
    np.testing.assert_array_equal(back[holes_there], frames[holes_there])
    assert abs(back - frames).max() <= bound
    monkeypatch.setattr(Attempts, "freeing", lambda self: self)
    kept = encode_chunk(frames, limits, settings)
    assert encoded.coder == kept.coder == coder
    assert len(encoded.payload) < 0.97 * len(kept.payload)


def decided(monkeypatch, frames, bound, level):
    """The coders that make what they like of holes, and whether their samples were taken."""
    found, asked = [], []
    freeing, part = Attempts.freeing, Attempts._part

    def noted(self):
        found.append(freeing(self).frees)
        return self

    monkeypatch.setattr(Attempts, "freeing", noted)
    monkeypatch.setattr(Attempts, "_part", lambda self, at: asked.append(at) or part(self, at))
    limits = ErrorBound(absolute=bound or None).of_frames(frames)
    encode_chunk(frames, limits, Settings(level=level, coder={"fast": "linear"}.get(level)))
    monkeypatch.undo()
    return found, bool(asked)


@pytest.mark.parametrize("level", ["fast", "best"])
def test_holes_in_noise_keep_what_fills_them(monkeypatch, level):
    y, x = np.indices((160, 160))
    frames = np.random.default_rng(4).normal(100, 2, (12, 160, 160, 1)).astype("f4")
    frames[:, np.hypot(y - 80, x - 80) > 75] = np.nan
    assert decided(monkeypatch, frames, 5, level) == ([()], True)


def test_rare_holes_are_not_asked_about(monkeypatch):
    frames = scene("f4", shape=(6, 40, 48, 1))
    frames[:, 3, 4:9] = np.nan
    assert decided(monkeypatch, frames, 1, "fast") == ([()], False)


def test_a_relative_bound_does_not_see_holes():
    frames = scene("u4")
    plain = ErrorBound(relative=0.01).of_frames(frames)
    frames[:, 5] = 2**32 - 1
    assert (ErrorBound(relative=0.01).of_frames(frames).absolute <= plain.absolute).all()
    loosest = ErrorBound(relative=0.01).of_frames(frames, loosest=True)
    assert (loosest.absolute > 4e7).all()


@pytest.mark.parametrize("mask", [None, "mask"])
def test_verify_does_not_see_holes_either(tmp_path, mask):
    """A relative bound is judged as tightly as it was kept, not by the sentinels' range."""
    frames = scene("u4")[..., 0]
    frames[:, 5] = 2**32 - 1
    masked = np.zeros(frames.shape[1:], bool)
    masked[:, 7] = True
    frames[:, masked] = 1000 * np.arange(frames.shape[1]) ** 2
    options = {} if mask is None else {"mask": masked}
    tezip_h5.write(frames, tmp_path / "a.h5", relative=0.01, **options)
    tezip_h5.verify(tmp_path / "a.h5", frames)
    plain = frames[0][(frames[0] < 2**31) & ~(masked & (mask is not None))]
    other = frames.copy()
    other[3, 20, 30] += int(0.01 * np.ptp(plain.astype("i8"))) + 2 * 10**4 * (mask is None) + 10
    with pytest.raises(BoundError, match="frame 3, sample"):
        tezip_h5.verify(tmp_path / "a.h5", other)


@pytest.mark.parametrize(
    ("frames", "absolute"),
    [
        (np.array([[[0.5, 0, 2, 12, 1.5], [3, 1, 1, 1, 1]]]), 11),
        (np.array([[[[2, 3, 0, 4], [-1, 1, -16, -16], *[[-16] * 4] * 3]]], np.int32), 3),
    ],
    ids=["floats", "integers"],
)
def test_holes_are_no_errors(frames, absolute, no_fallback):
    """A hole comes back as it was; what stood for it among the levels was within the bound, too."""
    bound = ErrorBound(absolute=absolute).of_frames(frames)
    encoded = encode_chunk(frames, bound, Settings())
    assert encoded.max_error == np.abs(frames - decode_chunk(encoded.payload)).max() > 0


def test_a_stack_that_cannot_be_written_to(tmp_path):
    frames = scene("u2")[..., 0]
    frames[:, 10:14] = 65535
    np.save(tmp_path / "a.npy", frames)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    for bound in ({}, {"absolute": 2}):
        tezip_h5.write(mapped, tmp_path / "a.h5", overwrite=True, verify=True, **bound)
        tezip_h5.verify(tmp_path / "a.h5", frames)


@pytest.mark.parametrize("level", ["fast", "balanced", "best"])
def test_gaps_that_move_cost_no_more_than_their_places(level):
    frames = scene("f4", shape=(8, 96, 96, 1))
    gaps = np.zeros(frames.shape, bool)
    gaps[:, 30:50] = True
    for t in range(8):
        gaps[t, 50 : 60 - t] = gaps[t, 20 + t : 30] = True
    bound = ErrorBound(absolute=1.0).of_frames(frames)
    without = encode_chunk(frames, bound, Settings(level=level)).payload
    gappy = np.where(gaps, np.float32(-1e34), frames)
    payload = encode_chunk(gappy, bound, Settings(level=level)).payload
    assert len(payload) < 1.02 * len(without)
    back = decode_chunk(payload)
    assert (back[gaps] == np.float32(-1e34)).all()
    assert np.abs(back - gappy)[~gaps].max() <= 1


def test_a_stack_of_nothing(tmp_path):
    frames = np.full((3, 20, 20), np.nan, "f4")
    frames[1, 5:] = 3.5
    for bound in ({}, {"absolute": 0.1}):
        tezip_h5.write(frames, tmp_path / "a.h5", overwrite=True, **bound)
        np.testing.assert_array_equal(tezip_h5.read(tmp_path / "a.h5"), frames)
        tezip_h5.write(frames[:1], tmp_path / "a.h5", overwrite=True, **bound)
        np.testing.assert_array_equal(tezip_h5.read(tmp_path / "a.h5"), frames[:1])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["u2", "i2", "u4", "i4", "f4", "f8"]),
    st.sampled_from([{}, {"absolute": 2}, {"relative": 0.1}, {"pointwise_relative": 0.05}]),
    st.sampled_from(["stages", "linear", "mixing"]),
    st.floats(0, 1),
)
@example(77438, "f8", {"relative": 0.1}, "stages", 0.5)  # bounds that overflow in steps of others
@example(153586, "f4", {}, "stages", 0.5)  # a reach of more than a float32 holds
def test_any_chunk_with_any_holes(no_fallback, seed, dtype, bound, coder, share):
    rng = np.random.default_rng(seed)
    shape = (rng.integers(1, 4), rng.integers(1, 9), rng.integers(1, 9), rng.integers(1, 4))
    frames = rng.normal(20, 10.0 ** rng.integers(0, 5), shape).astype(dtype)
    kind = np.finfo(dtype) if frames.dtype.kind == "f" else np.iinfo(dtype)
    mask = rng.random(shape) < share
    frames[mask] = rng.choice(np.array([kind.max, kind.min, 99], dtype), mask.sum())
    limits = ErrorBound(**bound).of_frames(frames)
    back = decode_chunk(encode_chunk(frames, limits, Settings(level="fast", coder=coder)).payload)
    for t, (frame, other) in enumerate(zip(frames, back, strict=True)):
        assert not limits.check(frame, other, t)[1].any()
    found = holes.find(frames)
    if found is not None:
        assert back[found].tobytes() == frames[found].tobytes()
