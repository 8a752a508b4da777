"""`Writers`: threads that do the jobs, for each index one at a time, in the order in which they came."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable

from .jobs import Job

_NICENESS = 10  # of the threads: a search that needs the processor gets it first
_LAST_SECONDS = 10  # that a job has to stop at the end; what it has encoded is kept


class StoppedError(Exception):
    """The service ends, or the job was cancelled."""


class Writers:
    """Threads that do jobs. An index has one writer at a time.

    Args:
        do: Does a job, in a thread.
        threads: Number of jobs that are done at a time.
    """

    def __init__(self, do: Callable[[Job], None], threads: int) -> None:
        self._do = do
        self._most = threads
        self._condition = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._busy: set[str] = set()
        self._threads: list[threading.Thread] = []
        self.stopping = False

    def put(self, job: Job) -> None:
        """Have a job done."""
        with self._condition:
            self._waiting.append(job)
            if len(self._threads) < min(self._most, len(self._waiting) + len(self._busy)):
                thread = threading.Thread(target=self._work, name="tansaku-writer", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._condition.notify()

    def take_back(self, job: Job) -> bool:
        """Take a job out of the queue; returns whether it was still there."""
        with self._condition:
            try:
                self._waiting.remove(job)
            except ValueError:
                return False
            return True

    def close(self) -> None:
        """Begin no further job, and wait a little for those at work to stop."""
        with self._condition:
            self.stopping = True
            self._condition.notify_all()
        ends = time.monotonic() + _LAST_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()))

    def _work(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # of this thread alone, and only on Linux
            if os.uname().sysname == "Linux":
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while True:
            with self._condition:
                job = self._next()
                while job is None and not self.stopping:
                    self._condition.wait()
                    job = self._next()
                if job is None or self.stopping:
                    return
                self._busy.add(job.index)
            try:
                self._do(job)
            finally:
                with self._condition:
                    self._busy.discard(job.index)
                    self._condition.notify_all()

    def _next(self) -> Job | None:
        """The first job whose index has no writer."""
        for job in self._waiting:
            if job.index not in self._busy:
                self._waiting.remove(job)
                return job
        return None
