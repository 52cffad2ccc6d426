"""Writing with a dask cluster: its workers encode, and only this process writes the file.

This module finds the cluster and the frames. The module `workers` gives steps of them to the
workers.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import h5py

from tezip_h5.errors import InputError
from tezip_h5.frames import Stack, axis_order, blocks_checked
from tezip_h5.hdf5.writing.choices import NetworkChoice
from tezip_h5.hdf5.writing.remote import StepOptions, StoredFrames
from tezip_h5.hdf5.writing.steps import Recipe
from tezip_h5.hdf5.writing.workers import RETRIES, Parts, Workers, require_scheduler
from tezip_h5.stacks.dask_blocks import block_ranges, cut_steps
from tezip_h5.version import __version__

__all__ = ["Cluster", "connect", "serves"]

_CONNECT_SECONDS = 10
_PARTS_AT_ONCE = 64  # parts of a dask array whose tasks are looked up together
_VERSION = "__import__('tezip_h5.version').version.__version__"


@contextlib.contextmanager
def connect(
    stack, scheduler, axes: str | None = None, *, threads=None, verify: bool = False, device="auto"
):
    """The cluster that is to encode `stack`, or None.

    Parameters
    ----------
    stack
        The stack, as `write` was given it.
    scheduler : None, "tcp://…", or distributed.Client
        None: for a dask array, the cluster that dask would compute it with, if that is one.
    axes : str, optional
        Order of the stack's axes.
    threads : int, optional
        Threads of every task; default 1, because a worker runs as many tasks as it has threads.
    verify : bool
        Have workers decode every chunk again, and compare.
    device : "auto" | "cpu" | "cuda"
        The device of every worker, see `devices.choose`.

    Raises
    ------
    InputError
        When there is no such cluster, or its workers cannot encode.
    """
    client = _client_of(stack) if scheduler is None else scheduler
    if client is None:
        yield None
        return
    with contextlib.ExitStack() as opened:
        if isinstance(client, str):
            client = opened.enter_context(_client_at(client))
        if not hasattr(client, "submit") or not hasattr(client, "scheduler_info"):
            raise InputError(
                f"scheduler={scheduler!r} is no cluster; give the address of a dask scheduler, "
                "such as 'tcp://127.0.0.1:8786', or a distributed.Client"
            )
        if getattr(client, "asynchronous", False):
            raise InputError("this distributed.Client is asynchronous; give one that is not")
        _check_workers(client)
        yield Cluster(client, stack, axes, threads or 1, verify, device)


def serves(stack, scheduler) -> bool:
    """Whether `connect` would look for a cluster for this stack."""
    return scheduler is not None or _client_of(stack) is not None


def _is_dask_array(stack) -> bool:
    module = sys.modules.get("dask.array")
    return module is not None and isinstance(stack, module.Array)


def _client_of(stack):
    """The client with which dask would compute an array; None if it would compute it here."""
    if not _is_dask_array(stack) or "distributed" not in sys.modules:
        return None
    import dask.base

    client = getattr(dask.base.get_scheduler(collections=[stack]), "__self__", None)
    return client if isinstance(client, sys.modules["distributed"].Client) else None


def _client_at(address: str):
    try:
        from distributed import Client
        from distributed import TimeoutError as Timeout
    except ImportError:
        raise InputError('a cluster needs dask.distributed: pip install "tezip_h5[dask]"') from None
    try:
        return Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, Timeout) as error:
        raise InputError(
            f"no scheduler answers at {address!r} ({error}); give the address that "
            "`dask scheduler` prints, such as tcp://127.0.0.1:8786"
        ) from None


def _check_workers(client) -> None:
    """Raise InputError for workers without tezip_h5, or with another version of it."""
    # A task of `eval` arrives at a worker without tezip_h5, which can then say so.
    for worker, version in client.run(eval, _VERSION, on_error="return").items():
        if version != __version__:
            raise InputError(
                f"the worker {worker} has tezip_h5 {version}, this process {__version__}; install "
                "the same version everywhere"
            )


@dataclass(frozen=True)
class Cluster:
    """A cluster, and the stack that it encodes; see `connect`."""

    client: object
    stack: object
    axes: str | None
    threads: int
    verify: bool
    device: str

    def crew(self, recipe: Recipe, networks: NetworkChoice, preview: bool) -> Workers:
        """The workers, which encode steps; `preview` asks them for pictures of keyframes."""
        options = StepOptions(recipe, self.threads, self.verify, preview, self.device)
        return Workers(self.client, networks, options)

    def blocks(self, source: Stack, size: int) -> Iterator:
        """Yield steps of `size` frames (the last may be shorter), for `Workers.begin`.

        If workers can compute or read the frames, the frames never pass through this process.
        """
        stack = self.stack
        if not _is_dask_array(stack) and not _workers_may_read(stack):
            return source.blocks(size)
        order, _ = axis_order(self.axes, stack.ndim)
        if _workers_may_read(stack):
            path = os.path.abspath(stack.file.filename)
            return (
                StoredFrames(path, stack.name, order, start, min(start + size, source.count))
                for start in range(0, source.count, size)
            )
        return _dask_steps(self.client, stack.transpose(order), size)


def _workers_may_read(stack) -> bool:
    """Whether `stack` is a dataset in a file that nobody writes to."""
    if not isinstance(stack, h5py.Dataset) or stack.name is None:
        return False
    return stack.file.mode == "r" and os.path.isfile(stack.file.filename)


def _dask_steps(client, array, size: int) -> Iterator[Parts]:
    """Steps of a dask array (T, ..., H, W[, C])."""
    count = array.shape[0]
    parts = _parts(client, array, block_ranges(array, size))
    for step, cuts in enumerate(cut_steps(parts, count, size)):
        yield Parts(cuts, min(size, count - step * size))


def _parts(client, array, ranges: list[tuple[int, int]]) -> Iterator[tuple]:
    """Yield (first frame, frame after the last, future of the frames) for each of `ranges`.

    dask may search all tasks of the array to find those of a part. Therefore the tasks of many
    parts are found together first, and those of each part among them.
    """
    import dask

    many = max(_PARTS_AT_ONCE, math.isqrt(len(ranges)))
    for at in range(0, len(ranges), many):
        group = ranges[at : at + many]
        base = group[0][0]
        (section,) = dask.optimize(array[base : group[-1][1]])
        for number, (begin, end) in enumerate(group, at):
            require_scheduler(client, begin, end)
            part = blocks_checked(section[begin - base : end - base], 0, begin)
            yield begin, end, client.compute(part, priority=-number, retries=RETRIES)
