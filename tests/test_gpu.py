"""`device=` from the outside: the same bytes and samples, whatever encodes and decodes.

On a GPU where there is one, else in numba's simulator; stacks are tiny, for that is slow.
"""

import json
import warnings

import h5py
import numpy as np
import pytest
from conftest import require_package
from PIL import Image

import tezip_h5
from tezip_h5 import codec, devices, failover, gpu_arrays
from tezip_h5.chunk import attempts
from tezip_h5.cli import legacy, main
from tezip_h5.errors import BoundError, InputError
from tezip_h5.hdf5.reading import reader
from tezip_h5.hdf5.writing import checked

require_package("numba", "numba.cuda")

from numba import cuda  # noqa: E402

STAGES = {"coder": "stages", "model": None, "preview": False}


@pytest.fixture(autouse=True)
def fresh(monkeypatch, no_fallback):
    """Nothing was given up, nothing is set."""
    monkeypatch.setattr(devices, "_found", None)
    monkeypatch.setattr(failover, "_room", failover._Room())
    monkeypatch.delenv(devices.VARIABLE, raising=False)


@pytest.fixture
def small():
    """uint16 (5, 7, 9) with motion and noise; no side is a multiple of a tile's."""
    rng = np.random.default_rng(3)
    return (np.cumsum(rng.integers(-3, 4, (5, 7, 9)), 0) + 500).astype(np.uint16)


@pytest.fixture
def places(monkeypatch):
    """Where chunks were coded: (verb, device), in order."""
    seen = []
    run = failover.run

    def noted(work, device):
        def inner(place):
            seen.append(place)
            return work(place)

        return run(inner, device)

    monkeypatch.setattr(codec.failover, "run", noted)
    return seen


def chunks(path):
    """The payloads of a file's stack, by their place."""
    with h5py.File(path) as file:
        data = file["scan/data"].id
        places = [data.get_chunk_info(i).chunk_offset for i in range(data.get_num_chunks())]
        return {place: data.read_direct_chunk(place)[1] for place in places}


def attributes(path):
    """Everything that is noted of the stack, but for what every file has of its own."""
    with h5py.File(path) as file:
        group = file["scan"]
        return {n: str(group.attrs[n]) for n in group.attrs}, group["frames"][()].tolist()


class Foreign:
    """An array of another library: nothing but the protocol of GPU arrays, and slices."""

    def __init__(self, device_array, interface):
        self._array, self.__cuda_array_interface__ = device_array, interface
        self.shape = tuple(device_array.shape)
        self.dtype = "foreign.uint16"  # as PyTorch's, no numpy dtype

    def __getitem__(self, index):
        part = self._array[index]
        return Foreign(part, interface_of(part))


def interface_of(array):
    if hasattr(array, "__cuda_array_interface__"):
        return array.__cuda_array_interface__
    return dict(array._ary.__array_interface__, version=3)  # the simulator's memory is the host's


def foreign(array):
    there = cuda.to_device(array)
    return Foreign(there, interface_of(there))


# --- the same bytes, the same samples ---


@pytest.mark.parametrize(
    "options",
    [
        STAGES | {"absolute": 2},
        STAGES | {"quantizer": "run-merging", "absolute": 3, "window": 2},
        STAGES | {"chunk_frames": 2, "tile": (4, 5)},
        {"level": "fast", "absolute": 1, "model": None},
    ],
    ids=["bounded", "run merging", "lossless tiles", "fast"],
)
def test_a_file_does_not_depend_on_the_device(small, tmp_path, places, options):
    for device in ("cpu", "cuda"):
        tezip_h5.write(small, tmp_path / f"{device}.h5", device=device, **options)
    assert set(places) == {"cpu", "cuda"}
    assert devices.status().usable  # nothing failed
    assert chunks(tmp_path / "cuda.h5") == chunks(tmp_path / "cpu.h5")
    assert attributes(tmp_path / "cuda.h5") == attributes(tmp_path / "cpu.h5")
    expected = tezip_h5.read(tmp_path / "cpu.h5", device="cpu")
    places.clear()
    found = tezip_h5.read(tmp_path / "cpu.h5", device="cuda")
    assert set(places) == {"cuda"}
    assert not isinstance(found, np.ndarray)
    np.testing.assert_array_equal(gpu_arrays.to_host(found), expected)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 9), (2, 9, 1), (2, 3, 5, 3)])
