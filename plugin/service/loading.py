"""Loading of the service: at startup, or at the first request where the application is mounted in another."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import Any

from .follow import follow_indexes
from .manage.manager import Manager
from .service import Service

_TOKENS_OF_A_PASSAGE = 250  # some 400 characters of Japanese


class Loading:
    """Loads a service once, then follows its indexes.

    A server runs the lifespan of its application, which starts the loading. An application that is mounted in another
    one has no lifespan of its own: there the first request starts it.

    Args:
        service: What is loaded.
        manager: Its jobs, which are continued then.
        log: A structlog logger.
        on_failure: Called with the error if the model or an index cannot be loaded.
    """

    def __init__(
        self, service: Service, manager: Manager, log: Any, on_failure: Callable[[Exception], None] | None = None
    ) -> None:
        self._service = service
        self._manager = manager
        self._log = log
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._loaded: Future[Exception | None] | None = None
        self._reported: Future[Exception | None] | None = None
        self._process = os.getpid()
        self._has_lifespan = False
        self._following: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Load in the background from startup on, and stop the service at the end."""
        self._has_lifespan = True
        running = asyncio.create_task(self._load_and_follow())
        try:
            yield
        finally:
            self._service.draining = True
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            await asyncio.to_thread(self._manager.close)
            self._service.workers.close()

    async def at_request(self, *, wait: bool) -> None:
        """Start loading where no lifespan does, and if ``wait``, wait for its end."""
        if self._has_lifespan:
            return
        loop = asyncio.get_running_loop()
        if self._following is None or self._following.done() or self._following.get_loop() is not loop:
            self._following = loop.create_task(self._load_and_follow())
        if wait and not self._service.ready:
            await self._wait()

    async def _load_and_follow(self) -> None:
        await self._wait()
        if self._service.ready:
            await follow_indexes(self._service, self._log)

    async def _wait(self) -> None:
        """Wait for the end of the loading, and report it, once."""
        loading = self._load()
        # Not awaited itself: a task that is cancelled would take the loading with it.
        await asyncio.wait([asyncio.wrap_future(loading)])
        if self._reported is loading:
            return
        self._reported = loading
        error = loading.result()
        if error is None:
            self._log_ready()
            return
        self._log.error("not loaded", error=type(error).__name__, message=str(error))
        if self._on_failure:
            self._on_failure(error)

    def _log_ready(self) -> None:
        """Say what is served and how fast, and warn if the limits allow more than can be encoded in time."""
        service, settings = self._service, self._service.settings
        in_time = service.pace.tokens_in_time or 0
        self._log.info(
            "ready",
            model=service.model,
            indexes=list(service.searchers),
            tokens_per_second=round(service.pace.tokens_per_second or 0),
            tokens_within_deadline=in_time,
        )
        n_documents = in_time // _TOKENS_OF_A_PASSAGE
        if n_documents < settings.max_documents:
            self._log.warning(
                "limits",
                max_documents=settings.max_documents,
                documents_within_deadline=n_documents,
                tokens_of_a_document=_TOKENS_OF_A_PASSAGE,
                remedy="requests with more text are refused with 413; for them raise the deadline or use more cores",
            )

    def _load(self) -> Future[Exception | None]:
        """Load in a thread of its own, once in a process; the result is the error, if there was one."""
        with self._lock:
            if self._process != os.getpid() and not self._service.ready:  # forked: the thread is not here
                self._process, self._loaded = os.getpid(), None
            if self._loaded is None:
                self._loaded = Future()
                threading.Thread(target=self._work, args=(self._loaded,), name="tansaku-load", daemon=True).start()
            return self._loaded

    def _work(self, loaded: Future[Exception | None]) -> None:
        try:
            self._service.load()
            self._manager.start()
        except Exception as error:
            self._service.ready, self._service.failed = False, True
            loaded.set_result(error)
        else:
            loaded.set_result(None)
