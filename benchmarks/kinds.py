"""Simulate stacks with properties that the ten real stacks do not have, for `run.py`.

    python benchmarks/kinds.py FOLDER
    python benchmarks/run.py FOLDER --threads 2 --results benchmarks/results/kinds

It is easy to tune a codec to the files that it is measured on. These stacks have other properties:
sentinel values in gaps, few values, scaled integers, labels, masks, counts below one, jumps of
brightness, fields smoother than any noise, 64-bit integers and 16-bit floats. They are made with a
fixed seed, and small. They show which codec is smaller, rather than by how much.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

FRAMES, HEIGHT, WIDTH = 16, 224, 256


def smooth(planes: np.ndarray, sigma: float) -> np.ndarray:
    """Apply a Gaussian filter to the last two axes, with periodic edges."""
    down, across = (np.fft.fftfreq(n)[:, None] for n in planes.shape[-2:])
    gain = np.exp(-2 * (np.pi * sigma) ** 2 * (down**2 + across.T**2))
    return np.fft.ifft2(np.fft.fft2(planes) * gain).real


def moved(plane: np.ndarray, down: float, across: float) -> np.ndarray:
    """`plane` shifted by a fraction of a pixel, with periodic edges."""
    turn = np.fft.fftfreq(plane.shape[0])[:, None] * down
    turn = turn + np.fft.fftfreq(plane.shape[1]) * across
    return np.fft.ifft2(np.fft.fft2(plane) * np.exp(-2j * np.pi * turn)).real


def spots(rng, count: int, sigma: float) -> np.ndarray:
    """An image of blurred points at random places, with values from 0 to 1."""
    plane = np.zeros((HEIGHT, WIDTH))
    places = rng.integers(0, HEIGHT, count), rng.integers(0, WIDTH, count)
    plane[places] = rng.uniform(0.3, 1, count)
    plane = np.maximum(smooth(plane, sigma), 0)
    return plane / plane.max()


def made(rng) -> dict[str, np.ndarray]:
    """All stacks by name."""
    y, x = np.indices((HEIGHT, WIDTH))
    times = np.arange(FRAMES)
    radius = np.hypot(y - 100, x - 130)
    halo = np.broadcast_to(30 * np.exp(-radius / 40) + 0.05, (FRAMES, HEIGHT, WIDTH))
    texture = spots(rng, 500, 3)
    drifting = np.stack([moved(texture, 0.6 * t, 0.9 * t) for t in times])
    drifting = np.maximum(drifting, 0)
    out = {}

    counts = rng.poisson(halo)
    for frame in counts:
        places = rng.integers(0, HEIGHT, 40), rng.integers(0, WIDTH, 40)
        frame[places] += rng.lognormal(4, 2, 40).astype(int)
    out["detector_gaps_u32"] = counts.astype("u4")
    out["detector_gaps_u16"] = np.minimum(counts, 60000).astype("u2")
    for name, sentinel in (("detector_gaps_u32", 2**32 - 1), ("detector_gaps_u16", 65535)):
        out[name][:, 70:78] = sentinel
        out[name][:, :, 120:126] = sentinel
    out["counts_as_floats_f32"] = rng.poisson(halo).astype("f4")
    out["counts_as_floats_f32"][:, 70:78] = np.nan

    light = drifting * 3200 + 200
    light = rng.normal(light, 0.4 * np.sqrt(light) + 2).clip(0, 4095)
    out["twelve_bits_in_sixteen_u16"] = light.astype("u2") << 4
    out["packed_f32"] = (light.astype("u2") * 0.01 + 273.15).astype("f4")
    out["packed_f64"] = light.astype("u2") * 0.01 + 273.15

    film = np.maximum(0.8 + 0.6 * smooth(rng.normal(size=(HEIGHT, WIDTH)), 2), 0.05)
    out["electron_counts_u8"] = rng.poisson([moved(film, 0.3 * t, -0.2 * t) for t in times]).clip(
        0, 255
    )
    out["electron_counts_u8"] = out["electron_counts_u8"].astype("u1")

    cells, active = spots(rng, 40, 4), spots(rng, 40, 4)
    glow = [cells * 300 + active * 500 * abs(np.sin(t / 3)) for t in times]
    photons = rng.poisson(np.maximum(np.array(glow) / 20, 0) + 0.3) * 20
    out["two_photon_i16"] = (photons + rng.normal(-5, 6, photons.shape)).round().astype("i2")

    cloud = smooth(rng.normal(size=(FRAMES, HEIGHT, WIDTH)), 3)
    cloud = np.cumsum(cloud, 0)
    out["binary_u8"] = (cloud > 0).astype("u1") * np.uint8(255)
    centres = rng.uniform(0, 1, (60, 2)) * [HEIGHT, WIDTH]
    labels = []
    for _ in times:
        centres = centres + rng.normal(0, 0.8, centres.shape)
        near = np.hypot(y[..., None] - centres[:, 0], x[..., None] - centres[:, 1])
        labels.append(np.where(near.min(-1) < 12, near.argmin(-1) + 1, 0))
    out["labels_u16"] = np.array(labels, "u2")

    scene = spots(rng, 800, 2) * 150 + 30
    flicker = [scene * rng.uniform(0.6, 1.4) + rng.uniform(-8, 8) for _ in times]
    out["flicker_u8"] = rng.normal(flicker, 1.5).clip(0, 255).round().astype("u1")

    sky = np.zeros((HEIGHT, WIDTH))
    sky[rng.integers(0, HEIGHT, 150), rng.integers(0, WIDTH, 150)] = rng.lognormal(5, 1.5, 150)
    sky = smooth(sky, 1.4) * 20
    seen = [moved(sky, *rng.normal(0, 2, 2)) + rng.normal(800, 9, sky.shape) for _ in times]
    out["stars_f32"] = (np.array(seen) / 1.7).astype("f4")

    warm = 28 - 20 * abs(y - HEIGHT / 2) / HEIGHT + cloud / 2
    out["sea_1e20_f32"] = warm.astype("f4")
    out["sea_1e20_f32"][:, smooth(rng.normal(size=(HEIGHT, WIDTH)), 15) > 0.005] = 1e20

    wave = before = spots(rng, 20, 6)
    fields = []
    for step in range(6 * FRAMES):
        around = sum(np.roll(wave, by, axis) for by in (1, -1) for axis in (0, 1)) - 4 * wave
        wave, before = 2 * wave - before + 0.2 * around, wave
        if step % 6 == 0:
            fields.append(wave)
    out["wave_f64"] = np.array(fields)

    # Stacks of NumPy's default dtypes.
    out["counts_gaps_i64"] = rng.poisson(halo)
    out["counts_gaps_i64"][:, 70:78] = np.iinfo("i8").max
    out["labels_i64"] = np.append(0, rng.integers(2**40, size=60))[out["labels_u16"]]
    out["mask_bool"] = cloud > 0.3
    out["normalised_f16"] = (light / 4095).astype("f2")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for name, stack in made(np.random.default_rng(5)).items():
        np.save(args.folder / f"{name}.npy", stack)


if __name__ == "__main__":
    main()
