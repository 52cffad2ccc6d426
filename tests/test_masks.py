"""Masked pixels, bounds relative to counting noise, stacks with panels."""

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tezip_h5
from tezip_h5 import ErrorBound, InputError, Settings
from tezip_h5.cli import main
from tezip_h5.codec import decode_chunk, encode_chunk

SENTINEL = 2**32 - 1


@pytest.fixture
def counts():
    """A photon detector: uint32 (20, 60, 64), 30 counts and a bright ring."""
    y, x = np.indices((60, 64))
    ring = 3000 * np.exp(-((np.hypot(y - 30, x - 30) - 20) ** 2) / 8)
    return np.random.default_rng(3).poisson(30 + ring, (20, 60, 64)).astype("u4")


@pytest.fixture
def mask():
    """A gap between modules, and dead pixels."""
    mask = np.zeros((60, 64), "u4")
    mask[28:33] = 1
    mask[
        np.random.default_rng(4).integers(0, 60, 30), np.random.default_rng(5).integers(0, 64, 30)
    ] = 8
    return mask


@pytest.mark.parametrize("level", ["fast", "balanced"])
@pytest.mark.parametrize("bound", [{}, {"absolute": 2}, {"relative": 0.01}, {"noise": 0.5}])
def test_masked_pixels_are_exact_and_free(tmp_path, counts, mask, level, bound):
    stack = counts.copy()
    stack[:, mask > 0] = SENTINEL
    options = {"level": level, **bound}
    plain = tezip_h5.write(counts, tmp_path / "plain.h5", **options)
    masked = tezip_h5.write(stack, tmp_path / "masked.h5", mask=mask, verify=True, **options)
    without = tezip_h5.write(stack, tmp_path / "without.h5", **options)
    back = tezip_h5.read(tmp_path / "masked.h5")
    assert (back[:, mask > 0] == SENTINEL).all()
    assert masked.max_error == plain.max_error <= 3000
    if not bound:
        np.testing.assert_array_equal(back, stack)
    # No more than the same stack with nothing to mask; these sentinels are found without it, too.
    assert masked.payload_bytes < plain.payload_bytes + 200
    assert without.payload_bytes < plain.payload_bytes + 200
    tezip_h5.verify(tmp_path / "without.h5", stack)
    assert (tezip_h5.read(tmp_path / "without.h5")[:, mask > 0] == SENTINEL).all()
    tezip_h5.verify(tmp_path / "masked.h5", stack)
    with h5py.File(tmp_path / "masked.h5") as f:
        np.testing.assert_array_equal(f["scan/pixel_mask"][:] != 0, mask != 0)
    small = tmp_path / "small.h5"
    tezip_h5.recompress(tmp_path / "masked.h5", small, level="balanced")
    np.testing.assert_array_equal(tezip_h5.read(small), back)


def test_masked_pixels_that_change(tmp_path, counts, mask):
    stack = counts.copy()
    stack[:, mask > 0] = np.random.default_rng(0).integers(0, 2**32, (20, (mask > 0).sum()), "u4")
    with tezip_h5.Writer(
        tmp_path / "a.h5", "scan", (60, 64), "u4", mask=mask, absolute=3, tile=(32, 40)
    ) as w:
        w.append(stack[:18])
    with tezip_h5.Writer(tmp_path / "a.h5", "scan", append=True, mask=mask) as w:
        w.append(stack[18:])
    back = tezip_h5.read(tmp_path / "a.h5")
    np.testing.assert_array_equal(back[:, mask > 0], stack[:, mask > 0])
    tezip_h5.verify(tmp_path / "a.h5", stack)
    with pytest.raises(InputError, match="leave mask out"):
        tezip_h5.Writer(tmp_path / "a.h5", "scan", append=True, mask=np.roll(mask, 1))
    tezip_h5.write(stack, tmp_path / "a.h5", "plain", level="fast")
    with pytest.raises(InputError, match="leave mask out"):
        tezip_h5.Writer(tmp_path / "a.h5", "plain", append=True, mask=mask)


