"""The mixing coder on the device codes what the processor does, bit for bit; in numba's simulator,
where there is no GPU."""

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from test_mixing import moving, scale_of, vectors_of

from tezip_h5 import FormatError, codec, kernels
from tezip_h5.bounds import ErrorBound
from tezip_h5.kernels.mixing.pixels import KINDS, TAPS
from tezip_h5.residual import mixing
from tezip_h5.residual.changes import Changes
from tezip_h5.residual.mixing import MixingDecoder, MixingEncoder
from tezip_h5.residual.streams import Bands, Stream, Weights
from tezip_h5.settings import Settings

LEVELS = ["balanced", "best"]
MODEL_OF = {"balanced": 0, "best": 1}


def encoded(frames, device, level, tolerance=0, keyframes=(0,), guesses=None, top=255, free=None):
    """The section of frames, int32 (T, C, h, w), and their reconstruction."""
    guided = guesses is not None
    settings = Settings(level=level)
    encoder = MixingEncoder(frames.shape[1:], scale_of(top), settings, guided=guided)
    encoder.device = device
    tolerances, coded = np.full(frames.shape[1], tolerance), []
    for t, frame in enumerate(frames):
        of_frame = None if free is None else free[t]
        if t in keyframes:
            coded.append(encoder.keyframe(frame, tolerances, of_frame))
        else:
            guess = guesses[t] if guided else coded[-1]
            coded.append(encoder.residual(frame, guess, tolerances, of_frame))
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
    how = {name: value for name, value in how.items() if name not in ("level", "free")}
    back = decoded(section, frames.shape, "cuda", **how)
    np.testing.assert_array_equal(back, coded)
    return section


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("tolerance", [0, 2])
def test_free_samples(level, tolerance):
    """Whatever stands in their places, the bytes are the same; all others keep their bound."""
    rng = np.random.default_rng(3)
    frames = (100 + rng.integers(-3, 4, (3, 1, 12, 14)).cumsum(axis=3)).astype(np.int32)
    free = rng.random(frames.shape) < 0.3
    other = np.where(free, rng.integers(0, 256, frames.shape), frames).astype(np.int32)
    section = agree(frames, level=level, tolerance=tolerance, free=free)
    assert encoded(other, "cpu", level, tolerance, free=free)[0] == section
    back = decoded(section, frames.shape, "cpu", tolerance)
    assert abs(back - frames)[~free].max() <= tolerance


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("tolerance", [0, 2])
def test_the_same_bytes(level, tolerance):
    frames = moving(3, 2, 17, 12)
    agree(frames, level=level, tolerance=tolerance, keyframes=(0, 1))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 1, 9), (2, 2, 9, 1), (2, 1, 8, 16)])
def test_edge_shapes(level, shape):
    agree(moving(*shape), level=level)


