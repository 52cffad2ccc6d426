"""What may go wrong around a stack: interruptions, forks, files in other shapes than expected."""

import os
import signal

import h5py
import numpy as np
import pytest

import tezip_h5
from tezip_h5 import FormatError, InputError, ModelError
from tezip_h5.cli import main
from tezip_h5.hdf5.pipeline import filter

# --- the filter's callback ---


def test_ctrl_c_while_a_chunk_is_decoded(run_h5, in_fresh_process):
    """What reading gave then were bytes of something else, and no error."""
    code = f"""
        import h5py, time, tezip_h5
        from tezip_h5.hdf5.pipeline import filter
        file = h5py.File({str(run_h5)!r})
        decode, calls = filter.decode, []
        def interrupted(*arguments):
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return decode(*arguments)
        filter.decode = interrupted
        file["scan/data"][3]
        for _ in range(3):
            try:
                try:
                    print(file["scan/data"][3].sum())
                except OSError:
                    time.sleep(5)
            except KeyboardInterrupt:
                print("interrupted", type(tezip_h5.last_error()).__name__)
    """
    right = tezip_h5.read(run_h5, 3).sum()
    assert in_fresh_process(code).split("\n")[:3] == [
        "interrupted KeyboardInterrupt",
        str(right),
        str(right),
    ]


def test_a_signal_at_the_moment_a_chunk_is_handed_over(run_h5, in_fresh_process):
    """Its handler runs before the callback's first line, where nothing of it can catch."""
    code = f"""
        import ctypes, functools, h5py, signal, tezip_h5
        from tezip_h5.hdf5.pipeline import filter
        file = h5py.File({str(run_h5)!r})
        right = file["scan/data"][3].sum()

        class Stop(BaseException):
            pass

        def stop(number, frame):
            raise Stop
        signal.signal(signal.SIGUSR1, stop)
        given = file["scan/data"].id.get_create_plist().get_filter(0)[2]
        raw = file["scan/data"].id.read_direct_chunk((0, 0, 0))[1]
        buffer = filter._lib.H5allocate_memory(len(raw), False)
        ctypes.memmove(buffer, raw, len(raw))
        pointer, size = ctypes.c_void_p(buffer), ctypes.c_size_t(len(raw))
        values = (ctypes.c_uint * 16)(*given)
        call = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_uint, ctypes.c_size_t, ctypes.c_void_p,
                                ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p)
        address = ctypes.cast(filter._class.filter, ctypes.c_void_p).value
        arguments = (0x0100, 16, ctypes.addressof(values), len(raw), ctypes.addressof(size),
                     ctypes.addressof(pointer))
        # The signal is there when the callback begins: between the two runs only C.
        trip = functools.partial(ctypes.PyDLL(None).PyErr_SetInterruptEx, int(signal.SIGUSR1))
        decode = functools.partial(call(address), *arguments)
        for _ in range(2):
            print(list(map(functools.partial.__call__, [trip, decode])))
        print(decode(), size.value, file["scan/data"][3].sum() == right)
    """
    whole = 16 * 40 * 56 * 2
    assert in_fresh_process(code).split("\n")[:3] == ["[0, 0]", "[0, 0]", f"{whole} {whole} True"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_reads_lossy_chunks(tmp_path, walk):
    path = tmp_path / "run.h5"
    tezip_h5.write(walk, path, level="fast", absolute=2)
    with filter._read_frames._lock:  # as if another thread held it while we fork
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            with h5py.File(path) as f:
                f["scan/data"][3]
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


# --- places in a file ---


def test_a_dataset_is_overwritten_by_a_stack(tmp_path, walk):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as f:
        f["scan"] = walk
        f["dangling"] = h5py.SoftLink("/nowhere")
    for name, size in [("scan", walk.nbytes), ("dangling", 0)]:
        with pytest.raises(InputError, match="overwrite=True"):
            tezip_h5.write(walk, path, name, level="fast")
        summary = tezip_h5.write(walk, path, name, level="fast", overwrite=True)
        assert summary.reclaimable_bytes == size
        np.testing.assert_array_equal(tezip_h5.read(path, name=name), walk)


def test_a_stack_cannot_lie_in_a_dataset(tmp_path, walk):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as f:
        f["a"] = walk
        f["b"] = h5py.SoftLink("/nowhere")
    before = path.read_bytes()
    for name in ("a/scan", "a/b/scan", "b/scan"):
        with pytest.raises(InputError, match="no group"):
            tezip_h5.write(walk, path, name, level="fast")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.h5"]


def test_further_links_do_not_rename_a_stack(run_h5, tmp_path, walk):
    with h5py.File(run_h5, "r+") as f:
        f["another"] = f["scan/data"]
    assert [stack.name for stack in tezip_h5.inspect(run_h5).stacks] == ["scan"]
    tezip_h5.recompress(run_h5, tmp_path / "y.h5", level="fast")
    with h5py.File(tmp_path / "y.h5") as f:
        assert f["another"] == f["scan/data"]
        assert "keyframes" in f["scan"]
    assert [stack.name for stack in tezip_h5.inspect(tmp_path / "y.h5").stacks] == ["scan"]
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "y.h5", name="another"), walk)


