"""The filter as h5py and HDF5 see it: datasets made and read by plain h5py."""

import os
import struct
import subprocess
import sys
import textwrap
import threading

import h5py
import numpy as np
import pytest
from conftest import require_tool

import tezip_h5
from tezip_h5 import FormatError, InputError, TEZip
from tezip_h5.hdf5.pipeline import cache, filter
from tezip_h5.hdf5.pipeline.options import ChunkOptions


def fresh_process(code, *args, env=None):
    """Run `code` in a new Python; its standard output."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **(env or {})},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture
def h5(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        yield file


@pytest.mark.parametrize(
    "make",
    [
        lambda f, x, t: f.create_dataset("x", data=x, chunks=(8, 40, 56), **t),
        lambda f, x, t: f.create_dataset("x", data=x, chunks=(8, 40, 56), compression=t),
    ],
)
@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i4", ">f4", "<f8", "u1"])
def test_hdf5plugins_way(h5, walk, make, dtype):
    x = walk.astype(dtype)
    make(h5, x, TEZip())
    h5.flush()
    h5["x"].id.refresh()
    back = h5["x"][:]
    assert back.dtype == x.dtype
    np.testing.assert_array_equal(back, x)


def test_a_bound_holds_through_the_filter(tmp_path, walk):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as f:
        f.create_dataset("x", data=walk, chunks=(8, 17, 23), **TEZip(absolute=3))
    with h5py.File(path) as f:
        error = np.abs(f["x"][:].astype(int) - walk)
        assert 0 < error.max() <= 3
        assert f["x"].id.get_storage_size() < walk.nbytes / 3


def test_one_image_is_a_stack_of_one(tmp_path, walk):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as f:
        f.create_dataset("x", data=walk[0], chunks=walk[0].shape, **TEZip())
    with h5py.File(path) as f:
        np.testing.assert_array_equal(f["x"][:], walk[0])
        np.testing.assert_array_equal(tezip_h5.read(f["x"]), walk[0])


def test_a_fresh_process_reads_with_plain_h5py(run_h5, walk, tmp_path):
    np.save(tmp_path / "walk.npy", walk)
    out = fresh_process(
        """
        import sys, h5py, numpy, tezip_h5
        with h5py.File(sys.argv[1]) as f:
            d = f["scan/data"]
            x = numpy.load(sys.argv[2])
            assert (d[:] == x).all() and (d[7, 3:9, ::2] == x[7, 3:9, ::2]).all()
            assert (f["scan/keyframes"][0] == x[0]).all()
        print("same")
        """,
        run_h5,
        tmp_path / "walk.npy",
    )
    assert out == "same"


def test_import_is_light():
    out = fresh_process(
        """
        import sys, time
        started = time.process_time()
        import tezip_h5
        print(time.process_time() - started)
        print([m for m in ("numba", "tensorflow", "keras", "PIL", "numcodecs") if m in sys.modules])
        """
    )
    seconds, modules = out.splitlines()
    assert modules == "[]"
    assert float(seconds) < 0.5 * 3  # half a second, where nothing else wants the caches


def test_the_first_frame_comes_soon(run_h5):
    tezip_h5.read(run_h5, 0)  # kernels are compiled and cached now
    out = fresh_process(
        """
        import sys, time
        started = time.process_time()
        import h5py, tezip_h5
        with h5py.File(sys.argv[1]) as f:
            f["scan/data"][0]
        print(time.process_time() - started)
        """,
        run_h5,
    )
    assert float(out) < 2 * 2


def test_partial_writes_do_not_add_error(tmp_path):
    """A chunk written frame by frame through HDF5's small cache is encoded again and again."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 200, 300)).astype(np.float32) * 50
    path = tmp_path / "x.h5"
    for i in range(len(x)):
        with h5py.File(path, "a", rdcc_nbytes=0) as f:
            if i == 0:
                f.create_dataset("x", x.shape, "f4", chunks=(4, 200, 300), **TEZip(absolute=1))
            f["x"][i] = x[i]
    with h5py.File(path) as f:
        assert np.abs(f["x"][:] - x).max() <= 1


