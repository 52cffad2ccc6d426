"""The mixing coder: what it codes comes back, damage is survived, its state is small."""

import contextlib

import naive_mixing
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import random_model

from tezip_h5 import FormatError, bitstream, codec, kernels
from tezip_h5.bitstream import Section
from tezip_h5.bounds import ErrorBound
from tezip_h5.kernels.sizes import COARSE
from tezip_h5.levels import Integers
from tezip_h5.prediction.architecture import Architecture
from tezip_h5.residual import brightness, mixing, motion, streams
from tezip_h5.residual.changes import Changes
from tezip_h5.residual.mixing import MixingDecoder, MixingEncoder
from tezip_h5.settings import Settings


def scale_of(top):
    return Integers(np.dtype("uint32"), 0, top)


def moving(frames=6, channels=1, height=21, width=33, top=255, seed=0):
    """int32 (T, C, h, w): a pattern that moves, with noise and a still corner."""
    rng = np.random.default_rng(seed)
    t, c, y, x = np.indices((frames, channels, height, width))
    pattern = (
        0.5 + 0.3 * np.sin((x + 1.3 * t) / 4 + c) * np.cos(y / 5) + rng.normal(0, 0.02, t.shape)
    )
    pattern[..., : height // 3, : width // 3] = 0.25
    return np.clip(np.rint(pattern * top), 0, top).astype(np.int32)


def there_and_back(frames, tolerance, top, level, keyframes=(0,), guesses=None):
    """Encode and decode; the section and the reconstruction."""
    channels = frames.shape[1]
    tolerances = np.full(channels, tolerance)
    guided = guesses is not None
    encoder = MixingEncoder(frames.shape[1:], scale_of(top), Settings(level=level), guided=guided)
    coded = []
    for t, frame in enumerate(frames):
        if t in keyframes:
            coded.append(encoder.keyframe(frame, tolerances))
        else:
            guess = guesses[t] if guided else coded[-1]
            coded.append(encoder.residual(frame, guess, tolerances))
    sections, sizes = encoder.finish()
    assert sum(sizes) == len(sections["residuals"])
    decoder = MixingDecoder(sections, frames.shape[1:], scale_of(top))
    for t, expected in enumerate(coded):
        if t in keyframes:
            back = decoder.keyframe(tolerances)
        else:
            back = decoder.residual(guesses[t] if guided else coded[t - 1], tolerances)
        np.testing.assert_array_equal(back, expected)
    decoder.finish()
    assert np.abs(np.stack(coded) - frames).max() <= tolerance
    return sections["residuals"]


@pytest.mark.parametrize("level", ["balanced", "best"])
@pytest.mark.parametrize("tolerance", [0, 1, 7])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_frames_come_back(level, tolerance, channels):
    there_and_back(moving(channels=channels), tolerance, 255, level, keyframes=(0, 3))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 70), (70, 3)])
def test_edge_shapes(shape):
    for level in ("balanced", "best"):
        there_and_back(moving(3, 2, *shape), 2, 255, level)


