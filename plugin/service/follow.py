"""The service follows its indexes: new versions are opened in the background, while searches go on."""

from __future__ import annotations

import asyncio
from typing import Any

from .service import Service


async def follow_indexes(service: Service, log: Any) -> None:
    """Look for a new version of every index each ``refresh_seconds``, until cancelled.

    Args:
        service: Whose indexes are followed. Its metrics count the looks.
        log: A structlog logger.
    """
    seconds = service.settings.refresh_seconds
    while seconds and service.searchers:
        await asyncio.sleep(seconds)
        for name in service.searchers:
            await _look(service, name, log)


async def _look(service: Service, name: str, log: Any) -> None:
    try:
        newer = await asyncio.to_thread(service.refresh, name)
    except Exception as error:  # searches go on in the version that is open
        log.warning("not refreshed", index=name, error=type(error).__name__, message=str(error))
        service.metrics.refreshed(name, "failed")
        return
    service.metrics.refreshed(name, "later" if newer else "same")
    if newer:
        log.info("refreshed", index=name, version=service.searchers[name].version)
