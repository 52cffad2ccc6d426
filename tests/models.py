"""Random networks for tests."""

import numpy as np

from tezip_h5.model.export import export


def random_weights(architecture, gain=0.7, seed=0):
    """Kernel and bias of every convolution, normal."""
    rng = np.random.default_rng(seed)
    return {
        name: (
            rng.normal(0, gain / np.sqrt(9 * inputs), (3, 3, inputs, outputs)).astype(np.float32),
            rng.normal(0, 0.1, outputs).astype(np.float32),
        )
        for name, (inputs, outputs) in architecture.convolutions().items()
    }


def random_model(architecture, gain=0.7, seed=0):
    """An integer model of random weights; it predicts nothing well."""
    frames = np.random.default_rng(seed).integers(0, 256, (3, 32, 32, architecture.channels))
    weights = random_weights(architecture, gain, seed)
    return export(architecture, weights, [frames], clipped=False, allowed_loss=1e9)
