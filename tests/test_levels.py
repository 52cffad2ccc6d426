from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tezip_h5 import FormatError, levels
from tezip_h5.bounds import ChunkBound, ErrorBound
from tezip_h5.inflate import inflate


def as_frames(values):
    return np.asarray(values).reshape(1, 1, -1, 1)


def through(scale, frames):
    """Values that come back after packing and unpacking the scale."""
    again = levels.unpack(scale.kind, frames.dtype, scale.pack())
    assert (again.offset, again.top) == (scale.offset, scale.top)
    return again.to_values(scale.to_levels(frames))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_integers_are_exact_over_their_whole_range(dtype):
    info = np.iinfo(dtype)
    frames = as_frames(np.arange(info.min, info.max + 1).astype(dtype))
    scale = levels.choose(frames, ChunkBound())
    assert scale.top == int(info.max) - int(info.min)
    np.testing.assert_array_equal(through(scale, frames), frames)


@pytest.mark.parametrize("dtype", ["uint32", "int32"])
def test_wide_integers_are_exact_or_refused(dtype):
    info = np.iinfo(dtype)
    near_top = as_frames(np.array([info.max - 1000, info.max], dtype))
    scale = levels.choose(near_top, ChunkBound())
    np.testing.assert_array_equal(through(scale, near_top), near_top)
    assert levels.choose(as_frames(np.array([info.min, info.max], dtype)), ChunkBound()) is None


def test_integers_whose_differences_need_more_than_64_bits_have_no_levels():
    for most, listed in ((2**62 - 1, True), (2**62, False), (2**63 - 1, False)):
        frames = np.resize(np.array([-most, 5, most]), (4, 40, 40, 1))
        scale = levels.choose(frames, ChunkBound())
        assert isinstance(scale, levels.Listed) if listed else scale is None


def test_counting_noise_is_not_of_floats():
    frames = np.random.default_rng(0).normal(100, 9, (1, 8, 9, 1))
    assert levels.choose(frames, ChunkBound(noise=1.0)) is None


@given(hnp.arrays(np.float32, 20, elements=st.floats(width=32, allow_nan=True)))
@settings(deadline=None)
def test_lossless_float32_keeps_bits_and_order(values):
    frames = as_frames(values)
    scale = levels.OrderedBits(frames.dtype, 0, 2**32 - 1)
    assert through(scale, frames).tobytes() == frames.tobytes()
    finite = np.unique(values[np.isfinite(values)])
    assert (np.diff(scale.to_levels(finite).astype(np.int64)) > 0).all()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("relative", [1e-3, 0.01, 0.1, 0.37, 0.9, 1.5])
def test_companding_keeps_the_bound_for_every_integer(dtype, relative):
    info = np.iinfo(dtype)
    frames = as_frames(np.arange(info.min, info.max + 1).astype(dtype))
    scale = levels.choose(frames, ChunkBound(pointwise=relative))
    back = through(scale, frames).astype(np.float64)
    original = frames.astype(np.float64)
    assert (np.abs(original - back) <= relative * np.abs(original)).all()
    assert back[original == 0] == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("relative", [1e-4, 0.01, 0.3])
def test_log_bits_keep_the_bound(dtype, relative):
    rng = np.random.default_rng(0)
    values = rng.normal(size=5000) * 10.0 ** rng.integers(-20, 20, 5000)
    frames = as_frames(values.astype(dtype))
    scale = levels.choose(frames, ChunkBound(pointwise=relative))
    back = through(scale, frames).astype(np.float64)
    assert (np.abs(frames - back) <= relative * np.abs(frames.astype(np.float64))).all()