@pytest.mark.parametrize("size", [100, 600])
def test_a_truncated_file_is_damaged(run_h5, tmp_path, size, capsys):
    run_h5.write_bytes(run_h5.read_bytes()[:size])
    for call in (tezip_h5.inspect, tezip_h5.verify, tezip_h5.read):
        with pytest.raises(FormatError, match="truncated"):
            call(run_h5)
    assert main(["inspect", str(run_h5)]) == 2
    assert "truncated" in capsys.readouterr().err


def test_tables_that_are_missing(run_h5, tmp_path):
    with h5py.File(run_h5, "r+") as f:
        del f["scan/frames"]
    with pytest.raises(FormatError, match="its table"):
        tezip_h5.verify(run_h5)
    with pytest.raises(FormatError, match="its table"):
        tezip_h5.recompress(run_h5, tmp_path / "y.h5", level="fast")
    assert os.listdir(tmp_path) == ["run.h5"]


def test_a_writer_that_cannot_begin_leaves_what_was_there(tmp_path):
    stack = np.zeros((4, 8, 8, 2), "u1")
    tezip_h5.write(stack, tmp_path / "x.h5", level="fast")
    for name in ("x.h5", "new.h5"):
        with pytest.raises(ModelError, match="2 channels"):
            tezip_h5.Writer(
                tmp_path / name, "scan", (8, 8, 2), "u1", overwrite=True, predictor="prednet"
            )
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "x.h5"), stack)
    assert os.listdir(tmp_path) == ["x.h5"]


# --- reading ---


@pytest.mark.parametrize("selection", [slice(None, None, 2), [1, 9], (slice(None), [0, 2])])
def test_damage_is_named_whatever_is_selected(run_h5, selection):
    with h5py.File(run_h5, "r+") as f:
        data = f["scan/data"].id
        payload = bytearray(data.read_direct_chunk((0, 0, 0))[1])
        payload[-3] ^= 1
        data.write_direct_chunk((0, 0, 0), bytes(payload))
    with pytest.raises(FormatError, match="checksum"):
        tezip_h5.read(run_h5, selection)


def test_chunks_stored_raw_but_too_short(tmp_path, walk):
    with h5py.File(tmp_path / "x.h5", "w") as f:
        data = f.create_dataset("x", walk.shape, "u2", chunks=(5, 40, 56), **tezip_h5.TEZip())
        data.id.write_direct_chunk((0, 0, 0), b"abc", filter_mask=1)
    with h5py.File(tmp_path / "x.h5") as f, pytest.raises(FormatError, match="3 bytes"):
        tezip_h5.read(f["x"], slice(0, 2))
    with pytest.raises(FormatError, match="3 bytes"):
        tezip_h5.verify(tmp_path / "x.h5")


