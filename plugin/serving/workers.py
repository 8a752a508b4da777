"""`Workers`: the threads that requests are worked on in, and the wait for one of them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import anyio

T = TypeVar("T")

_abandoned: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar("abandoned", default=None)

# Threads that may be replaced for each slot. Each holds memory, so that the number has an end.
_SPARES_PER_SLOT = 3


class AbandonedError(Exception):
    """Nobody waits for this work any more."""


def check_abandoned() -> None:
    """Raise `AbandonedError`, in a worker, if the client has gone or the deadline has passed."""
    event = _abandoned.get()
    if event is not None and event.is_set():
        raise AbandonedError


class Workers:
    """A fixed number of threads. The kernels and ONNX Runtime release the GIL, so that they run side by side.

    A thread cannot be stopped. Work whose client has gone keeps its slot until it ends, at the latest at its next
    `check_abandoned`. If it has not ended some seconds later, it counts as stuck, and another thread takes its slot. If
    too many are stuck, no slot is left, and `exhausted` says so.

    One event loop at a time may use a `Workers`.

    Args:
        slots: Number of requests worked on at a time.
        patience_seconds: Time that abandoned work has to end before it counts as stuck.

    Attributes:
        waiting: Number of requests that wait for a slot.
        working: Number of slots in use.
        stuck: Number of threads that were given up and have not ended.
    """

    def __init__(self, slots: int, patience_seconds: float = 30.0) -> None:
        self._spares = _SPARES_PER_SLOT * slots
        self._n_threads = slots + self._spares
        self._start()
        self._slots = anyio.Semaphore(slots)
        self._n_slots = slots
        self._patience = patience_seconds
        self.waiting = 0
        self.working = 0
        self.stuck = 0

    @property
    def exhausted(self) -> bool:
        """Whether stuck work holds all threads: only a restart helps."""
        return self.stuck >= self._spares + self._n_slots

    async def run(self, task: Callable[[], T], started: Callable[[], None] = lambda: None) -> T:
        """Run ``task`` in a worker as soon as there is a free slot, and return its result.

        Args:
            task: The work.
            started: Called when there is a slot, before the work begins.
        """
        if self._process != os.getpid():  # forked: the threads are gone
            self._start()
        self.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self.waiting -= 1
        self.working += 1
        started()
        loop, abandoned = asyncio.get_running_loop(), threading.Event()
        context = contextvars.copy_context()
        context.run(_abandoned.set, abandoned)
        future: Future[T] = self._pool.submit(context.run, task)
        given_up = False

        def release() -> None:
            self.working -= 1
            self._slots.release()

        def ended() -> None:
            if not given_up:
                release()
                return
            if self.stuck > self._spares:
                release()  # no thread was left to take its slot
            self.stuck -= 1

        def give_up() -> None:
            nonlocal given_up
            if future.done():
                return
            given_up = True
            self.stuck += 1
            if self.stuck <= self._spares:
                release()

        def done(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(ended)

        future.add_done_callback(done)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            abandoned.set()
            loop.call_later(self._patience, give_up)
            raise

    def close(self) -> None:
        """Take no more work; what is running ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        self._process = os.getpid()
        self._pool = ThreadPoolExecutor(self._n_threads, thread_name_prefix="tansaku")
