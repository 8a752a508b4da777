"""Where requests are worked on: a few threads, and a bounded wait for them."""

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
    """Threads that requests are worked on in. The kernels and ONNX Runtime release the GIL.

    A thread cannot be stopped: work whose request has gone keeps its slot until it ends, which it does at the next
    `check_abandoned`. So never more than ``slots`` are at work. Not for use outside one event loop.

    Args:
        slots: how many at a time.

    Attributes:
        waiting: requests that wait for a slot.
        working: slots that are taken.
    """

    def __init__(self, slots: int) -> None:
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="tansaku")
        self._slots = anyio.Semaphore(slots)
        self.waiting = 0
        self.working = 0

    async def run(self, task: Callable[[], T], started: Callable[[], None] = lambda: None) -> T:
        """What ``task`` returns, once there is a slot for it; ``started`` is called then."""
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
