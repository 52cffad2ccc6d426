"""Stacks written by the workers of a dask cluster, on this machine's loopback only."""

import os
import pickle
import signal
import time
from dataclasses import replace

import dask
import dask.array
import h5py
import numpy as np
import pytest
from conftest import require_package
from models import random_model

import tezip_h5
from tezip_h5 import FormatError, InputError, TezipError, codec
from tezip_h5.chunk import attempts
from tezip_h5.cli import main
from tezip_h5.efforts import EFFORTS
from tezip_h5.frames import Stack
from tezip_h5.hdf5.writing import choices, cluster, growing, remote
from tezip_h5.hdf5.writing import workers as crew
from tezip_h5.hdf5.writing.workers import Workers
from tezip_h5.prediction.architecture import Architecture
from tezip_h5.simulate import colour_sequence, detector_sequence
from tezip_h5.stacks import dask_blocks

require_package("distributed")
import distributed  # noqa: E402

LOOPBACK = {
    "protocol": "tcp",
    "host": "127.0.0.1",
    "dashboard_address": "127.0.0.1:0",
    "threads_per_worker": 1,
}


@pytest.fixture(scope="module")
def workers():
    """A client of two worker processes, in use by dask."""
    with (
        distributed.LocalCluster(n_workers=2, processes=True, **LOOPBACK) as local,
        distributed.Client(local) as client,
    ):
        yield client


@pytest.fixture
def threads():
    """A client of workers in this process, where tests can reach them."""
    with (
        distributed.LocalCluster(n_workers=2, processes=False, **LOOPBACK) as local,
        distributed.Client(local) as client,
    ):
        yield client


def written(path, name="scan"):
    """All of a stack that does not depend on time and place."""
    with h5py.File(path) as f:
        data, group = f[f"{name}/data"], f[name]
        chunks = [data.id.get_chunk_info(i) for i in range(data.id.get_num_chunks())]
        payloads = {c.chunk_offset: data.id.read_direct_chunk(c.chunk_offset)[1] for c in chunks}
        attrs = {k: v for k, v in group.attrs.items() if not isinstance(v, h5py.Reference)}
        tables = {k: group[k][()].tolist() for k in ("frames", "preview", "keyframes")}
        return payloads, attrs, tables, list(group), list(f.get("tezip/models", ()))


def assert_alike(stack, options, folder, array, **more):
    """Writing `array` on the cluster gives what writing `stack` here does."""
    tezip_h5.write(stack, folder / "here.h5", **options)
    summary = tezip_h5.write(array, folder / "there.h5", **options, **more)
    assert written(folder / "here.h5") == written(folder / "there.h5")
    assert summary.shape == tezip_h5.read(folder / "there.h5").shape
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("chunks", "options"),
    [
        ((1, 40, 56), {}),
        ((7, 13, 56), {"absolute": 2}),
        ((20, 40, 56), {"relative": 0.05, "tile": (25, 30)}),
        (((6, 0, 14), 40, 20), {"pointwise_relative": 0.1, "window": 3}),
        ((3, 40, 56), {"level": "balanced", "mse_threshold": 1e-5, "chunk_frames": 11}),
        ((5, 40, 56), {"coder": "stages", "chunk_frames": 5, "preview": True}),
    ],
)
def test_chunks_are_those_of_one_process(tmp_path, walk, workers, chunks, options):
    options = {"level": "fast", "chunk_frames": 6} | options
    array = dask.array.from_array(walk, chunks=chunks)
    assert_alike(walk, options, tmp_path, array)


@pytest.mark.parametrize("dtype", [">u2", "f4"])
def test_axes_and_byte_orders(tmp_path, dtype, workers):
    stack = colour_sequence(9, 12, 16)[..., :3].astype(dtype)
    array = dask.array.from_array(np.moveaxis(stack, 3, 0), chunks=(1, 4, 12, 16))
    tezip_h5.write(array, tmp_path / "x.h5", axes="CTYX", level="fast", chunk_frames=4)
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "x.h5"), stack)