def with_pipeline(source, target, change, mask):
    """The stack's chunks in a dataset `x` of a new file, whose filters `change` changes."""
    with h5py.File(source) as f, h5py.File(target, "w") as new:
        data = f["scan/data"].id
        pipeline = data.get_create_plist()
        change(pipeline)
        made = h5py.h5d.create(new.id, b"x", data.get_type(), data.get_space(), pipeline)
        for at in range(0, data.shape[0], f["scan/data"].chunks[0]):
            made.write_direct_chunk((at, 0, 0), data.read_direct_chunk((at, 0, 0))[1], mask)


def test_a_mask_of_filters_that_are_not_there(run_h5, tmp_path, walk):
    path = tmp_path / "x.h5"
    with_pipeline(run_h5, path, lambda _: None, mask=2)
    with h5py.File(path) as f:
        np.testing.assert_array_equal(f["x"][:], walk)
    np.testing.assert_array_equal(tezip_h5.read(path), walk)
    tezip_h5.verify(path, walk)


@pytest.mark.parametrize("count", [5, 16, 18, 19, 21, 32, 40])
def test_originals_of_another_length(run_h5, walk, count):
    longer = np.concatenate([walk, walk])
    with pytest.raises(InputError, match="the original"):
        tezip_h5.verify(run_h5, iter(longer[:count]))
    assert "are intact" in str(tezip_h5.verify(run_h5, iter(walk)))


def test_an_original_that_goes_on_behind_the_last_whole_chunk(tmp_path, walk):
    tezip_h5.write(walk[:16], tmp_path / "x.h5", chunk_frames=8, level="fast")
    with pytest.raises(InputError, match="has 16 frames; the original has more"):
        tezip_h5.verify(tmp_path / "x.h5", iter(walk))


@pytest.mark.parametrize("threads", ["x", "2", 0, 1.5, float("nan"), [1], -3])
def test_numbers_of_threads(run_h5, walk, tmp_path, threads):
    for call in (
        lambda: tezip_h5.read(run_h5, threads=threads),
        lambda: tezip_h5.write(walk, tmp_path / "x.h5", threads=threads),
        lambda: tezip_h5.recompress(run_h5, tmp_path / "x.h5", threads=threads),
        lambda: tezip_h5.verify(run_h5, threads=threads),
    ):
        with pytest.raises(InputError, match="threads"):
            call()


def test_names_that_are_none(run_h5):
    for name in (5, b"scan", ["scan"]):
        with pytest.raises(InputError, match="name"):
            tezip_h5.read(run_h5, name=name)


# --- further filters beside ours ---


def test_the_filter_twice_where_it_was_once(run_h5, tmp_path):
    with_pipeline(run_h5, tmp_path / "x.h5", lambda p: p.set_filter(*p.get_filter(0)[:3]), mask=0)
    with pytest.raises(FormatError, match="no tezip payload"):
        tezip_h5.verify(tmp_path / "x.h5")


def test_a_chunk_that_skipped_every_filter(tmp_path, walk):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as f:
        f.create_dataset(
            "x", walk.shape, "u2", chunks=(8, 40, 56), fletcher32=True, **tezip_h5.TEZip()
        ).id.write_direct_chunk((0, 0, 0), b"abc", filter_mask=3)
    with pytest.raises(FormatError, match="3 bytes"):
        tezip_h5.verify(path)


def test_a_checksum_of_hdf5_beside_the_filter(tmp_path, walk):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as f:
        f.create_dataset(
            "x", data=walk, chunks=(8, 40, 56), fletcher32=True, **tezip_h5.TEZip(level="fast")
        )
    np.testing.assert_array_equal(tezip_h5.read(path), walk)
    assert tezip_h5.verify(path, walk).chunks == 3
    with h5py.File(path, "r+") as f:
        data = f["x"].id
        payload = bytearray(data.read_direct_chunk((8, 0, 0))[1])
        payload[-30] ^= 1
        data.write_direct_chunk((8, 0, 0), bytes(payload))
    with pytest.raises(FormatError, match=r"\(8, 0, 0\)"):
        tezip_h5.verify(path)
