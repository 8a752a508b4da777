"""The service follows its indexes: they are checked, and new versions opened, in the background of searches."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from ...indexer.errors import BusyError
from ...onnx_export.errors import TansakuError
from .service import Service


async def follow_indexes(service: Service, log: Any) -> None:
    """Check every index once, and look for a new version of it each ``refresh_seconds``, until cancelled.

    Args:
        service: Whose indexes are followed. Its metrics count the looks.
        log: A structlog logger.
    """
    seconds = service.settings.refresh_seconds
    checking = asyncio.create_task(check_indexes(service, log))
    try:
        while seconds and (service.searchers or service.settings.write):
            await asyncio.sleep(seconds)
            for name in list(service.searchers):
                await _look(service, name, log)
        await checking
    finally:
        checking.cancel()


async def check_indexes(service: Service, log: Any) -> None:
    """Compare the files of every index with their checksums once, in a thread; damage is logged as an error.

    Args:
        service: Whose indexes are checked.
        log: A structlog logger.
    """
    stopped = threading.Event()

    def go_on(_stage: str, _done: int, _total: int, _tokens: int, /) -> None:
        if stopped.is_set():
            raise _StoppedError

    try:
        for name, searcher in service.searchers.items():
            try:
                report = await asyncio.to_thread(searcher.check, go_on)
            except BusyError as error:
                log.warning("not checked", index=name, message=str(error))
                continue
            except TansakuError as error:
                log.error("damaged", index=name, error=type(error).__name__, message=str(error))
                continue
            if report.rebuilt:
                log.error("damaged", index=name, message="derived arrays were made again; restart to search in them")
            else:
                log.info("checked", index=name, files=report.files, bytes=report.bytes)
    finally:
        stopped.set()


class _StoppedError(Exception):
    """The service is stopping."""


async def _look(service: Service, name: str, log: Any) -> None:
    if name not in service.searchers:  # dropped meanwhile
        return
    try:
        newer = await asyncio.to_thread(service.refresh, name)
    except Exception as error:  # searches go on in the version that is open
        log.warning("not refreshed", index=name, error=type(error).__name__, message=str(error))
        service.metrics.refreshed(name, "failed")
        return
    service.metrics.refreshed(name, "later" if newer else "same")
    if newer:
        searcher = service.searchers[name]
        log.info("refreshed", index=name, version=searcher.version, model=searcher.encoder.bundle.name)
