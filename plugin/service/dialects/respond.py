"""From a task to the answer: the work, and writing it as JSON, in a worker; only the sending outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from ..core import Service
from ..gate import entered


async def respond(service: Service, request: Request, task: Callable[[], Any], *, documents: int) -> Response:
    """The answer that ``task`` gives, from a worker; ``documents`` is how many it is about, for the log."""
    request.state.documents = documents
    body = await service.run(lambda: as_json(task()), entered("work"))
    return Response(body, media_type="application/json")


def as_json(content: Any) -> bytes:
    """JSON; dates, bytes and the like, which columns of the caller's may hold, as strings, and NaN as null."""
    return to_json(content, inf_nan_mode="null", bytes_mode="base64", serialize_unknown=True)
