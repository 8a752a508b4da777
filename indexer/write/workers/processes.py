"""Encode in several processes of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from typing import Any

from ....onnx_export.cores import usable_cores
from ....onnx_export.encode.encoder import Encoder
from ....onnx_export.errors import TansakuError
from ..units import Chunk
from .jobs import Job
from .pool import Pool, Worker

_CORES_EACH = 4
# What numpy and faiss read when they are loaded: how many threads they use.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def default_processes() -> int:
    """Number of processes: one for each four cores, but two or more where there are two cores."""
    return max(min(2, usable_cores()), usable_cores() // _CORES_EACH)


class ProcessPool(Pool):
    """Processes of this machine.

    Args:
        encoder: the model; None: the documents have vectors.
        dim: length of a token vector.
        count: number of processes.
    """

    deaths = (BrokenExecutor,)

    def __init__(self, encoder: Encoder | None, dim: int, count: int) -> None:
        super().__init__(count, 1, dim)
        self._threads = max(1, usable_cores() // count)
        self._load = None if encoder is None else encoder.elsewhere(self._threads)

    def hire(self) -> Worker:
        """Start a process."""
        return _Process(self._load, self._threads)


class _Process(Worker):
    """A process. It is a pool of one, so that it is known of which unit it died."""

    def __init__(self, load: Callable[[], Encoder] | None, threads: int) -> None:
        # Not forked: LanceDB and ONNX Runtime do not survive that.
        self._executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)
        with _environment(dict.fromkeys(_THREADS, str(threads))):
            self._pid = self._executor.submit(os.getpid)
        self._job: Job | None = None
        self.started = self._executor.submit(_start, load)

    def submit(self, job: Job, chunks: list[Chunk]) -> Future[Any]:
        """Begin a unit. The job, with its codec, is sent once."""
        new, self._job = None if job is self._job else job, job
        return self._executor.submit(_run, chunks, new)

    def close(self) -> None:
        """Kill the process."""
        pid = self._pid.result() if self._pid.done() and not self._pid.exception() else None
        self._executor.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            if process.pid == pid:
                process.kill()


@contextlib.contextmanager
def _environment(given: dict[str, str]) -> Iterator[None]:
    """Variables for processes that are started here, unless the user has set them."""
    before = {name: os.environ.get(name) for name in given}
    os.environ.update({name: value for name, value in given.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


# What follows runs in the other process. These are its model and its job.
_encoder: Encoder | None = None
_job: Job | None = None


def _begin() -> None:
    """Leave Ctrl-C to the process that started this one, and end when that ends, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _start(load: Callable[[], Encoder] | None) -> TansakuError | None:
    global _encoder
    try:
        _encoder = None if load is None else load()
    except TansakuError as error:
        return error
    return None


def _run(chunks: list[Chunk], job: Job | None) -> Any:
    global _job
    _job = job or _job
    assert _job is not None  # noqa: S101
    try:
        return _job.run(_encoder, chunks)
    except TansakuError as error:
        return error
