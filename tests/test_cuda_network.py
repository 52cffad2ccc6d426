"""The network's CUDA kernels against the definition and the CPU's, on a GPU or in the simulator."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import require_package
from models import random_model

require_package("numba", "numba.cuda")

from tezip_h5 import kernels  # noqa: E402
from tezip_h5.kernels.cuda import launch, memory  # noqa: E402
from tezip_h5.prediction.architecture import Architecture  # noqa: E402
from tezip_h5.prediction.integer import ACCUMULATOR  # noqa: E402
from tezip_h5.prediction.prednet import PredNet  # noqa: E402
from tezip_h5.prediction.prednet_cuda import CudaPredNet, PredNetBatch, conforms  # noqa: E402
from tezip_h5.prediction.reference import Reference, convolve  # noqa: E402

# Sizes are small for the simulator's sake; groups of four that are not full, several chunks of
# input channels and tiles that reach over the edge are all among them.
CASES = [
    (Architecture(1, (2,), (1, 2), patch=1), (1, 5, 6), (255, 0, 0)),
    (Architecture(1, (3,), (3, 2), patch=2), (1, 7, 9), (65535, 1000, 7)),
    (Architecture(2, (5,), (2, 3), patch=1, skip=False), (2, 6, 5), (255, 0, 0)),
    (Architecture(1, (), (2,), patch=4), (1, 9, 3), (9, 0, -4)),
    (Architecture(1, (2, 1), (1, 2, 1), patch=1), (1, 8, 9), (2**30, -5, 20)),
    (Architecture(3, (), (1,), patch=1, skip=False), (3, 1, 1), (255, 0, 0)),
]


def some_frames(shape, scale, seed, count=3):
    top, offset, shift = scale
    most = min(top, int(offset + 255 * 2.0**shift)) + 1
    return np.random.default_rng(seed).integers(0, most, (count, *shape)).astype(np.int32)


@pytest.mark.parametrize(("architecture", "shape", "scale"), CASES)
def test_it_is_the_definition(architecture, shape, scale):
    model = random_model(architecture)
    makers = Reference, PredNet, CudaPredNet
    defined, cpu, device = (make(model, shape, *scale) for make in makers)
    for frame in some_frames(shape, scale, 3):
        defined.observe(frame)
        cpu.observe(frame)
        device.observe(memory.to_device(frame))
        found = memory.to_host(device.predict())
        np.testing.assert_array_equal(found, defined.predict())
        np.testing.assert_array_equal(found, cpu.predict())
    assert found.std() > 0 or found.size < 4


def test_chunks_of_different_scales_go_together():
    model = random_model(Architecture(1, (2,), (1, 2), patch=2))
    scales = [(255, 0, 0), (4095, 200, 4), (9, 0, -4)]
    shape = (1, 6, 10)
    frames = [some_frames(shape, scale, k, 2) for k, scale in enumerate(scales)]
    alone = [PredNet(model, shape, *scale) for scale in scales]
    together = PredNetBatch(model, shape, scales)
    for t in range(2):
        together.observe(memory.to_device(np.stack([stack[t] for stack in frames])))
        found = memory.to_host(together.predict())
        for k, predictor in enumerate(alone):
            predictor.observe(frames[k][t])
            np.testing.assert_array_equal(found[k], predictor.predict())


@pytest.mark.parametrize(
    ("inputs", "outputs", "size"), [(1, 1, (1, 1)), (3, 6, (5, 9)), (2, 8, (4, 4))]
)
def test_convolution(inputs, outputs, size):
    """Whatever its sizes, and of some channels of a tensor only."""
    rng = np.random.default_rng(inputs)
    model = random_model(Architecture(1, (2,), (1, 2), patch=1))
    conv = replace(
        model.convolutions["a1"],
        kernel=rng.integers(-99, 100, (3, 3, inputs, outputs)).astype(np.int32),
        bias=rng.integers(-999, 1000, outputs).astype(np.int32),
        shift=np.zeros(outputs, np.uint8),
    )
    x = np.zeros((2, inputs + 3, size[0] + 2, size[1] + 2), np.int16)
    x[:, :, 1:-1, 1:-1] = rng.integers(-255, 256, (2, inputs + 3, *size))
    network = kernels.load("cuda.network")
    weights = network.Weights.of(conv.kernel, conv.bias, conv.shift, gates=False)
    out = memory.empty((2, outputs, *size), np.int32)
    network.convolve(memory.to_device(x), 2, weights, out)
    expected = [convolve(frame[2 : 2 + inputs, 1:-1, 1:-1], conv) for frame in x]
    np.testing.assert_array_equal(memory.to_host(out), expected)


def test_extreme_frames_stay_exact():
    model = random_model(Architecture(1, (3,), (2, 3), patch=1), gain=40.0)
    assert max(conv.bounds.max() for conv in model.convolutions.values()) > ACCUMULATOR // 2
    defined, device = (make(model, (1, 6, 6), 255, 0, 0) for make in (Reference, CudaPredNet))
    rng = np.random.default_rng(1)
    for _ in range(3):
        frame = rng.choice([0, 255], (1, 6, 6)).astype(np.int32)
        defined.observe(frame)
        device.observe(memory.to_device(frame))
        np.testing.assert_array_equal(memory.to_host(device.predict()), defined.predict())


def test_a_device_conforms_or_is_found_out():
    model = random_model(Architecture(1, (), (1,), patch=1))
    assert conforms(model)
    other = replace(model, conformance=model.conformance + 1)
    assert not conforms(other)


@pytest.mark.skipif(launch.SIMULATED, reason="large frames take a GPU")
def test_large_frames_and_repeated_runs():
    """On a GPU: the default network, frames of many tiles, again and again."""
    model = random_model(Architecture())
    shape, scale = (1, 301, 517), (65535, 1000, 7)
    frames = some_frames(shape, scale, 0)
    cpu = PredNet(model, shape, *scale)
    expected = []
    for frame in frames:
        cpu.observe(frame)
        expected.append(cpu.predict().copy())
    for _ in range(20):
        device = PredNetBatch(model, shape, [scale] * 3)
        for frame, prediction in zip(frames, expected, strict=True):
            device.observe(memory.to_device(np.stack([frame] * 3)))
            for found in memory.to_host(device.predict()):
                np.testing.assert_array_equal(found, prediction)
