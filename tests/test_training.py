"""Training: the float network, its integer twin on a foreign engine, and all that may go wrong."""

import numpy as np
import pytest
from conftest import require_training
from models import random_model, random_weights

from tezip_h5.model import store
from tezip_h5.model.floating import FloatPredNet
from tezip_h5.prediction.architecture import Architecture
from tezip_h5.prediction.integer import ACCUMULATOR
from tezip_h5.prediction.reference import Reference

require_training()

from foreign import Foreign  # noqa: E402 (needs TensorFlow)

from tezip_h5.model import network  # noqa: E402

GREY = Architecture(1, (5,), (3, 7))
ARCHITECTURES = [
    GREY,
    Architecture(),
    Architecture(1, (), (6,), patch=1),
    Architecture(3, (6, 5), (4, 5, 6)),
    Architecture(1, (5,), (3, 7), patch=4),
    Architecture(3, (6, 9), (3, 6, 9), patch=1, skip=False),
]


# --- the same network, three times ----------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_keras_computes_what_numpy_does(architecture):
    """float32 against float32: what is trained is what export calibrates and judges."""
    weights = random_weights(architecture, seed=4)
    side = 2 * architecture.multiple
    frames = np.random.default_rng(1).random((4, side, side + architecture.multiple, 1))
    frames = (frames * np.linspace(0.4, 1, architecture.channels)).astype(np.float32)
    net = network.PredNet(architecture, quantised=False)
    net.set_weights_by_name(weights)
    found = np.asarray(net(frames[None]))[0]
    plain = FloatPredNet(architecture, weights, np.moveaxis(frames, 3, 1).shape[1:])
    expected = np.stack([plain.step(frame) for frame in np.moveaxis(frames[:-1], 3, 1)])
    np.testing.assert_allclose(found, np.moveaxis(expected, 1, 3), rtol=0, atol=1e-5)


def random_frames(shape, top, offset, shift, count=4):
    rng = np.random.default_rng(7)
    most = min(top, int(offset + 300 * 2.0**shift)) + 1
    frames = rng.integers(0, most, (count, *shape)).astype(np.int32)
    frames[1] = frames[0]  # no change at all,
    frames[2] = rng.choice([0, most - 1], shape)  # and as much as there can be
    return frames


def require_agreement(model, scale, *, compiled=False):
    """The definition and TensorFlow's float32, bit for bit."""
    shape = (model.architecture.channels, 22, 29)
    expected = Reference(model, shape, *scale)
    found = Foreign(model, shape, *scale, compiled=compiled)
    for frame in random_frames(shape, *scale):
        expected.observe(frame)
        found.observe(frame)
        np.testing.assert_array_equal(found.predict(), expected.predict())


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("scale", [(255, 0, 0), (65535, 1000, 7), (2**30, -5, 20), (9, 0, -4)])
def test_float32_elsewhere_is_exact(architecture, scale):
    """The argument that makes decoding portable (all sums below 2**24) holds in TensorFlow."""
    require_agreement(random_model(architecture), scale)


@pytest.mark.parametrize("compiled", [False, True])
def test_float32_elsewhere_is_exact_at_the_limits(compiled):
    model = random_model(GREY, gain=40.0)
    assert max(conv.bounds.max() for conv in model.convolutions.values()) > ACCUMULATOR // 2
    require_agreement(model, (255, 0, 0), compiled=compiled)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("compiled", [False, True])
def test_the_models_that_ship_are_exact_elsewhere(channels, compiled):
    require_agreement(store.default(channels), (255, 0, 0), compiled=compiled)
    if not compiled:
        require_agreement(store.default(channels), (4095, 30, 4))
