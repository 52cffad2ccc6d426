"""Which device is chosen, and what is said where there is none."""

import importlib.metadata
import os
import sys
from types import SimpleNamespace

import pytest

from tezip_h5 import devices
from tezip_h5.errors import InputError


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Nothing was looked for yet, and the environment says nothing."""
    monkeypatch.setattr(devices, "_found", None)
    for name in (devices.VARIABLE, "CUDA_VISIBLE_DEVICES", "NUMBA_DISABLE_CUDA"):
        monkeypatch.delenv(name, raising=False)


class FakeDriver:
    def __init__(self, available):
        self.is_available = available

    def get_version(self):
        return (12, 4)


def fake_cuda(gpus=1, error=None, opens=True, simulated=False):
    """What `devices` looks at of a module numba.cuda, on a machine with so many GPUs."""

    def context():
        if not opens:
            raise RuntimeError("Call to cuDevicePrimaryCtxRetain results in OUT_OF_MEMORY")
        return SimpleNamespace(get_memory_info=lambda: (7 << 30, 8 << 30))

    arrays = SimpleNamespace(FakeCUDAArray=object) if simulated else SimpleNamespace()
    driver = SimpleNamespace(driver=FakeDriver(error is None))
    return SimpleNamespace(
        cudadrv=SimpleNamespace(devicearray=arrays, driver=driver),
        cuda_error=lambda: error,
        gpus=[None] * gpus,
        current_context=context,
        get_current_device=lambda: SimpleNamespace(name=b"A GPU", compute_capability=(9, 0)),
        runtime=SimpleNamespace(get_version=lambda: (13, 0)),
    )


@pytest.fixture
def machine(monkeypatch):
    """Make this a machine with a GPU, or with less of one."""

    def make(compiler=True, module=None, **options):
        monkeypatch.setattr(devices, "_numba_cuda_version", lambda: "0.30.4")
        monkeypatch.setattr(devices, "_import_cuda", lambda: fake_cuda(**options))
        monkeypatch.setattr(devices, "_driver_version", lambda: module)

        def version():
            if not compiler:
                raise RuntimeError("libnvvm.so: cannot open shared object file")

        nvvm = SimpleNamespace(NVVM=lambda: SimpleNamespace(get_version=version))
        monkeypatch.setitem(sys.modules, "numba.cuda.cudadrv.nvvm", nvvm)

    return make


def test_a_gpu_is_chosen_where_there_is_one(machine):
    machine(module="550.54.14")
    found = devices.status()
    assert found.usable
    assert not found.simulated
    assert (found.name, found.compute_capability) == ("A GPU", (9, 0))
    assert (found.memory_bytes, found.free_bytes) == (8 << 30, 7 << 30)
    assert (found.driver, found.runtime) == ("550.54.14 (CUDA 12.4)", "13.0")
    assert [devices.choose(d) for d in (None, "auto", "cuda", "cpu")] == ["cuda"] * 3 + ["cpu"]


@pytest.mark.parametrize("device", [None, "auto"])
def test_the_environment_says_what_auto_is(machine, monkeypatch, device):
    machine()
    monkeypatch.setenv(devices.VARIABLE, " CPU ")
    assert devices.choose(device) == "cpu"
    assert devices.choose("cuda") == "cuda"  # what the caller names counts
    monkeypatch.setenv(devices.VARIABLE, "cuda")
    assert devices.choose(device) == "cuda"
    monkeypatch.setenv(devices.VARIABLE, "gpu")
    with pytest.raises(InputError, match=r"TEZIP_DEVICE=gpu is no device; give one of auto, cpu"):
        devices.choose(device)


@pytest.mark.parametrize("device", ["gpu", "", 0, True])
def test_another_word_is_refused(device):
    with pytest.raises(InputError, match="is no device"):
        devices.choose(device)


def test_the_cpu_needs_no_look(monkeypatch):
    monkeypatch.setattr(devices, "_look", lambda: pytest.fail("looked"))
    assert devices.choose("cpu") == "cpu"


@pytest.mark.parametrize(
    ("options", "environment", "reason", "advice"),
    [
        ({"gpus": 0}, {"CUDA_VISIBLE_DEVICES": "-1"}, "'-1' hides every GPU", "unset it"),
        ({"gpus": 0}, {"CUDA_VISIBLE_DEVICES": ""}, "'' hides every GPU", "unset it"),
        (
            {"error": "CUDA is disabled due to setting NUMBA_DISABLE_CUDA=1"},
            {},
            "NUMBA_DISABLE_CUDA is set",
            "unset it",
        ),
        ({"error": "library cannot be found."}, {}, "there is no NVIDIA driver", "install one"),
        (
            {"error": "library cannot be found.", "module": "550.1"},
            {},
            "driver 550.1 is loaded, but its library",
            "--gpus all",
        ),
        ({"error": "CUDA_ERROR_SYSTEM"}, {}, "the NVIDIA driver does not start", "nvidia-smi"),
        (
            {"error": "CUDA_ERROR_NO_DEVICE (100)", "module": "550.1"},
            {},
            "driver 550.1 finds no GPU (CUDA_ERROR_NO_DEVICE (100))",
            "start the machine again",
        ),
        (
            {"gpus": 0, "module": "550.1"},
            {"CUDA_VISIBLE_DEVICES": "7"},
            "driver 550.1 finds no GPU",
            "nvidia-smi",
        ),
        ({"compiler": False}, {}, "(NVVM) is not found (libnvvm.so", "numba-cuda[cu12]"),
        ({"opens": False}, {}, "the GPU cannot be opened", "reserved by another process"),
    ],
)
def test_what_is_missing_is_named(machine, monkeypatch, options, environment, reason, advice):
    machine(**options)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = devices.status()
    assert not found.usable
    assert reason in found.reason
    assert advice in found.advice
    assert devices.choose() == "cpu"
    with pytest.raises(InputError) as caught:
        devices.choose("cuda")
    assert str(caught.value) == f"device='cuda', but {found.reason}: {found.advice}"


def test_without_numba_cuda_nothing_is_imported(monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(devices, "_import_cuda", lambda: pytest.fail("imported"))
    assert devices.choose() == "cpu"
    assert devices.status().numba_cuda is None
    with pytest.raises(InputError, match=r'pip install "tezip_h5\[cuda\]"'):
        devices.choose("cuda")


def test_a_broken_numba_cuda_is_reported(monkeypatch):
    monkeypatch.setattr(devices, "_numba_cuda_version", lambda: "0.1")

    def broken(name):
        raise AttributeError("module 'numba.core' has no attribute\n 'that'" + "x" * 200)

    monkeypatch.setattr(devices.importlib, "import_module", broken)
    reason = devices.status().reason
    assert "cannot be imported (module 'numba.core' has no attribute 'that'" in reason
    assert len(reason) < 220


def test_a_gpu_that_was_given_up_is_not_used_again(machine):
    machine()
    assert devices.choose() == "cuda"
    devices.give_up("it computes something else")
    assert devices.choose() == "cpu"
    with pytest.warns(devices.DeviceWarning, match="it computes something else; the CPU is used"):
        assert devices.choose("cuda") == "cpu"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_no_gpu(machine):
    machine()
    assert devices.choose() == "cuda"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, f"{devices.choose()}: {devices.status().reason}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    assert text.startswith("cpu: this process was forked from one that had used the GPU")
    assert devices.choose() == "cuda"


def test_the_simulator_only_when_asked_for(in_fresh_process):
    pytest.importorskip("numba_cuda")
    printed = in_fresh_process(
        """
        from tezip_h5 import devices
        print(devices.choose(), devices.choose("cuda"), devices.status().simulated)
        """,
        NUMBA_ENABLE_CUDASIM="1",
        TEZIP_DEVICE="",
    )
    assert printed.split() == ["cpu", "cuda", "True"]


def test_importing_the_package_imports_no_cuda(in_fresh_process):
    printed = in_fresh_process(
        """
        import sys
        before = set(sys.modules)  # an installed cuda has Python import some of it as it starts
        from tezip_h5 import devices
        assert devices.choose("cpu") == "cpu"
        new = set(sys.modules) - before
        print([name for name in new if name.split(".")[0] in ("numba", "cuda")])
        """
    )
    assert printed.strip() == "[]"
