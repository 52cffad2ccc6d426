"""The previous-frame predictor: it predicts that nothing changes."""

from __future__ import annotations

import numpy as np

from tezip_h5.kernels import arrays

__all__ = ["Previous"]


class Previous:
    """Predict that the next frame is the last one observed (zero before the first).

    Its arrays lie on `device`, "cpu" or "cuda".
    """

    threads = 1

    def __init__(self, shape: tuple[int, int, int], device: str = "cpu"):
        self._last = arrays.at(np.zeros(shape, np.int32), device)

    def predict(self):
        return self._last

    def observe(self, frame) -> None:
        self._last = frame
