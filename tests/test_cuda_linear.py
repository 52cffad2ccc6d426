"""The linear coder on the device codes what the processor does, bit for bit; in numba's simulator,
where there is no GPU."""

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_linear import SETTINGS, Scale, limits

from tezip_h5 import FormatError, codec, kernels
from tezip_h5.bounds import ErrorBound
from tezip_h5.residual.linear import LinearDecoder, LinearEncoder
from tezip_h5.residual.linear_streams import Streams

WIDE = 2**32 - 1  # the top of ordered bits


def frames_of(shape, top, seed=0, step=0.1):
    """Samples that walk along rows, so that they resemble their neighbours: int32."""
    low, high = limits(top)
    most = int(high * step) + 1
    steps = np.random.default_rng(seed).integers(-most, most + 1, shape).cumsum(axis=3)
    return np.clip((low + high) // 2 + steps, low, high).astype(np.int32)


def encoded(frames, kinds, tolerance, top, device, guesses=None, flat=False, free=None):
    """Sections, sizes of frames, reconstructions."""
    encoder = LinearEncoder(frames.shape[1:], Scale(top), SETTINGS, flat=flat)
    encoder.device = device
    tolerances, out = np.full(frames.shape[1], tolerance), []
    for t, (frame, predicted) in enumerate(zip(frames, kinds, strict=True)):
        of_frame = None if free is None else free[t]
        if predicted:
            guess = out[-1] if guesses is None else guesses[t]
            out.append(encoder.residual(frame, guess, tolerances, of_frame))
        else:
            out.append(encoder.keyframe(frame, tolerances, of_frame))
    return *encoder.finish(), np.stack(out)


def decoded(sections, shape, kinds, tolerance, top, device, guesses=None):
    decoder = LinearDecoder(sections, shape[1:], Scale(top))
    decoder.device = device
    tolerances, out, last = np.full(shape[1], tolerance), [], None
    for t, predicted in enumerate(kinds):
        if predicted:
            last = decoder.residual(last if guesses is None else guesses[t], tolerances)
        else:
            last = decoder.keyframe(tolerances)
        out.append(last.copy())
    decoder.finish()
    return np.stack(out)


def agree(frames, kinds, tolerance, top, guesses=None, flat=False, free=None):
    """Both devices write the same bytes and read the same frames."""
    how = kinds, tolerance, top
    sections, sizes, expected = encoded(frames, *how, "cpu", guesses, flat, free)
    there, sizes_there, found = encoded(frames, *how, "cuda", guesses, flat, free)
    np.testing.assert_array_equal(found, expected)
    assert there == sections
    assert sizes_there == sizes
    back = decoded(sections, frames.shape, kinds, tolerance, top, "cuda", guesses)
    np.testing.assert_array_equal(back, expected)
    return sections


@pytest.mark.parametrize(
    ("shape", "kinds"),
    [
        ((1, 1, 1, 1), [0]),
        ((3, 2, 1, 1), [0, 1, 1]),
        ((2, 1, 1, 9), [0, 1]),
        ((2, 1, 2, 3), [0, 1]),
        ((2, 1, 17, 1), [0, 1]),
        ((2, 1, 33, 2), [0, 1]),
        ((3, 1, 16, 7), [0, 0, 1]),
        ((2, 4, 3, 8), [0, 1]),
    ],
)
@pytest.mark.parametrize(("tolerance", "flat"), [(0, False), (3, True)])
def test_edge_shapes(shape, kinds, tolerance, flat):
    agree(frames_of(shape, 255), kinds, tolerance, 255, flat=flat)


@pytest.mark.parametrize(
    ("top", "tolerance", "flat"),
    [
        (0, 0, False),
        (0, 0, True),
        (1, 1, False),
        (4095, 0, True),
        (4096, 0, False),  # low bits that do not fit into entries of 32 bits
        (4096, 0, True),
        (65535, 0, False),
        (65535, 60, True),
        (2**20, 3, False),
        (2**31 - 2, 0, True),
        (2**31 - 2, 1000, False),
        (WIDE, 0, False),
        (WIDE, 0, True),
    ],
)
def test_levels_narrow_and_wide(top, tolerance, flat):
    shape = (2, 1, 17, 4)
    agree(frames_of(shape, top), [0, 1], tolerance, top, flat=flat)
    low, high = limits(top)
    wild = np.random.default_rng(1).integers(low, high + 1, (1, 1, 3, 9)).astype(np.int32)
    wild[0, 0, 1, ::2], wild[0, 0, 2, ::2] = low, high
    agree(wild, [0], tolerance, top, flat=flat)


@pytest.mark.parametrize(
    ("top", "tolerance", "flat"),
    [(255, 0, True), (255, 3, False), (2**20, 3, True), (WIDE, 0, False), (WIDE, 3, False)],
)
def test_free_samples(top, tolerance, flat):
    """Of one channel, of one frame, none and all of a plane."""
    frames = frames_of((3, 2, 17, 5), top, step=0.02)
    free = np.random.default_rng(2).random(frames.shape) < 0.3
    free[0, 1] = free[2] = False
    free[1, 1] = True
    _, _, back = encoded(frames, [0, 1, 1], tolerance, top, "cpu", flat=flat, free=free)
    errors = abs(back.astype(np.int64) - frames)[~free]
    assert errors.max() <= tolerance
    agree(frames, [0, 1, 1], tolerance, top, flat=flat, free=free)


@pytest.mark.parametrize("tolerance", [0, 2])
def test_learned_weights_and_what_others_predict(tolerance):
    """Weights of all taps, drift, sides; predictions that are not the last frame."""
    t, c, y, x = np.ogrid[:2, :3, :17, :12]
    frames = 90 + 60 * np.sin((x + 2 * t) / 5) + 40 * np.cos((y - c) / 4)
    frames = frames + np.random.default_rng(0).normal(size=frames.shape) * 2
    frames = np.clip(frames, 0, 255).astype(np.int32)
    agree(frames, [0, 1], tolerance, 255)
    guesses = np.clip(frames + np.random.default_rng(1).integers(-2, 3, frames.shape), 0, 255)
    sections = agree(frames[:, :1], [0, 1], tolerance, 255, guesses.astype(np.int32)[:, :1])
    assert len(sections["residuals"]) > 100


@pytest.mark.parametrize(
    ("dtype", "bound"),
    [("uint8", 2), ("uint16", None), ("int32", None), ("float32", 0.5)],
)
def test_the_same_payloads(dtype, bound):
    t, y, x = np.ogrid[:2, :33, :21]
    frames = 100 + 50 * np.sin((x + t) / 4) * np.cos(y / 6)
    frames = (frames + np.random.default_rng(0).normal(size=frames.shape) * 5).astype(dtype)
    limit = ErrorBound(absolute=bound).of_frames(frames[..., None])
    here, there = (codec.encode_chunk(frames, limit, SETTINGS, device=d) for d in ("cpu", "cuda"))
    assert there.payload == here.payload
    assert there.frames == here.frames
    assert here.coder == "linear"
    found = codec.decode_chunk(here.payload, device="cuda")
    np.testing.assert_array_equal(found, codec.decode_chunk(here.payload))


# --- many chunks ---


@pytest.fixture
def launches(monkeypatch):
    """Kind and size of every launch."""
    works, counts = kernels.load("cuda.linear.chunks"), []

    def counted(kind):
        launch = kind.launch

        def instead(self, others):
            counts.append((kind.__name__, len(others)))
            launch(self, others)

        monkeypatch.setattr(kind, "launch", instead)

    for kind in (works.Decoding, works.Modelling, works.Coding):
        counted(kind)
    return counts


def together(*tasks):
    """Run functions at once, in threads; their results."""
    results = [None] * len(tasks)

    def work(k):
        results[k] = tasks[k]()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def test_chunks_of_different_sizes_go_together(launches, monkeypatch):
    """Encoders with and without a tolerance, of other sizes, numbers of frames and kinds."""
    monkeypatch.setattr(kernels.load("cuda.gather"), "_PATIENCE", 5)
    cases = [((2, 1, 18, 9), [0, 1]), ((1, 1, 17, 8), [0]), ((2, 1, 17, 9), [0, 0])]
    stacks = [frames_of(shape, 255, seed) for seed, (shape, _) in enumerate(cases)]
    kinds = [case[1] for case in cases]
    expected = [encoded(f, k, 1, 255, "cpu") for f, k in zip(stacks, kinds, strict=True)]
    chunks = kernels.load("cuda.linear.chunks")
    ready, opened = threading.Barrier(3), chunks.Chunks.open

    def open_together(self, *arguments):
        lane = opened(self, *arguments)
        ready.wait()  # all have a place now, and wait for each other
        return lane

    monkeypatch.setattr(chunks.Chunks, "open", open_together)
    found = together(
        *(
            lambda f=f, k=k: encoded(f, k, 1, 255, "cuda")
            for f, k in zip(stacks, kinds, strict=True)
        )
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert ours[:2] == theirs[:2]
    assert launches[0] == ("Modelling", 3)
    assert ("Coding", 2) in launches or ("Coding", 3) in launches
    launches.clear()
    backs = together(
        *(
            lambda e=e, f=f, k=k: decoded(e[0], f.shape, k, 1, 255, "cuda")
            for e, f, k in zip(expected, stacks, kinds, strict=True)
        )
    )
    for back, (_, _, frames) in zip(backs, expected, strict=True):
        np.testing.assert_array_equal(back, frames)
    assert launches[0] == ("Decoding", 3)
    gc.collect()
    assert chunks.chunks()._open == 0


def test_two_chunks_of_a_block(launches, monkeypatch):
    """As on a GPU, where they share a warp: of other sizes, and a last one alone."""
    wave = kernels.load("cuda.linear.wave")
    monkeypatch.setattr(wave, "_CHUNKS", 2)
    monkeypatch.setattr(wave, "_THREADS", 32)
    monkeypatch.setattr(kernels.load("cuda.gather"), "_PATIENCE", 5)
    chunks = kernels.load("cuda.linear.chunks")
    stacks = [frames_of((1, 1, *size), 4095, 1) for size in ((5, 9), (16, 3), (2, 2))]
    expected = [encoded(frames, [0], 2, 4095, "cpu") for frames in stacks]
    ready, opened = threading.Barrier(3), chunks.Chunks.open

    def open_together(self, *arguments):
        lane = opened(self, *arguments)
        ready.wait()
        return lane

    monkeypatch.setattr(chunks.Chunks, "open", open_together)
    found = together(*(lambda f=f: encoded(f, [0], 2, 4095, "cuda") for f in stacks))
    assert [ours[:2] for ours in found] == [theirs[:2] for theirs in expected]
    backs = together(
        *(
            lambda e=e, f=f: decoded(e[0], f.shape, [0], 2, 4095, "cuda")
            for e, f in zip(expected, stacks, strict=True)
        )
    )
    for back, (_, _, frames) in zip(backs, expected, strict=True):
        np.testing.assert_array_equal(back, frames)
    assert {("Modelling", 3), ("Decoding", 3)} <= set(launches)


def test_planes_of_chunks_that_were_gathered_otherwise_are_coded_together():
    """Symbols of two chunks lie in arrays of their own and in one that they share."""
    works = kernels.load("cuda.linear.chunks")
    stacks = [frames_of((2, 1, 5, 6), 255, seed) for seed in range(2)]
    expected = [encoded(f, [0, 1], 0, 255, "cpu") for f in stacks]
    encoders = [LinearEncoder((1, 5, 6), Scale(255), SETTINGS) for _ in stacks]
    tolerances, code = np.zeros(1, int), works.Chunks.code
    for encoder, frames in zip(encoders, stacks, strict=True):
        encoder.device = "cuda"
        encoder.keyframe(frames[0], tolerances)  # each alone
    ready = threading.Barrier(2)

    def code_together(self, works):
        ready.wait()
        code(self, works)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(works.Chunks, "code", code_together)
        patched.setattr(kernels.load("cuda.gather"), "_PATIENCE", 5)
        together(
            *(
                lambda e=e, f=f: e.residual(f[1], f[0], tolerances)
                for e, f in zip(encoders, stacks, strict=True)
            )
        )
        found = together(*(encoder.finish for encoder in encoders))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == theirs[:2]


# --- what is damaged, and what fails ---


def outcome(sections, shape, device):
    """What decoding comes to: frames, or an error's text."""
    try:
        return decoded(sections, shape, [0, 1], 1, 255, device).tolist()
    except FormatError as error:
        return str(error)


def test_damage_comes_to_the_same():
    frames = frames_of((2, 1, 17, 6), 255)
    sections = encoded(frames, [0, 1], 1, 255, "cpu")[0]
    rng = np.random.default_rng(2)
    whole, outcomes = sections["residuals"], set()
    cases = [whole[:-1], whole + b"\0", whole[: len(whole) // 2]]
    for _ in range(8):
        damaged = bytearray(whole)
        damaged[int(rng.integers(0, len(whole)))] ^= 1 << int(rng.integers(0, 8))
        cases.append(bytes(damaged))
    # Streams that say they are shorter, and leave their last words and bits to the next one.
    for lane in (0, 3, 15):
        damaged = bytearray(whole)
        damaged[2 * lane] = 2
        cases.append(bytes(damaged))
    for damaged in cases:
        found = [outcome({**sections, "residuals": damaged}, frames.shape, d) for d in DEVICES]
        assert found[1] == found[0]
        outcomes.add(found[0] if isinstance(found[0], str) else "other levels")
    assert "a residual stream ends before its samples do" in outcomes
    assert "a residual stream does not end where it should" in outcomes


DEVICES = ("cpu", "cuda")


def test_nothing_behind_the_ends_of_streams_is_read(monkeypatch):
    """Streams that end far too early are refused, and do not see what lies behind them."""
    frames = frames_of((1, 1, 16, 8), 65535, step=0.4)
    sections = encoded(frames, [0], 0, 65535, "cpu")[0]
    kept, seen = Streams.__init__, []

    def cut(self, *arguments):
        kept(self, *arguments)
        self.limits[0, 3], self.limits[1, 5] = self.places[1, 3], self.places[2, 5]
        self.words[self.limits[0, 3] + 1 :] = seen[-1]

    monkeypatch.setattr(Streams, "__init__", cut)
    slab, found = kernels.load("cuda.linear.slabs").Slab, []
    fetch = slab.fetch

    def fetched(self, lane):
        found.append(fetch(self, lane))
        return found[-1]

    monkeypatch.setattr(slab, "fetch", fetched)
    for number in (0, 0xFFFF):
        seen.append(number)
        with pytest.raises(FormatError, match="ends before its samples"):
            decoded(sections, frames.shape, [0], 0, 65535, "cuda")
    np.testing.assert_array_equal(found[0][:4], found[1][:4])


def test_scarce_memory_makes_slabs_and_launches_smaller(launches, monkeypatch):
    chunks, slabs = kernels.load("cuda.linear.chunks"), kernels.load("cuda.linear.slabs")
    frames = frames_of((2, 1, 5, 6), 255)
    expected = encoded(frames, [0, 1], 1, 255, "cpu")[0]
    monkeypatch.setattr(chunks, "chunks", chunks.one_of_process(chunks.Chunks))
    made = []

    def scarce(kind, channels, rows, columns, lanes):
        if lanes > 1:
            raise MemoryError("out of memory")
        made.append(lanes)
        return slabs.Slab(kind, channels, rows, columns, lanes)

    with monkeypatch.context() as patched:
        patched.setattr(chunks, "Slab", scarce)
        assert encoded(frames, [0, 1], 1, 255, "cuda")[0] == expected
        np.testing.assert_array_equal(
            decoded(expected, frames.shape, [0, 1], 1, 255, "cuda"),
            encoded(frames, [0, 1], 1, 255, "cpu")[2],
        )
    assert made == [1, 1]
    launches.clear()
    monkeypatch.setattr(kernels.load("cuda.gather"), "_PATIENCE", 5)
    model, ready, opened = slabs.Slab.model, threading.Barrier(2), chunks.Chunks.open

    def narrow(self, works):
        if len(works) > 1:
            raise MemoryError("out of memory")
        model(self, works)

    def open_together(self, *arguments):
        lane = opened(self, *arguments)
        ready.wait()
        return lane

    monkeypatch.setattr(chunks.Chunks, "open", open_together)
    monkeypatch.setattr(slabs.Slab, "model", narrow)
    found = together(*[lambda: encoded(frames, [0, 1], 1, 255, "cuda")[0]] * 2)
    assert found == [expected] * 2
    assert launches[:3] == [("Modelling", 2), ("Modelling", 1), ("Modelling", 1)]


def test_large_frames_have_fewer_lanes():
    slabs = kernels.load("cuda.linear.slabs")
    assert slabs.lanes_for(("encode", 52, 0), (1, 100, 100)) == slabs._MOST_LANES
    assert slabs.lanes_for(("encode", 52, 0), (3, 8000, 8000)) == 1
    assert slabs.lanes_for(("decode", 32, 1 << 28), (1, 100, 100)) == 3


def test_where_memory_is_short_slabs_that_nobody_uses_are_freed():
    """Also the mixing coder's; but not where that coder is at work, which might wait for us."""
    gather = kernels.load("cuda.gather")
    ours, others, busy = (gather.Gathering() for _ in range(3))
    unused, used = SimpleNamespace(free=[0, 1], lanes=2), SimpleNamespace(free=[0], lanes=2)
    for gathering in (ours, others, busy):
        gathering._slabs = [unused, used]
    with busy._changed:
        thread = threading.Thread(target=ours.forget)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
    assert ours._slabs == others._slabs == [used]
    assert busy._slabs == [unused, used]


def test_a_chunk_that_does_not_fit_is_coded_by_the_processor(monkeypatch):
    chunks = kernels.load("cuda.linear.chunks")
    frames = frames_of((1, 1, 5, 6), 255)[:, 0].astype(np.uint8)
    limit = ErrorBound(absolute=1).of_frames(frames[..., None])
    expected = codec.encode_chunk(frames, limit, SETTINGS).payload
    monkeypatch.setattr(chunks, "chunks", chunks.one_of_process(chunks.Chunks))

    def full(*arguments):
        raise MemoryError("out of memory")

    monkeypatch.setattr(chunks, "Slab", full)
    with pytest.warns(UserWarning, match="does not fit into the GPU's memory"):
        assert codec.encode_chunk(frames, limit, SETTINGS, device="cuda").payload == expected


def test_a_failed_launch_fails_its_callers_and_gives_lanes_back(monkeypatch):
    chunks, slabs = kernels.load("cuda.linear.chunks"), kernels.load("cuda.linear.slabs")
    monkeypatch.setattr(chunks, "chunks", chunks.one_of_process(chunks.Chunks))
    frames = frames_of((2, 1, 5, 5), 255)

    def broken(self, works):
        raise RuntimeError("the launch failed")

    with monkeypatch.context() as patched:
        patched.setattr(slabs.Slab, "model", broken)
        with pytest.raises(RuntimeError, match="the launch failed"):
            encoded(frames, [0, 1], 0, 255, "cuda")
    gc.collect()
    (slab,) = chunks.chunks()._slabs
    assert len(slab.free) == slab.lanes
    assert chunks.chunks()._open == 0
    agree(frames, [0, 1], 0, 255)


def test_every_kernel_compiles_for_a_device():
    script = Path(__file__).with_name("compile_cuda.py")
    modules = ["cuda.linear.parallel", "cuda.linear.wave", "cuda.linear.rans"]
    done = subprocess.run(
        [sys.executable, script, *modules], capture_output=True, text=True, check=False
    )
    if done.returncode == 77:
        pytest.skip(f"no compiler: {done.stdout.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()} == {
        *(
            f"cuda.linear.parallel.{name}"
            for name in kernels.load("cuda.linear.parallel").__all__
            if name != "blocks"
        ),
        "cuda.linear.wave.decode_rows",
        "cuda.linear.wave.model_rows",
        "cuda.linear.rans.rans_encode",
        "cuda.linear.rans.gather",
    }


@pytest.mark.parametrize("launched", [False, True])
def test_an_interrupted_thread_leaves_no_work_behind(monkeypatch, launched):
    gathering = kernels.load("cuda.gather").Gathering()
    gathering._gathering = True  # another thread does
    taken = []

    def wait_for(done):
        if not taken:
            taken.append(gathering._waiting[0])
            if launched:
                gathering._waiting.clear()
            raise KeyboardInterrupt
        taken[0].done = True
        return done()

    monkeypatch.setattr(gathering._changed, "wait_for", wait_for)
    with pytest.raises(KeyboardInterrupt):
        gathering.code([SimpleNamespace()])
    assert gathering._waiting == []
    assert taken[0].done == launched


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
def test_a_forked_process_gathers_anew():
    gather = kernels.load("cuda.gather")
    the_only = gather.one_of_process(gather.Gathering)
    ours = the_only()
    assert the_only() is ours
    child = os.fork()
    if child == 0:
        os._exit(3 if the_only() is ours else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
