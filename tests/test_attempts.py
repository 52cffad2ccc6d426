"""What is tried on a chunk, and which of it stays."""

from dataclasses import replace
from functools import partial

import h5py
import numpy as np
import pytest

from tezip_h5 import ErrorBound, Settings, bitstream, codec, levels, predictability, write
from tezip_h5.bounds import ChunkBound
from tezip_h5.chunk import attempts
from tezip_h5.chunk.attempts import Attempts
from tezip_h5.efforts import EFFORTS
from tezip_h5.model import store


def noise(shape=(16, 160, 160)):
    """Photons: nothing to be learned but their rate, which changes from place to place."""
    _, y, x = np.ogrid[tuple(map(slice, shape))]
    rate = 300 + 200 * np.sin(x / 30) * np.cos(y / 25)
    return np.random.default_rng(0).poisson(np.broadcast_to(rate, shape)).astype("u2")


def stripes():
    """Waves under little noise, which adaptive voters follow far better than fixed weights."""
    rng = np.random.default_rng(1)
    t, y, x = np.ogrid[:16, :160, :160]
    waves = np.sin((x * np.cos(y / 30) + y) / 4 + t / 3) * 60 + np.sin(x * y / 900) * 40
    return np.rint(waves + 128 + rng.normal(0, 0.3, waves.shape)).astype("u1")


def sizes(frames, bound, level):
    limits = ErrorBound(**bound).of_frames(frames[..., None])
    encode = partial(codec.encode_chunk, frames, limits)
    free = encode(Settings(level=level))
    pinned = {c: encode(Settings(level=level, coder=c)) for c in ("linear", "mixing")}
    return free, {c: len(encoded.payload) for c, encoded in pinned.items()}


@pytest.mark.parametrize("bound", [{}, {"absolute": 3}])
def test_noise_is_not_mixed_where_that_saves_little(bound):
    frames = noise()
    free, size = sizes(frames, bound, "balanced")
    assert free.coder == "linear"
    assert len(free.payload) == size["linear"]
    assert size["linear"] * (1 - 1.5 * EFFORTS["balanced"].mixing_worth) < size["mixing"]
    archived, size = sizes(frames, bound, "best")
    assert len(archived.payload) == min(size.values())


@pytest.mark.parametrize("bound", [{}, {"absolute": 2}])
@pytest.mark.parametrize("level", ["balanced", "best"])
def test_mixing_stays_where_it_saves(bound, level):
    free, size = sizes(stripes(), bound, level)
    assert size["mixing"] < 0.96 * size["linear"]
    assert free.coder == "mixing"
    assert len(free.payload) == size["mixing"]


@pytest.fixture
def ran(monkeypatch):
    """The coders that ran, and on how many rows; without what is tried on skewed noise."""
    ran, run = [], Attempts._run

    def noted(self, coder, *arguments):
        ran.append((coder, self.samples.frames.shape[1]))
        return run(self, coder, *arguments)

    monkeypatch.setattr(Attempts, "_run", noted)
    monkeypatch.setattr(Attempts, "flat", lambda self: None)
    return ran


def opened(frames, **settings):
    """What is tried on frames, lossless."""
    bound = ErrorBound().of_frames(frames[..., None])
    return codec._attempts(*codec._opened(frames, None), bound, Settings(**settings))


def test_a_clear_sample_spares_the_other_coder(ran):
    for frames, coder in ((noise(), "linear"), (stripes(), "mixing")):
        ran.clear()
        codec.encode_chunk(frames, ErrorBound().of_frames(frames[..., None]), Settings())
        assert [name for name, rows in ran if rows == 160] == [coder]
        assert sorted(name for name, rows in ran if rows < 160) == ["linear", "mixing"]