@pytest.mark.parametrize("level", ["balanced", "best"])
@pytest.mark.parametrize("top", [1, 255, 65535, 2**30])
def test_extreme_frames(level, top):
    rng = np.random.default_rng(1)
    frames = rng.choice([0, top], (4, 1, 12, 17)).astype(np.int32)
    frames[2] = rng.integers(0, top + 1, frames[2].shape)
    frames[3] = top
    there_and_back(frames, 0, top, level)
    there_and_back(frames, top // 3, top, level)


@pytest.mark.parametrize("level", ["balanced", "best"])
def test_a_guide_is_used(level):
    frames = moving(8, 1, 40, 60)
    perfect = there_and_back(frames, 0, 255, level, guesses=frames)
    assert len(perfect) < 0.6 * len(there_and_back(frames, 0, 255, level))


def test_bands(monkeypatch):
    monkeypatch.setattr(mixing, "_BAND_PIXELS", {0: 64 * 16})
    frames = moving(4, 2, 200, 16)
    section = there_and_back(frames, 1, 255, "balanced")
    assert section[4] == 3


@pytest.mark.parametrize("level", ["balanced", "best"])
def test_behind_the_end_of_a_stream_nothing_is_decoded(level):
    """It would be the longest codes there are: minutes for a large frame."""
    section = bytearray(there_and_back(np.zeros((1, 1, 400, 300), np.int32), 0, 255, level))
    decoder = MixingDecoder({mixing.RESIDUALS: bytes(section)}, (1, 400, 300), scale_of(255))
    for stream in decoder._bands.streams:
        stream.data = stream.data[:0]
    with pytest.raises(FormatError, match="ends before its frames do"):
        decoder.keyframe(np.zeros(1, np.int64))
    most = 2 * 300 * streams.WORST_BYTES  # two rows of 200
    assert all(stream.position < most for stream in decoder._bands.streams)


def test_no_more_bands_than_a_frame_is_worth():
    """Each has a state of half a megabyte: a small payload would take gigabytes."""
    section = bytearray(there_and_back(moving(2, 1, 200, 4), 1, 255, "best"))
    assert section[4] == 2
    section[4] = 200
    with pytest.raises(FormatError, match=r"200 bands of 200 x 4 samples"):
        MixingDecoder({mixing.RESIDUALS: bytes(section)}, (1, 200, 4), scale_of(255))


@pytest.mark.parametrize("level", ["balanced", "best"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_chunks_large_enough_to_be_taught(level, dtype):
    frames = moving(5, 1, 70, 80, 200)[:, 0].astype(dtype)
    for bound in (ErrorBound(), ErrorBound(absolute=4)):
        limits = bound.of_frames(frames[..., None])
        payload = codec.encode_chunk(frames, limits, Settings(level=level)).payload
        error = np.abs(codec.decode_chunk(payload).astype(float) - frames).max()
        assert error <= (bound.absolute or 0)
        parsed = bitstream.unpack(payload)
        if parsed.header.coder == 2:
            assert parsed.sections[Section.RESIDUALS][2] in (1, 2)  # weights were sent


def test_with_a_network(monkeypatch):
    from tezip_h5.model import store

    model = store.register(random_model(Architecture(1, (4,), (3, 5))))
    frames = moving(5, 1, 70, 80)[:, 0].astype(np.uint8)
    limits = ErrorBound(absolute=1).of_frames(frames[..., None])
    encoded = codec.encode_chunk(frames, limits, Settings(predictor="prednet"), model=model)
    assert encoded.coder == "mixing"
    assert np.abs(codec.decode_chunk(encoded.payload).astype(int) - frames).max() <= 1


def test_the_state_of_a_balanced_stream_is_small():
    """Thousands will run at once: at most 48 KB of what adapts, besides rows of pixels."""
    number = Settings(level="balanced").effort.mixing_model
    stream = streams.Stream(number, (1, 64, 64), 255, False, streams.Weights())
    channel = stream._channels[0]
    adaptive = (channel.counters, channel.weights, channel.refined, channel.bias, channel.filters)
    assert sum(array.nbytes for array in adaptive) <= 48 << 10


@pytest.mark.parametrize("level", ["balanced", "best"])
def test_threads_change_nothing(level):
    frames = moving(5, 1, 130, 64)[:, 0].astype(np.uint8)
    limits = ErrorBound(absolute=1).of_frames(frames[..., None])
    alone, together = (
        codec.encode_chunk(frames, limits, Settings(level=level), threads=threads).payload
        for threads in (1, 3)
    )
    assert alone == together
    decoded = [codec.decode_chunk(alone, threads=threads) for threads in (1, 3)]
    np.testing.assert_array_equal(*decoded)


@pytest.mark.parametrize("level", ["balanced", "best"])
def test_motion_is_found_and_used(level, monkeypatch):
    scene = np.random.default_rng(0).normal(0, 1, (90, 160))
    for axis in (0, 1, 0, 1):
        scene = sum(np.roll(scene, s, axis) for s in range(-3, 4)) / 4
    frames = np.stack([np.roll(scene, (3 * t, 5 * t), (0, 1))[:64, :96] for t in range(6)])
    frames = np.clip(128 + 20 * frames, 0, 255).astype(np.uint8)
    limits = ErrorBound().of_frames(frames[..., None])
    # Exact copies of whole rows of bytes are what the fallback is best at.
    monkeypatch.setattr(codec, "_fallback_may_win", lambda *_: False)
    payload = codec.encode_chunk(frames, limits, Settings(level=level)).payload
    np.testing.assert_array_equal(codec.decode_chunk(payload), frames)
    section = bitstream.unpack(payload).sections[Section.RESIDUALS]
    assert section[1] == 2
    assert len(payload) < 0.4 * frames.size  # nearly only the first frame


def test_raw_bits_are_what_the_format_says():
    """Also where the coder has no room for many at once, which little else meets."""
    rng = np.random.default_rng(0)
    arithmetic_coder = kernels.load("arithmetic")
    raw, code = arithmetic_coder.code_raw, arithmetic_coder.code_bit

    @numba.njit
    def encode(widths, values, chances, coder, stream):
        for i in range(widths.size):
            raw(False, values[i], widths[i], coder, stream)
            code(False, values[i] & 1, chances[i], coder, stream)

    widths = rng.integers(0, 31, 4000)
    values = rng.integers(0, 1 << 31, widths.size) & ((1 << widths) - 1)
    chances = rng.integers(32, 65505, widths.size)
    coder, stream = np.array([0, 0xFFFFFFFF, 0, 0], np.int64), np.zeros(1 << 16, np.uint8)
    encode(widths, values, chances, coder, stream)
    stream[coder[3]] = (int(coder[0]) >> 24) + 1 & 255
    arithmetic, narrow = naive_mixing.Arithmetic(stream.tobytes()), 0
    for width, value, chance in zip(widths, values, chances, strict=True):
        narrow += width > 0 and arithmetic.high - arithmetic.low < 2**20
        assert arithmetic.raw(int(width)) == value
        assert arithmetic.decide(int(chance)) == value & 1
    assert narrow > 5


@pytest.mark.parametrize("skip", [1, 2])
def test_noise_is_not_taken_for_motion(skip):
    """A search finds something in noise, but rows that it did not look at do not confirm it."""
    noise = np.random.default_rng(0).integers(0, 40, (3, 128, 160)).astype(np.int32)
    still = noise // 4 + 8 * (np.arange(160) // 20)
    rest = [True, False, False], [slice(0, 128)], skip
    assert motion.estimate(noise, lambda t: noise[t - 1], *rest) is None
    assert motion.estimate(still, lambda t: still[t - 1], *rest) is None
    smooth = sum(np.roll(noise[0], (y, x), (0, 1)) for y in range(6) for x in range(6))
    drifting = np.stack([np.roll(smooth, 3 * t, 1) for t in range(3)])
    (vectors,) = motion.estimate(drifting, lambda t: drifting[t - 1], *rest)
    assert (vectors[1:, :, 1:-1] == (0, -3)).all()


@pytest.mark.parametrize("level", ["balanced", "best"])
def test_jumps_of_brightness_are_found_and_used(level, monkeypatch):
    y, x = np.ogrid[:80, :96]
    scene = 120 + 60 * np.sin(x / 9) * np.cos(y / 7)
    noise = np.random.default_rng(0).normal(0, 0.7, (8, 80, 96))
    gains = np.array([1, 1, 0.8, 0.8, 1.2, 0.9, 0.9, 1.1])
    frames = np.rint(gains[:, None, None] * scene + noise).astype(np.uint8)
    limits = ErrorBound(absolute=3).of_frames(frames[..., None])
    payload = codec.encode_chunk(frames, limits, Settings(level=level)).payload
    assert np.abs(codec.decode_chunk(payload).astype(int) - frames).max() <= 3
    assert bitstream.unpack(payload).sections[Section.RESIDUALS][1] & 4
    monkeypatch.setattr(brightness, "estimate", lambda *_: None)
    without = codec.encode_chunk(frames, limits, Settings(level=level)).payload
    assert len(payload) < 0.8 * len(without)


def test_damaged_changes_of_brightness_are_refused():
    changes = [brightness.unchanged(3), np.array([[1 << 16, 5], [1 << 24, 1 << 48], [0, -7]])]
    packed = brightness.pack(changes)
    back, size = brightness.unpack(packed + b"more", 2)
    assert size == len(packed)
    np.testing.assert_array_equal(back, changes)
    for damaged in (b"", packed[:5], packed[:-1], packed[:4] + b"\xff\xff" + packed[6:]):
        with pytest.raises(FormatError, match="brightness"):
            brightness.unpack(damaged, 2)
    for gain, offset in ((2**24 + 1, 0), (0, 2**48 + 1), (-(2**63), 0), (0, -(2**63))):
        wrong = brightness.pack([np.array([[gain, offset]])])
        with pytest.raises(FormatError, match="out of range"):
            brightness.unpack(wrong, 1)


def test_damaged_vectors_are_refused():
    vectors = [np.ones(motion.shape_of(3, 20, 33), np.int8)]
    packed = motion.pack(vectors)
    back, size = motion.unpack(packed + b"more", [(20, 33)])
    assert size == len(packed)
    np.testing.assert_array_equal(back[0], vectors[0])
    for damaged in (b"", packed[:5], packed[:-1], packed[:7] + b"\xff" + packed[8:]):
        with pytest.raises(FormatError, match="vectors"):
            motion.unpack(damaged, [(20, 33)])
    with pytest.raises(FormatError, match="vectors"):
        motion.unpack(packed, [(20, 49)])
    with pytest.raises(FormatError, match="blocks"):
        motion.unpack(packed, [(1 << 16, 1 << 16)])


def test_still_regions_cost_nearly_nothing():
    frames = np.full((16, 1, 64, 64), 77, np.int32)
    frames[:, 0, :32] = moving(1, 1, 32, 64)[0, 0]
    section = there_and_back(frames, 0, 255, "balanced")
    moved = there_and_back(frames[:1], 0, 255, "balanced")
    assert len(section) - len(moved) < 0.01 * frames[1:].size / 8 * 8


@pytest.fixture(scope="module")
def section():
    return there_and_back(moving(), 2, 255, "best")


def decode_all(data):
    decoder = MixingDecoder({"residuals": bytes(data)}, (1, 21, 33), scale_of(255))
    frame = decoder.keyframe(np.array([2]))
    for _ in range(5):
        frame = decoder.residual(frame, np.array([2]))
        assert frame.min() >= 0
        assert frame.max() <= 255


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_ends_in_an_error_or_in_other_levels(section, data):
    broken = bytearray(section)
    how = data.draw(st.sampled_from(["flip", "cut", "random"]))
    if how == "flip":
        for _ in range(data.draw(st.integers(1, 8))):
            broken[data.draw(st.integers(0, len(broken) - 1))] ^= data.draw(st.integers(1, 255))
    elif how == "cut":
        broken = broken[: data.draw(st.integers(0, len(broken) - 1))]
    else:
        broken = bytearray(data.draw(st.binary(max_size=200)))
    with contextlib.suppress(FormatError):
        decode_all(broken)


@pytest.mark.parametrize("place", range(6))
def test_a_prefix_out_of_range_is_refused(section, place):
    for value in (0x80, 0xFF):
        broken = bytearray(section)
        broken[place] = value
        with pytest.raises(FormatError):
            decode_all(broken)


def test_levels_too_wide_are_refused(section):
    with pytest.raises(FormatError, match="out of range"):
        MixingDecoder({"residuals": section}, (1, 21, 33), scale_of(2**31 - 1))


@pytest.mark.parametrize("level", ["balanced", "best"])
def test_samples_that_repeat_their_neighbours_are_recognised(level):
    """Patches of unrelated values: finer rungs set in, and the naive decoder follows."""
    rng = np.random.default_rng(0)
    small = rng.choice([0, 40, 90, 91, 140, 230], (1, 1, 24, 24))
    frames = np.repeat(np.repeat(small, 2, 2), 2, 3).astype(np.int32)
    tolerances = np.zeros(1, np.int64)
    encoder = MixingEncoder(frames.shape[1:], scale_of(255), Settings(level=level))
    coded = encoder.keyframe(frames[0], tolerances)
    assert all(band._channels[0].bias[-1, 0] > 1 << 14 for band in encoder._bands.streams)
    section = encoder.finish()[0]["residuals"]
    np.testing.assert_array_equal(coded, frames[0])
    back = naive_mixing.decode(section, frames.shape[1:], 255, [True], tolerances)
    np.testing.assert_array_equal(back, frames)


def vectors_of(encoder, frames):
    """Random vectors of every band, some of them far out of the frame."""
    rng = np.random.default_rng(2)
    shapes = [
        motion.shape_of(frames, part.stop - part.start, encoder._shape[2]) for part in encoder._rows
    ]
    vectors = [rng.integers(-9, 10, shape).astype(np.int8) for shape in shapes]
    for band in vectors:
        band[rng.random(band.shape) < 0.1] = -128
        band[rng.random(band.shape) < 0.1] = 127
    return vectors


@pytest.mark.parametrize("level", ["balanced", "best"])
@pytest.mark.parametrize(
    ("size", "channels", "top", "tolerance", "guided", "use", "moving_frames"),
    [
        ((9, 11), 1, 255, 0, False, 0, 0),
        ((9, 11), 3, 255, 2, False, 0, 4),
        ((20, 37), 1, 2**24, 9, False, 1, 5),
        ((9, 11), 2, 65535, 40, True, 2, 9),
        ((9, 11), 1, 255, 1, True, 1, 0),
        ((19, 18), 1, 65535, 0, False, 1, 5),
        ((9, 11), 1, 2**30, 0, False, 1, 3),
        ((9, 11), 2, 2**30, 2**29, True, 1, 3),
        ((5, 7), 1, 255, 255, False, 0, 0),
        ((70, 5), 1, 4095, 3, False, 0, 5),
        ((1, 1), 1, 1, 0, False, 0, 0),
    ],
)
def test_the_naive_decoder_agrees(
    level, size, channels, top, tolerance, guided, use, moving_frames
):
    """FORMAT.md's words, in Python, read what the kernels wrote."""
    frames = moving(6, channels, *size, top)
    frames[3, :, ::2, ::3] = np.random.default_rng(3).integers(
        0, top + 1, frames[3, :, ::2, ::3].shape
    )
    keyframes = [True, False, False, True, False, False]
    guesses = np.clip(frames + np.random.default_rng(0).integers(-9, 9, frames.shape), 0, top)
    guesses = guesses.astype(np.int32)
    tolerances = np.full(channels, tolerance)
    encoder = MixingEncoder(frames.shape[1:], scale_of(top), Settings(level=level), guided=guided)
    learned = None
    if use:
        learned = np.random.default_rng(1).integers(-9000, 9000, (channels, 4, 40))
        learned = [np.ascontiguousarray(w, np.int32) for w in learned]
    vectors = vectors_of(encoder, moving_frames) if moving_frames else None
    jumps = None
    if moving_frames:
        gains = np.random.default_rng(4).normal(1, 0.2, (channels, moving_frames, 2)) * 65536
        jumps = list(np.rint(gains).astype(np.int64))
        jumps[0][0, 1] = -(2**48)
    encoder._open(streams.Weights(use, learned), Changes(encoder._rows, top, vectors, jumps))
    coded = []
    for t, frame in enumerate(frames):
        if keyframes[t]:
            coded.append(encoder.keyframe(frame, tolerances))
        else:
            coded.append(encoder.residual(frame, guesses[t], tolerances))
    section = encoder.finish()[0]["residuals"]
    back = naive_mixing.decode(
        section, frames.shape[1:], top, keyframes, tolerances, guesses if guided else None
    )
    np.testing.assert_array_equal(back, coded)


def test_the_state_of_a_stream_at_balanced_is_small():
    """So that thousands fit on a GPU: what adapts, besides planes, of one channel."""
    channel = streams._Channel(kernels.load("mixing.pixels"), COARSE, (8, 8))
    adapting = ("filters", "tones", "bias", "counters", "weights", "refined")
    assert sum(getattr(channel, name).nbytes for name in adapting) <= 48 * 1024
