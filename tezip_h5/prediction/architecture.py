"""The architecture of a PredNet, which the float network and its integer export share.

Lotter, Kreiman, Cox, *Deep Predictive Coding Networks for Video Prediction and Unsupervised
Learning*, ICLR 2017. Layer l holds a target A, its prediction Ahat, their error E and a
recurrent representation R (a convolutional LSTM). There are two extensions, which models of the
original do not use:

- ``skip``: the network predicts the change since the last frame instead of the frame. Its inputs
  are also the frame and its last change, besides the network's own error.
- ``patch``: the network works on blocks of patch x patch pixels, laid out as channels (the
  sub-pixel layout of Shi et al., CVPR 2016), which enlarges its receptive field for the same work.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np

from tezip_h5.errors import ModelError

__all__ = [
    "CELL_LIMIT",
    "CHANGE_GAIN",
    "KERNEL",
    "ORIGINAL",
    "Architecture",
    "to_patches",
    "to_pixels",
]

KERNEL = 3
"""Side of every convolution's kernel."""

CHANGE_GAIN = 8
"""With `skip`, errors and changes of the frame are multiplied by this before they are clipped,
because they are small compared with the frame."""

CELL_LIMIT = 8.0
"""The LSTM's cells saturate here."""

_LIMITS = {"channels": 4, "layers": 8, "size": 512, "patch": 4}


@dataclass(frozen=True)
class Architecture:
    """Sizes of a PredNet.

    Parameters
    ----------
    channels : int
        Channels of a frame, 1 to 4.
    targets : tuple of int
        Channels of A in the layers above the first (whose A is the frame itself).
    states : tuple of int
        Channels of R in every layer; one more than `targets`.
    patch : 1, 2 or 4
        Side, in pixels, of the block that is one position in the first layer.
    skip : bool
        Predict the change, not the frame.

    Raises
    ------
    ModelError
        For sizes that do not fit each other, or are out of range.
    """

    channels: int = 1
    targets: tuple[int, ...] = (12, 16)
    states: tuple[int, ...] = (16, 20, 24)
    patch: int = 2
    skip: bool = True

    def __post_init__(self):
        sizes = (*self.targets, *self.states)
        fits = (
            all(type(size) is int and 1 <= size <= _LIMITS["size"] for size in sizes)
            and len(self.states) == len(self.targets) + 1 <= _LIMITS["layers"]
            and type(self.channels) is int
            and 1 <= self.channels <= _LIMITS["channels"]
            and self.patch in (1, 2, 4)
            and type(self.skip) is bool
        )
        if not fits:
            raise ModelError(
                f"no PredNet has the sizes {asdict(self)}; expected 1 to {_LIMITS['channels']} "
                f"channels, one state more than targets, at most {_LIMITS['layers']} layers of at "
                f"most {_LIMITS['size']} channels, patch 1, 2 or 4"
            )

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.states)

    @property
    def multiple(self) -> int:
        """Frames are padded to a multiple of this many pixels."""
        return self.patch << (self.layers - 1)

    def target(self, layer: int) -> int:
        """Channels of A and Ahat."""
        return self.targets[layer - 1] if layer else self.channels * self.patch**2

    def inputs(self, layer: int) -> int:
        """Channels that the LSTM of a layer convolves: R, E, the frame and its change (first
        layer, with `skip`), and the enlarged R of the layer above.
        """
        above = self.states[layer + 1] if layer + 1 < self.layers else 0
        frame = 2 * self.target(0) if self.skip and layer == 0 else 0
        return self.states[layer] + 2 * self.target(layer) + frame + above

    def convolutions(self) -> dict[str, tuple[int, int]]:
        """Input and output channels of every convolution, by name, in the order of storage.

        ``a{l}`` makes A of layer l from the errors below, ``ahat{l}`` the prediction,
        ``gates{l}`` the LSTM's four gates (input, forget, cell, output, in this order).
        """
        sizes = {}
        for layer in range(self.layers):
            if layer:
                sizes[f"a{layer}"] = (2 * self.target(layer - 1), self.target(layer))
            frame = 2 * self.target(0) if self.skip and layer == 0 else 0
            sizes[f"ahat{layer}"] = (self.states[layer] + frame, self.target(layer))
            sizes[f"gates{layer}"] = (self.inputs(layer), 4 * self.states[layer])
        return sizes

    def to_json(self) -> str:
        """As JSON; the inverse of `from_json`."""
        return json.dumps({"class_name": "tezip_h5.PredNet", "config": asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Architecture:
        """Read what `to_json` wrote; ModelError for anything else."""
        try:
            document = json.loads(text)
            config = dict(document["config"])
            if document["class_name"] != "tezip_h5.PredNet":
                raise ValueError(f"it describes a {document['class_name']!r}")
            config["targets"] = tuple(config["targets"])
            config["states"] = tuple(config["states"])
            return cls(**config)
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"this is no architecture of a tezip_h5 PredNet: {error}") from None


ORIGINAL = Architecture(3, (48, 96, 192), (3, 48, 96, 192), patch=1, skip=False)
"""The architecture that the original TEZip trains."""


def to_patches(x: np.ndarray, patch: int) -> np.ndarray:
    """(C, H, W) -> (patch * patch * C, H / patch, W / patch): row, column, channel."""
    c, h, w = x.shape
    blocks = x.reshape(c, h // patch, patch, w // patch, patch).transpose(2, 4, 0, 1, 3)
    return blocks.reshape(-1, h // patch, w // patch)


def to_pixels(x: np.ndarray, patch: int) -> np.ndarray:
    """The inverse of `to_patches`."""
    c, h, w = x.shape[0] // patch**2, x.shape[1], x.shape[2]
    blocks = x.reshape(patch, patch, c, h, w).transpose(2, 3, 0, 4, 1)
    return blocks.reshape(c, h * patch, w * patch)
