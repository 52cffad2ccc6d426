"""The linear coder: against its naive decoder, over edge shapes, and fed with damage."""

import naive_linear
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tezip_h5 import FormatError, Settings, bitstream, codec, kernels
from tezip_h5.bounds import ChunkBound
from tezip_h5.residual import linear_weights
from tezip_h5.residual.linear import LinearDecoder, LinearEncoder
from tezip_h5.residual.linear_tables import MOST_SYMBOLS, Tables, build, symbols_for

SETTINGS = Settings(level="fast", coder="linear")


class Scale:
    def __init__(self, top):
        self.top = top


def limits(top):
    return (-(2**31), 2**31 - 1) if top == 2**32 - 1 else (0, top)


def encode(frames, kinds, tolerance, top, flat=False):
    """Sections and reconstructions of frames (g, C, h, w), predicted by the one before."""
    encoder = LinearEncoder(frames.shape[1:], Scale(top), SETTINGS, flat=flat)
    tolerances = np.full(frames.shape[1], tolerance)
    out = []
    for frame, predicted in zip(frames, kinds, strict=True):
        if predicted:
            out.append(encoder.residual(frame, out[-1], tolerances))
        else:
            out.append(encoder.keyframe(frame, tolerances))
    sections, sizes = encoder.finish()
    assert sum(sizes) == sum(map(len, sections.values()))
    return sections, np.stack(out)


def decode(sections, shape, kinds, tolerance, top, copies=False):
    """Frames, each predicted by the decoder's own array of the last one, or by a copy of it."""
    decoder = LinearDecoder(sections, shape[1:], Scale(top))
    tolerances = np.full(shape[1], tolerance)
    out, last = [], None
    for predicted in kinds:
        last = decoder.residual(last, tolerances) if predicted else decoder.keyframe(tolerances)
        out.append(last.copy())
        last = out[-1] if copies else last
    decoder.finish()
    return np.stack(out)


def decode_naively(sections, shape, kinds, tolerance, top):
    decoder = naive_linear.Decoder(sections, shape[1:], *limits(top))
    out = []
    for predicted in kinds:
        out.append(decoder.frame(out[-1] if predicted else None, [tolerance] * shape[1]))
    return np.stack(out), decoder


