"""Writing with many machines: dask workers encode, this process alone writes the file.

A task is one step, the chunks of the same frames. As many are under way as keep the workers busy;
their results are written in order, and are those that a single process would have come to, byte
for byte, however many workers there are and whichever of them die.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace

import h5py
import numpy as np

from tezip_h5.dask_blocks import block_ranges, cut_steps
from tezip_h5.errors import InputError, TezipError
from tezip_h5.frames import Stack, axis_order, blocks_checked
from tezip_h5.hdf5.container import FRAME_DTYPE
from tezip_h5.hdf5.encoder import StackEncoder
from tezip_h5.hdf5.remote import EncodedStep, StepOptions, StoredFrames, encode_step
from tezip_h5.version import __version__

__all__ = ["Cluster", "ClusterEncoder", "connect", "serves"]

_CONNECT_SECONDS = 10
_LOOK_SECONDS = 5  # between two looks at whether anybody is still working
_PATIENCE_SECONDS = 300  # without a single worker
_PER_THREAD = 2  # steps under way for every thread of the workers
_SENT_BYTES = 1 << 30  # of frames that wait in the scheduler
_PARTS_AT_ONCE = 64
_RETRIES = 2
_VERSION = "__import__('tezip_h5.version').version.__version__"


@contextlib.contextmanager
def connect(
    stack, scheduler, axes: str | None = None, *, threads=None, verify: bool = False, device="auto"
):
    """The cluster that shall encode `stack`, or None.

    Parameters
    ----------
    stack
        What `write` was given.
    scheduler : None, "tcp://…", or distributed.Client
        None: for a dask array, the cluster that dask would compute it with, if that is one.
    axes : str, optional
        Order of the stack's axes.
    threads : int, optional
        Of every task; default 1, because a worker runs as many tasks as it has threads.
    verify : bool
        Have workers decode every chunk again, and compare.
    device : "auto" | "cpu" | "cuda"
        Of every worker, see `devices.choose`.

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
    """Whether `connect` would find a cluster for this stack, or try to."""
    return scheduler is not None or _client_of(stack) is not None


def _is_dask_array(stack) -> bool:
    module = sys.modules.get("dask.array")
    return module is not None and isinstance(stack, module.Array)


def _client_of(stack):
    """The client that dask would compute an array with; None when it computes here."""
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
    """Refuse workers without tezip_h5, or with another version of it."""
    # `eval`, because what a task names must be there before it can say that it is not.
    for worker, version in client.run(eval, _VERSION, on_error="return").items():
        if version != __version__:
            raise InputError(
                f"the worker {worker} has tezip_h5 {version}, this process {__version__}; install "
                "the same version everywhere"
            )


