"""Chunks through the whole codec: every dtype, edge shape, bound, option."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numcodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tezip_h5 import (
    BoundError,
    ErrorBound,
    FormatError,
    InputError,
    ModelError,
    Settings,
    bitstream,
    codec,
    levels,
)
from tezip_h5.bitstream import Section
from tezip_h5.bounds import ChunkBound
from tezip_h5.efforts import EFFORTS
from tezip_h5.windows import Kind

DTYPES = st.sampled_from(levels.DTYPES)
BOUNDS = st.one_of(
    st.sampled_from(
        [
            ErrorBound(),
            ErrorBound(absolute=1),
            ErrorBound(absolute=2.7),
            ErrorBound(relative=0.01),
            ErrorBound(absolute=3, relative=0.2),
            ErrorBound(pointwise_relative=0.05),
        ]
    ),
    st.floats(1e-300, 1.7e308).map(lambda b: ErrorBound(absolute=b)),
    st.floats(1e-12, 1e3).map(lambda b: ErrorBound(relative=b)),
    st.one_of(st.floats(1e-12, 2), st.floats(1e-12, 1.7e308)).map(
        lambda b: ErrorBound(pointwise_relative=b)
    ),
)


def limits_of(frames, bound):
    return bound.of_frames(frames.reshape((*frames.shape[:3], -1)))


def assert_bounded(frames, back, bound):
    limits = limits_of(frames, bound)
    assert back.shape == frames.shape
    assert back.dtype == frames.dtype.newbyteorder("<")
    if bound.lossless:
        assert back.tobytes() == frames.astype(back.dtype).tobytes()
    for t, (frame, decoded) in enumerate(zip(frames, back, strict=True)):
        shape = (*frame.shape[:2], -1)
        _, bad = limits.check(frame.reshape(shape), decoded.astype(frame.dtype).reshape(shape), t)
        assert not bad.any()


@st.composite
def stacks(draw):
    shape = draw(hnp.array_shapes(min_dims=3, max_dims=3, max_side=6))
    shape += draw(st.sampled_from([(), (1,), (3,), (4,)]))
    dtype = np.dtype(draw(DTYPES))
    if dtype.kind == "b":
        elements = st.booleans()
    elif dtype.kind == "f":
        width = 8 * dtype.itemsize
        special = st.sampled_from([0.0, -0.0, np.nan, np.inf, -np.inf, dtype.type(1e-30).item()])
        elements = st.one_of(st.floats(-1000, 1000, width=width), special, st.floats(width=width))
    else:
        info = np.iinfo(dtype)
        elements = st.one_of(
            st.integers(max(0, info.min), min(info.max, 100)),
            st.sampled_from([int(info.min), int(info.max)]),
            st.integers(int(info.min), int(info.max)),
        )
    return draw(hnp.arrays(dtype, shape, elements=elements))


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "level": st.sampled_from(["fast", "balanced"]),
        "feedback": st.sampled_from(["reconstruction", "prediction"]),
        "quantizer": st.sampled_from(["uniform", "run-merging"]),
        "spatial": st.booleans(),
        "ranks": st.booleans(),
        "window": st.integers(1, 4),
        "warmup": st.integers(0, 2),
        "predictor": st.sampled_from(["none", "previous"]),
    },
)


@given(stacks(), BOUNDS, OPTIONS)
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_round_trip(no_fallback, frames, bound, options):
    encoded = codec.encode_chunk(frames, limits_of(frames, bound), Settings(**options))
    back = codec.decode_chunk(encoded.payload)
    assert_bounded(frames, back, bound)
    if np.isfinite(frames).all():
        number = float if frames.dtype.kind == "f" else int  # of Python: whole, however large
        pairs = zip(frames.ravel().tolist(), back.ravel().tolist(), strict=True)
        assert encoded.max_error == max(abs(number(a) - number(b)) for a, b in pairs)


@pytest.mark.parametrize("coder", ["stages", "fallback"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 9), (3, 9, 1), (2, 5, 7, 3), (17, 4, 4)])
def test_edge_shapes(shape, coder):
    frames = (np.arange(np.prod(shape)) * 7 % 251).astype(np.uint8).reshape(shape)
    encoded = codec.encode_chunk(frames, ChunkBound(), Settings(coder=coder))
    np.testing.assert_array_equal(codec.decode_chunk(encoded.payload), frames)


@pytest.mark.parametrize("coder", ["stages", "fallback"])
def test_the_rest_of_a_chunk_is_zero(walk, coder):
    frames = walk[:5, :30, :40]
    encoded = codec.encode_chunk(frames, ChunkBound(), Settings(coder=coder), shape=(16, 32, 56))
    back = codec.decode_chunk(encoded.payload)
    assert back.shape == (16, 32, 56)
    np.testing.assert_array_equal(back[:5, :30, :40], frames)
    back[:5, :30, :40] = 0
    assert not back.any()


def test_the_fallback_has_one_order_of_blocks():
    # With Blosc's threads, 60 calls gave 33 payloads.
    frames = np.random.default_rng(0).poisson(50, (16, 256, 256)).astype(np.uint16)
    settings = Settings(coder="fallback")
    payloads = {codec.encode_chunk(frames, ChunkBound(), settings).payload for _ in range(30)}
    with ThreadPoolExecutor(1) as other_thread:
        elsewhere = other_thread.submit(codec.encode_chunk, frames, ChunkBound(), settings)
        payloads.add(elsewhere.result().payload)
    assert len(payloads) == 1


@pytest.mark.parametrize("wanted", [None, True, False])
def test_the_fallback_waits_for_no_other_thread(monkeypatch, wanted):
    """Within a filter callback, which has h5py's lock, it might wait for ever. How numcodecs is
    set stays as it is."""

    def start(thread):
        raise AssertionError("a thread was started")

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(numcodecs.blosc, "use_threads", wanted)
    frames = np.random.default_rng(0).integers(0, 9, (4, 30, 40)).astype("u2")
    encoded = codec.encode_chunk(frames, ChunkBound(), Settings(level="best", coder="fallback"))
    np.testing.assert_array_equal(codec.decode_chunk(encoded.payload), frames)
    assert encoded.coder == "fallback"
    assert numcodecs.blosc.use_threads is wanted


@pytest.mark.parametrize("order", ["<", ">"])
def test_any_byte_order_and_stride(walk, order):
    frames = walk.astype(walk.dtype.newbyteorder(order))[::2, ::-1, ::3]
    encoded = codec.encode_chunk(frames, ChunkBound(), Settings())
    back = codec.decode_chunk(encoded.payload)
    np.testing.assert_array_equal(back, frames)
    assert back.dtype.str == "<u2"


@pytest.mark.parametrize("level", ["balanced", "best"])
@pytest.mark.parametrize("kind", ["noise", "walk", "constant", "float64", "wide", "strobe"])
def test_never_larger_than_bitshuffle_and_zstd(walk, kind, level):
    rng = np.random.default_rng(0)
    frames = {
        "noise": rng.integers(0, 2**16, walk.shape, dtype=np.uint16),
        "walk": walk,
        "constant": np.full_like(walk, 77),
        "float64": rng.normal(size=walk.shape),
        "wide": rng.integers(-(2**31), 2**31, walk.shape, dtype=np.int64).astype(np.int32),
        "strobe": np.tile(rng.normal(999, 20, (3, 96, 96)).astype(np.uint16), (5, 1, 1)),
    }[kind]
    encoded = codec.encode_chunk(frames, ChunkBound(), Settings(level=level))
    blosc = numcodecs.Blosc("zstd", shuffle=numcodecs.Blosc.BITSHUFFLE)
    assert len(encoded.payload) <= len(blosc.encode(np.ascontiguousarray(frames))) + 64
    np.testing.assert_array_equal(codec.decode_chunk(encoded.payload), frames)


@pytest.mark.parametrize("level", ["fast", "balanced", "best"])
@pytest.mark.parametrize("dtype", ["f8", "u2"])
def test_the_fallback_shuffles_bits_or_bytes(level, dtype):
    """Floats whose values repeat, and labels, are smaller by bytes; noise of few bits by bits."""
    rng = np.random.default_rng(0)
    repeating = rng.normal(size=500)[rng.integers(0, 500, (4, 64, 64))] * 1000
    few_bits = rng.integers(0, 8, (4, 64, 64))
    for frames in (repeating.astype(dtype), few_bits.astype(dtype)):
        encoded = codec.encode_chunk(frames, ChunkBound(), Settings(level=level, coder="fallback"))
        blosc = [numcodecs.Blosc("zstd", EFFORTS[level].blosc[0], shuffle) for shuffle in (1, 2)]
        smaller = min(len(way.encode(np.ascontiguousarray(frames))) for way in blosc)
        assert len(encoded.payload) <= smaller + 64
        np.testing.assert_array_equal(codec.decode_chunk(encoded.payload), frames)


def test_fast_also_falls_back_on_noise():
    frames = np.random.default_rng(0).normal(size=(4, 64, 64))
    frames = np.repeat(frames[:1], 4, axis=0).astype(np.float32)
    encoded = codec.encode_chunk(frames, ChunkBound(), Settings(level="fast"))
    np.testing.assert_array_equal(codec.decode_chunk(encoded.payload), frames)


def test_records_say_what_became_of_every_frame(walk):
    encoded = codec.encode_chunk(walk, ChunkBound(), Settings(coder="stages", window=5, warmup=1))
    kinds = [record.kind for record in encoded.frames]
    assert kinds[:3] == [Kind.WARMUP, Kind.KEYFRAME, Kind.PREDICTED]
    in_frames = sum(r.keyframe_bytes + r.residual_bytes for r in encoded.frames)
    parsed = bitstream.unpack(encoded.payload)
    streams = sum(len(parsed.sections[n]) for n in (Section.KEYFRAMES, Section.RESIDUALS))
    assert in_frames == streams
    for record in encoded.frames:
        predicted = record.kind == Kind.PREDICTED
        assert (record.residual_bytes > 0, record.keyframe_bytes > 0) == (predicted, not predicted)
        assert (record.mse > 0) == predicted


def test_the_largest_error_is_that_of_all_channels(no_fallback):
    frames = np.random.default_rng(0).integers(0, 200, (3, 20, 24, 2)).astype(np.uint16)
    bound = ChunkBound(absolute=np.array([[3.0, 0.0]] * 3))
    encoded = codec.encode_chunk(frames, bound, Settings())
    assert encoded.max_error == 3
    assert np.abs(codec.decode_chunk(encoded.payload).astype(int) - frames).max() == 3


def test_feeding_predictions_back_predicts_from_the_keyframe(walk):
    options = {"window": 20, "coder": "stages"}
    closed = codec.encode_chunk(walk, ChunkBound(), Settings(**options))
    open_loop = codec.encode_chunk(walk, ChunkBound(), Settings(feedback="prediction", **options))
    expected = np.mean((walk[10].astype(float) - walk[0]) ** 2) / 65535**2
    assert open_loop.frames[10].mse == pytest.approx(expected)
    assert closed.frames[10].mse < expected
    np.testing.assert_array_equal(codec.decode_chunk(open_loop.payload), walk)


def test_no_entropy_leaves_out_the_ranks(walk):
    few = (walk % 2 * 50000 + walk % 5 * 1000).astype(np.uint16)  # few distinct symbols: PEE pays
    with_ranks = codec.encode_chunk(few, ChunkBound(), Settings(window=20, ranks=True))
    without = codec.encode_chunk(few, ChunkBound(), Settings(window=20, entropy=False))
    for encoded, bit in ((with_ranks, 2), (without, 0)):
        section = bitstream.unpack(encoded.payload).sections[Section.RESIDUALS]
        assert section[0] & 2 == bit
        np.testing.assert_array_equal(codec.decode_chunk(encoded.payload), few)


def test_error_driven_windows(walk):
    jump = np.concatenate([walk[:6], 60000 - walk[6:12]])
    encoded = codec.encode_chunk(jump, ChunkBound(), Settings(mse_threshold=0.01))
    kinds = [int(record.kind) for record in encoded.frames]
    assert [i for i, kind in enumerate(kinds) if kind == Kind.KEYFRAME] == [0, 6]


def test_exceptions_are_exact():
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(6, 20, 30)).astype(np.float32)
    frames[:, 3:6] = np.nan
    frames[2, 0, 0], frames[3, 1, 1] = np.inf, -np.inf
    payload_nan = np.uint32(0x7FC12345).view(np.float32)
    frames[4, 9, 9] = payload_nan
    bound = ErrorBound(absolute=0.01)
    encoded = codec.encode_chunk(frames, limits_of(frames, bound), Settings(coder="stages"))
    assert Section.EXCEPTIONS in bitstream.unpack(encoded.payload).sections
    back = codec.decode_chunk(encoded.payload)
    odd = ~np.isfinite(frames)
    assert back[odd].tobytes() == frames[odd].tobytes()
    assert np.abs(back[~odd] - frames[~odd]).max() <= 0.01


def test_a_still_mask_of_nan_costs_almost_nothing():
    rng = np.random.default_rng(0)
    frames = np.round(rng.normal(size=(8, 64, 64)), 1).astype(np.float32)
    bound = ErrorBound(absolute=0.04)
    plain = codec.encode_chunk(frames, limits_of(frames, bound), Settings())
    frames[:, 10:30, 10:30] = np.nan
    masked = codec.encode_chunk(frames, limits_of(frames, bound), Settings())
    assert len(masked.payload) < len(plain.payload)


def test_constant_frames_among_others_stay_exact():
    frames = np.random.default_rng(0).normal(size=(3, 16, 16)).astype(np.float32)
    frames[1] = 0.123
    bound = ErrorBound(relative=0.01)
    encoded = codec.encode_chunk(frames, limits_of(frames, bound), Settings())
    np.testing.assert_array_equal(codec.decode_chunk(encoded.payload)[1], frames[1])


def test_a_codec_that_breaks_its_bound_raises(walk, monkeypatch):
    from tezip_h5.residual import quantize

    def careless(*args):
        symbols, reconstruction = original(*args)
        reconstruction[0, 0] = args[0][0, 0] + 2  # no more than one too far
        return symbols, reconstruction

    original = quantize.quantize_keyframe
    monkeypatch.setattr(quantize, "quantize_keyframe", careless)
    with pytest.raises(BoundError, match="its tolerance is 1"):
        codec.encode_chunk(
            walk, ChunkBound(absolute=np.full((20, 1), 1.0)), Settings(coder="stages")
        )


def test_a_machine_that_computes_something_else_is_found_out(walk, monkeypatch):
    encoded = codec.encode_chunk(walk, ChunkBound(), Settings(coder="stages"))
    from tezip_h5.residual import quantize

    def wrong(name, symbols, prediction, tolerance, top, width, out):
        original(name, symbols, prediction, tolerance, top, width, out)
        out[0, 0] ^= 1

    original = quantize.dequantize
    monkeypatch.setattr(quantize, "dequantize", wrong)
    with pytest.raises(FormatError, match="computes something else"):
        codec.decode_chunk(encoded.payload)


def test_an_unknown_model_is_named(walk):
    encoded = codec.encode_chunk(walk, ChunkBound(), Settings(coder="stages", window=20))
    parsed = bitstream.unpack(encoded.payload)
    from dataclasses import replace

    header = replace(parsed.header, predictor=2)
    payload = bitstream.pack(header, {**parsed.sections, Section.MODEL: b"\xab" * 32 + bytes(5)})
    with pytest.raises(ModelError, match="abababab"):
        codec.decode_chunk(payload)


def test_settings_refuse_what_makes_no_sense():
    for options, words in [
        ({"window": 3, "mse_threshold": 0.1}, "-w.*-t"),
        ({"window": 0}, "window"),
        ({"warmup": -1}, "warmup"),
        ({"mse_threshold": float("nan")}, "mse_threshold"),
        ({"level": "fastest"}, "level"),
        ({"quantizer": "round"}, "quantizer"),
        ({"entropy": False, "ranks": True}, "entropy"),
    ]:
        with pytest.raises(InputError, match=words):
            Settings(**options)


@pytest.mark.parametrize("coder", ["stages", "linear", "mixing"])
def test_levels_out_of_range_are_an_error_not_a_crash(walk, monkeypatch, coder):
    """Kernels trust levels; a scale that is at odds with itself must not reach them."""
    original = levels.Integers.codes
    for factor in (-1, 3000):
        monkeypatch.setattr(
            levels.Integers, "codes", lambda self, v, f=factor: original(self, v).astype("i8") * f
        )
        with pytest.raises(BoundError, match="their scale says 0 to"):
            codec.encode_chunk(walk, ChunkBound(), Settings(coder=coder))
