"""Frames that were each scaled by themselves: lines and tables of their own (scales 7 and 8)."""

import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tezip_h5 import ErrorBound, FormatError, Settings, bitstream, levels
from tezip_h5.bitstream import Section
from tezip_h5.bounds import ChunkBound
from tezip_h5.chunk import frames_section
from tezip_h5.codec import decode_chunk, encode_chunk
from tezip_h5.levels import each_frame
from tezip_h5.levels.lattice import affine
from tezip_h5.recoding import recode


def counts(g=4, h=40, w=50, seed=0):
    """Counts of a scene that hardly moves, (g, h, w, 1)."""
    y, x = np.mgrid[:h, :w]
    mean = 400 + 200 * np.sin(x / 9) * np.cos(y / 7)
    return np.random.default_rng(seed).poisson(mean, (g, h, w))[..., None]


def stretched(frames, dtype):
    """As programs bring images to 0..1."""
    low, high = (end(frames, axis=(1, 2, 3), keepdims=True) for end in (np.min, np.max))
    return ((frames - low) / (high - low)).astype(dtype)


def packed(frames, binary, decimal):
    """As GRIB has it: (R + k 2^E) / 10^D, R a float32 of each frame."""
    references = np.random.default_rng(1).normal(280, 5, len(frames)).astype("f4").astype("f8")
    whole = references.reshape(-1, 1, 1, 1) + frames * 2.0**binary
    return (whole / 10.0**decimal).astype("f4")


def in_float32(frames):
    """A slope and an intercept of each frame, a product and a sum, each rounded to float32."""
    slopes = np.linspace(0.011, 0.017, len(frames)).astype("f4").reshape(-1, 1, 1, 1)
    return frames.astype("f4") * slopes - np.float32(1.7) * slopes


def over_means(frames):
    """Every frame over its mean."""
    return (frames / frames.mean(axis=(1, 2, 3), keepdims=True)).astype("f4")


WAYS = {
    "0..1, float32": lambda frames: stretched(frames, "f4"),
    "0..1, float64": lambda frames: stretched(frames, "f8"),
    "GRIB": lambda frames: packed(frames, -4, 0),
    "GRIB, decimal": lambda frames: packed(frames, 3, 2),
    "float32 arithmetic": in_float32,
    "over means": over_means,
    "16 bits": lambda frames: np.rint(stretched(frames, "f8") * 65535).astype("u2"),
    "16 bits, squared": lambda frames: (stretched(frames, "f8") ** 2 * 65535).astype("u2"),
}


@pytest.mark.parametrize("way", WAYS)
def test_frames_scaled_by_themselves_cost_what_their_counts_cost(way):
    frames = counts()
    made = encode_chunk(WAYS[way](frames), ChunkBound(), Settings(level="fast"))
    plain = encode_chunk(frames.astype("u2"), ChunkBound(), Settings(level="fast"))
    assert decode_chunk(made.payload).tobytes() == WAYS[way](frames).tobytes()
    assert bitstream.peek(made.payload)[0].scale == levels.EachFrame.kind
    tables = len(bitstream.unpack(made.payload).sections[Section.LEVELS])
    assert len(made.payload) - tables < 1.12 * len(plain.payload)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_line_gives_the_counts_back(dtype):
    """Their differences, that is: where they begin, no sample tells."""
    frames = counts()
    scaled = stretched(frames, dtype)
    scale = levels.of_each_frame(scaled, ChunkBound(), levels.OrderedBits(np.dtype(dtype)))
    for t, (frame, of_counts) in enumerate(zip(scaled, frames, strict=True)):
        found = scale.of_frame(t).to_levels(frame).astype(int)
        assert 0 <= found.min() <= found.max() <= scale.top
        assert np.ptp(found - of_counts) == 0
        assert (scale.of_frame(t).to_values(found.astype("i4")) == frame).all()


def test_levels_of_a_still_scene_are_about_the_same_in_all_frames():
    scaled = packed(counts(), -4, 0)
    scale = levels.of_each_frame(scaled, ChunkBound(), levels.OrderedBits(np.dtype("f4")))
    found = [scale.of_frame(t).to_levels(frame) for t, frame in enumerate(scaled)]
    medians = [np.median(one.astype(int) - found[0]) for one in found]
    assert np.ptp(medians) <= 3  # of a scene whose noise is 20


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("kind", ["noise", "smooth", "many scales", "huge", "tiny"])
def test_numbers_on_no_line_have_none(dtype, kind):
    generator = np.random.default_rng(0)
    values = {
        "noise": generator.normal(size=5000),
        "smooth": np.sin(np.arange(5000) / 3000),
        "many scales": generator.lognormal(0, 4, 5000),
        "huge": generator.uniform(-1, 1, 5000) * float(np.finfo(dtype).max),
        "tiny": generator.uniform(-1, 1, 5000) * float(np.finfo(dtype).smallest_normal) * 8,
    }[kind]
    with np.errstate(over="ignore"):
        values = values.astype(dtype)
    line = affine(values[np.isfinite(values)])
    if line is not None:  # of numbers so few or so small that they lie on one
        assert kind in ("tiny", "smooth", "noise")
        assert dtype == "f2" or kind == "tiny"