def test_edges(shape, tmp_path):
    stack = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    for device in ("cpu", "cuda"):
        tezip_h5.write(stack, tmp_path / f"{device}.h5", device=device, absolute=1, **STAGES)
    assert chunks(tmp_path / "cuda.h5") == chunks(tmp_path / "cpu.h5")
    back = gpu_arrays.to_host(tezip_h5.read(tmp_path / "cpu.h5", device="cuda"))
    assert np.abs(back.astype(int) - stack).max() <= 1


def test_the_mixing_coder(tmp_path, places):
    """Level `balanced` from end to end: two chunks at once, a pixel at a time in the simulator."""
    stack = np.random.default_rng(1).integers(90, 110, (4, 4, 5)).astype(np.uint8)
    options = {"coder": "mixing", "chunk_frames": 2, "absolute": 1, "model": None, "preview": False}
    for device in ("cpu", "cuda"):
        tezip_h5.write(stack, tmp_path / f"{device}.h5", device=device, **options)
    assert devices.status().usable
    assert chunks(tmp_path / "cuda.h5") == chunks(tmp_path / "cpu.h5")
    back = gpu_arrays.to_host(tezip_h5.read(tmp_path / "cpu.h5", device="cuda"))
    assert devices.status().usable
    np.testing.assert_array_equal(back, tezip_h5.read(tmp_path / "cpu.h5", device="cpu"))
    assert np.abs(back.astype(int) - stack).max() <= 1


def test_floats(tmp_path):
    stack = np.random.default_rng(0).normal(size=(2, 5, 6)).astype(np.float32)
    stack[0, 0, 0] = np.nan
    for device in ("cpu", "cuda"):
        tezip_h5.write(stack, tmp_path / f"{device}.h5", device=device, absolute=0.1, **STAGES)
    assert chunks(tmp_path / "cuda.h5") == chunks(tmp_path / "cpu.h5")
    back = gpu_arrays.to_host(tezip_h5.read(tmp_path / "cpu.h5", device="cuda"))
    assert np.nanmax(np.abs(back - stack)) <= 0.1
    assert np.isnan(back[0, 0, 0])


def test_parts_of_a_stack(small, tmp_path):
    path = tmp_path / "x.h5"
    tezip_h5.write(small, path, device="cpu", chunk_frames=2, **STAGES)
    for selection in (2, slice(1, 4), (slice(None), 3), (1, 2, 3), slice(0, 4, 2), slice(2, 2)):
        found = tezip_h5.read(path, selection, device="cuda")
        assert gpu_arrays.is_gpu_array(found), selection
        np.testing.assert_array_equal(gpu_arrays.to_host(found), small[selection])


def test_a_writer(small, tmp_path, places):
    for device in ("cpu", "cuda"):
        options = {"frame_shape": (7, 9), "dtype": "u2", "absolute": 2, "chunk_frames": 2}
        path = tmp_path / f"{device}.h5"
        with tezip_h5.Writer(path, "scan", device=device, **options, **STAGES) as writer:
            writer.append(small[:3])
        with tezip_h5.Writer(path, "scan", append=True, device=device) as writer:
            writer.append(small[3:])
    assert "cuda" in places
    assert chunks(tmp_path / "cuda.h5") == chunks(tmp_path / "cpu.h5")