def test_rewriting_a_frame_leaves_the_others(tmp_path, walk):
    path = tmp_path / "run.h5"
    tezip_h5.write(walk, path, absolute=2)
    before = tezip_h5.read(path)
    with h5py.File(path, "r+", rdcc_nbytes=0) as f:
        f["scan/data"][5] = 7
    with h5py.File(path) as f:
        after = f["scan/data"][:]
    assert np.abs(after[5].astype(int) - 7).max() <= 2
    others = np.arange(20) != 5
    np.testing.assert_array_equal(after[others], before[others])


@pytest.mark.parametrize("chunks", [(8, 40, 56), (8, 16, 56), (8, 33, 41)])
@pytest.mark.parametrize("fill", [0, 60000])
def test_padding_does_not_loosen_a_relative_bound(tmp_path, walk, chunks, fill):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as f:
        f.create_dataset("x", data=walk, chunks=chunks, fillvalue=fill, **TEZip(relative=0.05))
    with h5py.File(path) as f:
        error = np.abs(f["x"][:].astype(int) - walk).max(axis=(1, 2))
    assert (error <= 0.05 * np.ptp(walk.astype(int), axis=(1, 2))).all()
    assert error.max() > 0


@pytest.mark.parametrize(
    "held", ["del d", "pass", "threading.Thread(target=wait, args=[d], daemon=True).start()"]
)
def test_a_file_left_open_is_written_before_python_ends(tmp_path, held):
    """Its dataset is closed by then, or open: then HDF5 has the chunk until the end."""
    path = tmp_path / "x.h5"
    fresh_process(
        f"""
        import sys, threading, time, h5py, numpy, tezip_h5
        def wait(dataset):
            time.sleep(100)
        f = h5py.File(sys.argv[1], "w")
        x = numpy.arange(8 * 64 * 64, dtype="u2").reshape(8, 64, 64)
        d = f.create_dataset("x", data=x, chunks=(8, 64, 64), **tezip_h5.TEZip())
        {held}
        """,
        path,
    )
    with h5py.File(path) as f:
        mask, payload = f["x"].id.read_direct_chunk((0, 0, 0))
        assert (mask, payload[:4]) == (0, b"TZH5")
        assert f["x"][7, 63, 63] == 8 * 64 * 64 - 1


@pytest.mark.parametrize(
    ("shape", "chunks", "dtype", "words"),
    [
        ((8, 8, 8, 8), (1, 8, 8, 8), "u2", "channels <= 4"),
        ((8, 8, 8), (1, 8, 8), "c8", "8 bytes"),
        ((8, 8, 8), (1, 8, 8), "V2", "2 bytes"),
        ((8, 8, 8), (1, 8, 8), "longdouble", "16 bytes"),
    ],
)
def test_what_the_filter_cannot_store(h5, shape, chunks, dtype, words, caplog):
    with pytest.raises(ValueError):
        h5.create_dataset("x", shape, dtype, chunks=chunks, **TEZip())
    assert words in caplog.text


def overwrite_chunk(path, change, name="scan/data"):
    """Rewrite the first chunk of a dataset as `change` makes it, from an untouched copy."""
    with h5py.File(path, "r+") as f:
        data = f[name]
        offset = (0,) * data.ndim
        payload = data.id.read_direct_chunk(offset)[1]
        data.id.write_direct_chunk(offset, bytes(change(bytearray(payload))))


