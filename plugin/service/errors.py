"""Errors as each dialect's clients read them, without stack traces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from ...onnx_export.errors import InputError

Dialect = Literal["cohere", "tei", "weaviate", "jina", "tansaku", "any"]

_SHOWN = 5  # problems of a body that are listed
_TEI_TYPES = {429: "Overloaded", 500: "Backend", 503: "Unhealthy", 504: "Backend"}
_RETRY_AFTER = 1  # seconds


class CohereError(BaseModel):
    """An error as Cohere's clients read it; the service's own endpoints answer so too."""

    id: str | None = None
    message: str


class TeiError(BaseModel):
    """An error as text-embeddings-inference's clients read it."""

    error: str
    error_type: Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]


class WeaviateError(BaseModel):
    """An error as Weaviate reads it."""

    error: str


class JinaError(BaseModel):
    """An error as Jina's clients read it."""

    detail: str


class AnyError(TeiError, CohereError):
    """An error at ``/rerank`` before it is known whose client asked: all of theirs."""


class ServiceError(Exception):
    """A request that is refused.

    Attributes:
        status: HTTP status.
        message: what the client is told.
        reason: the same in a word, for the count of refused requests.
    """

    def __init__(self, status: int, message: str, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason


def documented(model: Any) -> dict[int | str, dict[str, Any]]:
    """The error answers of an endpoint that works, for OpenAPI."""
    meanings = {
        400: "The body is not JSON",
        401: "The token is missing or wrong",
        404: "No such index",
        408: "The body came too slowly",
        413: "The body, or a list in it, is too long",
        422: "The request cannot be understood",
        429: "Too many requests; try again after Retry-After",
        500: "The service failed",
        503: "Loading, draining or overloaded; try again after Retry-After",
        504: "The work took longer than the deadline",
    }
    return {status: {"model": model, "description": text} for status, text in meanings.items()}


def dialect_of(path: str, body: object = None) -> Dialect:
    """Whose client sent a request, by its path and, at ``/rerank``, its body if that is known."""
    if path.startswith("/weaviate/"):
        return "weaviate"
    if path == "/rerank":
        return rerank_dialect(body) if isinstance(body, Mapping) else "any"
    if path in ("/v1/rerank", "/v2/rerank"):
        return "cohere"
    return {"/embed_all": "tei", "/v1/multi-vector": "jina"}.get(path, "tansaku")  # type: ignore[return-value]


def rerank_dialect(body: Mapping[str, Any]) -> Literal["cohere", "tei", "weaviate"]:
    """The dialect of a body at ``/rerank``: only TEI's has "texts", and only Weaviate's "property"."""
    if "texts" in body:
        return "tei"
    return "weaviate" if "property" in body and "model" not in body else "cohere"


def error_body(dialect: Dialect, status: int, message: str, request_id: str | None) -> dict[str, Any]:
    """The body of an error."""
    cohere = {"id": request_id, "message": message}
    tei = {"error": message, "error_type": _TEI_TYPES.get(status, "Validation")}
    bodies: dict[Dialect, dict[str, Any]] = {
        "cohere": cohere,
        "tansaku": cohere,
        "tei": tei,
        "weaviate": {"error": message},
        "jina": {"detail": message},
        "any": cohere | tei,
    }
    return bodies[dialect]


def error_response(
    scope: Mapping[str, Any], status: int, message: str, *, reason: str | None = None, body: object = None
) -> JSONResponse:
    """The answer to a request that is refused, and a note in its scope of why, for the log and the metrics."""
    state = scope.get("state", {})
    dialect = state.get("dialect") or dialect_of(scope.get("path", ""), body)
    state.update(reason=reason, dialect=dialect)
    headers = {}
    if status in (429, 503):
        headers["Retry-After"] = str(_RETRY_AFTER)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(
        error_body(dialect, status, message, state.get("request_id")), status_code=status, headers=headers
    )


async def on_service_error(request: Request, error: Exception) -> JSONResponse:
    """Answers `ServiceError`."""
    if not isinstance(error, ServiceError):  # registered for that alone
        raise error
    return error_response(request.scope, error.status, error.message, reason=error.reason)


async def on_input_error(request: Request, error: Exception) -> JSONResponse:
    """Answers `InputError`."""
    if not isinstance(error, InputError):
        raise error
    return error_response(request.scope, 422, str(error), reason="input")


async def on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Answers what the framework refuses: unknown paths and methods, bodies that cannot be parsed."""
    if not isinstance(error, HTTPException):
        raise error
    answer = error_response(request.scope, error.status_code, str(error.detail), reason="http")
    answer.headers.update(error.headers or {})
    return answer


def problems(errors: Sequence[Any]) -> tuple[int, str]:
    """Status and message for what validation found in a body; the values themselves are not repeated."""
    if errors and errors[0]["type"] == "json_invalid":
        return 400, "the body is not JSON"
    listed = [f"{_place(error['loc'])}: {error['msg']}" for error in errors]
    more = f" (and {len(listed) - _SHOWN} more)" if len(listed) > _SHOWN else ""
    return 422, "; ".join(listed[:_SHOWN]) + more


def _place(loc: Sequence[object]) -> str:
    """Where in the body, as clients would say it: without the names of our dialects and types."""
    ours = {"body", "cohere", "tei", "weaviate", "str", "Document", "TextInput"}
    return ".".join(str(part) for part in loc if part not in ours and not str(part).startswith("list[")) or "the body"
