"""Which frames become keyframes, as judged by some of their rows."""

import numpy as np
import pytest

from tezip_h5 import Settings
from tezip_h5.bounds import ChunkBound
from tezip_h5.chunk.planning import plan_kinds, sample_rows
from tezip_h5.windows import Kind

STAGES = Settings(coder="stages")


def letters(frames, settings=STAGES, bound=None):
    kinds = plan_kinds(frames, bound or ChunkBound(), settings)
    return "".join(Kind(kind).name[0] for kind in kinds)


def scene(height=300):
    """Noise that stays, then another image, which is smooth and stays as well."""
    noise = np.random.default_rng(0).integers(0, 200, (height, 24))
    smooth = np.add.outer(np.arange(height), np.arange(24))
    return np.stack([noise, noise, smooth, smooth]).astype("u2")


def test_rows_are_bands_from_the_first_row_to_the_last():
    bands = sample_rows(100, 4).reshape(4, 8)
    assert (np.diff(bands, axis=1) == 1).all()
    assert bands[:, 0].tolist() == [0, 30, 61, 92]
    for height in (1, 7, 8, 63):  # half of a frame is all of it
        assert sample_rows(height, 4).tolist() == list(range(height))
    assert np.unique(sample_rows(64, 4)).size == 32


@pytest.mark.parametrize("height", [300, 129, 37])  # by bands of rows, and by all of them
def test_a_new_scene_becomes_a_keyframe(height):
    frames = scene(height)
    assert letters(frames) == "KPKP"
    around = ChunkBound(pointwise=0.01)
    assert letters(frames.astype(">f4"), bound=around) == "KPKP"
    assert letters(frames[:1]) == "K"


def test_where_settings_say_it_nothing_is_judged():
    assert letters(scene(), Settings(coder="stages", predictor="none")) == "KKKK"
    assert letters(scene(), Settings(coder="stages", window=2, warmup=1)) == "WKPK"
    assert letters(scene(), Settings()) == "KPPP"  # the coder sees to it itself


def test_holes_do_not_hide_a_new_scene():
    """Beside 2**32 - 1 there were no levels, and nothing could be judged."""
    frames = scene().astype("u4")
    frames[:, :, 5] = 2**32 - 1
    assert letters(frames) == "KPKP"
    frames[:, :, 5] = np.arange(300) * 10**7  # too wide, but no holes
    assert letters(frames) == "KPPP"


def test_channels_are_judged_by_their_own_bounds():
    """Noise that may become anything does not speak for the frame before."""
    frames = np.zeros((2, 300, 24, 2), "u1")
    rng = np.random.default_rng(0)
    frames[..., 0] = rng.integers(0, 256, (300, 24))
    frames[0, ..., 1] = rng.integers(0, 4, (300, 24))
    assert letters(frames) == "KP"
    assert letters(frames, bound=ChunkBound(absolute=np.array([[255.0, 0.0]] * 2))) == "KK"