def flipped(payload):
    payload[len(payload) // 2] ^= 16
    return payload


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (flipped, "damaged"),
        (lambda p: p[: len(p) // 2], "sections need"),
        (lambda p: os.urandom(len(p)), "no tezip payload"),
    ],
)
def test_a_damaged_chunk_is_an_error_with_a_reason(run_h5, walk, change, words, caplog):
    overwrite_chunk(run_h5, change)
    with h5py.File(run_h5) as f:
        with pytest.raises(OSError):
            f["scan/data"][0]
        np.testing.assert_array_equal(f["scan/data"][16:], walk[16:])  # the rest is sound
    assert words in caplog.text
    assert words in str(tezip_h5.last_error())
    with pytest.raises(FormatError, match=words):
        tezip_h5.read(run_h5)
    with pytest.raises(FormatError, match=words):
        tezip_h5.verify(run_h5)


def test_a_chunk_of_another_dataset_is_refused(tmp_path, walk, caplog):
    tezip_h5.write(walk, tmp_path / "a.h5")
    tezip_h5.write(walk[:, :20], tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5") as f:
        foreign = f["scan/data"].id.read_direct_chunk((0, 0, 0))[1]
    overwrite_chunk(tmp_path / "a.h5", lambda _: foreign)
    with h5py.File(tmp_path / "a.h5") as f, pytest.raises(OSError):
        f["scan/data"][0]
    assert "another dataset" in caplog.text
    with pytest.raises(FormatError, match="another dataset"):
        tezip_h5.read(tmp_path / "a.h5")


def test_a_missing_model_is_named(run_h5, caplog):
    from dataclasses import replace

    from tezip_h5 import ModelError, bitstream
    from tezip_h5.bitstream import Section

    def foreign(payload):
        parsed = bitstream.unpack(payload)
        header = replace(parsed.header, predictor=2)
        return bitstream.pack(header, {**parsed.sections, Section.MODEL: b"\xcd" * 32 + bytes(5)})

    overwrite_chunk(run_h5, foreign)
    with h5py.File(run_h5) as f, pytest.raises(OSError):
        f["scan/data"][0]
    assert "cdcdcd" in caplog.text
    with pytest.raises(ModelError, match="cdcdcd"):
        tezip_h5.read(run_h5)


def test_many_threads_read_one_dataset(run_h5, walk):
    tezip_h5.configure(cache_bytes=0)
    wrong = []
    with h5py.File(run_h5) as f:

        def work(seed):
            rng = np.random.default_rng(seed)
            for i in rng.integers(0, 20, 50):
                if not (f["scan/data"][i] == walk[i]).all():
                    wrong.append(i)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
    assert not wrong


def test_a_chunk_is_not_taken_for_another_with_its_checksums():
    """Checksums of 32 bits can be made to agree."""
    kept, chunk = cache.ChunkCache(1000), np.zeros(5, np.uint8)
    kept.put(b"head", b"head and samples", chunk)
    assert kept.get(b"head", memoryview(b"head and samples")) is chunk
    assert kept.get(b"head", b"head and SAMPLES") is None
    assert kept.get(b"head", b"head") is None
    other = np.ones(5, np.uint8)
    kept.put(b"head", b"head and SAMPLES", other)
    assert kept.get(b"head", b"head and SAMPLES") is other
    kept.put(b"next", b"x" * 990, chunk)
    assert kept.get(b"head", b"head and SAMPLES") is None  # no room for both


def test_nobody_changes_a_chunk_that_others_may_be_given(run_h5):
    with h5py.File(run_h5) as f:
        frames = cache.decoded(f["scan/data"].id.read_direct_chunk((0, 0, 0))[1])
    with pytest.raises(ValueError, match="read-only"):
        frames[0] = 0


def test_what_hdf5_handed_over_is_freed(run_h5, monkeypatch):
    free, freed = filter._lib.H5free_memory, []
    monkeypatch.setattr(
        filter._lib, "H5free_memory", lambda address: freed.append(address) or free(address)
    )
    with h5py.File(run_h5) as f:
        f["scan/data"][:]
    assert len(freed) == 2  # chunks
    assert all(freed)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_reads(run_h5, walk):
    out = fresh_process(
        """
        import sys, os, h5py, tezip_h5
        with h5py.File(sys.argv[1]) as f:
            whole = f["scan/data"][:]
        from tezip_h5.hdf5.pipeline import cache
        cache._cache._lock.acquire()  # as if another thread held it while we fork
        child = os.fork()
        if child == 0:
            with h5py.File(sys.argv[1]) as f:
                os._exit(0 if (f["scan/data"][:] == whole).all() else 1)
        print(os.waitpid(child, 0)[1])
        """,
        run_h5,
    )
    assert out == "0"


def test_options_are_values():
    options = TEZip(absolute=2, level="fast", window=5, spatial=False, quantizer="run-merging")
    assert eval(repr(options)) == options
    assert TEZip(**options.get_config()) == options
    assert TEZip.from_filter_options(tezip_h5.FILTER_ID, options.filter_options) == options
    assert hash(TEZip()) == hash(TEZip())
    for config in (
        {"absolute": 1.5, "relative": 1e-3},
        {"pointwise_relative": 0.1, "mse_threshold": 0.02, "warmup": 3},
        {"entropy": False, "feedback": "prediction"},
    ):
        assert TEZip.from_filter_options(
            tezip_h5.FILTER_ID, TEZip(**config).filter_options
        ) == TEZip(**config)
    with pytest.raises(InputError, match="is not tezip"):
        TEZip.from_filter_options(1, ())
    with pytest.raises(InputError, match="unknown option"):
        TEZip(quality=3)


@pytest.mark.parametrize(
    "values", [(), (1,) * 16, (0,) * 18, (0, 99) + (0,) * 14, (0,) * 5 + (9,) * 11]
)
def test_foreign_cd_values_are_refused(values):
    with pytest.raises(FormatError, match="cd_values"):
        ChunkOptions.unpack(values)


def with_values(path, walk, change, dtype="<u2"):
    """A dataset with other cd_values than it should have: the list is changed in the file."""
    with h5py.File(path, "w") as f:
        f.create_dataset("x", data=walk.astype(dtype), chunks=(8, 40, 56), **TEZip(level="fast"))
        values = f["x"].id.get_create_plist().get_filter(0)[2]
    packed = [
        struct.pack("<16I", *(v & 0xFFFFFFFF for v in v16)) for v16 in (values, change(values))
    ]
    stored = path.read_bytes()
    assert stored.count(packed[0]) == 1
    path.write_bytes(stored.replace(*packed))


@pytest.mark.parametrize(
    ("change", "dtype"),
    [
        (lambda v: (v[0], 0, *v[2:]), "<u2"),  # no dtype
        (lambda v: (v[0], v[1] | 256, *v[2:]), "<u2"),  # big-endian
        (lambda v: (v[0], v[1] & ~256, *v[2:]), ">u2"),
        (lambda v: (v[0], v[1] | 3 << 16, *v[2:]), "<u2"),  # channels
        (lambda v: (*v[:3], 20, 112, *v[5:]), "<u2"),
        (lambda v: (1, *v[1:]), "<u2"),
    ],
)
def test_cd_values_of_another_dataset_are_refused(tmp_path, walk, change, dtype):
    with_values(tmp_path / "x.h5", walk, change, dtype)
    for selection in (slice(0, 2), slice(None, None, 2)):
        with pytest.raises(FormatError, match=r"filter says|cd_values"):
            tezip_h5.read(tmp_path / "x.h5", selection)
    with pytest.raises(FormatError, match=r"filter says|cd_values"):
        tezip_h5.verify(tmp_path / "x.h5")
    with pytest.raises(FormatError, match=r"filter says|cd_values"):
        tezip_h5.recompress(tmp_path / "x.h5", tmp_path / "y.h5", level="fast")
    assert not (tmp_path / "y.h5").exists()


def test_values_that_concern_no_decoder_may_be_anything(tmp_path, walk):
    with_values(tmp_path / "x.h5", walk, lambda v: v[:5] + (0xFFFFFFFF,) * 11)
    with h5py.File(tmp_path / "x.h5") as f:
        np.testing.assert_array_equal(f["x"][:], walk)
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "x.h5"), walk)
    assert tezip_h5.verify(tmp_path / "x.h5").chunks == 3