@pytest.mark.parametrize(("dtype", "bound"), [("u4", {}), ("f4", {"absolute": 3})])
def test_what_is_masked_does_not_keep_a_chunk_from_recompression(
    tmp_path, counts, mask, dtype, bound
):
    """Noise of all 32 bits under the mask: stored beside, also while chunks are encoded anew."""
    stack, values = counts.astype(dtype), np.random.default_rng(0)
    if dtype == "f4":  # so that levels lie on the bound's grid, which makes them encodable anew
        stack += values.random(stack.shape, "f4")
    stack[:, mask > 0] = values.integers(0, 2**32, (20, (mask > 0).sum()), "u4")
    tezip_h5.write(stack, tmp_path / "a.h5", mask=mask, level="fast", **bound)
    done = tezip_h5.recompress(tmp_path / "a.h5", tmp_path / "b.h5", level="best")
    before, after = tezip_h5.read(tmp_path / "a.h5"), tezip_h5.read(tmp_path / "b.h5")
    np.testing.assert_array_equal(after, before)
    np.testing.assert_array_equal(after[:, mask > 0], stack[:, mask > 0])
    [part] = done.stacks
    assert part.kept_chunks == 0
    assert part.bytes_after < part.bytes_before


@pytest.mark.parametrize("tile", [None, (16, 32)])
@pytest.mark.parametrize("channels", [(), (2,)])
def test_a_relative_bound_is_that_of_each_frames_unmasked_samples(tmp_path, channels, tile):
    """One bright frame beside dim ones: what fills the mask must not widen theirs."""
    rng, mask = np.random.default_rng(0), np.zeros((48, 64), bool)
    mask[20:23] = True
    stack = 1000 + rng.integers(0, 300, (16, 48, 64, *channels)).astype("u2")
    stack[0] = rng.integers(0, 60000, stack.shape[1:])
    stack[..., :1] *= 40 if channels else 1  # and one bright channel
    stack[:, mask] = 0
    path = tmp_path / "a.h5"
    tezip_h5.write(stack, path, relative=0.01, mask=mask, tile=tile, level="fast", verify=True)
    planar, back = (
        a.reshape(16, 48, 64, -1)[:, ~mask].astype("i8") for a in (stack, tezip_h5.read(path))
    )
    assert (np.abs(back - planar).max(1) <= 0.01 * np.ptp(planar, axis=1)).all()
    assert (np.abs(back - planar).max(1) > 0).all()
    tezip_h5.verify(path, stack)
    wrong = stack.copy()
    wrong[5, 1, 1] += 50  # less than 1% of what the bright frame spans
    with pytest.raises(tezip_h5.BoundError, match="frame 5, sample"):
        tezip_h5.verify(path, wrong)


@pytest.mark.parametrize("everything", [False, True])
def test_a_relative_bound_does_not_depend_on_what_shares_a_chunk(tmp_path, everything):
    rng = np.random.default_rng(1)
    centres, widths = rng.uniform(0, 1000, (16, 1, 1)), rng.uniform(0.1, 100, (16, 1, 1))
    stack = rng.normal(centres, widths, (16, 24, 24)).astype("f4")
    mask = (rng.random((24, 24)) < 0.1) | everything
    stack[:, mask] = -1
    options = {"relative": 0.05, "mask": mask, "level": "fast"}
    with tezip_h5.Writer(tmp_path / "a.h5", "scan", (24, 24), "f4", **options) as w:
        w.append(stack[:5])
        w.flush()
        w.append(stack[5:])
    tezip_h5.verify(tmp_path / "a.h5", stack)
    error = np.abs(tezip_h5.read(tmp_path / "a.h5").astype("f8") - stack)[:, ~mask]
    plain = stack[:, ~mask].astype("f8")
    assert everything or (error.max(1) <= 0.05 * np.ptp(plain, axis=1)).all()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["u1", "i2", "u4", "i4", "f4", "f8"]),
    st.sampled_from([{}, {"absolute": 2}, {"pointwise_relative": 0.05}, {"relative": 0.02}]),
    st.sampled_from(["fallback", "stages", "linear", "mixing"]),
    st.floats(0, 1),
)
def test_any_chunk_with_any_mask(no_fallback, seed, dtype, bound, coder, share):
    rng = np.random.default_rng(seed)
    shape = (rng.integers(1, 4), rng.integers(1, 9), rng.integers(1, 9), rng.integers(1, 4))
    frames = rng.normal(20, 10.0 ** rng.integers(0, 5), shape).astype(dtype)
    if frames.dtype.kind == "f":
        frames[rng.random(shape) < 0.1] = np.nan
    elif frames.dtype.itemsize > 1 and rng.random() < 0.5:
        frames[rng.random(shape) < 0.1] = np.iinfo(dtype).max
    mask = rng.random(shape[1:3]) < share
    mask[0, 0] = True
    limits = ErrorBound(**bound).of_frames(frames, mask)
    larger = (shape[0] + 1, *shape[1:])
    encoded = encode_chunk(
        frames, limits, Settings(level="fast", coder=coder), shape=larger, mask=mask
    )
    back = decode_chunk(encoded.payload)[: shape[0]]
    assert back[:, mask].tobytes() == frames[:, mask].tobytes()
    for t, (frame, other) in enumerate(zip(frames, back, strict=True)):
        _, bad = limits.check(frame, other, t)
        assert not bad[~mask].any()