def test_convert_recompress_extract(small, tmp_path, places):
    old = tmp_path / "old.h5"
    with h5py.File(old, "w") as file:
        file["entry/images"] = small
    for device in ("cpu", "cuda"):
        new, best = tmp_path / f"{device}.h5", tmp_path / f"{device}-again.h5"
        options = STAGES | {"absolute": 2}
        tezip_h5.convert(old, new, "/entry/images", device=device, **options)
        tezip_h5.recompress(new, best, level="fast", device=device)
        tezip_h5.extract(best, tmp_path / device, device=device)
    assert {"cpu", "cuda"} == set(places)
    for name in ("{}.h5", "{}-again.h5"):
        with (
            h5py.File(tmp_path / name.format("cpu")) as one,
            h5py.File(tmp_path / name.format("cuda")) as other,
        ):
            first, second = (file["entry/images"].id for file in (one, other))
            assert first.read_direct_chunk((0, 0, 0)) == second.read_direct_chunk((0, 0, 0))
    for path in (tmp_path / "cpu").iterdir():
        assert path.read_bytes() == (tmp_path / "cuda" / path.name).read_bytes()


def test_chunks_alone(small):
    bound = tezip_h5.ErrorBound(absolute=2).of_frames(small[..., None])
    settings = tezip_h5.Settings(coder="stages")
    made = [
        tezip_h5.encode_chunk(small, bound, settings, device=device) for device in ("cpu", "cuda")
    ]
    assert made[0].payload == made[1].payload
    back = [tezip_h5.decode_chunk(made[0].payload, device=d) for d in ("cpu", "cuda")]
    np.testing.assert_array_equal(*back)


def test_another_word_is_refused(small, tmp_path, run_h5):
    bound = tezip_h5.ErrorBound().of_frames(small[..., None])
    calls = [
        lambda: tezip_h5.write(small, tmp_path / "x.h5", device="gpu"),
        lambda: tezip_h5.Writer(
            tmp_path / "x.h5", "scan", frame_shape=(7, 9), dtype="u2", device="gpu"
        ),
        lambda: tezip_h5.read(run_h5, device="gpu"),
        lambda: tezip_h5.recompress(run_h5, tmp_path / "x.h5", device="gpu"),
        lambda: tezip_h5.extract(run_h5, tmp_path / "x", device="gpu"),
        lambda: tezip_h5.encode_chunk(small, bound, tezip_h5.Settings(), device="gpu"),
        lambda: tezip_h5.decode_chunk(next(iter(chunks(run_h5).values())), device="gpu"),
    ]
    for call in calls:
        with pytest.raises(InputError, match="'gpu' is no device"):
            call()
    assert not (tmp_path / "x.h5").exists()


def test_automatically_only_a_real_gpu_and_much_work(small, tmp_path, places, monkeypatch):
    path = tmp_path / "x.h5"
    tezip_h5.write(small, path, chunk_frames=1, **STAGES)
    tezip_h5.read(path)
    assert set(places) == {"cpu"}  # the simulator is none, and five chunks are few
    monkeypatch.setattr(devices, "_found", devices.Status(True, name="A GPU"))
    monkeypatch.setattr(devices, "WORTHWHILE_CHUNKS", 5)
    places.clear()
    found = tezip_h5.read(path)
    assert set(places) == {"cuda"}
    assert isinstance(found, np.ndarray)  # on a GPU only who says "cuda" gets it there
    places.clear()
    monkeypatch.setenv(devices.VARIABLE, "cpu")
    tezip_h5.read(path)
    assert set(places) == {"cpu"}


# --- arrays of GPUs ---


@pytest.mark.parametrize("make", [cuda.to_device, foreign], ids=["numba", "another library"])
def test_a_stack_on_a_gpu(small, tmp_path, make):
    for options in ({}, {"axes": "YTX"}):
        stack = small.transpose(1, 0, 2).copy() if options else small
        path = tmp_path / f"x{len(options)}.h5"
        tezip_h5.write(make(stack), path, verify=True, device="cpu", **options, **STAGES)
        np.testing.assert_array_equal(tezip_h5.read(path), small)


@pytest.mark.parametrize("make", [cuda.to_device, foreign], ids=["numba", "another library"])
def test_frames_on_a_gpu(small, tmp_path, make):
    tezip_h5.write([make(frame) for frame in small], tmp_path / "x.h5", device="cpu", **STAGES)
    with tezip_h5.Writer(
        tmp_path / "y.h5", "scan", frame_shape=(7, 9), dtype="u2", **STAGES
    ) as writer:
        writer.append(make(small[0]))
        writer.append(make(small[1:]))
    for name in ("x.h5", "y.h5"):
        np.testing.assert_array_equal(tezip_h5.read(tmp_path / name), small)


