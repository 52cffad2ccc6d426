"""Writers under real conditions: queues, live readers, kills, repair, appending."""

import errno
import itertools
import os
import random
import re
import subprocess
import sys
import textwrap
import threading
import time

import h5py
import numpy as np
import pytest

import tezip_h5
from tezip_h5 import BoundError, FormatError, InputError, OverrunError, Writer
from tezip_h5.cli import main
from tezip_h5.hdf5.files import superblock
from tezip_h5.hdf5.writing import growing, live
from tezip_h5.hdf5.writing.encoder import StackEncoder
from tezip_h5.hdf5.writing.line import Line

FAST = {"level": "fast", "chunk_frames": 4}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.h5"


@pytest.fixture
def slow_disk(monkeypatch):
    """Writing waits for `set`."""
    gate = threading.Event()
    original = StackEncoder._write

    def write(self, step):
        gate.wait(30)
        original(self, step)

    monkeypatch.setattr(StackEncoder, "_write", write)
    yield gate
    gate.set()


def test_a_full_queue_blocks_and_loses_nothing(path, walk, slow_disk):
    w = Writer(path, "scan", (40, 56), "u2", queue_frames=8, **FAST)
    done = []

    def produce():
        for i, frame in enumerate(walk):
            w.append(frame)
            done.append(i)

    thread = threading.Thread(target=produce)
    thread.start()
    time.sleep(0.3)
    assert len(done) == w.queued == 8
    slow_disk.set()
    thread.join(30)
    assert len(done) == len(walk)
    w.close()
    np.testing.assert_array_equal(tezip_h5.read(path), walk)
    assert w.queued == 0


def test_a_full_queue_may_raise_and_takes_all_or_nothing(path, walk, slow_disk):
    w = Writer(path, "scan", (40, 56), "u2", queue_frames=8, when_full="raise", **FAST)
    w.append(walk[:6])
    with pytest.raises(OverrunError, match="6 frames wait to be written, 3 more exceed the 8"):
        w.append(walk[6:9])
    assert w.queued == 6
    slow_disk.set()
    w.flush()
    for frame in walk[6:]:
        while True:
            try:
                w.append(frame)
                break
            except OverrunError:
                time.sleep(0.001)
    w.close()
    np.testing.assert_array_equal(tezip_h5.read(path), walk)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"queue_frames": 7}, "at least 8"),
        ({"when_full": "drop"}, "block, raise"),
        ({"append": True, "overwrite": True}, "replaces it"),
        ({"frame_shape": None}, "needs frame_shape"),
        ({"threads": 0}, "threads"),
    ],
)
def test_wrong_options_make_no_file(path, options, words):
    with pytest.raises(InputError, match=words):
        Writer(**{"path": path, "name": "s", "frame_shape": (4, 4), "dtype": "u2"} | FAST | options)
    assert not path.exists()


