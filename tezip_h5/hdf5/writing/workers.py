"""A crew of dask workers. A task is one step: the chunks of the same frames.

There are always enough tasks to keep the workers busy. The results are those of a single process,
byte for byte, however many workers there are, and whichever of them die.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from dataclasses import dataclass, replace

import numpy as np

from tezip_h5.errors import TezipError
from tezip_h5.hdf5.writing.choices import NetworkChoice
from tezip_h5.hdf5.writing.crew import Finished
from tezip_h5.hdf5.writing.remote import EncodedStep, StepOptions, encode_step

__all__ = ["RETRIES", "Parts", "Workers", "require_scheduler"]

RETRIES = 2  # how often a task is repeated after its worker died
_LOOK_SECONDS = 5  # time between two checks that there are workers
_PATIENCE_SECONDS = 300  # the write fails after this time without any worker
_PER_THREAD = 2  # unfinished steps for every thread of the workers
_SENT_BYTES = 1 << 30  # at most, of frames that are sent through the scheduler at a time


@dataclass(frozen=True)
class Parts:
    """Frames that workers compute: futures of arrays, and the part of each that a step needs."""

    arrays: list
    count: int

    def __len__(self):
        return self.count


@dataclass(frozen=True)
class _Work:
    """A step that a worker is encoding."""

    start: int
    stop: int
    future: object  # of an `EncodedStep`
    beside: int


def require_scheduler(client, start: int, stop: int) -> None:
    """Check that the scheduler is still there.

    Raises
    ------
    TezipError
        When it is gone; the error names frames `start` to `stop`, which are not encoded.
    """
    if client.status != "running":
        raise _scheduler_gone(start, stop)


def _scheduler_gone(start: int, stop: int) -> TezipError:
    return TezipError(
        f"the scheduler is gone; frames {start} to {stop - 1} and later ones are not encoded"
    )


class Workers:
    """Encode steps with the workers of a cluster; a `Crew`.

    This process holds the results of one step; the workers hold two steps for every thread.

    Parameters
    ----------
    client : distributed.Client
    networks : NetworkChoice
    options : StepOptions
        The options that are sent to the workers.
    """

    def __init__(self, client, networks: NetworkChoice, options: StepOptions):
        self._client, self._networks, self._options = client, networks, options
        self._begun = 0
        self._model = None  # the future of the network's bytes

    def begin(self, frames, start: int, exact: int = 0) -> _Work:
        """See `Crew.begin`; `frames` are what `Cluster.blocks` yields."""
        stop = start + len(frames)
        most = _PER_THREAD * max(1, self._threads(start, stop))
        if isinstance(frames, np.ndarray):
            most = max(1, min(most, _SENT_BYTES // max(frames.nbytes, 1)))
        trial = self._networks.foresee()
        model = None if trial.model is None else self._model_bytes(trial.model)
        with warnings.catch_warnings():  # our own frames must be sent, even if they are large
            warnings.filterwarnings("ignore", "Sending large graph")
            future = self._client.submit(
                encode_step,
                self._options,
                frames.arrays if isinstance(frames, Parts) else frames,
                len(frames),
                exact,
                replace(trial, model=None),
                model,
                pure=False,
                priority=-self._begun,
                retries=RETRIES,
            )
        self._begun += 1
        return _Work(start, stop, future, 0 if trial.probe else most - 1)

    def _threads(self, start: int, stop: int) -> int:
        """Number of threads of all workers; the error names frames `start` to `stop`."""
        require_scheduler(self._client, start, stop)
        try:
            return sum(self._client.nthreads().values())
        except OSError:  # the scheduler has just gone
            raise _scheduler_gone(start, stop) from None

    def _model_bytes(self, model):
        """A future of the network's bytes, which workers copy from each other."""
        if self._model is None:
            self._model = self._client.submit(bytes, model.to_bytes())
        return self._model

    def finish(self, work: _Work) -> Finished:
        """See `Crew.finish`."""
        done = self._await(work)
        # The decision that a single process would have made before it encoded this step.
        trial = self._networks.next(lambda model: done.promises)
        tiles = list(done.tiles)
        for number, predicted in enumerate(done.predicted):
            if predicted:
                tile, model = tiles[number], trial.model
                tiles[number] = tile.without if model is None else replace(tile, model=model)
        return Finished(trial, tiles, done.raw_bytes, done.pictures.__getitem__)

    def _await(self, work: _Work) -> EncodedStep:
        """The result of a step; raises an error that says why there is none."""
        from distributed import TimeoutError as Timeout
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker

        future, frames = work.future, f"frames {work.start} to {work.stop - 1}"
        alone_since = None
        while True:
            try:
                return future.result(timeout=_LOOK_SECONDS)
            except (TimeoutError, Timeout):
                if future.done():  # it has just finished, or failed with an error of its own
                    return future.result()
            except KilledWorker as error:
                raise TezipError(
                    f"the workers that encoded {frames} died one after the other ({error}); most "
                    "often they have too little memory: give them more, or smaller chunk_frames"
                ) from None
            except FutureCancelledError as error:
                reason = str(error).splitlines()[0]
                raise TezipError(f"the cluster lost {frames}: {reason}") from None
            if self._threads(work.start, work.stop):
                alone_since = None
            elif alone_since is None:
                alone_since = time.monotonic()
            elif time.monotonic() - alone_since > _PATIENCE_SECONDS:
                raise TezipError(
                    f"the cluster has had no worker for {_PATIENCE_SECONDS} s; {frames} and later "
                    "ones are not encoded: start workers, then write again"
                )

    def close(self, dropped: list[_Work]) -> None:
        """Cancel unfinished steps, and release the workers' memory."""
        if dropped and self._client.status == "running":
            with contextlib.suppress(OSError):  # the scheduler is gone, which was reported already
                self._client.cancel([work.future for work in dropped])
        self._model = None