@given(
    st.floats(1e-6, 1e3),
    hnp.arrays(np.float64, 30, elements=st.floats(-1e4, 1e4)),
    st.sampled_from(["float32", "float64"]),
)
@example(28.0, np.array([1.55371566e-307, 0.0]), "float64")  # infinitely many steps in the bound
@settings(deadline=None, max_examples=200)
def test_the_grid_leaves_few_exceptions(bound, values, dtype):
    frames = as_frames(values.astype(dtype))
    limits = ErrorBound(absolute=bound).of_frames(frames)
    scale = levels.choose(frames, limits)
    if scale is None or isinstance(scale, levels.Truncated):  # a bound near the dtype's resolution
        largest = np.abs(frames).max()
        assert bound < 4 * np.spacing(largest) or largest / bound > 2**29
        return
    _, bad = limits.check(frames[0], through(scale, frames)[0], 0)
    assert not bad.any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cells_around_predictions_keep_the_bound(dtype):
    """Several levels in a cell: any level within the tolerance comes back within the bound."""
    rng = np.random.default_rng(0)
    frames = rng.normal(0, 50, (3, 8, 9, 1)).astype(dtype)
    bound = ErrorBound(absolute=0.25).of_frames(frames)
    grid = levels.choose(frames, bound)
    scale = levels.centred(grid, frames, bound)
    tolerances = levels.tolerances(scale, bound, 3, 1)
    assert (tolerances == 8).all()
    exact = scale.to_levels(frames)
    for off in (-8, 8):
        back = scale.to_values(np.clip(exact + off, 0, scale.top))
        assert not any(bound.check(frames[t], back[t], t)[1].any() for t in range(3))
    assert grid.step == pytest.approx(17 * scale.step)
    assert (levels.tolerances(grid, bound, 3, 1) == 0).all()


def test_cells_far_below_the_noise_lie_on_the_grid():
    frames = np.random.default_rng(0).normal(0, 1e6, (1, 8, 9, 1))
    for absolute, centred in ((100, True), (1e-3, False)):
        bound = ErrorBound(absolute=absolute).of_frames(frames)
        grid = levels.choose(frames, bound)
        assert grid.step == pytest.approx(2 * absolute)
        assert (levels.centred(grid, frames, bound) is not None) == centred


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_smallest_floats_have_no_grid(dtype):
    """Subnormal numbers are multiples of one another; dividing by them overflows."""
    tiny = np.finfo(dtype).smallest_subnormal
    frames = np.array([tiny * 45, 0, tiny * 3], dtype).reshape(1, 1, 3, 1)
    scale = levels.choose(frames, ErrorBound().of_frames(frames))
    assert (scale is None) == (dtype == "float64")
    if scale is not None:
        np.testing.assert_array_equal(scale.to_values(scale.to_levels(frames)), frames)


def test_tolerances_share_a_grid():
    frames = np.random.default_rng(0).random((2, 4, 5, 1), np.float32)
    limits = ChunkBound(absolute=np.array([[0.01], [0.05]]))
    scale = levels.choose(frames, limits)
    tolerances = levels.tolerances(scale, limits, 2, 1)
    assert tolerances.tolist() == [[0], [2]]
    assert ((tolerances + 0.5) * scale.step <= limits.absolute).all()


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (9, b"\0" * 12),
        (0, b"\0" * 11),
        (0, b"\0" * 13),
        (2, b"\0" * 12 + np.float64(np.nan).tobytes()),
        (2, b"\0" * 12 + np.float64(0).tobytes()),
        (3, b"\0" * 20),
        (4, b"\0" * 14),
        (4, b"\0" * 12 + b"\xff" * 8),
        (6, b"\0" * 14),
        (6, b"\0" * 16),
        (6, b"\0" * 12 + b"\x02\0\0\0" + zstandard.compress(bytes(4))),
        (6, b"\0" * 12 + b"\x02\0\1\0" + zstandard.compress(bytes(8))),
    ],
)
def test_damaged_scales_are_refused(kind, data):
    with pytest.raises(FormatError):
        levels.unpack(kind, np.dtype("uint16" if kind in (0, 4) else "float32"), data)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *((0, "float32"), (1, "uint8"), (1, "float64"), (2, "uint8"), (2, "int64")),
        *((4, "float32"), (5, "float16")),
    ],
)
def test_a_scale_of_another_dtype_is_refused(kind, dtype):
    with pytest.raises(FormatError, match="makes no levels"):
        levels.unpack(kind, np.dtype(dtype), b"\0" * 12)


