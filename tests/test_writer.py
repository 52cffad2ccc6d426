"""Frames as they come: flushing, dying at any moment, full disks."""

import contextlib
import errno
import gc
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
import weakref

import h5py
import numpy as np
import pytest

import tezip_h5
from tezip_h5 import InputError, Writer
from tezip_h5.hdf5.contents import container
from tezip_h5.hdf5.writing.pending import Pending


def test_frames_and_blocks(tmp_path, walk):
    path = tmp_path / "run.h5"
    with Writer(path, "scan", (40, 56), "uint16", relative=0.01) as w:
        w.append(walk[0], filename="img_0000.tif")
        w.append(walk[1:18], filename=[f"img_{i:04}.tif" for i in range(1, 18)])
        w.append(walk[18:].astype(">u2"), filename=["a", "b"])
        assert "20 frames" in repr(w)
    assert w.summary.shape == walk.shape
    assert "closed" in repr(w)
    limit = 0.01 * np.ptp(walk.astype(int), axis=(1, 2))[:, None, None]
    with h5py.File(path) as f:
        assert (np.abs(f["scan/data"][:].astype(int) - walk) <= limit).all()
        assert f["scan/filenames"].asstr()[3] == "img_0003.tif"
        assert f["scan"].attrs["complete"]
        assert f["scan"].attrs["NX_class"] == "NXdata"
        assert f["scan"].attrs["signal"] == "data"
        np.testing.assert_array_equal(f["scan/keyframes"][0], f["scan/data"][0])
    tezip_h5.verify(path)


def test_the_caller_may_reuse_its_buffer(tmp_path, walk):
    frame = np.empty_like(walk[0])
    with Writer(tmp_path / "run.h5", "scan", frame.shape, frame.dtype, chunk_frames=3) as w:
        for source in walk:
            frame[:] = source
            w.append(frame)
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "run.h5"), walk)


def test_names_may_come_late(tmp_path, walk):
    with Writer(tmp_path / "run.h5", "scan", (40, 56), "u2") as w:
        w.append(walk[0])
        w.append(walk[1], filename="b.tif")
    with h5py.File(tmp_path / "run.h5") as f:
        assert f["scan/filenames"].asstr()[:].tolist() == ["", "b.tif"]
    assert tezip_h5.extract(tmp_path / "run.h5", tmp_path / "out") == {}
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["b.tif", "frame_000000.png"]


@pytest.mark.parametrize(
    ("frames", "name", "words"),
    [
        (np.zeros((40, 55), "u2"), None, "this writer takes"),
        (np.zeros((40, 56), "u1"), None, "this writer takes"),
        (np.zeros((2, 40, 56), "u2"), ["a"], "1 file names for 2 frames"),
        (np.zeros((40, 56), "u2"), "x" * 300, "more than 255 bytes"),
    ],
)
def test_a_wrong_frame_is_refused_and_the_rest_goes_on(tmp_path, walk, frames, name, words):
    with Writer(tmp_path / "run.h5", "scan", (40, 56), "u2") as w:
        w.append(walk[0])
        with pytest.raises(InputError, match=words):
            w.append(frames, filename=name)
        w.append(walk[1])
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "run.h5"), walk[:2])


def test_flush_stores_the_tail(tmp_path, walk):
    path = tmp_path / "run.h5"
    w = Writer(path, "scan", (40, 56), "u2", chunk_frames=8)
    for before, count in itertools.pairwise((0, 3, 5, 8, 11, 16, 20)):
        w.append(walk[before:count])
        w.flush()
        copy = tmp_path / f"{count}.h5"
        copy.write_bytes(path.read_bytes())
        with h5py.File(copy) as f:
            np.testing.assert_array_equal(f["scan/data"][:], walk[:count])
            assert len(f["scan/frames"]) == count
            assert not f["scan"].attrs["complete"]
        tezip_h5.verify(copy)
        assert "not closed" in str(tezip_h5.inspect(copy))
    w.close()
    np.testing.assert_array_equal(tezip_h5.read(path), walk)
    summary = tezip_h5.inspect(path).stacks[0]
    assert summary.raw_bytes == w.summary.raw_bytes == walk.nbytes
    assert sum(summary.kinds.values()) == 20


