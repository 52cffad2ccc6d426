import numpy as np
import pytest

from tezip_h5 import windows
from tezip_h5.windows import Kind


def letters(kinds):
    return "".join(Kind(kind).name[0] for kind in kinds)


@pytest.mark.parametrize(
    ("frames", "window", "warmup", "expected"),
    [
        (5, None, 0, "KPPPP"),
        (5, 2, 0, "KPKPK"),
        (5, 1, 0, "KKKKK"),
        (7, 3, 2, "WWKPPKP"),
        (2, 5, 3, "WW"),
        (1, None, 0, "K"),
    ],
)
def test_fixed(frames, window, warmup, expected):
    assert letters(windows.fixed(frames, window, warmup)) == expected


def test_error_driven_windows_follow_the_scene():
    """A jump in brightness raises the window's mean squared error over the threshold."""
    still = np.full((1, 8, 8), 100, np.int32)
    bright = np.full((1, 8, 8), 180, np.int32)
    chooser = windows.MseWindows(threshold=0.02, full_scale=255.0)
    scene = [still, still, still, bright, bright, still]
    kinds, last = [], np.zeros_like(still)
    for frame in scene:
        kinds.append(chooser.next(frame, last))
        last = frame
    assert letters(kinds) == "KPPKPK"


def test_the_error_is_the_mean_over_the_window():
    """One bad prediction among many good ones stays under the threshold."""
    chooser = windows.MseWindows(threshold=0.02, full_scale=100.0)
    zero, ten = np.zeros((1, 4, 4), np.int32), np.full((1, 4, 4), 25, np.int32)
    kinds = [chooser.next(zero, zero) for _ in range(4)] + [chooser.next(ten, zero)]
    assert letters(kinds) == "KPPPP"  # 0.0625 / 4 = 0.0156
    assert chooser.next(ten, zero) == Kind.KEYFRAME  # 0.125 / 5 = 0.025


def test_warm_up_comes_before_error_driven_windows():
    chooser = windows.MseWindows(threshold=1, full_scale=1.0, warmup=2)
    frame = np.zeros((1, 2, 2), np.int32)
    assert letters(chooser.next(frame, frame) for _ in range(4)) == "WWKP"


def test_planned_windows_follow_what_is_cheaper():
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(32), np.arange(64)).astype(np.int32) * 3
    noise = rng.integers(0, 200, smooth.shape).astype(np.int32)
    still = np.stack([noise, noise, noise])[:, None]
    assert letters(windows.planned(still, np.zeros((3, 1), int), 255, 1)) == "KPP"
    moving = np.stack([smooth, noise, smooth])[:, None]
    assert letters(windows.planned(moving, np.zeros((3, 1), int), 1000, 2))[2] == "K"