def test_frames_of_several_threads_stay_whole(path):
    blocks = [np.full((3, 16, 16), n, "u2") for n in range(40)]
    with Writer(path, "scan", (16, 16), "u2", queue_frames=8, **FAST) as w:
        threads = [
            threading.Thread(target=lambda part: [w.append(b) for b in part], args=(blocks[i::4],))
            for i in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    data = tezip_h5.read(path)[:, 0, 0].reshape(40, 3)
    assert (data == data[:, :1]).all()
    assert sorted(data[:, 0]) == list(range(40))


def test_an_error_of_the_disk_reaches_whoever_appends(path, walk, monkeypatch):
    def write(self, step):
        raise OSError(28, "No space left on device")

    w = Writer(path, "scan", (40, 56), "u2", queue_frames=8, **FAST)
    monkeypatch.setattr(StackEncoder, "_write", write)

    def fill():
        for _ in range(5):
            w.append(walk)

    with pytest.raises(OSError, match="No space"):
        fill()
    with pytest.raises(OSError, match="No space"):
        w.append(walk[0])
    w.close()  # it has been said already
    assert w.summary is None
    w = Writer(path, "other", (40, 56), "u2", **FAST)
    w.append(walk[:5])
    with pytest.raises(OSError, match="No space"):  # the only one to hear of it
        w.close()
    with h5py.File(path) as f:
        assert not f["scan"].attrs["complete"]


@pytest.mark.parametrize("call", ["enter", "wait", "close"])
def test_a_handler_between_the_look_and_the_wait(monkeypatch, call):
    """It closes the line, and nobody is left who could wake the one that it interrupted."""
    line, done = Line(2, "block"), threading.Event()
    line.enter(2)
    line.put(done.wait, 60)
    pause, paused = Line._pause, []

    def interrupted(self):
        if not paused:
            paused.append(True)
            done.set()
            self.close()
            assert self._ended
        pause(self)

    monkeypatch.setattr(Line, "_pause", interrupted)
    if call == "enter":
        with pytest.raises(InputError, match="was closed"):
            line.enter(1)
    else:
        getattr(line, call)()
    assert paused


@pytest.mark.parametrize("fails", [True, False])
def test_what_waits_behind_an_error_or_for_nobody_any_more_is_not_done(fails):
    line, done = Line(8, "block"), []

    def first():
        if fails:
            raise OSError("gone")
        while not line._closed:
            time.sleep(0.01)

    line.put(first)
    line.put(done.append, "second")
    line.close(give_up=not fails)
    assert line.failed == fails
    assert done == []


def test_a_finished_chunk_is_written_without_waiting_for_the_next(path, walk):
    w = Writer(path, "scan", (40, 56), "u2", **FAST)
    w.append(walk[:4])
    end = time.monotonic() + 60
    while w.queued and time.monotonic() < end:
        time.sleep(0.01)
    assert w.queued == 0
    w.close()


def test_flushed_frames_of_an_unfinished_chunk_still_take_room_in_the_queue(path, walk):
    with Writer(path, "scan", (40, 56), "u2", **FAST) as w:
        w.append(walk[:6])
        for _ in range(2):
            w.flush()
            assert w.queued == 2
        w.append(walk[6:8])
        w.flush()
        assert w.queued == 0


def test_metadata_and_the_way_of_viewers(path, walk):
    metadata = {
        "/entry/sample/name": "gold",
        "/entry/sample@NX_class": "NXsample",
        "data@units": "counts",
        "count_time": 0.01,
        "@title": "a scan",
    }
    with Writer(path, "entry/det/scan", (40, 56), "u2", metadata=metadata, **FAST) as w:
        w.append(walk)
    with h5py.File(path) as f:
        assert f.attrs["default"] == "entry"
        assert f["entry"].attrs["NX_class"] == "NXentry"
        assert f["entry"].attrs["default"] == "det"
        assert f["entry/det"].attrs["default"] == "scan"
        assert f["entry/det/scan"].attrs["NX_class"] == "NXdata"
        assert f["entry/det/scan/data"].attrs["units"] == "counts"
        assert f["entry/det/scan/count_time"][()] == 0.01
        assert f["entry/sample"].attrs["NX_class"] == "NXsample"
    for wrong in ({"x": object()}, {"data": 3}, {"x": {"y": 1}}):
        with pytest.raises(InputError, match="cannot be written"):
            Writer(path, "b", (40, 56), "u2", metadata=wrong, **FAST)
        with pytest.raises(InputError, match="cannot be written"):
            Writer(path.with_name("new.h5"), "b", (40, 56), "u2", metadata=wrong, **FAST)
    assert os.listdir(path.parent) == [path.name]
    with h5py.File(path) as f:
        assert "b" not in f


# --- while others read ---

READER = """
    import sys, time, h5py, numpy as np, tezip_h5
    with h5py.File(sys.argv[1], "r", swmr=True) as f:
        data, seen = f["scan/data"], -1
        print("ready", flush=True)
        end = time.monotonic() + 240
        while seen < int(sys.argv[2]) and time.monotonic() < end:
            data.refresh()
            if len(data) != seen:
                seen = len(data)
                print(seen, int(data[:].sum()), flush=True)
            time.sleep(0.005)
"""


def follow(path, count):
    code = [sys.executable, "-c", textwrap.dedent(READER), str(path), str(count)]
    reader = subprocess.Popen(code, stdout=subprocess.PIPE, text=True)
    assert reader.stdout.readline() == "ready\n"
    return reader


def test_a_reader_follows(path, walk):
    w = Writer(path, "scan", (40, 56), "u2", swmr=True, absolute=0, **FAST)
    reader = follow(path, 18)
    assert int(reader.stdout.readline().split()[0]) == 0
    for i, frame in enumerate(walk[:18]):
        w.append(frame, filename=f"{i}.tif" if i > 2 else None)
        if i in (5, 17):
            w.flush()
            while True:
                seen, total = map(int, reader.stdout.readline().split())
                assert total == walk[:seen].sum()
                if seen == i + 1:
                    break
    assert reader.wait(240) == 0
    [stack] = tezip_h5.inspect(path).stacks  # ours open it, too
    assert not stack.complete
    np.testing.assert_array_equal(tezip_h5.read(path), walk[:18])
    with pytest.raises(InputError, match="in use"):
        tezip_h5.repair(path)
    w.append(walk[18:])
    w.close()
    tezip_h5.verify(path, walk)
    with h5py.File(path) as f:
        assert f["scan"].attrs["complete"]
        assert len(f["scan/preview"]) == len(f["scan/keyframes"]) == 5
        assert f["scan/filenames"].asstr()[:].tolist() == [
            "",
            "",
            "",
            *(f"{i}.tif" for i in range(3, 18)),
            "",
            "",
        ]


def test_a_reader_that_stays_keeps_the_end_for_later(path, walk, caplog):
    w = Writer(path, "scan", (40, 56), "u2", swmr=True, **FAST)
    w.append(walk)
    reader = follow(path, 21)
    w.close()
    assert "is being read" in caplog.text
    assert w.summary.shape == walk.shape
    reader.kill()
    reader.wait()
    tezip_h5.verify(path, walk)
    with h5py.File(path) as f:
        assert "keyframes" not in f["scan"]
    tezip_h5.repair(path)
    with h5py.File(path) as f:
        assert set(f["scan"]) == {"data", "frames", "keyframes", "preview"}
        assert f["scan"].attrs["complete"]


def test_files_that_cannot_be_read_while_written(run_h5):
    before = run_h5.read_bytes()
    with pytest.raises(InputError, match="swmr=True from the beginning"):
        Writer(run_h5, "other", (4, 4), "u2", swmr=True)
    assert run_h5.read_bytes() == before


# --- going on ---


@pytest.mark.parametrize("swmr", [False, True])
@pytest.mark.parametrize("bound", [{}, {"absolute": 2}, {"pointwise_relative": 0.01}])
def test_appending(path, walk, bound, swmr):
    stack = np.concatenate([walk, walk[::-1]])
    cuts = [0, 6, 6, 7, 16, 23, 40]
    for first, last in itertools.pairwise(cuts):
        more = {"frame_shape": (40, 56), "dtype": "u2", **FAST, **bound} if first == 0 else {}
        with Writer(path, "scan", append=True, swmr=swmr, **more) as w:
            w.append(stack[first:last])
            assert f"{last} frames" in repr(w)
        tezip_h5.verify(path, stack[:last])
        [report] = tezip_h5.inspect(path).stacks
        assert report.complete
        assert report.level == "fast"
        assert sum(report.kinds.values()) == last
        assert w.summary.shape == (last, 40, 56)
        with h5py.File(path) as f:
            attrs = dict(f["scan"].attrs)
            assert attrs["chunks"] == f["scan/data"].id.get_num_chunks() == -(-last // 4)
            assert attrs["payload_bytes"] == f["scan/data"].id.get_storage_size()
            assert attrs["raw_bytes"] == stack[:last].nbytes
            assert attrs["max_error"] == f["scan/frames"]["max_error"].max()
            assert len(f["scan/keyframes"]) == report.kinds["keyframe"]


@pytest.mark.parametrize(
    "options",
    [
        {"absolute": 0},
        {"absolute": 2, "relative": 0},
        {"noise": 0},
        {"absolute": 2},
        {"tile": (64, 64)},
        {"tile": np.array([20, 64])},
        {"window": 3, "tile": None},
        {"mse_threshold": 0.1, "warmup": 1},
        {"entropy": False, "predictor": "auto", "model": None},
        {"coder": "stages", "feedback": "prediction", "spatial": True, "model": "default"},
    ],
)
def test_a_writer_starts_again_with_its_own_arguments(path, walk, options):
    kept = []
    for first in range(3):
        with Writer(path, "scan", (40, 56), "u2", append=True, **FAST, **options) as w:
            kept.append(w.settings)
            w.append(walk[5 * first : 5 * first + 5])
    assert kept[0] == kept[-1]
    tezip_h5.verify(path, walk[:15])


def test_appending_floats_and_names(path):
    rng = np.random.default_rng(0)
    stack = rng.normal(100, 5, (9, 24, 24)).astype("f4")
    tezip_h5.write(stack[:5], path, absolute=0.1, level="fast")
    with Writer(path, "scan", append=True) as w:
        w.append(stack[5], filename="five.tif")
        w.append(stack[6:])
    tezip_h5.verify(path, stack)
    with h5py.File(path) as f:
        assert f["scan/filenames"].asstr()[:].tolist() == [*[""] * 5, "five.tif", *[""] * 3]


def test_what_cannot_be_appended(path, walk):
    with pytest.raises(InputError, match="no file"):
        Writer(path, "scan", append=True)
    tezip_h5.write(walk, path, absolute=2, level="fast", chunk_frames=8)
    for options, words in (
        ({"dtype": "u1", "frame_shape": (40, 56)}, "dtype='u1', but"),
        ({"frame_shape": (40, 57), "dtype": "u2"}, "frame_shape"),
        ({"chunk_frames": 4}, "chunk_frames=4"),
        ({"absolute": 3}, "begun with absolute 2"),
        ({"absolute": 0}, "a bound of lossless, .*begun with absolute 2"),
        ({"tile": (8, 8)}, r"tile=\(8, 8\), but"),
        ({"window": 5}, "window=5, but .* was begun with None"),
        ({"mse_threshold": 0.1}, "mse_threshold=0.1, but .* was begun with None"),
        ({"warmup": 1}, "warmup=1, but .* was begun with 0"),
        ({"feedback": "prediction"}, "feedback='prediction', but"),
        ({"entropy": False}, "entropy=False, but .* was begun with True"),
        ({"coder": "linear"}, "coder='linear', but"),
        ({"window": 0}, "window=0 is no number of frames"),
    ):
        with pytest.raises(InputError, match=words):
            Writer(path, "scan", append=True, **options)
    with pytest.raises(InputError, match="holds no stack 'nope'"):
        Writer(path, "nope", append=True)
    with h5py.File(path, "r+") as f:
        f["plain/data"] = walk
    with pytest.raises(InputError, match="is no stack"):
        Writer(path, "plain", append=True)
    tezip_h5.verify(path, walk, name="scan")


def test_a_stack_with_a_chunk_that_skipped_the_filter_goes_on(path, walk):
    tezip_h5.write(walk[:8], path, **FAST)
    with h5py.File(path, "r+") as f:
        f["scan/data"].id.write_direct_chunk((4, 0, 0), walk[4:8].tobytes(), filter_mask=1)
    with Writer(path, "scan", append=True) as w:
        w.append(walk[8:])
    np.testing.assert_array_equal(tezip_h5.read(path), walk)
    assert w.summary.shape == walk.shape


# --- killed writers ---

WRITER = """
    import sys, numpy as np, tezip_h5
    x = np.load(sys.argv[2])
    w = tezip_h5.Writer(sys.argv[1], "scan", x.shape[1:], x.dtype, chunk_frames=4, threads=2,
                        level="fast", swmr=sys.argv[3] == "swmr")
    n = 0
    while True:
        w.append(x[n % len(x)])
        n += 1
        if n % 7 == 0:
            w.flush()
            print(n, flush=True)
"""


@pytest.mark.parametrize("way", ["plain", "swmr"])
def test_kills_at_random_moments(tmp_path, walk, way):
    """The hundred of benchmarks/kills.py, a few of them."""
    np.save(tmp_path / "x.npy", walk)
    moments = random.Random(5)
    for attempt in range(3):
        path = tmp_path / f"{attempt}.h5"
        code = [sys.executable, "-c", textwrap.dedent(WRITER), path, tmp_path / "x.npy", way]
        process = subprocess.Popen([str(c) for c in code], stdout=subprocess.PIPE, text=True)
        flushed = int(process.stdout.readline())
        time.sleep(moments.uniform(0, 0.4))
        process.kill()
        flushed = int((process.communicate()[0].split() or [flushed])[-1])
        expected = walk[np.arange(flushed) % len(walk)]
        with h5py.File(path, "r", swmr=way == "swmr") as f:
            assert len(f["scan/data"]) >= flushed
            np.testing.assert_array_equal(f["scan/data"][:flushed], expected)
        if way == "swmr":
            with pytest.raises(OSError, match="consistency flags"):
                h5py.File(path)
            with pytest.raises(InputError, match="its writer died"):
                Writer(path, "scan", append=True)
            np.testing.assert_array_equal(tezip_h5.read(path, slice(0, flushed)), expected)
        done = tezip_h5.repair(path)
        assert done.unlocked == (way == "swmr")
        tezip_h5.verify(path)
        with Writer(path, "scan", append=True) as w:
            w.append(walk[:3])
        tezip_h5.verify(path)
        with h5py.File(path) as f:
            assert f["scan"].attrs["complete"]
            np.testing.assert_array_equal(f["scan/data"][:flushed], expected)
            np.testing.assert_array_equal(f["scan/data"][-3:], walk[:3])
            assert len(f["scan/preview"])


INTERRUPTED = """
    import os, signal, sys, threading, numpy as np, tezip_h5
    x = np.load(sys.argv[2])
    try:
        with tezip_h5.Writer(sys.argv[1], "scan", x.shape[1:], x.dtype, chunk_frames=4,
                             level="fast", queue_frames=60, swmr=sys.argv[3] == "swmr") as w:
            for n in range(10**9):
                w.append(x[n % len(x)])
                if n == 30:
                    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    except KeyboardInterrupt:
        print(w.summary.shape[0], n)
"""


@pytest.mark.parametrize("way", ["plain", "swmr"])
def test_control_c_keeps_what_was_appended(tmp_path, walk, way):
    path = tmp_path / "run.h5"
    np.save(tmp_path / "x.npy", walk)
    code = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), path, tmp_path / "x.npy", way]
    done = subprocess.run([str(c) for c in code], capture_output=True, text=True, timeout=120)
    kept, appended = map(int, done.stdout.split())
    assert kept in (appended, appended + 1)
    tezip_h5.verify(path)
    with h5py.File(path) as f:
        assert f["scan"].attrs["complete"]
        numbers = np.arange(kept) % len(walk)
        np.testing.assert_array_equal(f["scan/data"][:], walk[numbers])