def test_flushed_frames_are_safe_while_their_chunk_is_written_again(tmp_path, walk, monkeypatch):
    """A snapshot between the second write of a chunk and the flush after it: a kill then."""
    from tezip_h5.hdf5.writing.tally import Tally

    path = tmp_path / "run.h5"
    snapshots = []

    def snapshot(self, *step):
        original(self, *step)
        copy = tmp_path / f"snapshot{len(snapshots)}.h5"
        copy.write_bytes(path.read_bytes())
        snapshots.append((copy, flushed))

    original = Tally.add
    monkeypatch.setattr(Tally, "add", snapshot)
    w = Writer(path, "scan", (40, 56), "u2", chunk_frames=8)
    flushed = 0
    for count in range(1, 21):
        w.append(walk[count - 1])
        if count % 3 == 0:
            w.flush()
            flushed = count
    w.close()
    assert len(snapshots) == 3
    for copy, safe in snapshots:
        with h5py.File(copy) as f:
            np.testing.assert_array_equal(f["scan/data"][:safe], walk[:safe])


def test_an_empty_stack(tmp_path):
    with Writer(tmp_path / "run.h5", "scan", (4, 4), "u2"):
        pass
    with h5py.File(tmp_path / "run.h5") as f:
        assert f["scan/data"].shape == (0, 4, 4)
    assert tezip_h5.read(tmp_path / "run.h5").shape == (0, 4, 4)
    tezip_h5.verify(tmp_path / "run.h5")


def test_an_exception_keeps_what_was_appended(tmp_path, walk):
    w = Writer(tmp_path / "run.h5", "s", (40, 56), "u2")

    def acquire():
        with w:
            w.append(walk[:5])
            raise RuntimeError("beam dump")

    with pytest.raises(RuntimeError, match="beam dump"):
        acquire()
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "run.h5"), walk[:5])


def test_names_in_use(tmp_path, walk, run_h5):
    with pytest.raises(InputError, match="overwrite"):
        Writer(run_h5, "scan", (40, 56), "u2")
    np.testing.assert_array_equal(tezip_h5.read(run_h5), walk)
    with Writer(run_h5, "more/scan", (40, 56), "u2") as w:
        w.append(walk[:2])
    assert set(container.find_stacks(h5py.File(run_h5))) == {"scan", "more/scan"}
    with Writer(run_h5, "scan", (40, 56), "u2", overwrite=True) as w:
        w.append(walk[:3])
    assert tezip_h5.read(run_h5, name="scan").shape[0] == 3


def test_a_closed_writer_says_so(tmp_path):
    w = Writer(tmp_path / "run.h5", "scan", (4, 4), "u2")
    w.close()
    w.close()
    with pytest.raises(InputError, match="closed"):
        w.append(np.zeros((4, 4), "u2"))
    with pytest.raises(InputError, match="closed"):
        w.flush()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"frame_shape": (4,)}, "one frame"),
        ({"frame_shape": (4, 4, 9)}, "axes="),
        ({"dtype": "complex64"}, "imaginary"),
        ({"warmup": 99}, "warmup"),
        ({"name": ""}, "cannot name"),
    ],
)
def test_wrong_options_make_no_file(tmp_path, options, words):
    arguments = {"name": "scan", "frame_shape": (4, 4), "dtype": "u2", **options}
    with pytest.raises(InputError, match=words):
        Writer(tmp_path / "run.h5", **arguments)
    assert list(tmp_path.iterdir()) == []


WRITER = """
    import sys, numpy as np, tezip_h5
    x = np.load(sys.argv[2])
    w = tezip_h5.Writer(sys.argv[1], "scan", x.shape[1:], x.dtype, chunk_frames=4, threads=2)
    for round in range(10**9):
        for i, frame in enumerate(x):
            w.append(frame)
            if i % 7 == 6:
                w.flush()
                print(round * len(x) + i + 1, flush=True)
"""


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.13, 0.29])
def test_a_killed_writer_leaves_every_flushed_frame(tmp_path, walk, moment):
    np.save(tmp_path / "x.npy", walk)
    path = tmp_path / "run.h5"
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(path), str(tmp_path / "x.npy")],
        stdout=subprocess.PIPE,
        text=True,
    )
    flushed = int(process.stdout.readline())
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    rest = process.communicate()[0].split()
    flushed = int(rest[-1]) if rest else flushed
    with h5py.File(path) as f:
        data = f["scan/data"]
        assert len(data) >= flushed
        np.testing.assert_array_equal(data[:flushed], walk[np.arange(flushed) % len(walk)])


