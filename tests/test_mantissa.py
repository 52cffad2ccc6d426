"""Lossless floats: truncated levels and the mantissa bits that they leave out."""

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tezip_h5 import FormatError, Settings, codec, levels
from tezip_h5.bounds import ChunkBound
from tezip_h5.chunk.mantissa import MantissaReader, MantissaWriter
from tezip_h5.levels import Truncated


def bits_of(frames):
    return np.ascontiguousarray(frames).tobytes()


def through(frames, step, offset, top):
    """Frames (T, h, w, C) through levels and mantissa bits; non-finite samples excepted."""
    scale = Truncated(frames.dtype, offset, top, step=step)
    writer, coded = MantissaWriter(scale), []
    for frame in frames:
        coded.append(scale.to_levels(frame))
        writer.add(scale.to_values(coded[-1]), frame, coded[-1])
    section = writer.pack()
    reader = MantissaReader(section, scale, len(frames), frames[0].size)
    back = []
    for level in coded:
        back.append(scale.to_values(level))
        reader.apply(back[-1], level)
    return np.stack(back), section


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_finite_bit_comes_back(dtype, data):
    width = 32 if dtype == "float32" else 64
    values = data.draw(
        arrays.arrays(
            dtype,
            (2, 3, 5, 1),
            elements=st.floats(-1000, 1000, width=width, allow_subnormal=True),
        )
    )
    step = 2.0 ** data.draw(st.integers(-17, 6))
    back, _ = through(values, step, -int(1000 / step) - 1, 2 * int(1000 / step) + 2)
    assert bits_of(back) == bits_of(values)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("level", ["fast", "balanced", "best"])
def test_chunks_of_floats_are_exact(dtype, level):
    t, y, x = np.indices((5, 40, 50))
    smooth = 20 * np.sin((x + t) / 9) * np.cos(y / 7)
    frames = (smooth + np.random.default_rng(0).normal(0, 0.01, t.shape)).astype(dtype)
    frames[1, :5] = 0.0
    frames[1, 5, :9] = -0.0
    frames[2, 7, :4] = (np.nan, np.inf, -np.inf, np.finfo(dtype).smallest_subnormal)
    frames[3, 8, :2] = (1e-30, -1e30)
    encoded = codec.encode_chunk(frames, ChunkBound(), Settings(level=level, predictor="previous"))
    assert bits_of(codec.decode_chunk(encoded.payload)) == bits_of(frames)


def test_levels_follow_the_differences_of_neighbours():
    rng = np.random.default_rng(1)
    for noise in (1e-1, 1e-3, 1e-6):
        frames = (1 + noise * rng.normal(size=(2, 30, 30, 1))).astype("float64")
        scale = levels.choose(frames, ChunkBound())
        assert isinstance(scale, Truncated)
        assert scale.step < noise / 20
        assert 2**15 <= scale.top + abs(scale.offset) <= 2**29


@pytest.mark.parametrize("value", [0.0, np.nan, 1e-310, 7.5])
def test_constant_and_empty_frames(value):
    frames = np.full((3, 9, 11), value)
    payload = codec.encode_chunk(frames, ChunkBound(), Settings()).payload
    assert bits_of(codec.decode_chunk(payload)) == bits_of(frames)


def test_planes_that_are_constant_cost_nothing():
    counts = np.random.default_rng(2).poisson(500, (4, 64, 64, 1)).astype("float32")
    _, section = through(counts, 0.25, 0, 4000)
    assert len(section) < 100


def test_damage_is_refused():
    frames = np.random.default_rng(3).normal(100, 5, (3, 20, 20, 1)).astype("float32")
    _, section = through(frames, 2.0**-6, 0, 20000)
    scale = Truncated(frames.dtype, 0, 20000, step=2.0**-6)
    for broken in (b"", section[:40], section[:-5]):
        with pytest.raises(FormatError):
            MantissaReader(broken, scale, 3, 400)
    reader = MantissaReader(section, scale, 3, 400)
    ones = np.ones((20, 20, 1), "f4"), np.ones((20, 20, 1), "i4")
    reader.apply(*ones)  # wants twice the bits that a frame has
    with pytest.raises(FormatError, match="end before"):
        reader.apply(*ones)
    small = np.full((1, 4, 4, 1), 0.1, "f4")  # no level of its own: all its bits are stored
    _, section = through(small, 1.0, 0, 10)
    cut = zstandard.compress(zstandard.decompress(section)[:-4])
    with pytest.raises(FormatError, match="end before"):
        MantissaReader(cut, Truncated(small.dtype, 0, 10, step=1.0), 1, 16).apply(
            np.zeros((4, 4, 1), "f4"), np.zeros((4, 4, 1), "i4")
        )
    for step in (0.3, 0.0, -2.0, np.nan, np.inf, 1e-320, 2.0**128):
        packed = Truncated(frames.dtype, 0, 20000, step=step).pack()
        with pytest.raises(FormatError, match="power of 2"):
            levels.unpack(5, frames.dtype, packed, frames.shape)
    packed = Truncated(frames.dtype, 0, 2**31, step=1.0).pack()
    with pytest.raises(FormatError, match="too wide"):
        levels.unpack(5, frames.dtype, packed, frames.shape)


def test_what_lies_in_holes_leaves_no_bits():
    rng = np.random.default_rng(4)
    frame = rng.normal(100, 5, (20, 20, 1)).astype("f4")
    holes = rng.random(frame.shape) < 0.3
    filled = np.where(holes, rng.choice([0, 100], frame.shape), frame).astype("f4")
    scale = Truncated(frame.dtype, 0, 20000, step=2.0**-6)
    coded, sections = scale.to_levels(filled), []
    for value in (1e20, -7.3):
        writer = MantissaWriter(scale)
        original = np.where(holes, np.float32(value), frame)
        writer.add(scale.to_values(coded), original, coded, holes)
        sections.append(writer.pack())
    assert sections[0] == sections[1]