def test_a_zstd_frame_that_claims_too_much_is_refused_before_it_is_given_room():
    # magic number, descriptor (one segment, 8 bytes of size), size; nothing behind
    frame = bytes.fromhex("28b52ffd e0") + (1 << 45).to_bytes(8, "little")
    with pytest.raises(FormatError, match="of 35184372088832 bytes"):
        inflate(frame, 1000, "a table")
    for size in (0, 5, 1000):
        assert inflate(zstandard.compress(bytes(size)), 1000, "a table") == bytes(size)
    with pytest.raises(FormatError, match="of 1001 bytes"):
        inflate(zstandard.compress(bytes(1001)), 1000, "a table")
    with pytest.raises(FormatError, match="a table cannot"):
        inflate(b"no frame", 1000, "a table")
    with pytest.raises(FormatError, match="a table cannot"):
        inflate(zstandard.compress(b"all") + b"more", 1000, "a table")


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_values_that_never_occur_take_no_levels(dtype):
    counts = np.random.default_rng(0).poisson(40, (3, 20, 30, 1))
    frames = (counts * 3 + 2).astype(dtype)
    scale = levels.choose(frames, ChunkBound())
    assert scale.top <= counts.max() - counts.min()
    np.testing.assert_array_equal(through(scale, frames), frames)
    dense = counts.astype(dtype)
    assert isinstance(levels.choose(dense, ChunkBound()), levels.Integers)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("factor", [0.1, 1 / 3, 2.5e-7, 17.0])
def test_calibrated_counts_become_counts_again(dtype, factor):
    counts = np.random.default_rng(1).poisson(300, (3, 40, 50, 1)) - 200
    frames = (counts * factor).astype(dtype)
    scale = levels.choose(frames, ChunkBound())
    assert isinstance(scale, levels.Grid)
    assert scale.top == counts.max() - counts.min()
    assert levels.centred(scale, frames, ChunkBound()) is None  # each is what it was
    assert through(scale, frames).tobytes() == frames.tobytes()


CARRIERS = [dtype for dtype in levels.DTYPES if dtype != "bool"]


@pytest.mark.parametrize("dtype", CARRIERS)
def test_listed_values_come_back(dtype):
    kind = np.dtype(dtype)
    values = np.array([0, 3, 7, 100, 101], dtype)
    if kind.kind == "f":
        ends = np.finfo(kind)
        values = np.concatenate([values, -values, [ends.max, ends.min, ends.smallest_subnormal]])
    else:
        ends = np.iinfo(kind)
        # of 64 bits, what the encoder lists: no differences beyond them
        low, high = max(int(ends.min), -(2**62) + 1), min(int(ends.max), 2**62 - 1)
        values = np.concatenate([values, np.array([low, high], kind)])
    table = np.unique(values.astype(kind))
    if kind.kind == "f":
        table = np.sort(np.append(table, kind.type(-0.0)))
        table[table == 0] = [-0.0, 0.0]
    scale = levels.Listed(kind, table=table).fitted(0, table.size - 1)
    frames = as_frames(np.random.default_rng(0).choice(table, 300))
    assert through(scale, frames).tobytes() == frames.tobytes()
    again = levels.unpack(6, kind, scale.pack())
    assert (again.to_levels(frames) == scale.to_levels(frames)).all()
    assert again.to_values(np.array([-1, 1 << 30], np.int32)).tolist() == [table[0], table[-1]]


@pytest.mark.parametrize(
    "dtype", ["int16", "uint32", "int64", "uint64", "float16", "float32", "float64"]
)
def test_a_table_is_what_the_format_says(dtype):
    """FORMAT.md, chapter 5, in Python's integers."""
    kind = np.dtype(dtype)
    values = {
        "int16": [-5, 7, 300],
        "uint32": [0, 2**31, 2**32 - 1],
        "int64": [-(2**61), -1, 2**61],
        "uint64": [0, 2**40, 2**62 - 1],
    }.get(dtype, [-2.5, -0.0, 7.1])
    table = np.array(values, kind)
    data = levels.Listed(kind, table=table).fitted(0, 2).pack()
    assert int.from_bytes(data[12:16], "little") == 3
    width = 8 if kind.itemsize == 8 else 4
    raw = zstandard.decompress(data[16:])
    key, keys = 0, []
    for i in range(3):
        key += sum(raw[b * 3 + i] << (8 * b) for b in range(width))
        keys.append(key % 2 ** (8 * width))
    for key, value in zip(keys, table, strict=True):
        if kind.kind == "f":
            most = 2 ** (8 * kind.itemsize - 1) - 1  # of the bits of a pattern but the sign
            bits = key if key < 2 ** (8 * width - 1) else key ^ most
            assert (bits % (2 * most + 2)).to_bytes(kind.itemsize, "little") == value.tobytes()
        else:
            assert (key - int(value)) % 2 ** (8 * width) == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("arithmetic", ["float32", "float64"])