@pytest.mark.parametrize(
    ("shares", "coder"),
    [
        ([0.005], "linear"),
        ([0.04], "mixing"),
        ([0.019, 0.021], "mixing"),  # in doubt, so the second sample decides
        ([0.021, 0.019], "linear"),
        ([0.029, None], None),
    ],
)
def test_a_doubtful_sample_is_followed_by_another(monkeypatch, ran, shares, coder):
    """With either, the chunk is encoded once. Both coders run only if a sample is no guide."""
    sides, left = [], iter(shares)

    def saves(self, sample):
        sides.append(sample.samples.frames.shape[1])
        return next(left)

    monkeypatch.setattr(Attempts, "_mixing_saves_in", saves)
    frames = noise()
    codec.encode_chunk(frames, ErrorBound().of_frames(frames[..., None]), Settings())
    assert len(sides) == len(shares)
    assert sorted(name for name, _ in ran) == ([coder] if coder else ["linear", "mixing"])


def test_a_second_sample_looks_elsewhere():
    attempt = opened(noise())
    first, second = (attempt._sample(patches).samples.frames for patches in (2, 3))
    assert abs(first.size - second.size) < 0.1 * first.size
    assert not np.isin(second[0, 0], first[0, 0]).all()


def test_samples_of_what_hardly_changes_are_not_believed(ran):
    """Few events, which a part may well lack: what is all there says more."""
    frames = (np.random.default_rng(0).random((16, 160, 160)) < 0.01).astype("u1")
    assert opened(frames)._mixing_saves() is None
    ran.clear()
    found = codec.encode_chunk(frames, ErrorBound().of_frames(frames[..., None]), Settings())
    assert {name for name, rows in ran if rows == 160} == {"mixing", "linear"}
    assert len(found.payload) < frames.size / 8


@pytest.mark.parametrize(
    "settings",
    [
        {"level": "fast"},
        {"level": "best"},
        {"coder": "mixing"},
        {"coder": "stages"},
        {"predictor": "prednet"},
    ],
)
def test_where_nothing_hangs_on_it_no_sample_is_taken(monkeypatch, settings):
    model = store.default(1) if "predictor" in settings else None
    attempt = opened(noise(), **settings)
    monkeypatch.setattr(Attempts, "_mixing_saves_in", None)
    monkeypatch.setattr(Attempts, "flat", lambda self: None)
    assert attempt.smallest(model).payload


@pytest.mark.parametrize("options", [{}, {"tile": (32, 64)}, {"absolute": 2}])
def test_the_coders_of_a_file_do_not_depend_on_threads(tmp_path, options):
    """Each step and tile chooses for itself: noise, then waves."""
    stack = np.concatenate([noise((8, 64, 64)), stripes()[:8, :64, :64]])
    found = []
    for threads in (1, 2, 5):
        path = tmp_path / f"{threads}.h5"
        write(stack, path, chunk_frames=4, threads=threads, **options)
        with h5py.File(path) as file:
            data = file["scan/data"].id
            offsets = [data.get_chunk_info(n).chunk_offset for n in range(data.get_num_chunks())]
            found.append([data.read_direct_chunk(offset)[1] for offset in sorted(offsets)])
    assert found[0] == found[1] == found[2]
    assert len({bitstream.peek(payload)[0].coder for payload in found[0]}) > 1


def test_parts_of_a_sample_are_spread_and_inside():
    for length, side, parts in ((512, 128, 2), (9, 64, 2), (100, 7, 3), (1, 1, 1), (64, 64, 2)):
        found = attempts._middles(length, side, parts)
        assert found.min() >= 0
        assert found.max() < length
        assert min(side, length) <= found.size < min(side, length) + parts
    assert attempts._middles(100, 20, 1).tolist() == list(range(40, 60))
    assert attempts._middles(100, 20, 2).tolist() == [*range(20, 30), *range(70, 80)]


def test_a_network_must_pay_for_the_mixing_coder_too(monkeypatch):
    """2.5% beside the linear coder is not enough: 2% are asked of mixing, 1% of a network."""
    frames, model = noise(), store.default(1)
    bound = ErrorBound().of_frames(frames[..., None])
    linear = codec.encode_chunk(frames, bound, Settings())
    assert linear.coder == "linear"
    tried, run = [], Attempts._run

    def flattered(self, coder, quantizer="uniform", network=None):
        if network is None:
            return run(self, coder, quantizer)
        tried.append(self.samples.frames.shape)
        share = 0.975 if self.samples.frames.shape[:3] == frames.shape else 0.972
        plain, size = run(self, "mixing"), int(share * len(run(self, "linear").payload))
        return replace(plain, payload=plain.payload[:size], model=network)

    monkeypatch.setattr(Attempts, "_run", flattered)
    found = codec.encode_chunk(frames, bound, Settings(), model=model)
    assert found.payload == linear.payload
    assert len(tried) == 2  # in the sample it saved nearly enough


