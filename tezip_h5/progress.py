"""Progress bars, which appear on a terminal after two seconds."""

from __future__ import annotations

import os
import threading

from tqdm import tqdm

__all__ = ["Bar", "progress_bar"]


class Bar(tqdm):
    """A tqdm bar that shares no lock with other processes.

    All processes that were forked after tqdm made its lock share it, and even a hidden bar takes
    it. A process that is killed while it holds the lock would block all others.
    """

    _lock = threading.RLock()
    monitor_interval = 0  # its thread takes the lock at any moment, also in that of a fork


def _renew_lock() -> None:
    Bar.set_lock(threading.RLock())


if hasattr(os, "register_at_fork"):  # another thread may have held it, which the child has not
    os.register_at_fork(after_in_child=_renew_lock)


def progress_bar(iterable=None, *, total=None, show: bool | None = None, **shown) -> Bar:
    """A bar over `iterable`, or one to `update`.

    Parameters
    ----------
    iterable : iterable, optional
    total : int, optional
        How many there are.
    show : bool, optional
        True and False decide, None leaves it to the terminal.
    **shown
        tqdm's: ``unit``, ``unit_scale``, ``delay``, …
    """
    disable = None if show is None else not show
    shown = {"unit": "chunk", "delay": 2, "leave": False, "miniters": 1, **shown}
    return Bar(iterable, total=total, disable=disable, **shown)