def test_masks_that_do_not_fit(tmp_path, counts):
    for wrong in (np.zeros((60, 63)), np.zeros((60, 64)), "mask", np.zeros((1, 60, 64), bool)):
        with pytest.raises(InputError, match="a mask of"):
            tezip_h5.write(counts, tmp_path / "a.h5", mask=wrong)
    assert not list(tmp_path.iterdir())
    for fits in (np.zeros((60, 64), bool), np.ones((60, 64), "i2")):
        tezip_h5.write(counts, tmp_path / "a.h5", mask=fits, level="fast", overwrite=True)
        np.testing.assert_array_equal(tezip_h5.read(tmp_path / "a.h5"), counts)


# --- noise ---


@pytest.mark.parametrize("noise", [0.1, 0.5, 1, 3, 1000])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "i4"])
def test_the_noise_bound_holds_for_every_value(noise, dtype):
    info = np.iinfo(dtype)
    values = np.unique(
        np.concatenate(
            [
                np.arange(0, min(info.max, 3000)),
                np.geomspace(1, info.max, 2000).astype("i8"),
                [info.max, info.min, *(range(-300, 0) if info.min < 0 else ())],
            ]
        )
    )
    frames = np.resize(values, (2, 80, 50)).astype(dtype)
    np.random.default_rng(0).shuffle(frames.reshape(-1))
    bound = ErrorBound(noise=noise)
    encoded = encode_chunk(frames, bound.of_frames(frames[..., None]), Settings(level="fast"))
    back = decode_chunk(encoded.payload)
    error = np.abs(back.astype("i8") - frames)
    assert (error <= noise * np.sqrt(np.abs(frames.astype("f8")))).all()
    assert (back[frames == 0] == 0).all()
    if noise >= 1 and dtype in ("u1", "i2", "u2"):  # others are too wide for a table
        assert error.max() > 0


def test_the_noise_bound_is_worth_it(tmp_path, counts, capsys):
    sizes = {}
    for name, options in {"lossless": {}, "noise": {"noise": 1}, "abs": {"absolute": 5}}.items():
        done = tezip_h5.write(counts, tmp_path / f"{name}.h5", level="fast", **options)
        sizes[name] = done.payload_bytes
    # 5 is the noise of 30 counts; at the ring's 3000 there may be 54.
    assert sizes["noise"] < sizes["abs"] < sizes["lossless"]
    assert str(done.bound) == "absolute 5"
    [stack] = tezip_h5.inspect(tmp_path / "noise.h5").stacks
    assert stack.bound == "noise 1"
    with h5py.File(tmp_path / "in.h5", "w") as f:
        f["x"] = counts
    words = ["compress", "none", f"{tmp_path / 'in.h5'}:/x", str(tmp_path / "cli.h5")]
    assert main([*words, "-m", "noise", "-b", "1", "--level", "fast"]) == 0
    tezip_h5.verify(tmp_path / "cli.h5", counts)
    assert "noise 1" in capsys.readouterr().out
    with h5py.File(tmp_path / "f.h5", "w") as f:
        options = tezip_h5.TEZip(noise=1, level="fast")
        assert repr(options) == "TEZip(noise=1.0, level='fast')"
        f.create_dataset("x", data=counts, chunks=(4, 60, 64), **options)
        assert (np.abs(f["x"][:].astype("i8") - counts) <= np.sqrt(counts)).all()
        assert f["x"].id.get_storage_size() < counts.nbytes / 4