def test_a_chunk_without_a_dtype_in_cd_values_never_reaches_hdf5(tmp_path, walk):
    # HDF5 would read past the end of what the filter makes of it.
    with_values(tmp_path / "x.h5", walk, lambda v: (v[0], 0, *v[2:]))
    with h5py.File(tmp_path / "x.h5") as f, pytest.raises(OSError):
        f["x"][:]
    assert "cd_values" in str(tezip_h5.last_error())


def test_hdf5s_own_tools_read_the_structure(run_h5):
    require_tool("h5dump")
    dump = subprocess.run(
        ["h5dump", "-pH", str(run_h5)], capture_output=True, text=True, check=True
    ).stdout
    assert str(tezip_h5.FILTER_ID) in dump
    assert "tezip: predicted image stacks" in dump
    listing = subprocess.run(
        ["h5ls", "-r", "-v", str(run_h5)], capture_output=True, text=True, check=True
    ).stdout
    for name in ("/scan/data", "/scan/frames", "/scan/keyframes", "/scan/preview"):
        assert name in listing
    preview = subprocess.run(
        ["h5dump", "-d", "/scan/preview", str(run_h5)], capture_output=True, text=True, check=True
    ).stdout
    assert "DATA {" in preview


def test_repacking_keeps_the_chunks(run_h5, walk, tmp_path):
    require_tool("h5repack")
    subprocess.run(["h5repack", str(run_h5), str(tmp_path / "again.h5")], check=True)
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "again.h5"), walk)