@st.composite
def cases(draw):
    """(frames, kinds, tolerance, top): a few tiny frames, smooth or wild."""
    top = draw(st.sampled_from([0, 1, 255, 4095, 65535, 2**20, 2**31 - 2, 2**32 - 1]))
    low, high = limits(top)
    shape = draw(hnp.array_shapes(min_dims=4, max_dims=4, max_side=5))
    shape = (*shape[:2], *(draw(st.integers(1, 9)) for _ in range(2)))
    shape = (min(shape[0], 3), min(shape[1], 4), *shape[2:])
    near = st.sampled_from([low, high, (low + high) // 2, max(high - 1, low)])
    frames = draw(hnp.arrays(np.int64, shape, elements=st.one_of(near, st.integers(low, high))))
    if draw(st.booleans()):  # neighbours that resemble each other
        frames = np.clip(frames // 50 + np.arange(shape[-1]) * (high - low) // 60, low, high)
    kinds = [False] + [draw(st.booleans()) for _ in range(shape[0] - 1)]
    tolerance = 0 if low else min(draw(st.sampled_from([0, 0, 1, 5, 300])), top)
    return frames.astype(np.int32), kinds, tolerance, top


@pytest.mark.parametrize("top", [255, 65535, 2**32 - 1])
@pytest.mark.parametrize("width", [255, 256, 257, 513])
def test_rows_wider_than_what_is_computed_at_once(width, top):
    """Exact samples are predicted block by block: what lies at a block's edges counts."""
    rng = np.random.default_rng(width)
    low, high = limits(top)
    steps = rng.integers(-high // 40, high // 40 + 1, (2, 1, 4, width)).cumsum(axis=3)
    frames = np.clip((low + high) // 2 + steps, low, high).astype(np.int32)
    sections, back = encode(frames, [False, True], 0, top)
    assert np.array_equal(back, frames)
    assert np.array_equal(decode(sections, frames.shape, [False, True], 0, top), frames)
    naive, _ = decode_naively(sections, frames.shape, [False, True], 0, top)
    assert np.array_equal(naive, frames)


@pytest.mark.parametrize("top", [255, 2**16 - 1, 2**18, 2**31 - 2, 2**32 - 1])
@pytest.mark.parametrize("tolerance", [0, 1, 40])
@pytest.mark.parametrize("size", [(16, 97), (17, 63), (35, 110), (80, 96), (50, 1), (33, 2)])
@pytest.mark.parametrize("flat", [False, True])
def test_more_rows_than_are_computed_together(size, tolerance, top, flat):
    """Rows go sixteen by sixteen and steps block by block: what lies at their edges counts."""
    rng = np.random.default_rng(size[0])
    low, high = limits(top)
    tolerance = 0 if low else tolerance
    y, x = np.ogrid[: size[0], : size[1]]
    smooth = np.sin(y / 5) * np.cos(x / 9) + 0.2 * rng.normal(size=(2, 2, *size)).cumsum(axis=0)
    frames = np.clip((low + high) / 2 + smooth * (high // 3), low, high).astype(np.int32)
    sections, expected = encode(frames, [False, True], tolerance, top, flat)
    assert np.abs(frames.astype(np.int64) - expected).max() <= tolerance
    back = decode(sections, frames.shape, [False, True], tolerance, top)
    np.testing.assert_array_equal(back, expected)
    if frames.size < 7000 or top == 255:  # it takes seconds for the others
        naive, _ = decode_naively(sections, frames.shape, [False, True], tolerance, top)
        np.testing.assert_array_equal(naive, expected)


@given(cases(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_naive_decoder_agrees(case, flat):
    frames, kinds, tolerance, top = case
    sections, expected = encode(frames, kinds, tolerance, top, flat)
    assert np.abs(frames.astype(np.int64) - expected).max() <= tolerance
    for copies in (False, True):
        back = decode(sections, frames.shape, kinds, tolerance, top, copies)
        np.testing.assert_array_equal(back, expected)
    naive, _ = decode_naively(sections, frames.shape, kinds, tolerance, top)
    np.testing.assert_array_equal(naive, expected)


@pytest.mark.parametrize("tolerance", [0, 2])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_learned_weights_agree_too(channels, tolerance):
    """Frames large enough for the encoder to learn from."""
    rng = np.random.default_rng(channels)
    t, c, y, x = np.ogrid[:3, :channels, :45, :37]
    frames = 90 + 60 * np.sin((x + 2 * t) / 5) + 40 * np.cos((y - c) / 4) + rng.normal(size=t.shape)
    frames = np.clip(frames + rng.normal(size=frames.shape) * 2, 0, 255).astype(np.int32)
    kinds = [False, True, True]
    sections, expected = encode(frames, kinds, tolerance, 255)
    back, decoder = decode_naively(sections, frames.shape, kinds, tolerance, 255)
    np.testing.assert_array_equal(back, expected)
    assert any(weights[0] for _, weights in decoder.last.values()), "no weights were learned"
    np.testing.assert_array_equal(decode(sections, frames.shape, kinds, tolerance, 255), expected)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 50), (3, 50, 1), (2, 2, 3), (5, 33, 70)])
@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32"])
def test_edge_shapes(shape, channels, dtype):
    shape += channels
    frames = (np.cumsum(np.arange(np.prod(shape)) % 7) % 120).reshape(shape).astype(dtype)
    for bound in (
        ChunkBound(),
        ChunkBound(absolute=np.full((shape[0], (channels or (1,))[0]), 2.0)),
    ):
        encoded = codec.encode_chunk(frames, bound, SETTINGS)
        back = codec.decode_chunk(encoded.payload)
        error = np.abs(back.astype(float) - frames.astype(float)).max()
        assert error <= (0 if bound.lossless else 2)


@pytest.mark.parametrize(
    "shape", [(1, 5000), (2, 9000), (4, 8000), (5, 5000), (5000, 1), (8000, 4)]
)
@pytest.mark.parametrize("tolerance", [0, 3])
def test_lines_and_bands(shape, tolerance):
    """Detectors of lines, spectra: many samples, few rows or columns."""
    rng = np.random.default_rng(1)
    frames = (500 + 400 * np.sin(np.arange(np.prod(shape)) / 9)).reshape(shape)
    frames = (frames + rng.normal(0, 6, (4, *shape))).astype(np.uint16)
    bound = ChunkBound()
    if tolerance:
        bound = ChunkBound(absolute=np.full((4, 1), float(tolerance)))
    encoded = codec.encode_chunk(frames, bound, SETTINGS)
    back = codec.decode_chunk(encoded.payload)
    assert np.abs(back.astype(int) - frames).max() <= tolerance
    assert len(encoded.payload) < frames.nbytes / 2


def test_flags_that_do_not_fit_a_flat_plane_are_refused():
    frames = np.zeros((1, 1, 3, 4), np.int32)
    sections, _ = encode(frames, [False], 0, 255, flat=True)
    head = len(sections["residuals"]) - 1
    assert sections["residuals"][head] == 16
    for flags in (16 | 1, 16 | 2, 32):
        sections["residuals"] = sections["residuals"][:head] + bytes([flags])
        with pytest.raises(FormatError, match="do not fit"):
            decode(sections, frames.shape, [False], 0, 255)


def test_level_fast_chooses_it(walk):
    assert codec.encode_chunk(walk, ChunkBound(), Settings(level="fast")).coder == "linear"
    options = {"level": "fast", "spatial": True}
    assert codec.encode_chunk(walk, ChunkBound(), Settings(**options)).coder == "stages"


def test_still_regions_cost_nearly_nothing():
    rng = np.random.default_rng(0)
    frames = np.full((8, 256, 256), 100, np.uint8) + rng.integers(0, 5, (8, 256, 256), np.uint8)
    bound = ChunkBound(absolute=np.full((8, 1), 5.0))
    encoded = codec.encode_chunk(frames, bound, Settings(level="fast"))
    assert len(encoded.payload) * 8 < 0.02 * frames.size


@given(hnp.arrays(np.int32, (3, 300, 20), elements=st.integers(0, 50)), st.integers(0, 31))
@settings(max_examples=20, deadline=None)
def test_tables_come_back(counts, scale):
    counts[:, ::3] = 0
    counts[1] = 0
    counts[0, 0, 0] = 1
    contexts = np.zeros((3, 7776, 20), np.int32)
    contexts[:, :300] = counts
    tables, sides = build(contexts, scale)
    again = Tables.unpack(tables.pack(sides))
    np.testing.assert_array_equal(again.frequencies, tables.frequencies)
    np.testing.assert_array_equal(again.of_context[sides], tables.of_context[sides])
    assert again.scale == scale
    served = np.zeros_like(tables.frequencies)
    width = served.shape[1]
    np.add.at(served, tables.of_context.reshape(-1), contexts.reshape(-1, 20)[:, :width])
    assert ((served > 0) <= (tables.frequencies > 0)).all()
    slots = tables.decoder_slots().reshape(-1, 4096)
    for row, frequencies in zip(slots, tables.frequencies, strict=True):
        np.testing.assert_array_equal(np.bincount(row >> 24, minlength=width), frequencies)


@pytest.mark.parametrize("top", [0, 1, 15, 255, 65535, 2**31 - 2, 2**32 - 1])
def test_no_level_needs_more_symbols(top):
    largest = 2 * top + 1
    octave = largest.bit_length() - 1
    symbol = largest if largest < 32 else 32 + 4 * (octave - 5) + (largest >> (octave - 2) & 3)
    assert symbol < symbols_for(top, 0) <= MOST_SYMBOLS


def small():
    """Sections of a small stack, and what they decode to."""
    frames = (np.arange(3 * 2 * 9 * 11) * 37 % 200).reshape(3, 2, 9, 11).astype(np.int32)
    kinds = [False, True, True]
    return (*encode(frames, kinds, 1, 255), frames.shape, kinds)


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_damage_ends_in_an_error_or_in_other_levels(data):
    """Never a crash, a hang or a read outside: run it under NUMBA_BOUNDSCHECK=1 as well."""
    sections, _, shape, kinds = small()
    name = data.draw(st.sampled_from(sorted(sections)))
    damaged = bytearray(sections[name])
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "random"]))
    if how == "flip":
        for _ in range(data.draw(st.integers(1, 4))):
            bit = data.draw(st.integers(0, 8 * len(damaged) - 1))
            damaged[bit // 8] ^= 1 << bit % 8
    elif how == "cut":
        del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
    elif how == "grow":
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at:at] = data.draw(st.binary(min_size=1, max_size=20))
    else:
        damaged[data.draw(st.sampled_from([0, 4, 60])) :] = data.draw(st.binary(max_size=200))
    try:
        out = decode({**sections, name: bytes(damaged)}, shape, kinds, 1, 255)
    except FormatError:
        return
    assert out.shape == shape
    assert out.min() >= 0
    assert out.max() <= 255


@pytest.mark.parametrize("size", [(9, 40), (40, 70)])
@pytest.mark.parametrize(("top", "tolerance"), [(200, 7), (200, 150), (150_000, 100_000)])
def test_cells_that_lead_out_of_the_levels_are_clipped(top, tolerance, size):
    """No encoder writes them, but FORMAT.md says what they mean. So few samples have one table,
    with which a stream ends where it should whatever the contexts are."""
    rng = np.random.default_rng(tolerance)
    frames = rng.integers(0, top + 1, (1, 1, *size)).astype(np.int32)
    sections, _ = encode(frames, [False], 2, top)
    back = decode(sections, frames.shape, [False], tolerance, top)
    naive, _ = decode_naively(sections, frames.shape, [False], tolerance, top)
    np.testing.assert_array_equal(back, naive)
    assert {0, top} <= set(naive.ravel().tolist())


def test_more_symbols_than_levels_need_are_refused():
    frames = np.random.default_rng(0).integers(0, 256, (1, 1, 40, 40)).astype(np.int32)
    sections, _ = encode(frames, [False], 0, 255)
    with pytest.raises(FormatError, match="need at most"):
        LinearDecoder(sections, frames.shape[1:], Scale(3))


def test_trailing_bytes_and_missing_sections_are_refused(walk):
    encoded = codec.encode_chunk(walk, ChunkBound(), SETTINGS)
    parsed = bitstream.unpack(encoded.payload)
    for number in (bitstream.Section.TABLES, bitstream.Section.RESIDUALS):
        sections = {n: data for n, data in parsed.sections.items() if n != number}
        with pytest.raises(FormatError, match="is missing"):
            codec.decode_chunk(bitstream.pack(parsed.header, sections))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\1\1",
        b"\0\0\1\1",  # no table
        b"\0\x21\1\1",  # too many
        b"\0\1\0\1",  # no symbol
        b"\0\1\x91\1",  # too many
        b"\x20\1\1\1",  # the scale
        b"\0\1\1\x08",  # the sides
        b"\0\1\1\1garbage",
        b"\0\1\1\0" + zstandard.compress(b"\xff\x0f"),  # 4095
        b"\0\1\1\0" + zstandard.compress(b"\0\x10\0"),
    ],
)
def test_damaged_tables_are_refused(data):
    with pytest.raises(FormatError):
        Tables.unpack(data)


# --- how weights are learned ---


def test_products_of_samples_are_those_of_numpy():
    """Also where the last block is not full, and onto what is there already."""
    rng = np.random.default_rng(2)
    for count in (1, 63, 64, 131):
        samples = rng.normal(0, 30, (count, 14)).astype(np.float32)
        samples[:, -1] = np.abs(samples[:, -1])
        before = rng.normal(size=(13, 13))
        out = before.copy()
        total = kernels.load("linear.fit").covariance(samples, 2.5, out)
        exact = samples.astype(float)
        weights = 1 / (exact[:, -1] + 2.5)
        expected = before + (exact[:, :-1] * weights[:, None]).T @ exact[:, :-1]
        np.testing.assert_allclose(out, expected, rtol=1e-9, atol=1e-6)
        np.testing.assert_allclose(total, weights.sum())


@pytest.mark.parametrize("tolerance", [0, 3])
def test_costs_are_entropies_by_activity(tolerance):
    linear, rng = kernels.load("linear.plan"), np.random.default_rng(3)
    samples = rng.laplace(0, 40, (500, 4)).astype(np.float32)  # two features, value, activity
    samples[:, 3] = np.abs(samples[:, 3])
    weights = np.zeros((2, 8), np.float32)
    weights[:, 0], weights[:, 1] = (0.5, 0.25), (1, 0)
    offsets = np.zeros(8, np.float32)
    offsets[1] = 7
    plan, found = np.zeros(linear.PLAN, np.int64), np.empty((2, 2))
    plan[linear.TOLERANCE] = tolerance
    kernels.load("linear.fit").costs(samples, weights, offsets, plan, found)
    step = 2 * tolerance + 1
    for c in range(2):
        guess = np.rint(samples[:, :2] @ weights[:, c] + offsets[c])
        cells = np.rint((samples[:, 2] - guess) / step).astype(int)
        symbols = np.where(cells < 0, -2 * cells - 1, 2 * cells)
        octaves = np.frexp(symbols)[1] - 1
        low = np.where(symbols < 32, 0, octaves)  # an octave is one symbol, the rest plain bits
        coarse = np.where(symbols < 32, symbols, 32 + octaves)
        kinds = np.minimum(np.frexp((samples[:, 3] / step).astype(int))[1], 11)
        bits = float(low.sum())
        for kind in np.unique(kinds):
            counts = np.unique(coarse[kinds == kind], return_counts=True)[1]
            bits += (counts * np.log2(counts.sum() / counts)).sum()
        sizes = np.where(symbols < 32, symbols / 2, 2.0 ** (octaves - 1))
        np.testing.assert_allclose(found[c], (bits, sizes.mean()), rtol=0.01)


def test_weights_that_still_serve_are_learned_less_often(monkeypatch):
    """A scene that stays as it is; one that changes all the time."""
    fits = []
    choose = linear_weights.Fitter.choose

    def counted(*arguments):
        fits[-1] += 1
        return choose(*arguments)

    monkeypatch.setattr(linear_weights.Fitter, "choose", counted)
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:256, :256]
    still = 120 + 50 * np.sin(x / 20) * np.cos(y / 15) + rng.normal(0, 4, (16, 256, 256))
    turning = [
        120 + 90 * np.sin((x * np.cos(t) + y * np.sin(t)) / (2 + t % 3)) for t in range(16)
    ] + rng.normal(0, 1, (16, 256, 256))
    for frames in (still, turning):
        fits.append(0)
        levels = np.clip(frames, 0, 255).astype(np.int32)
        encode(levels[:, None], [False] + [True] * 15, 1, 255)
    assert fits[0] <= 8
    assert fits[1] == 16
