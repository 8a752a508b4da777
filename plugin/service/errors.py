"""Errors in the shape that a client's dialect expects, without stack traces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from ...onnx_export.errors import InputError

_MAX_PROBLEMS = 5  # of a body that are listed
_RETRY_AFTER_SECONDS = 1
_NOT_AN_OBJECT = ("dict_type", "mapping_type", "model_type", "model_attributes_type")

_MEANINGS = {
    400: "The body is not JSON.",
    401: "The token is missing or wrong.",
    404: "The index is unknown.",
    408: "The body came too slowly.",
    413: "The body, or a list in it, is too long.",
    415: "The body is not sent as JSON, or is compressed in another way than gzip.",
    422: "The request is not valid.",
    429: "Too many requests; try again after Retry-After.",
    500: "The service failed.",
    503: "The service is loading, stopping or overloaded; try again after Retry-After.",
    504: "The work took longer than the deadline.",
}


class ServiceError(Exception):
    """A request that is refused.

    Attributes:
        status: HTTP status.
        message: Text for the client.
        reason: The cause in a word, for the log and the count of refused requests.
    """

    def __init__(self, status: int, message: str, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason


@dataclass(frozen=True)
class ErrorShape:
    """How the clients of one dialect read errors.

    Attributes:
        dialect: Name of the dialect, for the log and the metrics.
        model: Model of the body, for OpenAPI.
        body: Status, message and request id → the body.
        of_request: A request's body → the shape, at a path that several dialects share; None at all others.
    """

    dialect: str
    model: Any
    body: Callable[[int, str, str | None], dict[str, Any]]
    of_request: Callable[[object], ErrorShape] | None = None

    def documented(self) -> dict[int | str, dict[str, Any]]:
        """The error answers of an endpoint that takes a body, for OpenAPI."""
        return {status: {"model": self.model, "description": text} for status, text in _MEANINGS.items()}


class ErrorDetail(BaseModel):
    """An error as the clients of Voyage, Mixedbread and Jina's embeddings read it."""

    detail: str


def detail_body(status: int, message: str, request_id: str | None) -> dict[str, Any]:
    """The body of an `ErrorDetail`."""
    return {"detail": message}


class ErrorMessage(ErrorDetail):
    """An error as the clients of Cohere (``message``) and of Jina (``detail``) read it, with the id of the request."""

    id: str | None = None
    message: str


def message_body(status: int, message: str, request_id: str | None) -> dict[str, Any]:
    """The body of an `ErrorMessage`."""
    return {"id": request_id, "message": message, "detail": message}


OURS = ErrorShape("tansaku", ErrorMessage, message_body)
"""Errors of the endpoints that are in no other dialect, and of paths that are unknown."""


def error_response(scope: Mapping[str, Any], error: ServiceError, *, body: object = None) -> JSONResponse:
    """The answer to a request that is refused; the reason is noted in its scope, for the log and the metrics.

    Args:
        scope: The ASGI scope of the request; its state has the `ErrorShape` of the path.
        error: Why it is refused.
        body: The request's body, if it has been read.
    """
    state = scope.get("state", {})
    shape: ErrorShape = state.get("errors", OURS)
    if shape.of_request is not None:
        shape = shape.of_request(body)
    state.update(reason=error.reason, errors=shape)
    headers = {}
    if error.status in (429, 503):
        headers["Retry-After"] = str(_RETRY_AFTER_SECONDS)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.reason == "framing":
        headers["Connection"] = "close"
    content = shape.body(error.status, error.message, state.get("request_id"))
    return JSONResponse(content, status_code=error.status, headers=headers)


async def on_service_error(request: Request, error: Exception) -> JSONResponse:
    """Answers `ServiceError`."""
    if not isinstance(error, ServiceError):  # registered for that alone
        raise error
    return error_response(request.scope, error)


async def on_input_error(request: Request, error: Exception) -> JSONResponse:
    """Answers `InputError`."""
    if not isinstance(error, InputError):
        raise error
    return error_response(request.scope, ServiceError(422, str(error), "input"))


async def on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Answers what the framework refuses: unknown paths and methods, bodies that cannot be parsed."""
    if not isinstance(error, HTTPException):
        raise error
    answer = error_response(request.scope, ServiceError(error.status_code, _refusal(request, error), "http"))
    answer.headers.update(error.headers or {})
    return answer


def _refusal(request: Request, error: HTTPException) -> str:
    """What the framework refuses, with the remedy."""
    path = f"{request.url.path!r:.100}"
    if error.status_code == 404:
        return f"unknown path {path}; use one of those that GET /openapi.json lists, such as /v1/rerank"
    if error.status_code == 405:
        return f"{path} does not answer {request.method}; use {(error.headers or {}).get('Allow', 'another method')}"
    return str(error.detail)


async def on_validation_error(request: Request, error: Exception) -> JSONResponse:
    """Answers what the models of the requests refuse."""
    if not isinstance(error, RequestValidationError):
        raise error
    return error_response(request.scope, _problems(error.errors(), error.body), body=error.body)


def _problems(errors: Sequence[Any], body: object) -> ServiceError:
    """What validation found in a body; the values themselves are not repeated."""
    if errors and errors[0]["type"] == "json_invalid":
        return ServiceError(400, "the body is not JSON", "input")
    said: dict[tuple[str, ...], list[str]] = {}
    for error in errors:
        message = "Input should be an object" if error["type"] in _NOT_AN_OBJECT else str(error["msg"])
        messages = said.setdefault(_place(error, body), [])
        if message not in messages:
            messages.append(message)
    # A value may be of one of several types, and validation says of each why it is not that. What lies deeper is of the
    # type that was meant.
    listed = [
        f"{'.'.join(place) or 'the body'}: {_either(messages)}"
        for place, messages in said.items()
        if not any(len(other) > len(place) and other[: len(place)] == place for other in said)
    ]
    more = f" (and {len(listed) - _MAX_PROBLEMS} more)" if len(listed) > _MAX_PROBLEMS else ""
    return ServiceError(422, "; ".join(listed[:_MAX_PROBLEMS]) + more, "input")


def _either(messages: Sequence[str]) -> str:
    first, *others = messages
    return " or ".join([first, *(message.removeprefix("Input should be ") for message in others)])


def _place(error: Mapping[str, Any], body: object) -> tuple[str, ...]:
    """Where in ``body`` a problem is, such as ``documents``, ``0``.

    Validation also gives the names of the models and types that it tried; those are not in the body and are left out.
    """
    path: list[str] = []
    here: Any = body
    for part in error["loc"][1:]:  # the first one is "body"
        known = range(len(here)) if isinstance(here, list) else here if isinstance(here, Mapping) else ()
        if part in known:
            here = here[part]
            path.append(str(part))
    if error["type"] == "missing":
        path.append(str(error["loc"][-1]))
    return tuple(path)