def test_what_noise_is_not_for(tmp_path, counts):
    with pytest.raises(InputError, match="counts, which are integers"):
        tezip_h5.write(counts.astype("f4"), tmp_path / "a.h5", noise=1)
    for options in ({"absolute": 1}, {"pointwise_relative": 0.1}):
        with pytest.raises(InputError, match="together with"):
            ErrorBound(noise=1, **options)
    with pytest.raises(InputError, match="noise=-1"):
        ErrorBound(noise=-1)


# --- panels ---


def test_panels(tmp_path, counts):
    stack = np.stack([counts, counts[::-1] * 7, counts + 40000], axis=1)  # T, M, H, W
    path = tmp_path / "a.h5"
    with pytest.raises(InputError, match="axes="):
        tezip_h5.write(stack, path)
    done = tezip_h5.write(stack, path, axes="TMYX", relative=0.01, level="fast", verify=True)
    assert done.shape == stack.shape
    apart = [
        tezip_h5.write(stack[:, m], path, f"m{m}", relative=0.01, level="fast") for m in range(3)
    ]
    assert done.payload_bytes == sum(a.payload_bytes for a in apart)
    assert done.max_error == max(a.max_error for a in apart)
    whole = tezip_h5.read(path, name="scan")
    for m in range(3):  # the bound is that of each panel
        np.testing.assert_array_equal(whole[:, m], tezip_h5.read(path, name=f"m{m}"))
    tezip_h5.verify(path, np.ascontiguousarray(stack[:, 0]), name="m0")
    with h5py.File(path) as f:
        np.testing.assert_array_equal(f["scan/data"][3:9, 1, 10:20], whole[3:9, 1, 10:20])
        assert f["scan/preview"].ndim == 3
        assert f["scan/keyframes"].shape[1:] == (3, 60, 64)
    small = tmp_path / "small.h5"
    tezip_h5.recompress(path, small, level="balanced", name="scan")
    np.testing.assert_array_equal(tezip_h5.read(small, name="scan"), whole)


def test_panels_frame_by_frame_with_colours_and_masks(tmp_path, counts):
    stack = np.stack([np.stack([counts, counts // 2], -1), np.stack([counts + 9, counts], -1)], 1)
    mask = np.zeros((2, 60, 64), bool)
    mask[1, 5:9] = True
    path = tmp_path / "a.h5"
    options = {"panel_axes": 1, "mask": mask, "absolute": 4, "level": "fast", "append": True}
    with tezip_h5.Writer(path, "scan", (2, 60, 64, 2), "u4", **options) as w:
        w.append(stack[:7])
    with tezip_h5.Writer(path, "scan", append=True) as w:
        w.append(stack[7:9])
    with tezip_h5.Writer(path, "scan", (2, 60, 64, 2), "u4", **options) as w:
        w.append(stack[9:])
    with pytest.raises(InputError, match="panel_axes=2, but"):
        tezip_h5.Writer(path, "scan", append=True, panel_axes=2)
    back = tezip_h5.read(path)
    assert back.shape == stack.shape
    assert np.abs(back.astype("i8") - stack).max() <= 4
    np.testing.assert_array_equal(back[:, mask], stack[:, mask])
    moved = np.moveaxis(stack, 0, 3)
    tezip_h5.write(moved, tmp_path / "b.h5", axes="MYXTC", level="fast")
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "b.h5"), stack)
    for axes in ("TMYX", "TMMYX", "TYXCM"[:4], "MYXC?"[:4]):
        with pytest.raises(InputError, match="one letter for each"):
            tezip_h5.write(stack, tmp_path / "c.h5", axes=axes)
