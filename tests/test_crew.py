"""Who encodes a stack's steps: what `StackEncoder` asks is all there is to it."""

from types import SimpleNamespace

import h5py
import numpy as np
import pytest

import tezip_h5
from tezip_h5.hdf5.contents.preview import picture_of
from tezip_h5.hdf5.threads import Shares
from tezip_h5.hdf5.writing import plan
from tezip_h5.hdf5.writing.crew import Finished
from tezip_h5.hdf5.writing.steps import Prepared


class Alone:
    """The plainest crew: a step is encoded, tile by tile, when it begins."""

    def __init__(self, recipe, networks, encoder_at, **options):
        self.recipe, self.networks, self.encoder_at = recipe, networks, encoder_at

    def begin(self, frames, start, exact=0):
        step, layout = Prepared(frames, self.recipe, exact), self.recipe.layout
        trial = self.networks.next(step.promises)
        tiles = [
            step.encode(self.encoder_at(layout.offset(start, tile)), tile, trial, 1)
            for tile in layout.tiles
        ]

        def picture(t):
            return picture_of(step.frames, layout.panel_axes, t)

        return SimpleNamespace(beside=0, done=Finished(trial, tiles, frames.nbytes, picture))

    def finish(self, work):
        return work.done

    def close(self, dropped):
        assert dropped == []


@pytest.mark.parametrize(
    "options",
    [
        {"level": "fast", "tile": (25, 30), "absolute": 2},
        {"level": "balanced", "chunk_frames": 3},
        {"level": "fast", "mask": np.eye(40, 56, dtype=bool), "absolute": 1},
    ],
)
def test_any_crew_writes_the_same(tmp_path, walk, options, monkeypatch):
    options = {"chunk_frames": 6, "threads": 3} | options
    tezip_h5.write(walk, tmp_path / "pool.h5", **options)
    monkeypatch.setattr(plan, "Pool", Alone)
    tezip_h5.write(walk, tmp_path / "alone.h5", **options)
    with h5py.File(tmp_path / "pool.h5") as one, h5py.File(tmp_path / "alone.h5") as other:
        data, again = one["scan/data"].id, other["scan/data"].id
        assert data.get_num_chunks() == again.get_num_chunks() > 3
        for number in range(data.get_num_chunks()):
            offset = data.get_chunk_info(number).chunk_offset
            assert data.read_direct_chunk(offset) == again.read_direct_chunk(offset)
        for table in ("frames", "preview", "keyframes"):
            np.testing.assert_array_equal(one["scan"][table][()], other["scan"][table][()])


@pytest.mark.parametrize(
    ("arguments", "alone", "expected"),
    [
        ((8, 1, 10), [], [1] * 9),  # of unknown length: one thread for each
        ((8, 1, 10, 300), [], [1] * 24 + [1] * 6),  # the last group has 6 steps
        ((8, 1, 10, 30), [], [2, 2, 2]),
        ((8, 1, 10, 15), [], [8, 8]),  # the second is short: its threads help with the first
        ((8, 3, 10), [], [1, 1, 1]),
        ((2, 3, 10), [], [1, 1, 1]),
        ((8, 1, 10, 50), [0], [8, 2, 2, 2, 2]),
        ((1, 1, 10), [1], [1, 1, 1]),
    ],
)
def test_threads_are_shared(arguments, alone, expected):
    shares = Shares(*arguments)
    assert [shares.next(step in alone) for step in range(len(expected))] == expected
