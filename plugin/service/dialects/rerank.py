"""The paths that several dialects share, such as `/rerank`: the body says which one a request is in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Union

from fastapi import APIRouter
from pydantic import Discriminator, Tag
from starlette.requests import Request
from starlette.responses import Response

from ..errors import ErrorShape
from ..service import Service
from .base import Dialect, SharedRerank


def shared(dialects: Sequence[Dialect], path: str) -> Dialect:
    """A shared path, as a dialect.

    Args:
        dialects: All dialects. Of those that have a part in the path, the first that claims a body gets it; the last
            one must claim all.
        path: The path.
    """
    parts = [
        (dialect.errors, dialect.rerank)
        for dialect in dialects
        if dialect.rerank is not None and path in dialect.rerank.paths
    ]

    def part_of(body: object) -> tuple[ErrorShape, SharedRerank]:
        claimed = (part for part in parts if isinstance(body, Mapping) and part[1].claims(body))
        return next(claimed, parts[-1])

    def error_body(status: int, message: str, request_id: str | None) -> dict[str, Any]:
        """For a client that is not known yet: what any of them reads."""
        merged: dict[str, Any] = {}
        for errors, _ in parts:
            merged |= errors.body(status, message, request_id)
        return merged

    def of_request(body: object) -> ErrorShape:
        return part_of(body)[0] if isinstance(body, Mapping) else any_errors

    any_errors = ErrorShape("any", Union[tuple(errors.model for errors, _ in parts)], error_body, of_request)  # noqa: UP007
    requests = tuple(Annotated[rerank.request, Tag(errors.dialect)] for errors, rerank in parts)
    of_body = Discriminator(lambda body: part_of(body)[0].dialect)
    body_type = Annotated[Union[requests], of_body] if len(parts) > 1 else parts[0][1].request  # noqa: UP007

    def router(service: Service) -> APIRouter:
        routes = APIRouter(tags=["rerank"])

        async def rerank(body: Any, request: Request) -> Response:
            errors, part = next(part for part in parts if isinstance(body, part[1].request))
            request.state.errors = errors
            return await part.answer(service, body, request)

        rerank.__annotations__["body"] = body_type
        names = ", ".join(errors.dialect.capitalize() for errors, _ in parts)
        routes.add_api_route(
            path,
            rerank,
            methods=["POST"],
            response_model=Union[tuple(part.response for _, part in parts)],  # noqa: UP007
            responses=any_errors.documented(),
            summary=f"Rerank documents ({names})",
            description="Rank documents for a query, in the dialect of the request's body.",
        )
        return routes

    return Dialect(any_errors, router)