def test_sums_in_floats_are_corrected():
    """A line that brings most samples back serves; the others are a few floats beside."""
    frames = counts()
    means = (np.cumsum(frames.astype("f4") / np.float32(122), axis=0)[1:]).astype("f4")
    payload = encode_chunk(means, ChunkBound(), Settings(level="fast")).payload
    sections = bitstream.unpack(payload).sections
    assert decode_chunk(payload).tobytes() == means.tobytes()
    assert Section.CORRECTIONS in sections
    assert Section.EXCEPTIONS not in sections


def test_holes_need_no_line():
    frames = stretched(counts(), "f4")
    frames[:, 10:20, 10:30] = np.nan
    frames[1, 5, 5] = -np.inf
    frames[2] = np.nan
    made = encode_chunk(frames, ChunkBound(), Settings(level="fast"))
    assert bitstream.peek(made.payload)[0].scale == levels.EachFrame.kind
    assert decode_chunk(made.payload).tobytes() == frames.tobytes()


def test_a_frame_without_a_line_takes_that_of_another(no_fallback):
    frames = stretched(counts(), "f4")
    frames[2] = np.random.default_rng(0).uniform(size=frames[2].shape)
    frames[3] = 0.25
    made = encode_chunk(frames, ChunkBound(), Settings(level="fast", coder="linear"))
    assert bitstream.peek(made.payload)[0].scale == levels.EachFrame.kind
    assert decode_chunk(made.payload).tobytes() == frames.tobytes()


def test_empty_frames_say_nothing_of_the_others():
    frames = stretched(counts(9), "f4")
    frames[[0, 1, 5]] = 0
    frames[1, :2] = 1e-30
    assert levels.of_each_frame(frames, ChunkBound(), None).scales[2].spacing > 1e-4
    made = encode_chunk(frames, ChunkBound(), Settings(level="fast"))
    assert decode_chunk(made.payload).tobytes() == frames.tobytes()


@pytest.mark.parametrize("way", ["GRIB", "0..1, float64"])
def test_a_frame_alone_has_its_line(way):
    frames = WAYS[way](counts(1))
    made = encode_chunk(frames, ChunkBound(), Settings(level="fast"))
    assert bitstream.peek(made.payload)[0].scale == levels.EachFrame.kind
    assert decode_chunk(made.payload).tobytes() == frames.tobytes()


def test_what_all_frames_share_needs_no_scales_of_its_own():
    for frames in (counts() * 0.1, counts().astype("u2"), counts() * 0.01 + 273.15):
        made = encode_chunk(frames, ChunkBound(), Settings(level="fast"))
        assert bitstream.peek(made.payload)[0].scale != levels.EachFrame.kind


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("coder", ["stages", "linear", "mixing"])
def test_every_coder_takes_them(way, coder, no_fallback):
    frames = WAYS[way](counts(3, 24, 40))
    frames = np.concatenate([frames, frames[:, ::-1]], axis=3)
    made = encode_chunk(frames, ChunkBound(), Settings(coder=coder))
    assert made.coder == coder
    assert decode_chunk(made.payload).tobytes() == frames.tobytes()


@pytest.mark.parametrize(
    "values",
    [
        [[0.0, 3e169, 3e169], [3e169, 0.0, 3e169]],
        [[2.5, 1.0, 0.0], [3.8e-107, 0.0, 0.0]],
        [[0.0, 1e-320, 5e-324], [1e300, 0.5, 0.0], [0.0, 0.25, 0.5]],
        [[-1e308, 1e308, 0.0], [1.0, 2.0, 3.0], [1.0, 2.0, 4.0]],
        [[0.0, 1e-90, 2e-90], [1e90, 0.0, 2e90], [0.0, 1.0, 2.0]],
    ],
)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_numbers_of_any_size_come_back(values, dtype, no_fallback):
    with np.errstate(over="ignore", under="ignore"):
        frames = np.array(values).astype(dtype)[:, None, :]
    made = encode_chunk(frames, ChunkBound(), Settings())
    assert decode_chunk(made.payload).tobytes() == frames.tobytes()