def test_blocks_too_large_to_keep_are_computed_as_far_as_they_go(
    tmp_path, walk, workers, monkeypatch
):
    monkeypatch.setattr(dask_blocks, "_BLOCK_BYTES", 4 * walk[0].nbytes)
    monkeypatch.setattr(cluster, "_PARTS_AT_ONCE", 1)
    array = dask.array.from_array(walk, chunks=(13, 40, 56))
    assert_alike(walk, {"level": "fast", "chunk_frames": 3}, tmp_path, array)


def sources(folder, walk):
    """What is no dask array, and a way to open it."""
    with h5py.File(folder / "in.h5", "w") as f:
        f["x"] = walk
        f.create_dataset("y", data=walk.transpose(1, 2, 0), chunks=(40, 56, 3), compression=4)
    return folder / "in.h5"


def test_workers_read_what_they_can_reach(tmp_path, walk, workers, monkeypatch):
    path = sources(tmp_path, walk)
    options = {"level": "fast", "chunk_frames": 6}
    tezip_h5.write(walk, tmp_path / "here.h5", **options)

    def never(*arguments):
        raise AssertionError("the frames came here")

    monkeypatch.setattr(Stack, "blocks", never)
    with h5py.File(path) as f:
        tezip_h5.write(f["x"], tmp_path / "a.h5", scheduler=workers, **options)
        tezip_h5.write(f["y"], tmp_path / "b.h5", scheduler=workers, axes="yxt", **options)
    assert written(tmp_path / "a.h5") == written(tmp_path / "here.h5") == written(tmp_path / "b.h5")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("source", [np.asarray, list, iter])
def test_other_frames_are_sent(tmp_path, walk, workers, source):
    address = workers.scheduler_info()["address"]
    tezip_h5.write(source(walk), tmp_path / "x.h5", scheduler=address, level="fast", absolute=1)
    assert np.abs(tezip_h5.read(tmp_path / "x.h5").astype(int) - walk).max() == 1


@pytest.mark.filterwarnings("error")
def test_many_frames_are_sent_without_a_warning(tmp_path, workers):
    stack = np.zeros((6, 1024, 1024), np.uint16)  # dask finds 10 MB worth one
    tezip_h5.write(stack, tmp_path / "x.h5", scheduler=workers, level="fast")
    assert tezip_h5.read(tmp_path / "x.h5").shape == stack.shape


def test_a_dataset_where_it_stands(tmp_path, walk, workers):
    with h5py.File(sources(tmp_path, walk), "r+") as f:
        tezip_h5.write(f["x"], scheduler=workers, level="fast")
        np.testing.assert_array_equal(f["x"][:], walk)
        assert tezip_h5.hdf5.contents.container.is_tezip(f["x"])


def test_the_command_line(tmp_path, walk, workers, capsys, monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECT_SECONDS", 0.5)
    path, out = sources(tmp_path, walk), tmp_path / "out.h5"
    address = workers.scheduler_info()["address"]
    command = ["compress", "none", f"{path}:/x", str(out), "--level", "fast"]
    assert main([*command, "--scheduler", address]) == 0
    np.testing.assert_array_equal(tezip_h5.read(out), walk)
    assert main([*command[:3], str(tmp_path / "no.h5"), "--scheduler", "tcp://127.0.0.1:9"]) == 1
    assert "no scheduler answers" in capsys.readouterr().err
    assert not (tmp_path / "no.h5").exists()


def dying_once(block, marker, number, block_info=None):
    """The worker that computes block `number` first is killed."""
    if block_info[0]["chunk-location"][0] == number:
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return block
        time.sleep(0.5)  # others have finished, and wait for this one
        os.kill(os.getpid(), signal.SIGKILL)
    return block


def test_a_worker_is_killed_half_way(tmp_path, walk, workers):
    before = {w["pid"] for w in workers.run(lambda: {"pid": os.getpid()}).values()}
    array = dask.array.from_array(walk, chunks=(2, 40, 56)).map_blocks(
        dying_once, str(tmp_path / "died"), 5, dtype=walk.dtype
    )
    (tmp_path / "out").mkdir()
    assert_alike(walk, {"level": "fast", "chunk_frames": 2}, tmp_path / "out", array)
    assert (tmp_path / "died").exists()
    workers.wait_for_workers(2, timeout=30)
    after = {w["pid"] for w in workers.run(lambda: {"pid": os.getpid()}).values()}
    assert len(before & after) == 1


def dying(block):
    os.kill(os.getpid(), signal.SIGKILL)


def test_frames_that_kill_every_worker(tmp_path, walk):
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(n_workers=1, processes=True, **LOOPBACK) as local,
        distributed.Client(local),
    ):
        array = dask.array.from_array(walk, chunks=(20, 40, 56)).map_blocks(dying, meta=walk[:0])
        with pytest.raises(TezipError, match="frames 0 to 7 died"):
            tezip_h5.write(array, tmp_path / "x.h5", chunk_frames=8)
    assert list(tmp_path.iterdir()) == []