# --- repair ---


def test_repair_leaves_sound_files_alone(run_h5, capsys):
    before = run_h5.read_bytes()
    assert main(["repair", str(run_h5)]) == 0
    assert "all its stacks are complete" in capsys.readouterr().out
    assert run_h5.read_bytes() == before


def test_repair_drops_what_never_came(path, walk, capsys):
    tezip_h5.write(walk, path, chunk_frames=4, level="fast")
    with h5py.File(path, "r+") as f:
        f["scan"].attrs["complete"] = False
        f["scan/data"].resize(31, axis=0)  # as if a kill came before the chunks
        f["scan/frames"].resize(26, axis=0)
        del f["scan/keyframes"], f["scan/preview"]
    with pytest.raises(FormatError, match="31 frames"):
        tezip_h5.verify(path)
    with pytest.raises(FormatError, match="repair"):
        Writer(path, "scan", append=True)
    assert main(["repair", str(path)]) == 0
    assert "20 frames, 11 frames without data dropped" in capsys.readouterr().out
    tezip_h5.verify(path, walk)
    with h5py.File(path) as f:
        assert len(f["scan/keyframes"]) == 5


def test_what_repair_refuses(tmp_path):
    with pytest.raises(InputError, match="no file"):
        tezip_h5.repair(tmp_path / "nope.h5")
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(InputError, match="no HDF5"):
        tezip_h5.repair(tmp_path / "text.h5")