@dataclass(frozen=True)
class Cluster:
    """A cluster, and what it shall encode; see `connect`."""

    client: object
    stack: object
    axes: str | None
    threads: int
    verify: bool
    device: str

    def encoder(self, *arguments, threads, device, **options) -> ClusterEncoder:
        """A `ClusterEncoder`; arguments as for `StackEncoder`."""
        return ClusterEncoder(
            self.client,
            *arguments,
            threads=self.threads,
            verify=self.verify,
            worker_device=self.device,
            **options,
        )

    def blocks(self, source: Stack, size: int) -> Iterator:
        """Steps of `size` frames, the last one shorter, for `ClusterEncoder.submit`.

        Where workers can make or read the frames, they never pass through this process.
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


@dataclass(frozen=True)
class _Parts:
    """Frames that workers compute: futures of arrays, and what of each belongs to the step."""

    arrays: list
    count: int

    def __len__(self):
        return self.count


def _dask_steps(client, array, size: int) -> Iterator[_Parts]:
    """Steps of a dask array (T, ..., H, W[, C])."""
    count = array.shape[0]
    parts = _parts(client, array, block_ranges(array, size))
    for step, cuts in enumerate(cut_steps(parts, count, size)):
        yield _Parts(cuts, min(size, count - step * size))


def _parts(client, array, ranges: list[tuple[int, int]]) -> Iterator[tuple]:
    """(first frame, frame after the last, future of the frames) for each of `ranges`.

    To find the tasks of a part, dask may look at all of the array's: so that is done for many
    parts at once, and then for each among those.
    """
    import dask

    many = max(_PARTS_AT_ONCE, math.isqrt(len(ranges)))
    for at in range(0, len(ranges), many):
        group = ranges[at : at + many]
        base = group[0][0]
        (section,) = dask.optimize(array[base : group[-1][1]])
        for number, (begin, end) in enumerate(group, at):
            part = blocks_checked(section[begin - base : end - base], 0, begin)
            yield begin, end, client.compute(part, priority=-number, retries=_RETRIES)


class _Elsewhere:
    """What the writer asks of frames that never were in this process."""

    def __init__(self, count: int, nbytes: int, thumbnails: dict[int, np.ndarray]):
        self._count, self.nbytes, self._thumbnails = count, nbytes, thumbnails

    def __len__(self):
        return self._count

    def __getitem__(self, number: int) -> np.ndarray:
        return self._thumbnails[number]


@dataclass
class _Step:
    """A step under way: as `StackEncoder` keeps them, but with one future."""

    start: int
    frames: _Elsewhere
    tiles: list[Future]
    probe: bool  # of the network
    compares: bool  # coders
    tail = False
    known = np.zeros(0, FRAME_DTYPE)  # nothing was there before


class ClusterEncoder(StackEncoder):
    """A `StackEncoder` whose chunks are encoded by the workers of a cluster.

    `submit` takes what `Cluster.blocks` yields. Memory here: the results of one step; on the
    workers, of every thread two steps.
    """

    def __init__(
        self,
        client,
        *arguments,
        threads,
        verify=False,
        preview=True,
        worker_device="auto",
        **options,
    ):
        super().__init__(*arguments, threads=1, preview=preview, **options)
        self._client = client
        self._options = StepOptions(
            self.layout,
            self.dtype,
            self.bound,
            self.settings,
            threads,
            verify,
            preview,
            worker_device,
            self._mask,
        )
        self._model = None  # the future of the network's bytes

    def submit(self, frames, start: int) -> None:
        """Have one step encoded: at most G frames, beginning at frame `start`."""
        step, self._submitted = self._submitted, self._submitted + 1
        tried, probe = self.networks.foresee(step)
        compares = self.coders.probes(step)
        preferred = [self.coders.preferred(step, place) for place in range(len(self.layout.tiles))]
        count = len(frames)
        parts = frames.arrays if isinstance(frames, _Parts) else frames
        model = self._model_bytes() if tried else None
        with warnings.catch_warnings():  # frames that only this process has must be sent
            warnings.filterwarnings("ignore", "Sending large graph")
            future = self._client.submit(
                encode_step,
                self._options,
                parts,
                count,
                model,
                probe,
                compares,
                preferred,
                pure=False,
                priority=-step,
                retries=_RETRIES,
            )
        self._steps.append(_Step(start, _Elsewhere(count, 0, {}), [future], probe, compares))
        limit = _PER_THREAD * max(1, sum(self._client.nthreads().values()))
        if isinstance(frames, np.ndarray):
            limit = max(1, min(limit, _SENT_BYTES // max(frames.nbytes, 1)))
        self.drain(0 if probe or compares else limit - 1)

    def _model_bytes(self):
        """The network, in the hands of the workers: they pass it on, and can make it again."""
        if self._model is None:
            self._model = self._client.submit(bytes, self.networks.model.to_bytes())
        return self._model

    def _write(self, step: _Step) -> None:
        done = self._await(step)
        # What a single process would have decided before it encoded this step.
        model, probe = self.networks.next()
        if probe and not done.promises:
            model, probe = self.networks.dismiss(), False
        tiles = []
        for tile, predicted in zip(done.tiles, done.predicted, strict=True):
            if predicted:
                tile = tile.without if model is None else replace(tile, model=model)
            tiles.append(Future())
            tiles[-1].set_result(tile)
        frames = _Elsewhere(len(step.frames), done.raw_bytes, done.thumbnails)
        if step.compares and not done.doubtful:
            self.coders.forget()
        super()._write(_Step(step.start, frames, tiles, probe, done.doubtful))

    def _await(self, step: _Step) -> EncodedStep:
        """The result of a step, or why there is none."""
        from distributed import TimeoutError as Timeout
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker

        (future,) = step.tiles
        frames = f"frames {step.start} to {step.start + len(step.frames) - 1}"
        alone_since = None
        while True:
            try:
                return future.result(timeout=_LOOK_SECONDS)
            except (TimeoutError, Timeout):
                if future.done():  # just now, or the error is the task's own
                    return future.result()
            except KilledWorker as error:
                raise TezipError(
                    f"the workers that encoded {frames} died one after the other ({error}); most "
                    "often they have too little memory: give them more, or smaller chunk_frames"
                ) from None
            except FutureCancelledError as error:
                reason = str(error).splitlines()[0]
                raise TezipError(f"the cluster lost {frames}: {reason}") from None
            if self._client.status != "running":
                raise TezipError(f"the scheduler is gone; {frames} and later ones are not encoded")
            if self._client.nthreads():
                alone_since = None
            elif alone_since is None:
                alone_since = time.monotonic()
            elif time.monotonic() - alone_since > _PATIENCE_SECONDS:
                raise TezipError(
                    f"the cluster has had no worker for {_PATIENCE_SECONDS} s; {frames} and later "
                    "ones are not encoded: start workers, then write again"
                )

    def close(self) -> None:
        """Cancel what is under way, and let go of the workers' memory."""
        futures = [future for step in self._steps for future in step.tiles]
        if futures and self._client.status == "running":
            self._client.cancel(futures)
        self._steps.clear()
        self._model = None
        super().close()