WHOLE = """
    import sys, numpy as np, tezip_h5
    def frames():
        for i in range(10**6):
            if i == 40:
                print("at work", flush=True)
            yield np.full((64, 64), i, np.uint16)
    tezip_h5.write(frames(), sys.argv[1])
"""


def test_a_killed_write_leaves_no_file_under_the_name(tmp_path, run_h5):
    before = run_h5.read_bytes()
    for path in (tmp_path / "new.h5", run_h5):
        code = textwrap.dedent(WHOLE).replace("sys.argv[1])", "sys.argv[1], 'other')")
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline().strip() == "at work"
        process.kill()
        process.communicate()
    assert not (tmp_path / "new.h5").exists()
    assert run_h5.read_bytes() == before


def test_verifying_writers_decode_what_they_write(tmp_path, walk, monkeypatch):
    from tezip_h5 import BoundError
    from tezip_h5.hdf5.writing import checked

    with Writer(tmp_path / "a.h5", "scan", (40, 56), "u2", absolute=1, verify=True) as w:
        w.append(walk)
    monkeypatch.setattr(checked, "decode_chunk", lambda payload, **_: np.zeros((16, 40, 56), "u2"))
    w = Writer(tmp_path / "b.h5", "scan", (40, 56), "u2", absolute=1, verify=True)
    w.append(walk[:3])
    with pytest.raises(BoundError, match="not written"):
        w.close()


FULL_DISK = """
    import resource, signal, sys, numpy as np, tezip_h5
    rng = np.random.default_rng(0)
    x = rng.integers(0, 65536, (64, 128, 128), dtype=np.uint16)
    tezip_h5.encode_chunk(x[:2], tezip_h5.bounds.ChunkBound(), tezip_h5.Settings())
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    try:
        if sys.argv[2] == "write":
            tezip_h5.write(x, sys.argv[1])
        else:
            with tezip_h5.Writer(sys.argv[1], "scan", x.shape[1:], x.dtype, chunk_frames=4) as w:
                for frame in x:
                    w.append(frame)
    except OSError as error:
        print("OSError")
    else:
        print("no error")
"""


@pytest.mark.parametrize("way", ["write", "writer"])
def test_a_full_disk_is_an_error_and_leaves_no_half_file(tmp_path, way):
    path = tmp_path / "run.h5"
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(path), way],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.stdout.strip() == "OSError", result.stderr
    if way == "write":
        assert list(tmp_path.iterdir()) == []
    else:  # the writer's own file keeps what was flushed before the disk was full
        rng = np.random.default_rng(0)
        x = rng.integers(0, 65536, (64, 128, 128), dtype=np.uint16)
        with h5py.File(path) as f:
            kept = f["scan/data"][:]
        assert 0 < len(kept) < 64
        np.testing.assert_array_equal(kept, x[: len(kept)])


@pytest.mark.parametrize("call", ["Writer(path, 's', (8, 8), 'u1')", "convert(source, path)"])
def test_a_disk_that_is_full_already_keeps_nothing(tmp_path, call, in_fresh_process):
    """HDF5 makes a file before it finds no room for the first bytes in it, and if it is left to
    close that as the program ends, it crashes."""
    with h5py.File(tmp_path / "source.h5", "w") as f:
        f["x"] = np.zeros((16, 64, 64), "u2")
    for limit in (0, 64, 500, 1024):
        code = f"""
            import resource, signal, tezip_h5
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            path, source = {str(tmp_path / "run.h5")!r}, {str(tmp_path / "source.h5")!r}
            tezip_h5.Writer, tezip_h5.convert  # all is imported
            resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
            try:
                tezip_h5.{call}
            except OSError as error:
                print(error.errno)
        """
        assert in_fresh_process(code) == f"{errno.EFBIG}\n"
        left = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
        assert left.pop("source.h5")
        # What `convert` keeps to go on with holds nothing that it could stumble over.
        assert left == ({".run.h5.part": limit} if "conv" in call and limit < 100 else {})