def test_a_damaged_superblock_is_not_made_worse(path, walk):
    with Writer(path, "scan", (40, 56), "u2", swmr=True, **FAST) as w:
        w.append(walk)
    damaged = bytearray(path.read_bytes())
    assert damaged[8] == superblock.version(path) == 3
    damaged[11] |= 5
    path.write_bytes(damaged)
    with pytest.raises((FormatError, OSError)):
        tezip_h5.repair(path)
    assert path.read_bytes() == damaged


def test_lookup3_is_bob_jenkins_s():
    assert superblock.lookup3(b"") == 0xDEADBEEF
    assert superblock.lookup3(b"Four score and seven years ago") == 0x17770551
    assert superblock.lookup3(b"Four score and seven years ago", 1) == 0xCD628161


def test_a_bound_that_breaks_is_an_error_of_the_writer(path, walk, monkeypatch):
    from tezip_h5.hdf5.writing import checked

    monkeypatch.setattr(checked, "decode_chunk", lambda payload, **_: np.zeros((4, 40, 56), "u2"))
    w = Writer(path, "scan", (40, 56), "u2", verify=True, **FAST)
    w.append(walk[:4])
    with pytest.raises(BoundError):
        w.flush()
    w.close()
    assert os.path.exists(path)


def test_frames_that_come_while_it_closes_are_written_or_refused(path, walk):
    options = {"level": "fast", "chunk_frames": 2, "queue_frames": 8}
    for attempt in range(8):
        w = Writer(path, f"s{attempt}", walk.shape[1:], walk.dtype, **options)
        taken = []

        def append(w=w, taken=taken):
            while not taken or taken[-1] != "closed":
                try:
                    w.append(walk[len(taken) % len(walk)])
                    taken.append("frame")
                except InputError:
                    taken.append("closed")

        thread = threading.Thread(target=append)
        thread.start()
        time.sleep(0.002 * attempt)
        w.close()
        thread.join(60)
        with h5py.File(path) as f:
            group = f[f"s{attempt}"]
            assert len(group["data"]) == len(taken) - 1
            assert group.attrs["raw_bytes"] == (len(taken) - 1) * walk[0].nbytes