# --- the network: decisions hang on the steps before, which may be under way ---


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("saving", [None, 1.0], ids=["unclear", "clear"])
def test_the_network_is_tried_where_one_process_would(tmp_path, threads, seed, saving, monkeypatch):
    def found(attempt, model):
        """The network promises something wherever frames begin so."""
        return saving if attempt.samples.frames[0, 0, 0] % 2 else -9.0

    used = replace(EFFORTS["balanced"], network_worth=-1.0, tries_shipped_network=True)
    monkeypatch.setitem(EFFORTS, "balanced", used)
    monkeypatch.setattr(attempts.Attempts, "saving", found)
    monkeypatch.setattr(codec, "_fallback_may_win", lambda *_: False)
    monkeypatch.setattr(choices.NetworkChoice, "regretted", False)  # though it saves nothing
    stack = np.random.default_rng(seed).integers(0, 50, (80, 8, 8), np.uint8)
    stack[:16, 0, 0] |= 1
    array = dask.array.from_array(stack, chunks=(1, 8, 8))
    assert_alike(stack, {"chunk_frames": 2}, tmp_path, array, scheduler=threads)
    with h5py.File(tmp_path / "there.h5") as f:
        assert 0 < f["scan"].attrs["network_chunks"] < 40


def test_a_network_of_ones_own_travels(tmp_path, workers):
    model = random_model(Architecture(1, (4,), (3, 5)))
    stack = detector_sequence(6, 16, 16, "uint8")
    options = {"model": model, "predictor": "prednet", "chunk_frames": 2}
    array = dask.array.from_array(stack, chunks=(2, 16, 16))
    assert_alike(stack, options, tmp_path, array, verify=True)
    with h5py.File(tmp_path / "there.h5") as f:
        assert list(f["tezip/models"]) == [model.digest.hex()]


# --- what goes wrong ---


COMPUTED = []


def counted(block):
    if block.size:
        COMPUTED.append(block.shape)
    return block


def test_memory_is_bounded(tmp_path, walk, threads, monkeypatch):
    COMPUTED.clear()
    ahead = []
    finish = Workers.finish

    def finishing(self, work):
        ahead.append(len(COMPUTED) - work.start)
        return finish(self, work)

    monkeypatch.setattr(Workers, "finish", finishing)
    stack = np.concatenate([walk, walk, walk])
    array = dask.array.from_array(stack, chunks=(1, 40, 56)).map_blocks(counted, meta=stack[:0])
    tezip_h5.write(array, tmp_path / "x.h5", chunk_frames=1, level="fast", preview=False)
    assert len(COMPUTED) == 60  # each once
    assert max(ahead) > 1
    assert max(ahead) <= 2 * crew._PER_THREAD + 1


