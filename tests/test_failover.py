"""Where the GPU fails, the CPU goes on: failures put in at every place they can come from."""

import contextlib
import os
import threading
import time
import warnings

import pytest

from tezip_h5 import devices, failover
from tezip_h5.errors import FormatError, InputError, ModelError


class OutOfMemoryError(Exception):
    """As CuPy and PyTorch call theirs."""


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """A process with a GPU that nothing has happened to."""
    monkeypatch.setattr(devices, "_found", devices.Status(True, name="A GPU"))
    monkeypatch.setattr(failover, "_room", failover._Room())


def memory_full():
    raise RuntimeError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")


def broken():
    raise RuntimeError("[700] Call to cuCtxSynchronize results in CUDA_ERROR_ILLEGAL_ADDRESS")


def failing(failure, log):
    def work(device):
        log.append(device)
        if device == "cuda":
            failure()
        return f"by the {device}"

    return work


def test_what_works_is_done_once_and_says_nothing():
    log = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert failover.run(failing(lambda: None, log), "cuda") == "by the cuda"
        assert failover.run(failing(broken, log), "cpu") == "by the cpu"
    assert log == ["cuda", "cpu"]


def test_a_fault_of_the_gpu_ends_its_use():
    log = []
    with pytest.warns(devices.DeviceWarning, match="ILLEGAL_ADDRESS.*tezip-h5 doctor") as said:
        results = [failover.run(failing(broken, log), "cuda") for _ in range(2)]
    assert results == ["by the cpu"] * 2
    assert len(said) == 1
    assert log == ["cuda", "cpu", "cpu"]
    assert "ILLEGAL_ADDRESS" in devices.status().reason
    assert devices.choose() == "cpu"


def test_the_input_is_to_blame_where_the_cpu_fails_too():
    def damaged(device):
        raise FormatError(f"damaged, says the {device}")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(FormatError, match="damaged, says the cpu"):
            failover.run(damaged, "cuda")
    assert devices.choose() == "cuda"


def test_a_gpu_that_computes_something_else_is_given_up():
    def wrong():
        raise FormatError("the chunk decodes to samples with checksum 1, 2 was written")

    with pytest.warns(devices.DeviceWarning, match="checksum"):
        assert failover.run(failing(wrong, []), "cuda") == "by the cpu"
    assert devices.choose() == "cpu"


@pytest.mark.parametrize("kind", [InputError, ModelError])
def test_what_the_caller_did_wrong_is_not_tried_again(kind):
    log = []

    def refused():
        raise kind("no")

    with pytest.raises(kind):
        failover.run(failing(refused, log), "cuda")
    assert log == ["cuda"]
    assert devices.choose() == "cuda"


def test_an_interrupt_passes():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        failover.run(failing(interrupted, []), "cuda")
    assert failover._room._inside == 0


def test_what_does_not_fit_alone_is_done_by_the_cpu():
    log = []
    with pytest.warns(devices.DeviceWarning, match="does not fit into the GPU's memory") as said:
        results = [failover.run(failing(memory_full, log), "cuda") for _ in range(2)]
    assert results == ["by the cpu"] * 2
    assert len(said) == 1
    assert log == ["cuda", "cuda", "cpu"] * 2
    assert devices.choose() == "cuda"  # a smaller one may fit
    assert failover._room.limit is None


def test_fewer_at_a_time_where_memory_is_short():
    """Eight pieces at once on a GPU that holds three: all are done there in the end."""
    holds, inside, most, lock = 3, 0, 0, threading.Lock()
    together = threading.Barrier(8, timeout=20)
    done, first = [], threading.local()

    def work(device):
        nonlocal inside, most
        assert device == "cuda"
        with lock:
            inside += 1
        try:
            if not hasattr(first, "time"):
                first.time = True
                together.wait()
            if inside > holds:
                memory_full()
            time.sleep(0.01)
            with lock:
                most = max(most, inside)
        finally:
            with lock:
                inside -= 1
        return device

    threads = [
        threading.Thread(target=lambda: done.append(failover.run(work, "cuda"))) for _ in range(8)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert done == ["cuda"] * 8
    assert 1 <= failover._room.limit <= 4
    assert most <= holds


def test_pieces_within_pieces_take_one_place():
    monitor = []

    def inner(device):
        monitor.append((device, failover._room._inside))
        if device == "cuda" and len(monitor) > 1:
            broken()
        return device

    def outer(device):
        return failover.run(inner, device), failover.run(inner, device)

    failover._room.limit = 1
    with pytest.warns(devices.DeviceWarning):
        assert failover.run(outer, "cuda") == ("cpu", "cpu")
    assert monitor == [("cuda", 1), ("cuda", 1), ("cpu", 0), ("cpu", 0)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_does_not_count_what_its_parent_does(in_fresh_process):
    in_fresh_process(
        """
        import os
        from tezip_h5 import failover
        with failover._room.place():
            child = os.fork()
            if child == 0:
                with failover._room.place():
                    os._exit(0 if failover._room._inside == 1 else 1)
        assert os.waitpid(child, 0)[1] == 0
        """
    )


def test_those_that_fail_together_let_fewer_in_once():
    room = failover._Room()
    with contextlib.ExitStack() as inside:
        for _ in range(7):
            inside.enter_context(room.place())
        for _ in range(3):
            assert room.shrink(None)
            assert room.limit == 4
        room.limit = 7  # as if one had left, and another had come in its place
        assert room.shrink(7)
        assert room.limit == 3
        assert room.shrink(3)
        assert room.shrink(7)  # which says nothing of one
        assert room.limit == 1


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OutOfMemoryError("Out of memory allocating 512 bytes"), True),
        (RuntimeError("CUDA_ERROR_OUT_OF_MEMORY"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA_ERROR_LAUNCH_FAILED"), False),
        (MemoryError("Unable to allocate 3 TiB for an array"), False),
    ],
)
def test_memory_is_told_from_other_faults(error, full):
    assert failover.is_out_of_memory(error) == full
    wrapped = FormatError("a stage failed")
    wrapped.__cause__ = error
    assert failover.is_out_of_memory(wrapped) == full