FULL_WITH_A_NETWORK = """
    import resource, signal, sys, tezip_h5
    from models import random_model
    from tezip_h5.prediction.architecture import Architecture
    frames = tezip_h5.simulate.detector_sequence(8, 32, 32, "uint8")
    model = random_model(Architecture(1, (96,), (24, 64)))  # 0.8 MB
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
    options = {"model": model, "predictor": "prednet", "swmr": sys.argv[2] == "swmr"}
    try:
        with tezip_h5.Writer(sys.argv[1], "scan", (32, 32), "u1", chunk_frames=4, **options) as w:
            w.append(frames)
    except OSError as error:
        print("OSError", error.errno)
"""


@pytest.mark.parametrize("way", ["plain", "swmr"])
def test_a_disk_without_room_for_the_network_leaves_the_file_in_order(tmp_path, way):
    path = tmp_path / "run.h5"
    code = [sys.executable, "-c", textwrap.dedent(FULL_WITH_A_NETWORK), str(path), way]
    tests = os.path.dirname(__file__)
    found = subprocess.run(
        code,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([tests, *sys.path])},
    )
    assert (found.stdout.split(), found.stderr) == (["OSError", str(errno.EFBIG)], "")
    if path.exists():
        with h5py.File(path) as f:
            assert len(f["scan/data"]) == len(f["scan/frames"]) == 0


MEMORY = """
    import resource, sys, numpy as np, tezip_h5, h5py
    from pathlib import Path
    rng = np.random.default_rng(0)
    base = (rng.normal(500, 5, (4, 2048, 2048))).astype(np.uint16)
    frames = (base[i % 4] for i in range(int(sys.argv[2])))
    tezip_h5.write(frames, sys.argv[1], level="fast")
    with h5py.File(sys.argv[1]) as f:
        for i in range(0, len(f["scan/data"]), 8):
            f["scan/data"][i]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss is at least that of the process that started this one
        peak = int(status.read_text().split("VmHWM:")[1].split()[0])
    print(peak // 1024)
"""


def test_memory_does_not_grow_with_the_stack(tmp_path):
    """64 frames of 8 MB: half a gigabyte; the 4 GB case is in benchmarks/."""
    for frames in ("4", "64"):  # the first compiles what is not cached yet, which takes memory, too
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(MEMORY), str(tmp_path / f"{frames}.h5"), frames],
            capture_output=True,
            text=True,
            timeout=250,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "2"},
        )
    assert int(result.stdout) < 600


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signal")
def test_a_signals_handler_closes(tmp_path, monkeypatch, walk):
    """In the midst of a call: what came before is written, and nobody waits for ever."""
    path = tmp_path / "run.h5"
    writer = Writer(path, "scan", walk.shape[1:], walk.dtype, chunk_frames=4, level="fast")
    take = writer._take

    def interrupted(block, names):
        take(block[:6], names)
        signal.raise_signal(signal.SIGUSR1)
        take(block[6:], names)

    monkeypatch.setattr(writer, "_take", interrupted)
    before = signal.signal(signal.SIGUSR1, lambda *_: writer.close())
    try:
        with pytest.raises(InputError, match="closed"):
            writer.append(walk)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert writer.closed
    np.testing.assert_array_equal(tezip_h5.read(path), walk[:6])
    with pytest.raises(InputError, match="closed"):
        writer.append(walk)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signal")