def test_without_a_cluster_blocks_are_computed_once_too(tmp_path, walk, monkeypatch):
    array = dask.array.from_array(walk, chunks=(9, 40, 56)).map_blocks(counted, meta=walk[:0])
    computed = []
    for limit in (1 << 20, 0):
        monkeypatch.setattr(dask_blocks, "_BLOCK_BYTES", limit)
        COMPUTED.clear()
        with dask.config.set(scheduler="synchronous"):
            tezip_h5.write(array, tmp_path / f"{limit}.h5", chunk_frames=6, level="fast")
        np.testing.assert_array_equal(tezip_h5.read(tmp_path / f"{limit}.h5"), walk)
        computed.append(len(COMPUTED))
    assert computed == [3, 5]


def test_errors_of_the_array_are_passed_on(tmp_path, walk, workers):
    def broken(block):
        raise ZeroDivisionError("in the user's own code")

    array = dask.array.from_array(walk, chunks=(5, 40, 56)).map_blocks(broken, dtype=walk.dtype)
    with pytest.raises(ZeroDivisionError, match="own code"):
        tezip_h5.write(array, tmp_path / "x.h5")
    wrong = dask.array.from_array(walk, chunks=(5, 40, 56)).map_blocks(
        lambda block: block.astype("f4"), dtype=walk.dtype
    )
    with pytest.raises(InputError, match="came as float32"):
        tezip_h5.write(wrong, tmp_path / "x.h5")
    stretched = dask.array.from_array(walk, chunks=(5, 20, 56)).map_blocks(
        lambda block, block_info=None: (
            block[:, :1] if block_info[0]["chunk-location"][1] else block
        ),
        dtype=walk.dtype,
        meta=walk[:0, :0, :0],
    )
    with pytest.raises(InputError, match=r"came as uint16 \(5, 1, 56\)"):
        tezip_h5.write(stretched, tmp_path / "x.h5")
    unknown = dask.array.from_array(walk)
    unknown = unknown[unknown[:, 0, 0] > 0]
    with pytest.raises(InputError, match="compute_chunk_sizes"):
        tezip_h5.write(unknown, tmp_path / "x.h5")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_cluster(tmp_path, walk, threads, monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECT_SECONDS", 0.5)
    for scheduler, words in [
        (7, "no cluster"),
        ("tcp://127.0.0.1:9", "no scheduler answers"),
        ("nonsense://here", "no scheduler answers"),
        ("", "no scheduler answers"),
    ]:
        with pytest.raises(InputError, match=words):
            tezip_h5.write(walk, tmp_path / "x.h5", scheduler=scheduler)
    monkeypatch.setattr(cluster, "__version__", "0.0")
    with pytest.raises(InputError, match="same version"):
        tezip_h5.write(walk, tmp_path / "x.h5", scheduler=threads)
    monkeypatch.undo()
    monkeypatch.setattr(remote, "__version__", "0.0")  # a worker that came later
    with pytest.raises(InputError, match="same version"):
        tezip_h5.write(walk, tmp_path / "x.h5", scheduler=threads)
    assert list(tmp_path.iterdir()) == []


def test_files_that_workers_do_not_see(tmp_path, walk, threads, monkeypatch):
    path = sources(tmp_path, walk)
    monkeypatch.setattr(cluster.os.path, "abspath", lambda name: "/not/here/in.h5")
    with h5py.File(path) as f, pytest.raises(InputError, match="where every worker sees it"):
        tezip_h5.write(f["x"], tmp_path / "x.h5", scheduler=threads)


def test_a_cluster_without_workers(tmp_path, walk, monkeypatch):
    monkeypatch.setattr(crew, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(crew, "_PATIENCE_SECONDS", 0.5)
    with (
        distributed.LocalCluster(n_workers=0, processes=False, **LOOPBACK) as local,
        distributed.Client(local) as client,
        pytest.raises(TezipError, match="no worker"),
    ):
        tezip_h5.write(walk, tmp_path / "x.h5", scheduler=client)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("source", [list, dask.array.from_array])
def test_a_scheduler_that_goes(tmp_path, walk, source, monkeypatch):
    put = growing.GrowingStack.put

    def last(self, start, *step):
        """The scheduler goes while the first chunks are written."""
        local.close()
        put(self, start, *step)

    monkeypatch.setattr(growing.GrowingStack, "put", last)
    monkeypatch.setattr(crew, "_PER_THREAD", 1)
    with (
        distributed.LocalCluster(n_workers=1, processes=False, **LOOPBACK) as local,
        distributed.Client(local) as client,
        pytest.raises(TezipError, match=r"scheduler is gone; frames [48] to .* and later ones"),
    ):
        tezip_h5.write(
            source(walk), tmp_path / "x.h5", scheduler=client, chunk_frames=4, level="fast"
        )
    assert list(tmp_path.iterdir()) == []


def test_what_went_wrong_is_said_though_the_scheduler_is_gone_then(
    tmp_path, walk, threads, monkeypatch
):
    def cancel(futures):
        raise distributed.comm.CommClosedError("gone")

    def frames():
        yield from walk[:10]
        raise ZeroDivisionError("in the user's own code")

    monkeypatch.setattr(threads, "cancel", cancel)
    with pytest.raises(ZeroDivisionError):
        tezip_h5.write(frames(), tmp_path / "x.h5", scheduler=threads, chunk_frames=4)
    assert list(tmp_path.iterdir()) == []


def test_a_dask_array_without_a_cluster_is_written_here(tmp_path, walk, threads):
    array = dask.array.from_array(walk, chunks=(5, 40, 56))
    with dask.config.set(scheduler="threads"), cluster.connect(array, None) as found:
        assert found is None
    with cluster.connect(walk, None) as found:
        assert found is None
    with cluster.connect(array, None) as found:
        assert found.client is threads


# --- reading lazily ---


def test_to_dask(tmp_path, walk, workers):
    path = tmp_path / "run.h5"
    tezip_h5.write(walk, path, level="fast", chunk_frames=8, tile=(20, 56))
    array = tezip_h5.to_dask(path)
    assert (array.shape, array.dtype, array.chunks) == (
        walk.shape,
        walk.dtype,
        ((20,), (40,), (56,)),
    )
    array = tezip_h5.to_dask(path, "scan", chunks=(8, 20, 56))
    assert array.npartitions == 6
    np.testing.assert_array_equal(array[5:18, 3:, ::2].compute(), walk[5:18, 3:, ::2])
    assert int(pickle.loads(pickle.dumps(array)).max().compute()) == walk.max()
    tezip_h5.write(array // 2, tmp_path / "half.h5", level="fast")
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "half.h5"), walk // 2)


def test_to_dask_of_other_datasets(tmp_path, walk):
    with h5py.File(tmp_path / "x.h5", "w") as f:
        f["plain"] = walk.astype(">f4")
        f["text"] = "x"
    array = tezip_h5.to_dask(tmp_path / "x.h5", "plain")
    assert array.dtype == np.dtype("f4")
    np.testing.assert_array_equal(array.compute(scheduler="sync"), walk)
    for name, words in [("text", "no stack"), ("none", "no stack none")]:
        with pytest.raises(InputError, match=words):
            tezip_h5.to_dask(tmp_path / "x.h5", name)
    with pytest.raises(InputError, match="no file"):
        tezip_h5.to_dask(tmp_path / "none.h5")


def test_to_dask_notices_another_file(tmp_path, walk):
    path = tmp_path / "run.h5"
    tezip_h5.write(walk, path, level="fast")
    array = tezip_h5.to_dask(path)
    again = tezip_h5.to_dask(path)
    assert array.name == again.name
    tezip_h5.write(walk[:, :20], path, overwrite=True, level="fast")
    assert tezip_h5.to_dask(path).name != array.name
    with pytest.raises(FormatError, match="call it again"):
        array.compute(scheduler="sync")
    path.unlink()
    with pytest.raises(InputError, match="no file"):
        array.compute(scheduler="sync")
