"""What the GPU could not do is done by the CPU: the one place that decides so.

A piece of work is given as a function of the device, and gives the same result on both. On the
GPU it may fail:

- It runs out of memory. Fewer pieces at a time are let onto the GPU from then on, half as many as
  there were, and the piece is tried again; one that does not fit alone is done by the CPU.
- Anything else. The CPU does it. Where the CPU fails, too, the fault is in the input, and its
  error is what the caller sees. Where it does not, the fault is the GPU's, which is given up for
  the rest of the process: after a fault CUDA's context is of no more use.

Either is said once, by a `devices.DeviceWarning`.
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
    """The pieces of work that are on the GPU, and how many may be."""

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        """As at the beginning; also after a fork, when a lock may be held for ever."""
        self._changed = threading.Condition()
        self._inside = 0
        self.limit: int | None = None
        self._told = False

    @contextlib.contextmanager
    def place(self):
        """A place on the GPU, waited for."""
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
        """Let fewer in, after one that came in when the limit was `seen` found no memory.

        False where nobody else is on the GPU who could make room.
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
    """``work(device)``; on the CPU where the GPU fails.

    Within `work`, `run` passes on what happens: the outermost decides.

    Parameters
    ----------
    work : callable
        Called with "cuda" or "cpu", perhaps several times; it must leave no trace when it fails.
    device : "auto" | "cpu" | "cuda"
        See `devices.choose`.

    Returns
    -------
    What `work` returns.

    Raises
    ------
    Exception
        What ``work("cpu")`` raises. InputError and ModelError of ``work("cuda")`` as well: they
        are about what the caller gave. InputError for a device that there is not.
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
    """Say once that the CPU has taken over."""
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

    Drivers, numba, CuPy and PyTorch each have an exception of their own for that, which only its
    name or its text has in common.
    """
    while error is not None:
        text = f"{type(error).__name__} {error}".lower().replace("_", " ")
        if "out of memory" in text or "outofmemory" in text:
            return True
        error = error.__cause__
    return False
