"""Simulated scenes for training: objects and textures that move in front of a camera.

Every scene is seeded. They are rough models of whole families, not of any one data set:
textures carried by a flow, objects in front of a background, diffusing particles, a rotating
sample seen through by X-rays, two-dimensional turbulence.
"""

from __future__ import annotations

import numpy as np

from tezip_h5.simulate import spots

__all__ = ["KINDS", "scene"]


def scene(kind: str, frames: int, side: int, seed: int) -> np.ndarray:
    """Simulate one scene.

    Parameters
    ----------
    kind : one of `KINDS`
    frames, side : int
        Number of frames, and their height and width.
    seed : int

    Returns
    -------
    int32 (frames, side, side), 0..4095 counts of a noisy camera

    Examples
    --------
    >>> scene("flow", 3, 32, seed=1).shape
    (3, 32, 32)
    """
    rng = np.random.default_rng((seed, list(_SCENES).index(kind)))
    return _camera(_SCENES[kind](frames, side, rng), rng)


def _camera(light: np.ndarray, rng) -> np.ndarray:
    """Light (T, H, W) of any unit -> counts, with offset, gain, photon and read noise, flicker."""
    light = (light - light.min()) / max(float(np.ptp(light)), 1e-9)
    if rng.random() < 0.15:
        light = light * rng.uniform(0.8, 1.2, (len(light), 1, 1))
    if rng.random() < 0.3:  # pixels differ
        light = light * (1 + rng.normal(0, rng.uniform(0, 0.05), light.shape[1:]))
    full = 10 ** rng.uniform(1.0, 3.5)  # counts of full light
    noise = full * 10 ** rng.uniform(-4, -1.2)
    counts = light * full
    if rng.random() < 0.5:
        counts = rng.normal(counts, np.sqrt(np.maximum(counts, 0) * rng.uniform(0, 0.5)) + 1e-6)
    counts = rng.normal(counts, noise) + rng.uniform(0, 0.1) * full
    return np.clip(np.rint(counts), 0, 4095).astype(np.int32)


def _noise(side: int, exponent: float, rng) -> np.ndarray:
    """Periodic random texture with a spectrum of k**-exponent, mean 0, variance 1."""
    k = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]) * side
    k[0, 0] = np.inf
    phases = rng.uniform(0, 2 * np.pi, k.shape)
    field = np.fft.irfft2(k**-exponent * np.exp(1j * phases), (side, side))
    return (field - field.mean()) / field.std()


def _texture(side: int, rng) -> np.ndarray:
    """A random texture: smooth, rough, or in patches with edges."""
    texture = _noise(side, rng.uniform(0.6, 2.3), rng)
    if rng.random() < 0.5:
        steps = rng.integers(1, 5)
        texture = np.floor(_noise(side, 2.5, rng) * steps) / steps + rng.uniform(0, 0.3) * texture
    return texture