@pytest.mark.parametrize("level", LEVELS)
def test_a_network_and_what_changes_from_frame_to_frame(level, monkeypatch):
    """Guided, taught, blocks that move far, jumps of brightness, two bands that differ."""
    frames = moving(3, 2, 65, 6, 4095)
    monkeypatch.setattr(mixing, "_BAND_PIXELS", dict.fromkeys((0, 1), 32 * 6))
    rng = np.random.default_rng(3)
    learned = [rng.integers(-9000, 9000, (KINDS + 1, TAPS)).astype(np.int32) for _ in range(2)]
    jumps = [np.array([[1 << 16, 0], [60000, 7 << 16], [70000, -9 << 16]])] * 2
    made = []
    for device in ("cpu", "cuda"):
        encoder = MixingEncoder(frames.shape[1:], scale_of(4095), Settings(level=level), "", True)
        encoder.device = device
        changes = Changes(encoder._rows, 4095, vectors_of(encoder, len(frames)), jumps)
        encoder._open(Weights(1, learned), changes)
        coded = [encoder.keyframe(frames[0], np.array([1, 1]))]
        for frame, guess in zip(frames[1:], frames, strict=False):
            coded.append(encoder.residual(frame, guess[:, ::-1], np.array([1, 1])))
        made.append((encoder.finish()[0]["residuals"], np.stack(coded)))
    assert made[0][0] == made[1][0]
    np.testing.assert_array_equal(made[1][1], made[0][1])
    guesses = np.concatenate([frames[:1], frames[:-1, :, ::-1]])
    back = decoded(made[0][0], frames.shape, "cuda", 1, guesses=guesses, top=4095)
    np.testing.assert_array_equal(back, made[0][1])


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_tried_is_tried_there(level, monkeypatch):
    """Trials choose the same, and payloads are the same."""
    monkeypatch.setattr(mixing, "_LEAST_TAUGHT", 1000)  # pixels, or no trial would take place
    chosen, choose = [], MixingEncoder._best_trial

    def noted(self, *arguments):
        chosen.append(choose(self, *arguments))
        return chosen[-1]

    monkeypatch.setattr(MixingEncoder, "_best_trial", noted)
    frames = moving(2, 1, 32, 32, 200)[:, 0].astype(np.uint8)
    limits = ErrorBound(absolute=1).of_frames(frames[..., None])
    here, there = (
        codec.encode_chunk(frames, limits, Settings(level=level), device=device).payload
        for device in ("cpu", "cuda")
    )
    assert here == there
    half = len(chosen) // 2
    assert half > 0
    assert chosen[:half] == chosen[half:]
    np.testing.assert_array_equal(codec.decode_chunk(here), codec.decode_chunk(here, device="cuda"))


@pytest.fixture
def launches(monkeypatch):
    """How many streams every launch had."""
    slabs, counts = kernels.load("cuda.mixing.slabs"), []
    code = slabs.Slab.code

    def counted(self, works, room):
        counts.append(len(works))
        code(self, works, room)

    monkeypatch.setattr(slabs.Slab, "code", counted)
    return counts


def test_chunks_of_different_sizes_go_together(launches, monkeypatch):
    monkeypatch.setattr(kernels.load("cuda.gather"), "_PATIENCE", 5)
    stacks = [moving(3, 1, 18, 21, seed=1), moving(3, 1, 17, 20, seed=2)]
    expected = [encoded(stack, "cpu", "balanced") for stack in stacks]
    found, ready = [None, None], threading.Barrier(2)

    def work(k):
        encoder = MixingEncoder(stacks[k].shape[1:], scale_of(255), Settings(level="balanced"))
        encoder.device = "cuda"
        frames = stacks[k]
        coded = [encoder.keyframe(frames[0], np.zeros(1, int))]
        ready.wait()  # both have streams now, and wait for each other
        coded += [encoder.residual(frame, frame, np.zeros(1, int)) for frame in frames[1:]]
        found[k] = encoder.finish()[0]["residuals"], np.stack(coded)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for (section, coded), (their_section, their_coded) in zip(expected, found, strict=True):
        assert section == their_section
        np.testing.assert_array_equal(coded, their_coded)
    assert launches[-2:] == [2, 2]


@pytest.mark.parametrize("level", LEVELS)
def test_damaged_streams_read_nothing_of_others(level):
    """Cut and random bytes decode to what the processor makes of them, whatever lies behind."""
    rng = np.random.default_rng(0)
    shape, zeros = (1, 12, 14), np.zeros((1, 12, 14), np.int32)
    whole = encoded(moving(1, *shape), "cpu", level)[0]
    at = len(whole) - int.from_bytes(whole[6:10], "little")
    damaged = [whole[at : at + 9], b"", rng.bytes(300), b"\xff" * 40, whole[at:], b"\x80"]
    number = MODEL_OF[level]
    alone = []
    for data in damaged:
        stream = Stream(number, shape, 255, False, Weights(), data=data)
        alone.append((stream.code(None, zeros, [0], True), stream.position))
    bands = Bands([Stream(number, shape, 255, False, Weights(), data=data) for data in damaged])
    parts = [[array] * len(damaged) for array in (zeros, zeros)]
    found = bands.code(*parts, [0], True, device="cuda")
    for part, stream, (expected, position) in zip(found, bands.streams, alone, strict=True):
        np.testing.assert_array_equal(part, expected)
        assert stream.position == position
    bands.close()


