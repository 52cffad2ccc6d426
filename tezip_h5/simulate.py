"""Simulated stacks: what a camera sees of particles in a fluid, and a smooth moving field.

Seeded and small, for the demo, the examples and the tests.
"""

from __future__ import annotations

import numpy as np

__all__ = ["colour_sequence", "detector_sequence", "float_field", "spots"]


def detector_sequence(frames=48, height=256, width=256, dtype="uint16", seed=0) -> np.ndarray:
    """Simulate fluorescent particles that drift and diffuse, seen by a noisy camera.

    Brownian steps are normal with variance 2 D t (Einstein, 1905); a particle's image is a
    Gaussian spot (Zhang, Zerubia, Olivo-Marin, Applied Optics 46, 2007); photons are counted
    with Poisson's noise, and the camera adds read noise, an offset and a gain (EMVA 1288).
    Particles that leave on one side come in on the other.

    Parameters
    ----------
    frames, height, width : int
    dtype : "uint8" | "uint16"
    seed : int

    Returns
    -------
    array (frames, height, width), in camera counts, cut off at the range of `dtype`

    Examples
    --------
    >>> detector_sequence(3, 32, 32).shape
    (3, 32, 32)
    """
    rng = np.random.default_rng(seed)
    particles = max(4, height * width // 900)
    place = rng.uniform(0, (height, width), (particles, 2))
    photons = rng.gamma(4.0, 60.0, particles)  # at the centre of a spot
    drift, diffusion = np.array([0.4, 1.1]), 0.15  # pixels and square pixels per frame
    y, x = np.mgrid[:height, :width]
    glow = 30 + 25 * np.exp(-((y / height - 0.4) ** 2 + (x / width - 0.6) ** 2) / 0.3)
    full = np.iinfo(dtype).max
    gain, offset, read_noise = (2.2, 100.0, 1.6) if full > 255 else (0.35, 8.0, 0.6)
    stack = np.empty((frames, height, width), dtype)
    for t in range(frames):
        expected = glow + spots(place, photons, height, width)
        counts = gain * rng.poisson(expected) + offset
        counts += rng.normal(0.0, read_noise, counts.shape)
        stack[t] = np.clip(np.rint(counts), 0, full)
        step = rng.normal(0.0, np.sqrt(2 * diffusion), place.shape)
        place = (place + drift + step) % (height, width)
    return stack


def spots(place, photons, height, width, sigma=1.7) -> np.ndarray:
    """Sum of Gaussian spots, float64 (height, width), each drawn on a small patch."""
    reach = int(np.ceil(4 * sigma))
    offsets = np.arange(-reach, reach + 1)
    corner = np.floor(place).astype(int)
    rows = corner[:, 0, None] + offsets
    columns = corner[:, 1, None] + offsets
    profile_y = np.exp(-((rows - place[:, 0, None]) ** 2) / (2 * sigma**2))
    profile_x = np.exp(-((columns - place[:, 1, None]) ** 2) / (2 * sigma**2))
    patches = photons[:, None, None] * profile_y[:, :, None] * profile_x[:, None, :]
    image = np.zeros((height, width))
    where = (rows[:, :, None] % height, columns[:, None, :] % width)
    np.add.at(image, where, patches)
    return image


def colour_sequence(frames=16, height=96, width=128, seed=0) -> np.ndarray:
    """Simulate a colour camera that pans over a smooth scene, with some read noise.

    Returns
    -------
    uint8, shape (frames, height, width, 3), in grey levels of red, green and blue

    Examples
    --------
    >>> colour_sequence(3, 32, 48).shape
    (3, 32, 48, 3)
    """
    rng = np.random.default_rng(seed)
    field = float_field(frames, height, width, seed)
    tints = rng.uniform(20, 60, 3)
    values = 128 + field[..., None] * tints + rng.normal(0, 2, (frames, height, width, 3))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def float_field(frames=16, height=96, width=128, seed=0, dtype="float32") -> np.ndarray:
    """Simulate a smooth field that a mean flow carries along while its modes disperse.

    A sum of Fourier modes whose power falls with the wave number k as k**-3, as the enstrophy
    range of two-dimensional turbulence (Kraichnan, Physics of Fluids 10, 1967). It is periodic:
    what leaves on one side comes in on the other.

    Parameters
    ----------
    frames, height, width : int
    seed : int
    dtype : "float32" | "float64"

    Returns
    -------
    array (frames, height, width), mean 0 and variance 1 over the whole stack, no unit

    Examples
    --------
    >>> float_field(3, 32, 48).dtype
    dtype('float32')
    """
    rng = np.random.default_rng(seed)
    ky, kx = np.meshgrid(np.fft.fftfreq(height), np.fft.rfftfreq(width), indexing="ij")
    k = np.hypot(ky, kx)
    k[0, 0] = np.inf
    phases = rng.uniform(0, 2 * np.pi, k.shape)
    frequency = 0.7 * ky + 1.3 * kx + 0.15 * np.where(np.isinf(k), 0.0, k) ** 0.5
    fields = [
        np.fft.irfft2(k**-2.0 * np.exp(1j * (phases + 2 * np.pi * frequency * t)), (height, width))
        for t in range(frames)
    ]
    field = np.array(fields)
    return ((field - field.mean()) / field.std()).astype(dtype)
