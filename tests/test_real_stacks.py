"""The real stacks, when they are at hand: bounds kept, and what the issue of ratios promises."""

import h5py
import numpy as np
import pytest
import zstandard
from conftest import real_stacks

import tezip_h5
from tezip_h5.cli.bench import default_bounds
from tezip_h5.peers import peers


@pytest.fixture(params=real_stacks())
def stack(request):
    with h5py.File(request.param) as f:
        return f["data"][:16]


def test_lossless_and_smaller_than_the_difference(stack, tmp_path):
    summary = tezip_h5.write(stack, tmp_path / "run.h5")
    assert tezip_h5.read(tmp_path / "run.h5").tobytes() == stack.tobytes()
    difference = next(p for p in peers() if p.name.startswith("previous-frame"))
    assert summary.payload_bytes <= difference.encode(stack, 0, 1).nbytes
    assert summary.payload_bytes < len(zstandard.compress(stack.tobytes(), 9))


def test_bounds(stack, tmp_path):
    frames = stack[:8]
    for bound in default_bounds(stack)[1:]:
        path = tmp_path / f"{bound}.h5"
        summary = tezip_h5.write(frames, path, absolute=bound, level="fast")
        back = tezip_h5.read(path)
        error = np.abs(back.astype(np.float64) - frames.astype(np.float64)).max()
        assert error == summary.max_error <= bound
    summary = tezip_h5.write(frames, tmp_path / "p.h5", pointwise_relative=0.01, verify=True)
    assert summary.max_error > 0
