"""Which coder the steps of a stack are left to, where a sample cannot say."""

import h5py
import numpy as np
import pytest

import tezip_h5
from tezip_h5 import Settings, bitstream, residual
from tezip_h5.attempts import Attempts
from tezip_h5.hdf5.writing.coders import CoderChoice


@pytest.fixture
def doubtful(monkeypatch):
    """Whatever a sample is of, it saves what probes say only to be in doubt."""
    monkeypatch.setattr(Attempts, "mixing_saves", lambda attempt: 0.02)


@pytest.fixture
def ran(monkeypatch):
    """The coders that ran on whole chunks, in any order; without what is tried on small ones."""
    ran, run = [], Attempts._run

    def noted(self, coder, *arguments, flat=False):
        if not flat:
            ran.append(coder)
        return run(self, coder, *arguments, flat=flat) if flat else run(self, coder, *arguments)

    monkeypatch.setattr(Attempts, "_run", noted)
    return ran


def photons(count):
    rate = 300 + 200 * np.sin(np.arange(64) / 9)
    return np.random.default_rng(0).poisson(rate, (count, 64, 64)).astype("u2")


def waves(count):
    """What the mixing coder follows far better than the linear one."""
    t, y, x = np.ogrid[:count, :64, :64]
    found = np.sin((x * np.cos(y / 30) + y) / 4 + t / 3) * 60 + 128 + np.sin(x * y / 900) * 40
    return np.rint(found).astype("u2")


def payloads(path):
    with h5py.File(path) as file:
        data = file["scan/data"]
        offsets = (data.id.get_chunk_info(i).chunk_offset for i in range(data.id.get_num_chunks()))
        return [data.id.read_direct_chunk(offset)[1] for offset in sorted(offsets)]


def test_probes_become_rare():
    choice = CoderChoice(Settings())
    assert [step for step in range(300) if choice.probes(step)] == [0, 16, 48, 112, 240]


@pytest.mark.parametrize(
    "settings",
    [
        None,
        Settings(level="fast"),
        Settings(level="best"),
        Settings(coder="linear"),
        Settings(predictor="prednet"),
    ],
)
def test_where_coders_are_not_compared_there_are_none(settings):
    assert not CoderChoice(settings).probes(0)


def test_a_stack_of_noise_is_encoded_twice_once_only(tmp_path, doubtful, ran):
    tezip_h5.write(photons(20), tmp_path / "run.h5", chunk_frames=2, model=None)
    assert sorted(ran) == ["linear"] * 10 + ["mixing"]
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "run.h5"), photons(20))


def test_what_a_probe_keeps_goes_on_with(tmp_path, doubtful, ran):
    stack = np.concatenate([waves(16), photons(4)])
    tezip_h5.write(stack, tmp_path / "run.h5", chunk_frames=4, model=None)
    assert sorted(ran) == ["linear"] + ["mixing"] * 5
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "run.h5"), stack)


def test_a_clear_sample_is_believed_all_along(tmp_path, monkeypatch, ran):
    monkeypatch.setattr(Attempts, "mixing_saves", lambda attempt: 0.5)
    tezip_h5.write(photons(8), tmp_path / "run.h5", chunk_frames=2, model=None)
    assert ran == ["mixing"] * 4


def test_a_clear_probe_says_nothing_of_doubtful_steps(tmp_path, monkeypatch, ran):
    stack = photons(6)
    stack[:2, 0, 0] = 1

    def saves(attempt):
        return 0.0 if attempt.samples.frames[0, 0, 0, 0] == 1 else 0.02

    monkeypatch.setattr(Attempts, "mixing_saves", saves)
    tezip_h5.write(stack, tmp_path / "run.h5", chunk_frames=2, model=None)
    assert sorted(ran) == ["linear"] * 3 + ["mixing"] * 2


@pytest.mark.parametrize("options", [{}, {"tile": (32, 64)}, {"absolute": 2}])
def test_the_bytes_do_not_depend_on_threads(tmp_path, doubtful, options):
    found = []
    for threads in (1, 2, 5):
        path = tmp_path / f"{threads}.h5"
        tezip_h5.write(photons(14), path, chunk_frames=2, threads=threads, **options)
        found.append(payloads(path))
    assert found[0] == found[1] == found[2]


def test_tiles_go_on_with_their_own(tmp_path, doubtful):
    stack = np.concatenate([waves(12), photons(12)], axis=2)
    tezip_h5.write(stack, tmp_path / "run.h5", chunk_frames=4, tile=(64, 64), model=None)
    coders = [bitstream.peek(payload)[0].coder for payload in payloads(tmp_path / "run.h5")]
    assert coders == [residual.NUMBERS["mixing"], residual.NUMBERS["linear"]] * 3


def test_a_writer_goes_on_with_it_too(tmp_path, doubtful, ran):
    with tezip_h5.Writer(
        tmp_path / "run.h5", "scan", frame_shape=(64, 64), dtype="u2", chunk_frames=2, model=None
    ) as writer:
        for frame in photons(12):
            writer.append(frame)
    assert sorted(ran) == ["linear"] * 6 + ["mixing"]
