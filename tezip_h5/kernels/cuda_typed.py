"""Functions that the processor's kernels and the device's share.

numba's CUDA compiler takes the plain function, and what that calls may be decorated for the
processor. The simulator would run it as Python, a thousand times slower, and with Python's
numbers; there the processor's kernel of the same function is called instead, on copies that lie as
it wants them. What is tested in the simulator is all that is around such a function, and that
they compile for the device is tested apart.
"""

from __future__ import annotations

import numpy as np
from numba import cuda

from tezip_h5.kernels.cuda_launch import SIMULATED

__all__ = ["shared"]


def shared(function, compiled, written: tuple[int, ...]):
    """A function that kernels of the device call.

    Parameters
    ----------
    function : callable
        For the device.
    compiled : callable
        The same for the processor, with the same arguments but that those in tuples come one by
        one.
    written : tuple of int
        Which of these it writes.
    """
    if not SIMULATED:
        return cuda.jit(device=True)(function)

    def on_copies(*arguments):
        arrays = list(_plain(arguments))
        copies = [np.ascontiguousarray(a) if isinstance(a, np.ndarray) else a for a in arrays]
        result = compiled(*copies)
        for place in written:
            if copies[place] is not arrays[place]:
                arrays[place][...] = copies[place]
        return result

    return on_copies


def _plain(values):
    """The values, those in tuples one by one, as numpy's arrays and not the simulator's."""
    for value in values:
        if isinstance(value, tuple):
            yield from _plain(value)
        else:
            value = getattr(value, "_item", value)
            yield getattr(value, "_ary", value)
