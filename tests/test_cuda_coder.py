"""The mixing coder on the device codes what the processor does, bit for bit; in numba's simulator,
where there is no GPU."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from test_mixing import moving, scale_of

from tezip_h5 import FormatError, kernels
from tezip_h5.residual import mixing, motion
from tezip_h5.residual.changes import Changes
from tezip_h5.residual.lessons import Known
from tezip_h5.residual.mixing import MixingDecoder, MixingEncoder
from tezip_h5.settings import Settings

LEVELS = ["balanced", "best"]


def encoded(frames, device, level, tolerance=0, keyframes=(0,), guesses=None, top=255, known=None):
    """The section of frames, int32 (T, C, h, w), and their reconstruction."""
    guided = guesses is not None
    settings = Settings(level=level)
    encoder = MixingEncoder(frames.shape[1:], scale_of(top), settings, guided=guided)
    encoder.device = device
    if known is not None:
        encoder.prepare(known)
    tolerances, coded = np.full(frames.shape[1], tolerance), []
    for t, frame in enumerate(frames):
        if t in keyframes:
            coded.append(encoder.keyframe(frame, tolerances))
        else:
            guess = guesses[t] if guided else coded[-1]
            coded.append(encoder.residual(frame, guess, tolerances))
    sections, sizes = encoder.finish()
    assert sum(sizes) == len(sections["residuals"])
    return sections["residuals"], np.stack(coded)


def decoded(section, shape, device, tolerance=0, keyframes=(0,), guesses=None, top=255):
    """Frames of `shape` (T, C, h, w)."""
    decoder = MixingDecoder({"residuals": section}, shape[1:], scale_of(top))
    decoder.device = device
    tolerances, out = np.full(shape[1], tolerance), []
    for t in range(shape[0]):
        if t in keyframes:
            out.append(decoder.keyframe(tolerances))
        else:
            out.append(decoder.residual(guesses[t] if guesses is not None else out[-1], tolerances))
    return np.stack(out)


def agree(frames, **how):
    """Both devices write the same bytes and read the same frames."""
    section, coded = encoded(frames, "cpu", **how)
    on_device, coded_there = encoded(frames, "cuda", **how)
    assert on_device == section
    np.testing.assert_array_equal(coded_there, coded)
    level, known = how.pop("level"), how.pop("known", None)
    back = decoded(section, frames.shape, "cuda", **how)
    np.testing.assert_array_equal(back, coded)
    return section


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("tolerance", [0, 2])
def test_the_same_bytes(level, tolerance):
    frames = moving(5, 2, 19, 21)
    agree(frames, level=level, tolerance=tolerance, keyframes=(0, 3))
