"""The previous-frame predictor: nothing moves."""

from __future__ import annotations

import numpy as np

__all__ = ["Previous"]


class Previous:
    """Predict that the next frame is the last one observed (zero before the first)."""

    threads = 1

    def __init__(self, shape: tuple[int, int, int]):
        self._last = np.zeros(shape, np.int32)

    def predict(self) -> np.ndarray:
        return self._last

    def observe(self, frame: np.ndarray) -> None:
        np.copyto(self._last, frame)
