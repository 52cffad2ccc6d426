"""The stages and the codec on a device: the CPU's bytes and frames, wherever arrays lie."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from conftest import require_package
from models import random_model

require_package("numba", "numba.cuda")

from tezip_h5 import codec, holes, kernels, levels, prediction  # noqa: E402
from tezip_h5.bounds import ErrorBound  # noqa: E402
from tezip_h5.chunk.coding import ChunkEncoder, Task  # noqa: E402
from tezip_h5.efforts import EFFORTS  # noqa: E402
from tezip_h5.errors import FormatError, TezipError  # noqa: E402
from tezip_h5.kernels import arrays  # noqa: E402
from tezip_h5.kernels.cuda import launch  # noqa: E402
from tezip_h5.model import store  # noqa: E402
from tezip_h5.prediction import prednet_cuda  # noqa: E402
from tezip_h5.prediction.architecture import Architecture  # noqa: E402
from tezip_h5.prediction.scaling import Network  # noqa: E402
from tezip_h5.residual import entropy, ranks, spatial  # noqa: E402
from tezip_h5.residual.stages import StageDecoder, StageEncoder  # noqa: E402
from tezip_h5.settings import Settings  # noqa: E402


@pytest.fixture
def launched(monkeypatch):
    """Names of the kernels that were launched."""
    names = []
    call = launch.Kernel.__call__

    def counted(self, *arguments):
        names.append(self._function.__name__)
        call(self, *arguments)

    monkeypatch.setattr(launch.Kernel, "__call__", counted)
    return names


def on_device(array):
    return arrays.at(array, "cuda")


def on_host(array):
    return arrays.at(array, "cpu")


class Scale:
    """What the coder wants to know of how samples became levels."""

    def __init__(self, top):
        self.top, self.width = top, 1 if top < 256 else 2 if top < 65536 else 4


def some_frames(shape, top, count=3):
    rng = np.random.default_rng(count)
    start = rng.integers(0, min(top, 60) + 1, shape)
    steps = rng.integers(-2, 3, (count, *shape))
    return np.clip(start + np.cumsum(steps, 0), 0, top).astype(np.int32)


STAGES = [
    ({"level": "best"}, 255, 0, "uniform"),
    ({"level": "fast"}, 255, 2, "uniform"),
    ({"level": "balanced", "spatial": True, "ranks": True}, 4095, 2, "run-merging"),
    ({"level": "balanced", "spatial": False, "ranks": True}, 2**20, 1, "uniform"),
]


@pytest.mark.parametrize(("options", "top", "tolerance", "quantizer"), STAGES)
@pytest.mark.parametrize("shape", [(1, 6, 7), (2, 1, 5)])
def test_stages(options, top, tolerance, quantizer, shape):
    """Encoder and decoder, one beside the other on the CPU and on the device."""
    settings, scale = Settings(**options), Scale(top)
    tolerances = np.full(shape[0], tolerance)
    encoders = {place: StageEncoder(shape, scale, settings, quantizer) for place in ("cpu", "cuda")}
    encoders["cuda"].device = "cuda"
    frames, kept = some_frames(shape, top), []
    for t, frame in enumerate(frames):
        found = {}
        for place, encoder in encoders.items():
            if t == 0:
                out = encoder.keyframe(arrays.at(frame, place), tolerances)
            else:  # the device also takes arrays of the host
                out = encoder.residual(arrays.at(frame, place), kept[-1], tolerances)
            assert arrays.device_of(out) == place
            found[place] = on_host(out)
        np.testing.assert_array_equal(found["cuda"], found["cpu"])
        kept.append(found["cpu"])
    expected, found = (encoder.finish() for encoder in encoders.values())
    assert found == expected
    decoder = StageDecoder(expected[0], shape, scale)
    decoder.device = "cuda"
    for t, frame in enumerate(kept):
        last = on_device(kept[t - 1])
        out = decoder.residual(last, tolerances) if t else decoder.keyframe(tolerances)
        assert arrays.device_of(out) == "cuda"
        np.testing.assert_array_equal(on_host(out), frame)


def test_nothing_but_packed_bytes_crosses_over(monkeypatch):
    """From frame to frame and at the end: no other array comes to the host."""
    shape, scale = (1, 5, 8), Scale(255)
    encoder = StageEncoder(shape, scale, Settings(level="balanced", spatial=True), "uniform")
    encoder.device = "cuda"
    frames = [on_device(frame) for frame in some_frames(shape, 255)]
    memory, crossed = kernels.load("cuda.memory"), []
    to_host, fetch = memory.to_host, memory.Pinned.fetch
    monkeypatch.setattr(memory, "to_host", lambda a, *r: crossed.append(a.size) or to_host(a, *r))
    monkeypatch.setattr(memory.Pinned, "fetch", lambda p, a: crossed.append(a.dtype) or fetch(p, a))
    encoder.keyframe(frames[0], np.array([2]))
    for last, frame in itertools.pairwise(frames):
        encoder.residual(frame, last, np.array([2]))
    assert crossed == []
    encoder.finish()
    assert np.uint8 in crossed
    # Least and largest symbols of frames, and counts of one-byte symbols, are all else.
    assert {size for size in crossed if size != np.uint8} <= {2, 256}


@pytest.mark.parametrize("width", [1, 2, 4])
def test_ranks(width):
    info, rng = np.iinfo(f"i{width}"), np.random.default_rng(width)
    symbols = rng.choice([info.min, -9, -1, 0, 1, 8, info.max], 33).astype(np.int32)
    counters = {place: ranks.Counter(width) for place in ("cpu", "cuda")}
    for place, counter in counters.items():
        counter.add(arrays.at(symbols, place))
        counter.add(arrays.at(symbols[:5], place))
    table = counters["cpu"].table()
    np.testing.assert_array_equal(counters["cuda"].table(), table)
    ranking = ranks.Ranking(table)
    ranked = ranking.encode(on_device(symbols))
    np.testing.assert_array_equal(on_host(ranked), ranking.encode(symbols))
    ranking.decode(ranked, ranked)  # in place
    np.testing.assert_array_equal(on_host(ranked), symbols)
    for wrong in (-1, table.size):
        with pytest.raises(FormatError, match="outside its table"):
            ranking.decode(on_device(np.array([0, wrong], np.int32)), ranked)


def test_packed_streams_and_truncated_ones():
    frames = np.random.default_rng(0).integers(-300, 300, (5, 21)).astype(np.int32)
    packers = {
        place: entropy.Packer(21, 2, True, EFFORTS["best"].zstd) for place in ("cpu", "cuda")
    }
    for place, packer in packers.items():
        for frame in frames:
            packer.add(arrays.at(frame, place))
    data, sizes = packers["cpu"].finish()
    assert packers["cuda"].finish() == (data, sizes)
    unpacker, out = entropy.Unpacker(data, 21, 2, True), arrays.empty("cuda", 21)
    for frame in frames:
        unpacker.next(out)
        np.testing.assert_array_equal(on_host(out), frame)
    with pytest.raises(FormatError):
        unpacker.next(out)
    short = entropy.Unpacker(data[: sizes[0] + 3], 21, 2, True)
    short.next(out)
    with pytest.raises(FormatError):
        short.next(out)


def test_spatial_gives_arrays_where_it_got_them():
    symbols = np.array([3, -128, 127, 0, 5], np.int32)
    encoded = spatial.encode(on_device(symbols), 1)
    np.testing.assert_array_equal(on_host(encoded), spatial.encode(symbols, 1))
    spatial.decode(encoded, 1, encoded)
    np.testing.assert_array_equal(on_host(encoded), symbols)


# --- whole chunks -----------------------------------------------------------------------


def chunks(samples, bound, settings, model=None, kinds=None):
    """The payloads of both devices; `ChunkEncoder` itself, so that no failure is hidden."""
    from tezip_h5.bitstream import Header

    planar = samples.reshape((*samples.shape[:3], -1))
    bound = bound.of_frames(planar)
    header = Header(samples.dtype.newbyteorder("<"), samples.shape, samples.shape[:3], coder=0)
    scale = levels.choose(planar, bound)
    quantizer = settings.quantizer or "uniform"
    task = Task(header, holes.patched(planar), bound, settings, scale, kinds)
    tasks = [replace(task, device=device) for device in ("cpu", "cuda")]
    return [ChunkEncoder(task, "stages", quantizer, model).encode().payload for task in tasks]


@pytest.mark.parametrize(
    ("dtype", "bound", "options"),
    [
        ("uint8", {}, {}),
        ("uint16", {"absolute": 3}, {"quantizer": "run-merging"}),
        ("float32", {"absolute": 0.01}, {"mse_threshold": 1e-5}),
        ("float32", {}, {"window": 2, "feedback": "prediction"}),
    ],
)
def test_payloads(dtype, bound, options, launched):
    t, y, x = np.indices((4, 7, 9))
    samples = (100 + 20 * np.sin((x + t) / 3) + y).astype(dtype)
    settings = Settings(coder="stages", **options)
    expected, found = chunks(samples, ErrorBound(**bound), settings)
    assert found == expected
    launched.clear()
    from tezip_h5 import bitstream
    from tezip_h5.chunk.coding import decode_frames

    out = np.empty((*samples.shape, 1), dtype)
    decode_frames(bitstream.unpack(found), out, 1, "cuda")
    assert launched
    np.testing.assert_array_equal(out[..., 0], codec.decode_chunk(expected))


@pytest.mark.parametrize("coder", ["stages", "linear"])
@pytest.mark.parametrize("feedback", ["reconstruction", "prediction"])
def test_payloads_with_a_network(coder, feedback, launched):
    """The network on the device, before coders that work there and such that do not."""
    from tezip_h5 import bitstream
    from tezip_h5.chunk.coding import decode_frames

    model = store.register(random_model(Architecture(1, (), (2,), patch=2)))
    t, y, x = np.indices((3, 9, 10))
    samples = (120 + 60 * np.sin((x + t) / 3) * np.cos(y / 4)).astype(np.uint8)
    bound = ErrorBound(absolute=2).of_frames(samples[..., None])
    settings = Settings(predictor="prednet", feedback=feedback, coder=coder)
    expected = codec.encode_chunk(samples, bound, settings, model=model)
    planar = samples[..., None]
    header = bitstream.Header(samples.dtype, samples.shape, samples.shape[:3], coder=0)
    scale, samples_there = levels.choose(planar, bound), holes.patched(planar)
    task = Task(header, samples_there, bound, settings, scale, device="cuda")
    found = ChunkEncoder(task, coder, model=model).encode()
    assert "_output" in launched
    if expected.coder == coder:  # else the fallback was smaller
        assert found.payload == expected.payload
    launched.clear()
    out = np.empty(planar.shape, np.uint8)
    decode_frames(bitstream.unpack(found.payload), out, 1, "cuda")
    assert "_output" in launched
    np.testing.assert_array_equal(out[..., 0], codec.decode_chunk(found.payload))


def test_a_device_that_predicts_something_else_is_refused(monkeypatch):
    model = random_model(Architecture(1, (), (1,), patch=1), seed=5)
    network = Network(model.digest, 0, 0)
    monkeypatch.setitem(prednet_cuda._conforming, model.digest, False)
    number = prediction.NUMBERS["prednet"]
    with pytest.raises(TezipError, match="use the CPU"):
        prediction.create(number, (1, 4, 4), 255, network, model, "cuda")
    assert prediction.create(number, (1, 4, 4), 255, network, model) is not None