def test_whoever_waits_for_room_hears_of_an_interrupted_close(path, walk, monkeypatch):
    going_on = threading.Event()
    monkeypatch.setattr(StackEncoder, "submit", lambda *_, **__: going_on.wait(60))
    shape, dtype = walk.shape[1:], walk.dtype
    w = Writer(path, "scan", frame_shape=shape, dtype=dtype, chunk_frames=2, queue_frames=4)
    said = []

    def append():
        try:
            w.append(np.concatenate([walk, walk]))
        except InputError as error:
            said.append(str(error))

    thread = threading.Thread(target=append)
    thread.start()
    while w.queued < 4:
        time.sleep(0.01)
    w._line.close = give_up_first(w._line, going_on)
    monkeypatch.setattr(w, "_lock", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        w.close()
    thread.join(60)
    assert len(said) == 1  # which frames depends on whether room came first
    assert re.fullmatch("the writer was closed; (2|the last) frames were not taken", said[0])


class Interrupted:
    """A lock for which nobody waits to the end."""

    def __enter__(self):
        raise KeyboardInterrupt

    def __exit__(self, *exception):
        pass


def give_up_first(line, going_on):
    """`Line.close`, while what is under way goes on only after it was given up."""
    close = line.close

    def closing(**options):
        threading.Timer(0.1, going_on.set).start()
        close(**options)

    return closing


def test_a_writer_that_nobody_closes_is_closed_at_the_end(path, walk, in_fresh_process):
    in_fresh_process(
        f"""
        import numpy as np, os, tezip_h5
        first = tezip_h5.Writer({str(path)!r}, "a", (40, 56), "u2", level="fast", chunk_frames=2)
        second = tezip_h5.Writer({str(path)!r}, "b", (40, 56), "u2", level="fast", chunk_frames=2)
        for w in first, second:
            w.append(np.full((9, 40, 56), 7, "u2"))
        second.close()
        """
    )
    with h5py.File(path) as f:
        for name in "ab":
            assert f[name].attrs["complete"]
            assert f[name]["data"].shape == (9, 40, 56)
            assert (f[name]["data"][:] == 7).all()


def test_a_writer_that_went_out_of_scope_is_closed_at_the_end(path, in_fresh_process):
    in_fresh_process(
        f"""
        import gc, numpy as np, tezip_h5
        def acquire():
            w = tezip_h5.Writer({str(path)!r}, "a", (40, 56), "u2", level="fast")
            w.append(np.full((9, 40, 56), 7, "u2"))
        acquire()
        gc.collect()
        """
    )
    with h5py.File(path) as f:
        assert f["a"].attrs["complete"]
        assert (f["a/data"][:] == 7).all()
        assert len(f["a/data"]) == 9


def test_one_that_fails_at_the_end_leaves_the_others_to_be_closed(tmp_path, in_fresh_process):
    in_fresh_process(
        f"""
        import numpy as np, os, tezip_h5
        writers = []
        for name in "abc":
            path = os.path.join({str(tmp_path)!r}, name + ".h5")
            writers.append(tezip_h5.Writer(path, "scan", (40, 56), "u2", level="fast"))
            writers[-1].append(np.zeros((9, 40, 56), "u2"))
        def fails():
            raise OSError("gone")
        writers[0].close = fails
        """
    )
    for name in "bc":
        with h5py.File(tmp_path / f"{name}.h5") as f:
            assert f["scan"].attrs["complete"]


def test_a_link_that_leads_nowhere_is_no_stack(path, walk):
    with h5py.File(path, "w") as f:
        f["scan"] = h5py.SoftLink("/absent")
    with pytest.raises(InputError, match="a link that leads nowhere is no stack"):
        Writer(path, "scan", append=True)


def test_what_keeps_the_end_for_later_is_named(path, walk, caplog, monkeypatch):
    w = Writer(path, "scan", (40, 56), "u2", **FAST)
    w.append(walk)

    def broken(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(live.opening, "changing", broken)
    w.close()
    assert f"could not be opened again ([Errno {errno.EIO}]" in caplog.text
    tezip_h5.verify(path, walk)


def test_a_second_writer_that_goes_on_with_a_stack_is_noticed(path, walk):
    with Writer(path, "scan", frame_shape=walk.shape[1:], dtype=walk.dtype, chunk_frames=2) as w:
        w.append(walk[:4])
    first, second = (Writer(path, "scan", append=True) for _ in range(2))
    first.append(walk[4:8])
    first.flush()
    second.append(walk[:2])
    with pytest.raises(InputError, match="another writer appends"):
        second.flush()
    second.close()
    first.close()
    assert np.array_equal(tezip_h5.read(path), walk[:8])


@pytest.mark.parametrize("swmr", [False, True])
def test_no_frame_counts_that_could_not_be_written(path, walk, swmr, monkeypatch):
    w = Writer(path, "scan", (40, 56), "u2", chunk_frames=4, swmr=swmr)
    w.append(walk[:8])
    w.flush()

    def broken(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(growing, "store_chunk", broken)
    w.append(walk[8:12])
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        w.close()
    with h5py.File(path) as f:
        assert f["scan/data"].shape[0] == 8
    assert np.array_equal(tezip_h5.read(path), walk[:8])


@pytest.mark.parametrize("swmr", [False, True])
def test_a_disk_that_knows_no_locks_keeps_no_empty_file(path, swmr, monkeypatch):
    said = "Unable to synchronously open file (unable to lock file, errno = 37, error message = '')"
    make = h5py.File

    def without_locks(name, mode, **options):
        make(name, mode, **options).close()
        raise OSError(errno.ENOLCK, said)

    monkeypatch.setattr(h5py, "File", without_locks)
    with pytest.raises(OSError, match="unable to lock"):
        Writer(path, "scan", (40, 56), "u2", swmr=swmr)
    assert not path.exists()


@pytest.fixture
def disk(monkeypatch):
    """A disk that may become full: from then on no file gets more room."""
    state, allocate = {"full": False}, os.posix_fallocate

    def limited(descriptor, start, size):
        if state["full"] and start + size > os.fstat(descriptor).st_size:
            raise OSError(28, "No space left on device")
        allocate(descriptor, start, size)

    monkeypatch.setattr(os, "posix_fallocate", limited)
    return state


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no room can be reserved here")
@pytest.mark.parametrize("swmr", [False, True])
def test_a_full_disk_takes_previews_and_nothing_else(path, walk, disk, caplog, swmr):
    options = {"chunk_frames": 3, "swmr": swmr}
    with Writer(path, "scan", frame_shape=walk.shape[1:], dtype=walk.dtype, **options) as w:
        w.append(walk[:6])
        w.flush()
        disk["full"] = True
    disk["full"] = False
    assert "has no room (No space left on device)" in caplog.text
    assert np.array_equal(tezip_h5.read(path), walk[:6])
    with h5py.File(path) as f:
        assert f["scan"].attrs["complete"]
        assert "preview" not in f["scan"]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no room can be reserved here")
@pytest.mark.parametrize("swmr", [False, True])
def test_what_was_flushed_outlives_a_disk_that_is_full_at_the_end(path, walk, disk, swmr):
    options = {"chunk_frames": 4, "swmr": swmr}
    w = Writer(path, "scan", frame_shape=walk.shape[1:], dtype=walk.dtype, **options)
    w.append(walk[:6])
    w.flush()
    disk["full"] = True
    with pytest.raises(OSError, match="No space"):
        w.close()
    disk["full"] = False
    assert np.array_equal(tezip_h5.read(path), walk[:6])
    with Writer(path, "scan", append=True, swmr=swmr) as w:
        w.append(walk[6:])
    assert np.array_equal(tezip_h5.read(path), walk)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no room can be reserved here")
def test_a_disk_that_is_full_at_the_beginning_keeps_what_was(path, walk, disk):
    disk["full"] = True
    with pytest.raises(OSError, match="No space"):
        Writer(path, "scan", frame_shape=walk.shape[1:], dtype=walk.dtype)
    assert not path.exists()
    disk["full"] = False
    tezip_h5.write(walk, path)
    disk["full"] = True
    with pytest.raises(OSError, match="No space"):
        Writer(path, "scan", frame_shape=walk.shape[1:], dtype=walk.dtype, overwrite=True)
    assert np.array_equal(tezip_h5.read(path), walk)
