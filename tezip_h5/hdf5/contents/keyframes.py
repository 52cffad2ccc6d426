"""The virtual dataset ``keyframes`` beside a stack, for viewers: it has only the keyframes."""

from __future__ import annotations

import h5py
import numpy as np

__all__ = ["link_keyframes"]

_MOST_MAPPINGS = 4096  # with more runs of keyframes, no virtual dataset is made


def link_keyframes(group: h5py.Group, data: h5py.Dataset, keyframes: np.ndarray) -> None:
    """Make the virtual dataset ``keyframes`` over `data`; `keyframes` are frame numbers."""
    if "keyframes" in group:
        del group["keyframes"]
    runs = _strided_runs(keyframes)
    if not runs or len(runs) > _MOST_MAPPINGS:
        return
    layout = h5py.VirtualLayout((len(keyframes), *data.shape[1:]), data.dtype)
    source = h5py.VirtualSource(".", data.name, shape=data.shape, dtype=data.dtype)
    position = 0
    for first, step, count in runs:
        layout[position : position + count] = source[first : first + (count - 1) * step + 1 : step]
        position += count
    group.create_virtual_dataset("keyframes", layout)


def _strided_runs(numbers: np.ndarray) -> list[tuple[int, int, int]]:
    """Cut rising numbers into (first, step, count) runs."""
    runs, i = [], 0
    while i < len(numbers):
        if i + 1 == len(numbers):
            runs.append((int(numbers[i]), 1, 1))
            break
        step = int(numbers[i + 1] - numbers[i])
        j = i + 1
        while j + 1 < len(numbers) and numbers[j + 1] - numbers[j] == step:
            j += 1
        runs.append((int(numbers[i]), step, j - i + 1))
        i = j + 1
    return runs