def test_libraries_that_copy_by_themselves(small):
    class CuPyLike:
        __cuda_array_interface__ = None

        def get(self):
            return small

    class TorchLike:
        __cuda_array_interface__ = None

        def cpu(self):
            return small

    for array in (CuPyLike(), TorchLike()):
        np.testing.assert_array_equal(gpu_arrays.to_host(array), small)


def test_a_gpu_array_where_no_gpu_can_be_reached(small, monkeypatch):
    array = foreign(small)
    monkeypatch.setattr(devices, "_found", devices.Status(False, "there is none", "buy one"))
    with pytest.raises(InputError, match="a Foreign lies in a GPU's memory, but there is none"):
        gpu_arrays.to_host(array)


# --- failures ---


def failing(monkeypatch, error, verb="encode_frames"):
    """Every chunk fails on the device."""
    place, name = {
        "encode": (attempts, "ChunkEncoder"),
        "decode": (codec, "decode_frames"),
    }[verb]
    original = getattr(place, name)

    def wrapper(*arguments):
        if "cuda" in (arguments[-1], getattr(arguments[0], "device", None)):
            raise error
        return original(*arguments)

    monkeypatch.setattr(place, name, wrapper)


@pytest.mark.parametrize(
    ("error", "warning"),
    [
        (RuntimeError("CUDA_ERROR_OUT_OF_MEMORY"), "does not fit into the GPU's memory"),
        (RuntimeError("CUDA_ERROR_LAUNCH_FAILED"), "the GPU failed, the CPU goes on"),
        (BoundError("an error of 3"), "the GPU failed, the CPU goes on"),
        (TypeError("No implementation of function"), "the GPU failed, the CPU goes on"),
    ],
)
def test_a_write_goes_on_where_the_gpu_fails(small, tmp_path, monkeypatch, error, warning):
    options = STAGES | {"absolute": 2, "chunk_frames": 1}
    tezip_h5.write(small, tmp_path / "cpu.h5", device="cpu", **options)
    failing(monkeypatch, error, "encode")
    with pytest.warns(devices.DeviceWarning, match=warning) as said:
        tezip_h5.write(small, tmp_path / "cuda.h5", device="cuda", **options)
    assert len([w for w in said if w.category is devices.DeviceWarning]) == 1
    assert chunks(tmp_path / "cuda.h5") == chunks(tmp_path / "cpu.h5")