def gappy(shape):
    """Ships' weather: means of what few read, and none where no ship went that month."""
    rng = np.random.default_rng(2)
    field = sum(np.sin(axis / 9) for axis in np.ogrid[tuple(map(slice, shape))])
    field = field + rng.normal(0, 0.1, shape)
    return np.where(rng.random(shape) < 0.4, np.nan, field).astype("f4")


@pytest.mark.parametrize("level", ["fast", "balanced"])
@pytest.mark.parametrize("bound", [{}, {"absolute": 0.01}])
def test_best_is_never_larger_where_the_coder_is_the_same(level, bound):
    """The linear coder may choose what stands in holes at every level that runs it."""
    frames = gappy((12, 120, 120))
    limits = ErrorBound(**bound).of_frames(frames[..., None])
    other, best = (codec.encode_chunk(frames, limits, Settings(level=n)) for n in (level, "best"))
    assert len(best.payload) <= len(other.payload)


def waves(shape):
    """Smooth and slow: what is predicted is nearly right."""
    t, y, x = np.ogrid[tuple(map(slice, shape))]
    field = np.sin(x / 11 + t / 9) * np.cos(y / 13 - t / 7) * 3 + np.sin(x * y / 2000)
    return (field + np.random.default_rng(2).normal(0, 0.02, shape)).astype("f4")


def saturated(shape):
    """Waves that the range of a sensor cuts off."""
    return np.clip(3 * waves(shape), -1, 1).astype("f4")


@pytest.mark.parametrize("shape", [(6, 48, 64), (12, 160, 176)])  # all of it, and a sample
@pytest.mark.parametrize(("scene", "centred"), [(saturated, False), (gappy, True), (waves, True)])
def test_cells_lie_around_predictions_where_that_is_smaller(monkeypatch, scene, centred, shape):
    frames, settings = scene(shape), Settings(level="best")
    bound = ErrorBound(absolute=0.03).of_frames(frames[..., None])
    tried = []
    monkeypatch.setattr(Attempts, "or_by", lambda self, scale, _: tried.append(scale) or self)
    on_grid = codec.encode_chunk(frames, bound, settings).payload
    monkeypatch.setattr(Attempts, "or_by", lambda self, scale, _: replace(self, scale=scale))
    around = codec.encode_chunk(frames, bound, settings).payload
    monkeypatch.undo()
    assert (len(around) < len(on_grid)) == centred
    assert len(tried) == 1
    assert codec.encode_chunk(frames, bound, settings).payload == (around if centred else on_grid)


@pytest.mark.parametrize(
    ("noise", "tried_at"), [(0.022, {"fast", "balanced", "best"}), (0.06, {"best"})]
)
def test_levels_that_are_compressed_again_seldom_try_cells_around_predictions(
    monkeypatch, noise, tried_at
):
    """Only where predictions are so good that cells around them clearly save bytes."""
    y, x = np.ogrid[:48, :64]
    field = np.sin(x / 11) * np.cos(y / 13)
    frames = field + np.random.default_rng(0).normal(0, noise, (6, 48, 64))
    frames = frames.astype("f4")
    bound = ErrorBound(absolute=0.05).of_frames(frames[..., None])
    tried = set()
    for level in EFFORTS:
        monkeypatch.setattr(Attempts, "or_by", lambda self, *_, at=level: tried.add(at) or self)
        codec.encode_chunk(frames, bound, Settings(level=level))
    assert tried == tried_at


