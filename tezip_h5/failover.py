"""Running work on the CPU after it failed on the GPU. No other module decides that.

A piece of work is a function of the device, with the same result on both devices. It may fail on
the GPU in two ways:

- The GPU runs out of memory. From then on only half as many pieces may be on the GPU at a time,
  and the piece is tried again. A piece that does not fit alone is done by the CPU.
- Anything else. The CPU does the piece. If the CPU fails, too, the input is at fault, and the
  caller gets the CPU's error. If it does not fail, the GPU is at fault, and this process stops
  using it: CUDA's context is unusable after a fault.

A `devices.DeviceWarning` reports either of them once.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings

from tezip_h5 import devices
from tezip_h5.errors import InputError, ModelError

__all__ = ["is_out_of_memory", "run"]


class _Room:
    """Counts the pieces of work on the GPU, and limits their number."""

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        """Start again; needed after a fork, when nobody would release a held lock."""
        self._changed = threading.Condition()
        self._inside = 0
        self.limit: int | None = None
        self._told = False

    @contextlib.contextmanager
    def place(self):
        """Wait for a place on the GPU, and hold it in a `with` block."""
        with self._changed:
            self._changed.wait_for(lambda: self.limit is None or self._inside < self.limit)
            self._inside += 1
        _here.inside = True
        try:
            yield
        finally:
            _here.inside = False
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def shrink(self, seen: int | None) -> bool:
        """Lower the limit, after a piece that began when it was `seen` ran out of memory.

        Returns False if no other piece is on the GPU, so that waiting would not free memory.
        """
        with self._changed:
            others = self._inside
            if others and self.limit == seen:  # else lowered already by one that failed with it
                most = others + 1 if seen is None else min(seen, others + 1)
                self.limit = max(1, most // 2)
            return others > 0

    def tell(self) -> bool:
        """True the first time."""
        with self._changed:
            told, self._told = self._told, True
            return not told


_room = _Room()
_here = threading.local()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_room.reset)


def run(work, device: str):
    """Return ``work(device)``, or ``work("cpu")`` if the GPU fails.

    A `run` within `work` passes errors on; the outermost `run` decides.

    Parameters
    ----------
    work : callable
        Called with "cuda" or "cpu", perhaps several times; it must have no effect when it fails.
    device : "auto" | "cpu" | "cuda"
        See `devices.choose`.

    Returns
    -------
    The result of `work`.

    Raises
    ------
    Exception
        Any error of ``work("cpu")``. Of ``work("cuda")`` only InputError and ModelError, because
        they are about the caller's input. InputError if the device does not exist.
    """
    if device == "cpu" or getattr(_here, "inside", False):
        return work(device)
    if device != "cuda" or not devices.status().usable:
        device = "cpu" if devices.status().given_up else devices.choose(device)
    if device == "cpu":
        return work("cpu")
    alone = False
    while True:
        seen = _room.limit
        try:
            with _room.place():
                return work(device)
        except (InputError, ModelError):
            raise
        except Exception as error:
            trouble = error.with_traceback(None)  # its frames hold arrays
        if not is_out_of_memory(trouble):
            break
        if not _room.shrink(seen):
            if alone:
                break
            alone = True  # once more: those before may have left just now
    result = work("cpu")
    _tell(trouble)
    return result


def _tell(trouble: Exception) -> None:
    """Warn once that the CPU has taken over."""
    text = " ".join(str(trouble).split()) or type(trouble).__name__
    if is_out_of_memory(trouble):
        if _room.tell():
            _warn(
                f"a chunk does not fit into the GPU's memory ({text}): the CPU codes such chunks; "
                "smaller chunks, or a GPU that nobody else uses, would help"
            )
    elif devices.give_up(f"{type(trouble).__name__}: {text}"):
        _warn(
            f"the GPU failed, the CPU goes on ({type(trouble).__name__}: {text}); what is written "
            "and read is the same. Run tezip-h5 doctor"
        )


def _warn(text: str) -> None:
    warnings.warn(text, devices.DeviceWarning, stacklevel=4)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that the GPU's memory is full.

    Drivers, numba, CuPy and PyTorch each have their own exception for that. These exceptions have
    only their names or texts in common.
    """
    while error is not None:
        text = f"{type(error).__name__} {error}".lower().replace("_", " ")
        if "out of memory" in text or "outofmemory" in text:
            return True
        error = error.__cause__
    return False