@given(
    st.integers(0, 2**32),
    st.sampled_from(["f2", "f4", "f8"]),
    st.floats(1e-30, 1e30),
    st.floats(-1e3, 1e3),
    st.integers(1, 2**14),
    st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_any_line_comes_back(seed, dtype, step, start, span, dense):
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, span, (3, 12, 17, 1))
    frames = codes * np.array([1, 1 if dense else 1.37, 0.8]).reshape(-1, 1, 1, 1) + start
    with np.errstate(over="ignore", under="ignore"):
        frames = (frames * step).astype(dtype)
    made = encode_chunk(frames, ChunkBound(), Settings(level="fast", coder="linear"))
    assert decode_chunk(made.payload).tobytes() == frames.tobytes()


BOUNDS = {
    "absolute, tiny": {"absolute": 1e-9},
    "absolute, half a step": {"absolute": 0.5},
    "absolute, two steps": {"absolute": 2.2},
    "absolute, 40 steps": {"absolute": 40},
    "relative": {"relative": 0.001},
    "pointwise": {"pointwise_relative": 1e-6},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", BOUNDS)
def test_a_bound_never_makes_them_larger(way, kind):
    frames = WAYS[way](counts())
    bound = dict(BOUNDS[kind])
    if "absolute" in bound:
        bound["absolute"] *= float(np.ptp(frames[0]) / np.ptp(counts()[0]))
    bound = ErrorBound(**bound).of_frames(frames)
    made = encode_chunk(frames, bound, Settings(level="fast"))
    for t, (frame, other) in enumerate(zip(frames, decode_chunk(made.payload), strict=True)):
        assert not bound.check(frame, other, t)[1].any()
    exact = encode_chunk(frames, ChunkBound(), Settings(level="fast"))
    assert len(made.payload) <= 1.01 * len(exact.payload)


def test_levels_on_lines_have_tolerances():
    """Beside a grid for all frames, levels on their own lines make the counts predictable again."""
    still = np.broadcast_to(counts(1, seed=3), (6, 40, 50, 1))
    frames = (still / np.linspace(90, 130, 6).reshape(-1, 1, 1, 1)).astype("f4")
    bound = ErrorBound(absolute=0.03).of_frames(frames)
    made = encode_chunk(frames, bound, Settings(level="fast"))
    parsed = bitstream.unpack(made.payload)
    _, tolerances = frames_section.unpack(parsed.section(Section.FRAMES), 6, 1)
    assert parsed.header.scale == levels.EachFrame.kind
    assert tolerances[:, 0].tolist() == [2, 2, 3, 3, 3, 3]
    assert Section.CORRECTIONS not in parsed.sections
    back = decode_chunk(made.payload)
    assert 0 < np.abs(back - frames).max() <= 0.03
    again = recode(made.payload, back, Settings(level="balanced"))
    assert decode_chunk(again.payload).tobytes() == back.tobytes()


def test_lines_are_not_searched_where_one_grid_is_as_good(monkeypatch):
    """Two precisions of one quantity: two frames tell, and the others are not looked at."""
    scene = counts(12) / 397.3 + np.random.default_rng(1).normal(0, 0.01, (12, 40, 50, 1))
    steps = np.where(np.arange(12) % 2, 24400, 24200).reshape(-1, 1, 1, 1)
    frames = (np.rint(scene * steps) / steps).astype("f4")
    looks, find = [], each_frame.affine
    monkeypatch.setattr(each_frame, "affine", lambda *a: looks.append(1) or find(*a))
    for size, found in ((1e-6, True), (0.002, False)):
        bound, looks[:] = ErrorBound(absolute=size).of_frames(frames), []
        scale = levels.of_each_frame(frames, bound, levels.choose(frames, bound))
        assert (scale is not None) == found
        assert len(looks) == (2 + len(frames) if found else 2)


@pytest.mark.parametrize("bound", [{"relative": 1e-4}, {"pointwise_relative": 1e-5}])
@pytest.mark.parametrize("dtype", ["u2", "f4"])
def test_few_values_stay_few_with_a_bound_that_differs_from_sample_to_sample(bound, dtype):
    generator = np.random.default_rng(0)
    values = np.sort(generator.integers(1000, 60000, 40)) * (1 if dtype == "u2" else 1.37)
    frames = values.astype(dtype)[generator.integers(0, 40, (4, 60, 70, 1))]
    frames[1] = np.minimum(frames[1], frames[0].max() // 2)  # another range, so another bound
    limits = ErrorBound(**bound).of_frames(frames)
    made = encode_chunk(frames, limits, Settings(level="fast", coder="linear"))
    exact = encode_chunk(frames, ChunkBound(), Settings(level="fast", coder="linear"))
    assert len(made.payload) <= 1.02 * len(exact.payload)
    for t, (frame, other) in enumerate(zip(frames, decode_chunk(made.payload), strict=True)):
        assert not limits.check(frame, other, t)[1].any()


@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_a_pointwise_bound_below_all_floats_is_predicted_as_none_is(dtype):
    y, x = np.mgrid[:50, :60]
    frames = (3 + np.sin(x / 9) * np.cos(y / 7) + np.zeros((4, 1, 1)))[..., None].astype(dtype)
    frames += np.random.default_rng(0).normal(0, 0.01, frames.shape).astype(dtype)
    bound = ErrorBound(pointwise_relative=1e-9).of_frames(frames)
    made = encode_chunk(frames, bound, Settings(level="fast"))
    assert made.coder == "linear"
    assert decode_chunk(made.payload).tobytes() == frames.tobytes()


@given(
    st.integers(0, 2**32),
    st.sampled_from(["f2", "f4", "f8", "u2", "i4"]),
    st.sampled_from(["absolute", "relative", "pointwise_relative"]),
    st.floats(-9, 1),
    st.sampled_from(["stages", "linear", "mixing"]),
)
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bound_holds_on_lines(no_fallback, seed, dtype, kind, power, coder):
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 300, (3, 12, 17, 2))
    frames = codes * np.array([40, 55.3, 33]).reshape(-1, 1, 1, 1) + generator.integers(0, 99)
    frames = frames.astype(dtype)
    size = 10.0**power * (float(np.ptp(frames)) if kind == "absolute" else 1)
    bound = ErrorBound(**{kind: size}).of_frames(frames)
    back = decode_chunk(encode_chunk(frames, bound, Settings(coder=coder)).payload)
    for t, (frame, other) in enumerate(zip(frames, back, strict=True)):
        assert not bound.check(frame, other, t)[1].any()


def damaged(data, **fields):
    """A levels section with one number of a frame's record, or of the chunk, changed."""
    data = bytearray(data)
    places = {"top": (8, 4), "kind": (12, 1), "size": (13, 4), "top of a frame": (25, 4)}
    for name, value in fields.items():
        at, size = places[name.replace("_", " ")]
        data[at : at + size] = value.to_bytes(size, "little")
    return bytes(data)


def test_sections_that_are_none_are_refused():
    frames = counts(2)
    lossless = ChunkBound()
    of_floats = levels.of_each_frame(
        stretched(frames, "f4"), lossless, levels.OrderedBits(np.dtype("f4"))
    )
    of_counts = levels.of_each_frame(
        frames // 20 * [[[[3]]], [[[7]]]], lossless, levels.Integers(frames.dtype)
    )
    float_data, data = of_floats.pack(), of_counts.pack()
    shape = frames.shape

    def refused(data, dtype, message, shape=shape):
        with pytest.raises(FormatError, match=message):
            levels.unpack(8, np.dtype(dtype), data, shape)

    refused(float_data[:-1], "f4", "a frame's scale of 36 bytes, 35 are left")
    refused(float_data + b"\0", "f4", "1 bytes behind the scale of the last frame")
    refused(float_data, "f4", "scales of 2 frames, expected 3", (3, 40, 50, 1))
    refused(damaged(float_data, kind=5), "f4", "scale 5 makes no levels of one frame")
    refused(damaged(float_data, kind=8), "f4", "scale 8 makes no levels of one frame")
    refused(damaged(data, kind=7), frames.dtype, "scale 7 makes no levels of one frame of int64")
    refused(damaged(float_data, top=9), "f4", "levels go up to")
    refused(damaged(data, top_of_a_frame=9), frames.dtype, "levels go up to 9")
    refused(data, frames.dtype, "values; expected 1 to 6", (2, 2, 3, 1))


def test_many_scales_are_read_quickly():
    """Time that grew with the square of their number would take a minute here."""
    count = 150_000
    scale = levels.EachFrame(np.dtype("f4"), 0, 9, [levels.Affine(np.dtype("f4"), 0, 9)] * count)
    began = time.perf_counter()
    assert len(levels.unpack(8, scale.dtype, scale.pack(), (count, 1, 1, 1)).scales) == count
    assert time.perf_counter() - began < 20


@pytest.mark.parametrize(
    "numbers", [(0, 1, 0), (1, 0, 0), (-1, 1, 0), (1, np.inf, 0), (1, 1, np.nan)]
)
def test_lines_that_are_none_are_refused(numbers):
    line = levels.Affine(np.dtype("f4"), 0, 9, *numbers)
    data = levels.EachFrame(line.dtype, 0, 9, [line]).pack()
    with pytest.raises(FormatError, match="expected finite numbers, the first two positive"):
        levels.unpack(8, line.dtype, data, (1, 2, 5, 1))
    with pytest.raises(FormatError, match="take 24 bytes, found 23"):
        levels.unpack(8, line.dtype, damaged(data[:-1], size=35), (1, 2, 5, 1))


def test_a_line_is_the_scale_of_a_frame_alone():
    line = levels.Affine(np.dtype("f4"), 0, 9, 0.5, 1.0, 3.0)
    with pytest.raises(FormatError, match="unknown scale 7"):
        levels.unpack(7, line.dtype, line.pack(), (1, 2, 5, 1))