def test_a_read_goes_on_where_the_gpu_fails(small, tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    tezip_h5.write(small, path, device="cpu", **STAGES)
    failing(monkeypatch, RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS"), "decode")
    with pytest.warns(devices.DeviceWarning, match="the GPU failed"):
        found = tezip_h5.read(path, device="cuda")
    np.testing.assert_array_equal(found, small)


def test_a_result_that_does_not_fit_stays_on_the_host(small, tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    tezip_h5.write(small, path, device="cpu", **STAGES)

    def full(array):
        raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")

    monkeypatch.setattr(cuda, "to_device", full)
    with pytest.warns(devices.DeviceWarning, match="does not fit"):
        found = tezip_h5.read(path, device="cuda")
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, small)


def test_verify_has_the_cpu_decode(small, tmp_path, monkeypatch):
    """A GPU whose payloads decode to something else is found out, and the CPU encodes."""
    decode, encode = checked.decode_chunk, checked.encode_chunk
    made_there = set()

    def noted(*arguments, **options):
        made = encode(*arguments, **options)
        if options["device"] == "cuda":
            made_there.add(id(made.payload))
            kept.append(made.payload)
        return made

    def wrong(payload, **options):
        assert options.get("device", "cpu") == "cpu"
        back = decode(payload, **options)
        return back + 9 if id(payload) in made_there else back

    kept = []
    monkeypatch.setattr(checked, "encode_chunk", noted)
    monkeypatch.setattr(checked, "decode_chunk", wrong)
    frames, bound = small, tezip_h5.ErrorBound(absolute=2).of_frames(small[..., None])
    settings = tezip_h5.Settings(coder="stages")
    with pytest.warns(devices.DeviceWarning, match="does not decode within its bound"):
        made = checked.encode_and_check(frames, bound, settings, device="cuda")
    assert made_there
    assert made.payload == encode(frames, bound, settings).payload
    assert devices.status().given_up


def test_damage_is_damage_on_a_gpu_too(small, tmp_path):
    path = tmp_path / "x.h5"
    tezip_h5.write(small, path, device="cpu", **STAGES)
    with h5py.File(path) as file:
        info = file["scan/data"].id.get_chunk_info(0)
    with open(path, "r+b") as file:
        file.seek(info.byte_offset + info.size - 3)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(tezip_h5.FormatError):
            tezip_h5.read(path, device="cuda")
    assert devices.status().usable


# --- the command line ---


@pytest.fixture
def images(small, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for t, frame in enumerate(small):
        Image.fromarray(frame).save(folder / f"{t}.png")
    return folder


def test_the_manuals_commands_say_where_they_run(images, tmp_path, capsys, monkeypatch):
    made = []
    for variable, force, mode in (("cuda", [], "GPU"), ("cuda", ["-f"], "CPU"), ("", [], "CPU")):
        monkeypatch.setenv(devices.VARIABLE, variable)
        packed, out = tmp_path / f"{len(made)}", tmp_path / f"{len(made)}-out"
        command = ["-c", "none", str(images), str(packed), "-n", *force]
        assert legacy.main(command) == 0
        assert capsys.readouterr().out.startswith(f"{mode} MODE\ncompress mode\n")
        assert legacy.main(["-u", "none", str(packed), str(out), *force]) == 0
        assert capsys.readouterr().out.startswith(f"{mode} MODE\nuncompress mode\n")
        made.append(chunks(packed / "tezip.h5"))
    assert made[0] == made[1] == made[2]


def test_the_option(images, tmp_path, places, capsys):
    out = str(tmp_path / "x.h5")
    again = str(tmp_path / "y.h5")
    compress = ["compress", "none", str(images), out, "-n", "--overwrite"]
    assert main([*compress, "-f", "--device", "cuda"]) == 1
    assert "give one of them" in capsys.readouterr().err
    for words, device in (
        ([*compress, "--device", "cuda"], "cuda"),
        ([*compress, "--device", "cpu"], "cpu"),
        (["decompress", out, str(tmp_path / "out"), "--device", "cuda"], "cuda"),
        (["recompress", out, again, "--device", "cuda", "--level", "fast"], "cuda"),
    ):
        places.clear()
        assert main(words) == 0, words
        assert device in places, words
    assert main(["inspect", out, "--json"]) == 0
    report = capsys.readouterr().out
    assert "cuda" not in json.dumps(json.loads(report[report.index("{") :]))


def test_what_is_not_there_cannot_be_asked_for(images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(devices, "_found", devices.Status(False, "there is none", "buy one"))
    out = tmp_path / "x.h5"
    assert main(["compress", "none", str(images), str(out), "--device", "cuda"]) == 1
    assert "device='cuda', but there is none: buy one" in capsys.readouterr().err
    assert not out.exists()
    assert legacy.main(["-c", "none", str(images), str(tmp_path / "folder")]) == 0
    assert capsys.readouterr().out.startswith("CPU MODE\n")


def test_internal_reads_stay_on_the_cpu(small, tmp_path, places, monkeypatch):
    path = tmp_path / "x.h5"
    tezip_h5.write(small, path, device="cpu", **STAGES)
    monkeypatch.setenv(devices.VARIABLE, "cuda")
    places.clear()
    with h5py.File(path) as file:
        list(reader.blocks(file["scan/data"]))
        file["scan/data"][1]
    assert set(places) == {"cpu"}