@pytest.mark.parametrize("before_it", [True, False])
def test_a_signals_handler_closes_while_a_chunk_is_put(tmp_path, monkeypatch, walk, before_it):
    """Before the line has it and after: every frame is written, once."""
    path = tmp_path / "run.h5"
    writer = Writer(path, "scan", walk.shape[1:], walk.dtype, chunk_frames=4, level="fast")
    writer.append(walk[:7])
    jobs = writer._line._jobs

    class Interrupted:
        """The queue, at whose first job a signal comes."""

        def put(self, job):
            monkeypatch.setattr(writer._line, "_jobs", jobs)
            if before_it:
                signal.raise_signal(signal.SIGUSR1)
            jobs.put(job)
            if not before_it:
                signal.raise_signal(signal.SIGUSR1)

    monkeypatch.setattr(writer._line, "_jobs", Interrupted())
    before = signal.signal(signal.SIGUSR1, lambda *_: writer.close())
    try:
        with pytest.raises(InputError, match="closed") if before_it else contextlib.nullcontext():
            writer.append(walk[7])
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert writer.closed
    np.testing.assert_array_equal(tezip_h5.read(path), walk[:8])
    tezip_h5.verify(path)


def test_frames_that_come_while_a_handler_closes_are_written_or_refused(
    tmp_path, walk, monkeypatch
):
    """Python 3.10 lets a handler in between any two steps."""
    w = Writer(tmp_path / "run.h5", "scan", walk.shape[1:], walk.dtype, level="fast")
    w.append(walk[:3])
    real = Pending.with_more

    def interrupted(pending, frames):
        w.close()
        return real(pending, frames)

    monkeypatch.setattr(Pending, "with_more", interrupted)
    with pytest.raises(InputError, match="the last frames were not taken"):
        w.append(walk[3])
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "run.h5"), walk[:3])


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no such timer")
def test_a_signals_handler_closes_at_any_moment(tmp_path, in_fresh_process):
    in_fresh_process(
        f"""
        import faulthandler, numpy as np, os, random, signal, tezip_h5
        faulthandler.dump_traceback_later(100, exit=True)
        moments = random.Random(7)
        for attempt in range(40):
            path = os.path.join({str(tmp_path)!r}, f"{{attempt}}.h5")
            options = {{"level": "fast", "threads": 1, "chunk_frames": 2, "queue_frames": 16}}
            w = tezip_h5.Writer(path, "scan", (4, 4), "u2", **options)
            signal.signal(signal.SIGALRM, lambda *_: w.close())
            signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-4, 2e-2))
            count = 0
            try:
                while True:
                    w.append(np.full((4, 4), count, "u2"))
                    count += 1
            except tezip_h5.InputError:
                pass
            back = tezip_h5.read(path)[:, 0, 0]
            assert count <= len(back) <= count + 1, (count, back)
            assert (back == np.arange(len(back))).all(), back
        """
    )


def test_a_writer_that_is_closed_is_let_go(tmp_path, walk):
    w = Writer(tmp_path / "run.h5", "scan", walk.shape[1:], walk.dtype, level="fast")
    w.append(walk)
    w.close()
    seen = weakref.ref(w)
    del w
    gc.collect()
    assert seen() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_fork_leaves_the_writer_to_its_maker(tmp_path, in_fresh_process):
    path = tmp_path / "run.h5"
    in_fresh_process(
        f"""
        import faulthandler, numpy as np, os, tezip_h5
        faulthandler.dump_traceback_later(60, exit=True)
        x = np.zeros((20, 16, 16), "u2")
        w = tezip_h5.Writer({str(path)!r}, "a", (16, 16), "u2", level="fast", threads=1)
        w.append(x)
        w.flush()
        before = open({str(path)!r}, "rb").read()
        child = os.fork()
        if child == 0:
            refused = 0
            for call in lambda: w.append(x), w.flush:
                try:
                    call()
                except tezip_h5.InputError as error:
                    refused += "fork" in str(error)
            w.close()
            same = open({str(path)!r}, "rb").read() == before
            os._exit(0 if refused == 2 and same and not w.closed else 1)
        assert os.waitpid(child, 0)[1] == 0
        w.append(x)
        w.close()
        """
    )
    assert len(tezip_h5.read(path)) == 40


def test_a_block_that_never_fits_says_so(tmp_path, walk):
    path, options = tmp_path / "run.h5", {"chunk_frames": 2, "queue_frames": 4}
    with Writer(path, "scan", walk.shape[1:], walk.dtype, when_full="raise", **options) as w:
        with pytest.raises(InputError, match="smaller blocks, or a larger queue_frames"):
            w.append(walk[:5])
        w.append(walk[:4])
    np.testing.assert_array_equal(tezip_h5.read(path), walk[:4])