@pytest.mark.parametrize("level", ["fast", "balanced"])
def test_cells_around_predictions_save_much_of_noise_that_is_smaller_than_they_are(level):
    y, x = np.ogrid[:200, :220]
    field = 3 * np.sin(x / 11) * np.cos(y / 13)
    frames = field + np.random.default_rng(0).normal(0, 0.022, (6, 200, 220))
    frames = frames.astype("f4")
    bound = ErrorBound(absolute=0.05).of_frames(frames[..., None])
    made = codec.encode_chunk(frames, bound, Settings(level=level))
    grid = levels.Grid(frames.dtype, step=0.1)
    grid = grid.fitted(grid.codes(frames).min(), grid.codes(frames).max())
    on_grid = codec.encode_chunk(frames, ChunkBound(), Settings(level=level), scale=grid)
    back = codec.decode_chunk(made.payload)
    assert abs(back - frames).max() <= 0.05
    assert len(made.payload) < 0.8 * len(on_grid.payload)


def multiplied(shape):
    """Photons behind a multiplier: their noise has a sharp lower end and a long upper one."""
    return (50 + np.random.default_rng(0).exponential(900, shape)).astype("u2")


@pytest.mark.parametrize("level", EFFORTS)
@pytest.mark.parametrize("shape", [(4, 64, 64), (8, 160, 176)])  # all of it, and a sample
@pytest.mark.parametrize("absolute", [None, 4])
def test_skewed_noise_is_not_predicted(level, shape, absolute):
    frames = multiplied(shape)
    bound = ErrorBound(absolute=absolute).of_frames(frames[..., None])
    entropy = np.log2(np.e * 900 / (2 * (absolute or 0) + 1)) * frames.size / 8
    encoded = codec.encode_chunk(frames, bound, Settings(level=level))
    predicted = codec.encode_chunk(frames, bound, Settings(coder="mixing"))
    assert len(encoded.payload) < 1.01 * entropy + 1500  # of tables
    assert len(encoded.payload) < 0.98 * len(predicted.payload)
    back = codec.decode_chunk(encoded.payload)
    assert np.abs(back.astype(int) - frames).max() <= (absolute or 0)


def test_other_noise_is_predicted(monkeypatch):
    ran, run = [], Attempts._run

    def noted(self, *arguments, **options):
        ran.append(options.get("flat"))
        return run(self, *arguments, **options)

    monkeypatch.setattr(Attempts, "_run", noted)
    for frames in (noise(), stripes(), waves((8, 96, 96)), noise()[:, :3, :3]):
        bound = ErrorBound().of_frames(frames[..., None])
        codec.encode_chunk(frames, bound, Settings(level="fast"))
    assert len(ran) == 4
    assert not any(ran)


def test_what_a_linear_prediction_leaves():
    """Of noise around a mean the noise; of all of a frame, not of its beginning alone."""
    noise = np.random.default_rng(0).normal(1000, 1, (1, 80, 80, 1))
    left = predictability.residuals(noise)
    assert left.std() < 1.05
    for unit in (2.0**-900, 2.0**900):
        np.testing.assert_allclose(predictability.residuals(noise * unit), left * unit)
    np.testing.assert_array_equal(
        predictability.residuals(np.concatenate([noise, 0 * noise], axis=3)), left
    )
    noise[:, :40] = 1000
    assert predictability.residuals(noise).std() > 0.5


def test_how_skewed_noise_is():
    """Beside neighbours that say as little of it as of other noise."""
    rng = np.random.default_rng(0)
    y, x = np.ogrid[:90, :80]
    scene = 500 * np.sin(x / 12) * np.cos(y / 15)
    for draw, least, most in (
        (rng.normal, -0.1, 0.1),
        (rng.exponential, 0.2, 0.6),
        (lambda *a: -rng.exponential(*a), -0.6, -0.2),
    ):
        shape = (4, 90, 80)
        made = draw(0, 50, shape) if draw == rng.normal else draw(50, shape)
        assert least < predictability.skew((scene + made)[..., None]) < most
    assert predictability.skew(np.zeros((2, 9, 9, 1))) == 0
    lone = np.zeros((1, 4, 4, 1), "u1")
    lone[0, 0, 2] = 4  # beside the samples that are looked at
    assert predictability.skew(lone) == 0
    assert abs(predictability.skew(rng.normal(0, 1e307, (2, 30, 40, 1)))) < 0.3
    assert predictability.skew(np.ones((2, 3, 3, 1), "u2")) == 0