def test_scaled_integers_with_an_offset_take_few_levels(dtype, arithmetic):
    """As programs unpack them: a product and a sum, each rounded."""
    counts = np.random.default_rng(1).poisson(300, (3, 80, 90, 1))
    frames = counts.astype(arithmetic) * np.dtype(arithmetic).type(0.01)
    frames = (frames + np.dtype(arithmetic).type(273.15)).astype(dtype)
    scale = levels.choose(frames, ChunkBound())
    assert isinstance(scale, levels.Listed)
    assert scale.top == np.unique(counts).size - 1
    assert through(scale, frames).tobytes() == frames.tobytes()
    noise = np.random.default_rng(0).normal(size=frames.shape).astype(dtype)
    assert not isinstance(levels.choose(noise, ChunkBound()), levels.Listed)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("bound", [1, 2, 5, 12, 16.5])
def test_what_stands_for_values_with_gaps_is_within_the_bound(dtype, bound):
    """Never more levels than values, nor than cells of the bound; and each within it."""
    counts = np.random.default_rng(0).poisson(6, (3, 40, 50, 1))
    frames = (counts * 12 - (100 if "u" not in dtype else 0)).astype(dtype)
    limits = ErrorBound(absolute=bound).of_frames(frames)
    scale = levels.choose(frames, limits)
    tolerances = levels.tolerances(scale, limits, 3, 1)
    span, values = int(np.ptp(counts)) * 12, np.unique(counts).size
    if isinstance(scale, levels.Grid):
        assert scale.step in (12, 6)
        assert (2 * tolerances.max() + 1) * scale.step >= max(12, 2 * bound)
    else:
        assert isinstance(scale, levels.Listed)
        assert (tolerances == 0).all()
        cell = 2 * bound if np.dtype(dtype).kind == "f" else 2 * int(bound) + 1
        assert scale.top + 1 <= min(values, span // cell + 1)
    back = through(scale, frames)
    assert not any(limits.check(frames[t], back[t], t)[1].any() for t in range(3))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("bound", "cell"), [(0.3, 1), (0.5, 1.5), (1, 3), (1.6, 3.5), (2, 5)])
def test_counts_stored_as_floats_use_their_bound_fully(dtype, bound, cell):
    counts = np.random.default_rng(0).poisson(300, (3, 40, 50, 1))
    frames = counts.astype(dtype)
    limits = ErrorBound(absolute=bound).of_frames(frames)
    scale = levels.choose(frames, limits)
    assert levels.centred(scale, frames, limits) is None
    tolerances = levels.tolerances(scale, limits, 3, 1)
    assert (2 * tolerances + 1 == cell / scale.step).all()
    exact = scale.to_levels(frames)
    for off in (-tolerances.max(), tolerances.max()):
        back = scale.to_values(exact + np.int32(off))
        assert not any(limits.check(frames[t], back[t], t)[1].any() for t in range(3))


@pytest.mark.parametrize("count", [1, 4])
def test_calm_floats_have_cells_around_predictions(count):
    """A background far below the bound would go to and fro between two cells of a grid."""
    rng = np.random.default_rng(0)
    frames = rng.normal(470, 5, (count, 60, 70, 1)).astype(np.float32)
    for bound, centred in ((2, False), (10, False), (70, True)):
        limits = ErrorBound(absolute=bound).of_frames(frames)
        scale = levels.choose(frames, limits)
        assert (levels.tolerances(scale, limits, count, 1).max() > 0) == centred
        assert (levels.centred(scale, frames, limits) is None) == centred  # once is enough
    small = frames[:, :3, :3]
    assert levels.choose(small, ErrorBound(absolute=70).of_frames(small)) is not None


def test_threads_may_share_a_table():
    """Its places are made on first use, by whichever thread is first; none sees them half made."""
    frames = (np.arange(1 << 16) % 4000 * 16).astype(np.uint16).reshape(1, 256, 256, 1)
    scale = levels.choose(frames, ChunkBound())
    assert isinstance(scale, levels.Listed)
    expected = scale.to_levels(frames)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(50):
            scale._places = None
            for found in pool.map(scale.to_levels, [frames[:, :64]] * 8):
                np.testing.assert_array_equal(found, expected[:, :64])