def _sample(texture: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Bilinear samples of a periodic texture."""
    side = texture.shape[0]
    i, j = np.floor(y).astype(int), np.floor(x).astype(int)
    v, u = y - i, x - j
    i, j, below, right = i % side, j % side, (i + 1) % side, (j + 1) % side
    upper = texture[i, j] * (1 - u) + texture[i, right] * u
    lower = texture[below, j] * (1 - u) + texture[below, right] * u
    return upper * (1 - v) + lower * v


def _motion(side: int, rng, fast: float):
    """A velocity field: shift, rotation, zoom, and a smooth random part; pixels per frame."""
    y, x = np.mgrid[:side, :side] - rng.uniform(0, side, (2, 1, 1))
    shift = rng.normal(0, 1, 2) * fast
    zoom, turn, shear = rng.normal(0, fast / side, 3)
    wander = fast * rng.uniform(0, 0.5)
    vy = shift[0] + zoom * y + turn * x + wander * _noise(side, 3.0, rng)
    vx = shift[1] + zoom * x - turn * y + shear * y + wander * _noise(side, 3.0, rng)
    return vy, vx


def _flow(frames, side, rng):
    texture = _texture(256, rng)
    vy, vx = _motion(side, rng, 10 ** rng.uniform(-1, 0.8))
    y, x = np.mgrid[:side, :side].astype(float)
    scale = rng.uniform(0.4, 1.2)
    return np.stack(
        [_sample(texture, (y - t * vy) * scale, (x - t * vx) * scale) for t in range(frames)]
    )


def _objects(frames, side, rng):
    background = _texture(256, rng)[:side, :side] * rng.uniform(0.1, 1)
    surface, shape = _texture(256, rng), _noise(256, 2.5, rng)
    threshold = rng.uniform(0, 1.2)
    vy, vx = rng.normal(0, 10 ** rng.uniform(-1, 0.6), 2)
    y, x = np.mgrid[:side, :side].astype(float)
    out = []
    for t in range(frames):
        inside = np.clip((_sample(shape, y - t * vy, x - t * vx) - threshold) * 8 + 0.5, 0, 1)
        out.append(background + inside * (2 + _sample(surface, y - t * vy, x - t * vx)))
    return np.stack(out)


def _particles(frames, side, rng):
    count = int(rng.integers(10, 120) * (side / 96) ** 2) + 1
    place = rng.uniform(0, side, (count, 2))
    brightness = rng.gamma(4.0, 1.0, count) * rng.choice([-1.0, 1.0], p=[0.2, 0.8])
    drift = rng.normal(0, rng.uniform(0, 1.5), 2)
    diffusion, sigma = 10 ** rng.uniform(-2, 0.3), rng.uniform(0.8, 4.0)
    velocity = rng.normal(0, rng.uniform(0, 1.0), (count, 2))
    out = []
    for _ in range(frames):
        out.append(spots(place, brightness, side, side, sigma))
        step = rng.normal(0, np.sqrt(2 * diffusion), place.shape)
        place = (place + drift + velocity + step) % side
    return np.stack(out) + rng.uniform(0, 2) * _noise(256, 3.0, rng)[:side, :side]


def _rotation(frames, side, rng):
    count = int(rng.integers(15, 120))
    radius = rng.uniform(0, 0.45 * side, count)
    phase = rng.uniform(0, 2 * np.pi, count)
    height = rng.uniform(0, side, count)
    density = rng.gamma(2.0, 1.0, count) * rng.choice([-0.3, 1.0], count)
    sizes = rng.uniform(0.8, 6.0, 3)
    step = np.deg2rad(rng.uniform(0.3, 4.0))
    group = rng.integers(0, 3, count)
    out = []
    for t in range(frames):
        x = side / 2 + radius * np.cos(phase + t * step)
        place = np.stack([height, x], 1)
        out.append(
            sum(
                spots(place[group == i], density[group == i], side, side, sigma)
                for i, sigma in enumerate(sizes)
            )
        )
    thickness = np.stack(out)
    return np.exp(-thickness / max(float(thickness.max()), 1e-9) * rng.uniform(0.3, 3))


def _turbulence(frames, side, rng):
    """Vorticity of a decaying two-dimensional flow, pseudo-spectral (Orszag, 1971)."""
    n = 128
    k = np.fft.fftfreq(n, 1 / n)
    ky, kx = np.meshgrid(k, k[: n // 2 + 1].copy(), indexing="ij")
    kx = np.abs(kx)
    square = kx**2 + ky**2
    inverse = np.divide(1.0, square, out=np.zeros_like(square), where=square > 0)
    kept = (np.abs(ky) < n / 3) & (kx < n / 3)
    peak = rng.uniform(4, 16)
    shape = square * np.exp(-square / peak**2)
    w = np.fft.rfft2(rng.normal(0, 1, (n, n))) * np.sqrt(shape) * kept
    w *= n * n / max(np.abs(np.fft.irfft2(w)).std() * n * n, 1e-9)
    speed = np.fft.irfft2(1j * ky * inverse * w).std() + 1e-9
    pixels = 10 ** rng.uniform(-1, 0.3)  # moved per frame
    substeps = int(np.ceil(12 * pixels))  # the fastest fluid stays far below a pixel per step
    dt = pixels * (2 * np.pi / n) / speed / substeps
    viscosity = speed * 10 ** rng.uniform(-3, -2) / peak

    def tendency(w):
        u, v = np.fft.irfft2(1j * ky * inverse * w), np.fft.irfft2(-1j * kx * inverse * w)
        wy, wx = np.fft.irfft2(1j * ky * w), np.fft.irfft2(1j * kx * w)
        return -np.fft.rfft2(u * wx + v * wy) * kept

    decay = np.exp(-viscosity * square * dt)
    out = []
    for step in range(frames * substeps):
        if step % substeps == 0:
            out.append(np.fft.irfft2(w))
        half = w + 0.5 * dt * tendency(w)
        w = (w + dt * tendency(half)) * decay
    tile = np.tile(np.stack(out), (1, -(-side // n), -(-side // n)))
    return tile[:, :side, :side]


_SCENES = {
    "flow": _flow,
    "objects": _objects,
    "particles": _particles,
    "rotation": _rotation,
    "turbulence": _turbulence,
}
KINDS = tuple(_SCENES)
"""Kinds of scenes."""
