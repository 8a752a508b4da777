"""`Workers`: the threads that requests are worked on in, and the wait for one of them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import anyio

T = TypeVar("T")

_abandoned: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar("abandoned", default=None)


class AbandonedError(Exception):
    """Nobody waits for this work any more."""


def check_abandoned() -> None:
    """Raise `AbandonedError`, in a worker, if the client has gone or the deadline has passed."""
    event = _abandoned.get()
    if event is not None and event.is_set():
        raise AbandonedError


class Workers:
    """A fixed number of threads. The kernels and ONNX Runtime release the GIL, so that they run side by side.

    A thread cannot be stopped: work whose client has gone keeps its slot until it ends, at the latest at its next
    `check_abandoned`. One event loop at a time may use a `Workers`.

    Args:
        slots: Number of requests worked on at a time.

    Attributes:
        waiting: Number of requests that wait for a slot.
        working: Number of slots in use.
    """

    def __init__(self, slots: int) -> None:
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="tansaku")
        self._slots = anyio.Semaphore(slots)
        self.waiting = 0
        self.working = 0

    async def run(self, task: Callable[[], T], started: Callable[[], None] = lambda: None) -> T:
        """Run ``task`` in a worker as soon as there is a free slot, and return its result.

        Args:
            task: The work.
            started: Called when there is a slot, before the work begins.
        """
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

        def done(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._release)

        future.add_done_callback(done)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            abandoned.set()
            raise

    def close(self) -> None:
        """Take no more work; what is running ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _release(self) -> None:
        self.working -= 1
        self._slots.release()