def test_a_cut_section_is_refused():
    frames = moving(2, 1, 12, 14)
    section = encoded(frames, "cpu", "balanced")[0]
    cut = section[:6] + (20).to_bytes(4, "little") + section[10:30]
    with pytest.raises(FormatError, match="ends before"):
        decoded(cut, frames.shape, "cuda")


def test_scarce_memory_makes_slabs_and_launches_smaller(launches, monkeypatch):
    frames = moving(2, 1, 65, 6)
    section = encoded(frames, "cpu", "balanced")[0]
    streams = kernels.load("cuda.mixing.streams")
    monkeypatch.setattr(streams, "streams", streams.one_of_process(streams.Streams))
    made, Slab = [], streams.Slab

    def scarce(model, channels, rows, columns, lanes):
        if lanes > 1:
            raise MemoryError("out of memory")
        made.append(lanes)
        return Slab(model, channels, rows, columns, lanes)

    monkeypatch.setattr(streams, "Slab", scarce)
    assert encoded(frames, "cuda", "balanced")[0] == section
    assert made == [1, 1]
    monkeypatch.setattr(streams, "Slab", Slab)
    monkeypatch.setattr(streams, "streams", streams.one_of_process(streams.Streams))
    code = Slab.code

    def narrow(self, works, room):
        if len(works) > 1:
            raise MemoryError("out of memory")
        code(self, works, room)

    monkeypatch.setattr(Slab, "code", narrow)
    launches.clear()
    assert encoded(frames, "cuda", "balanced")[0] == section
    assert launches == [1, 1, 1, 1]


def test_a_failed_launch_fails_its_callers_and_gives_lanes_back(monkeypatch):
    streams = kernels.load("cuda.mixing.streams")
    monkeypatch.setattr(streams, "streams", streams.one_of_process(streams.Streams))
    frames = moving(2, 1, 9, 9)

    def broken(self, works, room):
        raise RuntimeError("the launch failed")

    with monkeypatch.context() as patched:
        patched.setattr(streams.Slab, "code", broken)
        with pytest.raises(RuntimeError, match="the launch failed"):
            encoded(frames, "cuda", "balanced")
    gc.collect()
    (slab,) = streams.streams()._slabs
    assert len(slab.free) == slab.lanes
    assert streams.streams()._open == 0
    agree(frames, level="balanced")


@pytest.mark.skipif(
    not os.environ.get("TEZIP_COMPILE_CUDA"), reason="takes minutes; TEZIP_COMPILE_CUDA=1 asks"
)
@pytest.mark.timeout(1200)
def test_every_kernel_compiles_for_a_device():
    script = Path(__file__).with_name("compile_cuda.py")
    done = subprocess.run(
        [sys.executable, script, "cuda.mixing.coding"], capture_output=True, text=True, check=False
    )
    if done.returncode == 77:
        pytest.skip(f"no compiler: {done.stdout.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()} == {
        "cuda.mixing.coding.code_coarse",
        "cuda.mixing.coding.code_fine",
        "cuda.mixing.coding.begin",
        "cuda.mixing.coding.gather",
    }


# --- functions that both share ---


def test_a_parameter_that_only_one_side_has_is_refused():
    """Where arguments would be taken for others."""
    shared = kernels.load("cuda.typed").shared
    with pytest.raises(TypeError, match="'plane', 'levels'"):
        shared(lambda plane, levels: None, lambda levels, plane: None)


@pytest.mark.skipif(not kernels.load("cuda.launch").SIMULATED, reason="a GPU calls no processor")
def test_what_is_written_comes_back_from_copies():
    """Whatever it is, in tuples too; but not over what it shares its place with."""

    def write(pair, alone):
        pair[0][:] = 7
        alone[0] += 1

    planes = np.zeros((4, 6), np.int32)
    kernels.load("cuda.typed").shared(write, write)((planes[:, 2], planes[:, 2]), planes[0])
    assert planes.tolist() == [[1, 0, 7, 0, 0, 0], *[[0, 0, 7, 0, 0, 0]] * 3]
