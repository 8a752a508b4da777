"""What the routes share: tables as they are now, answers of jobs, and the errors of the work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import anyio
from starlette.responses import Response

from ....indexer.table.table import IndexTable, open_index_table
from ....onnx_export.errors import TansakuError
from ..dialects.base import as_json
from ..errors import OURS, ServiceError
from ..service import Service
from .jobs import ENDED, Job
from .work import refusal

T = TypeVar("T")

ERRORS: dict[int | str, dict[str, Any]] = {
    **OURS.documented(),
    403: {"model": OURS.model, "description": "Writing is off, or the token only reads."},
    404: {"model": OURS.model, "description": "The index, the document, the job or the upload is unknown."},
    409: {"model": OURS.model, "description": "The state of the index, the job or the upload does not allow it."},
    410: {"model": OURS.model, "description": "The version of a cursor has been removed."},
    507: {"model": OURS.model, "description": "There is no room on the disk."},
}
"""The error answers of the routes, for OpenAPI."""

_SHARE_OF_DEADLINE = 0.8  # that a request waits for its job; the rest is for the answer


def table_now(service: Service, name: str, version: int | None = None) -> IndexTable:
    """The table of an index, at its latest version or an earlier one.

    Raises:
        ServiceError: 404, the index is unknown; 409, it is not one table.
        TansakuError: the table cannot be read.
    """
    searcher = served(service, name)
    return open_index_table(*searcher.location, version=version)


def served(service: Service, name: str) -> Any:
    """The searcher of an index that is one table.

    Raises:
        ServiceError: 404, the index is unknown; 409, it is not one table, so that it cannot be managed here.
    """
    _, searcher = service.searcher(name)
    if not hasattr(searcher, "location"):
        raise ServiceError(409, "this index is searched here in parts, and managed where its parts are", "index")
    return searcher


@contextmanager
def refusing(service: Service) -> Iterator[None]:
    """Errors of an index as answers."""
    try:
        yield
    except TansakuError as error:
        raise refusal(error, service) from error


async def apart(work: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Do short work with files in a thread, so that no other request waits for the disk."""
    return await anyio.to_thread.run_sync(partial(work, *arguments, **options))


async def answer_of(service: Service, job: Job, *, wait: bool, status: int = 200) -> Response:
    """The answer to a request for a job: its end, if it comes in time, or else 202.

    Args:
        service: Whose deadline holds.
        job: The job.
        wait: Whether to wait for its end.
        status: HTTP status if the job is done.

    Raises:
        ServiceError: the job failed or was cancelled.
    """
    if wait:
        seconds = _SHARE_OF_DEADLINE * service.settings.deadline_seconds
        await asyncio.wait([asyncio.wrap_future(job.end)], timeout=seconds)
    if job.state == "failed":
        raise ServiceError(job.status or 500, f"{job.error} (job {job.id})", "job")
    if job.state == "cancelled":
        raise ServiceError(409, f"the job was cancelled (job {job.id})", "job")
    ended = job.state in ENDED
    headers = {} if ended else {"Location": f"/jobs/{job.id}", "Retry-After": "1"}
    return Response(as_json(job.shown()), status if ended else 202, headers, "application/json")
