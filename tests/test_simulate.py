import time

import numpy as np
import pytest

from tezip_h5 import simulate
from tezip_h5.simulate import colour_sequence, detector_sequence, float_field

SIZE = (5, 24, 40)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_detector_shape_and_dtype(dtype):
    stack = detector_sequence(*SIZE, dtype=dtype)
    assert stack.shape == SIZE
    assert stack.dtype == dtype


def test_the_default_stack_stays_within_the_camera_s_range():
    """Few samples, if any, are clipped: neither the noise nor the spots are cut off."""
    for dtype in ("uint8", "uint16"):
        stack = detector_sequence(4, dtype=dtype)
        clipped = (stack == 0) | (stack == np.iinfo(dtype).max)
        assert clipped.mean() < 1e-3


@pytest.mark.parametrize("make", [detector_sequence, colour_sequence, float_field])
def test_the_seed_decides_everything(make):
    assert make(*SIZE, seed=3).tobytes() == make(*SIZE, seed=3).tobytes()
    assert make(*SIZE, seed=3).tobytes() != make(*SIZE, seed=4).tobytes()


def test_shot_noise_is_poisson(monkeypatch):
    """On a static scene the variance is linear in the mean: gain * signal + read noise."""
    ramp = np.tile(np.linspace(0, 400, 64), (64, 1))
    monkeypatch.setattr(simulate, "spots", lambda *_: ramp)
    stack = detector_sequence(300, 64, 64).astype(np.float64)
    mean, variance = stack.mean(0).ravel(), stack.var(0, ddof=1).ravel()
    gain, floor = np.polyfit(mean - 100, variance, 1, w=1 / mean)
    assert gain == pytest.approx(2.2, rel=0.02)
    rounding = 1 / 12
    assert floor == pytest.approx(1.6**2 + rounding, abs=6)
    photons = (mean - 100) / 2.2
    excess = variance / (2.2**2 * photons + 1.6**2 + rounding)
    assert excess.mean() == pytest.approx(1, rel=0.02)
    for share in np.array_split(excess[np.argsort(mean)], 4):  # in the dark as in the light
        assert share.mean() == pytest.approx(1, rel=0.03)


def test_noise_is_independent_from_frame_to_frame(monkeypatch):
    monkeypatch.setattr(simulate, "spots", lambda *_: np.full((64, 64), 100.0))
    stack = detector_sequence(40, 64, 64).astype(np.float64)
    noise = stack - stack.mean(0)
    assert abs((noise[1:] * noise[:-1]).mean() / noise.var() + 1 / 40) < 0.01


@pytest.fixture(scope="module")
def places():
    """Where the particles are: float64 (frame, particle, 2), across the edges unwrapped."""
    kept = []
    draw = simulate.spots

    def keep(place, *rest):
        kept.append(place)
        return draw(place, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulate, "spots", keep)
        detector_sequence(60, 128, 192)
    size = np.array([128, 192])
    assert all(((place >= 0) & (place < size)).all() for place in kept)
    steps = (np.diff(kept, axis=0) + size / 2) % size - size / 2
    return np.cumsum(steps, axis=0)


def test_particles_drift_together(places):
    velocity = (places[-1] - places[0]).mean(0) / (len(places) - 1)
    assert velocity == pytest.approx([0.4, 1.1], abs=0.05)


def test_particles_diffuse(places):
    """Around the drift, the mean squared displacement is 4 D t (Einstein, 1905), D = 0.15."""
    times = np.arange(len(places))[:, None, None]
    own = places - times * np.array([0.4, 1.1])
    for lag in (1, 2, 4):
        squared = ((own[lag:] - own[:-lag]) ** 2).sum(-1)
        assert squared.mean() == pytest.approx(4 * 0.15 * lag, rel=0.15)


def test_the_image_moves_with_the_flow():
    """The cross-correlation of frames 10 apart peaks at 10 times the drift."""
    stack = detector_sequence(40).astype(np.float64)
    spectra = np.fft.rfft2(stack - stack.mean(0))
    power = (spectra[10:] * spectra[:-10].conj()).sum(0)
    correlation = np.fft.irfft2(power, stack.shape[1:])
    peak = np.unravel_index(correlation.argmax(), correlation.shape)
    assert np.abs(np.array(peak) - [4, 11]).max() <= 1


def test_a_spot_is_a_gaussian_that_wraps_round_the_edges():
    image = simulate.spots(np.array([[0.0, 0.0]]), np.array([50.0]), 32, 40)
    assert image.argmax() == 0
    assert image[0, 0] == pytest.approx(50)
    assert image.sum() == pytest.approx(50 * 2 * np.pi * 1.7**2, rel=1e-3)
    np.testing.assert_allclose(image[1:], image[:0:-1])
    np.testing.assert_allclose(image[:, 1:], image[:, :0:-1])
    inside = simulate.spots(np.array([[16.0, 20.0]]), np.array([50.0]), 32, 40)
    np.testing.assert_allclose(np.roll(image, (16, 20), (0, 1)), inside)


def test_spots_add_up_where_they_overlap():
    place, photons = np.array([[16.0, 20.0], [17.5, 19.0]]), np.array([50.0, 30.0])
    alone = [simulate.spots(place[i : i + 1], photons[i : i + 1], 32, 40) for i in (0, 1)]
    np.testing.assert_allclose(simulate.spots(place, photons, 32, 40), sum(alone))


def test_colour_sequence():
    stack = colour_sequence(*SIZE)
    assert stack.shape == (*SIZE, 3)
    assert stack.dtype == np.uint8
    assert 20 < stack.std() < 80
    red, green = stack[..., 0].ravel(), stack[..., 1].ravel()
    assert np.corrcoef(red, green)[0, 1] > 0.9  # one scene, in two tints
    assert np.ptp([stack[..., channel].std() for channel in range(3)]) > 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float_field(dtype):
    field = float_field(8, 48, 63, dtype=dtype)
    assert field.shape == (8, 48, 63)
    assert field.dtype == dtype
    assert field.mean() == pytest.approx(0, abs=1e-5)
    assert field.std() == pytest.approx(1, rel=1e-5)
    assert np.diff(field, axis=2).std() < 0.5  # smooth in space
    assert 0.01 < np.diff(field, axis=0).std() < 0.5  # and moving


def test_float_field_is_carried_along():
    """Frames 10 apart match where the flow took them: up, and left with the waves on it."""
    field = float_field(11, 96, 128)
    correlation = np.fft.irfft2(np.fft.rfft2(field[10]) * np.fft.rfft2(field[0]).conj())
    row, column = np.unravel_index(correlation.argmax(), correlation.shape)
    assert abs((row - 96) + 7) <= 1
    assert -40 < column - 128 < -13
    moved = np.roll(field[0], (row, column), (0, 1))
    assert np.abs(field[10] - moved).mean() < 0.5 * np.abs(field[10] - field[0]).mean()


def test_the_default_stack_takes_little_time():
    started = time.process_time()
    detector_sequence()
    assert time.process_time() - started < 3  # a tenth of it, usually
