"""Samples that are stored exactly: where they are, and what they are."""

import naive_payload
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tezip_h5 import FormatError
from tezip_h5.chunk.exceptions import ExceptionReader, ExceptionWriter, parts


def packed(masks, frames):
    writer = ExceptionWriter()
    for bad, frame in zip(masks, frames, strict=True):
        writer.add(bad, frame)
    return writer.pack()


def read(section, masks, dtype):
    """Frames of zeros with their exceptions put in."""
    g, h, w, channels = masks.shape
    reader = ExceptionReader(section or None, (g, h, w), channels, np.dtype(dtype))
    found = np.zeros(masks.shape, dtype)
    for frame in found:
        reader.apply(frame)
    reader.finish()
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 12), st.integers(1, 3)),
    st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]),
    st.sampled_from(["still", "channels", "moving"]),
    st.integers(0, 2**32 - 1),
)
def test_masks_and_samples_come_back(shape, share, kind, seed):
    rng = np.random.default_rng(seed)
    masks = rng.random(shape) < share
    if kind == "still":
        masks[:] = masks[:1]
    if kind == "channels":
        masks[:] = masks[..., :1]
    frames = rng.integers(1, 2**16, shape).astype("<u2")
    section = packed(masks, frames)
    assert (section == b"") == (not masks.any())
    np.testing.assert_array_equal(read(section, masks, "<u2"), np.where(masks, frames, 0))
    if section:
        assert sum(parts(section).values()) == len(section)
        plain = np.zeros(shape, "<u2")
        naive_payload.replace(list(plain), section)
        np.testing.assert_array_equal(plain, np.where(masks, frames, 0))


def test_frames_without_exceptions_before_and_between():
    frames = np.arange(1, 1 + 5 * 6 * 7, dtype="<i4").reshape(5, 6, 7, 1)
    masks = np.zeros(frames.shape, bool)
    masks[2, 3, 4] = masks[4, 0, 0] = True
    section = packed([m if m.any() else None for m in masks], frames)
    np.testing.assert_array_equal(read(section, masks, "<i4"), np.where(masks, frames, 0))


def test_masks_cost_what_changes_in_them():
    """A still one its first frame, a coast that moves its line, scattered points their places."""
    y, x = np.indices((200, 300))
    still = np.repeat((np.hypot(y - 90, x - 150) < 60)[None], 16, 0)
    coast = np.stack([x < 150 + 20 * np.sin(y / 9) + t for t in range(16)])
    points = np.random.default_rng(0).random((16, 200, 300)) < 1e-4
    sizes = []
    for masks in (still, coast, points):
        section = packed(masks[..., None], np.zeros((*masks.shape, 1), "<f4"))
        sizes.append(parts(section)["masks"])
    assert sizes[0] < 200
    assert sizes[1] < 16 * 200 * 2 / 8  # two bits a row
    assert sizes[2] < 2.7 * points.sum()  # bytes: 13.3 bits say where in its row and frame each is


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_survived(data):
    for section in (data, len(data).to_bytes(4, "little") + data):
        try:
            reader = ExceptionReader(section, (3, 8, 9), 2, np.dtype("<f4"))
            for _ in range(3):
                reader.apply(np.zeros((8, 9, 2), "f4"))
            reader.finish()
        except FormatError:
            continue


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_masks_that_end_early_are_damage(cut):
    masks = np.random.default_rng(0).random((4, 30, 30, 1)) < 0.5
    section = packed(masks, np.zeros(masks.shape, "<u2"))
    size = int.from_bytes(section[:4], "little")
    damaged = (cut).to_bytes(4, "little") + section[4 : 4 + cut] + section[4 + size :]
    with pytest.raises(FormatError):
        read(damaged, masks, "<u2")


def test_masks_that_end_in_the_middle_are_told_from_samples_that_are_missing():
    masks = np.random.default_rng(0).random((4, 500, 500, 1)) < 0.5
    section = packed(masks, np.zeros(masks.shape, "<u2"))
    half = int.from_bytes(section[:4], "little") // 2
    samples = zstandard.compress(bytes(2 * masks.size))  # as many as masks can mark
    damaged = half.to_bytes(4, "little") + section[4 : 4 + half] + samples
    with pytest.raises(FormatError, match="masks of exceptions end before"):
        read(damaged, masks, "<u2")
