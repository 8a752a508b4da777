"""Who may write: a token of its own, or programs of this machine where the service says so."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import Scope

from ...serving.access import has_token, is_loopback
from ..errors import ServiceError
from ..settings import Settings

_STREAMED = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")


def tokens_of(settings: Settings) -> tuple[bytes | None, bytes | None]:
    """The token of readers and that of writers, as they are sent; None for one that is not asked for."""
    given = (settings.token, settings.write_token)
    reads, writes = (None if token is None else token.strip().encode() for token in given)
    return reads, writes


def has_write_token(scope: Scope, token: bytes | None) -> bool:
    """Whether a request brings the token of writers, if there is one."""
    return token is not None and has_token(scope, token)


def is_managing(path: str) -> bool:
    """Whether requests at a path wait apart from searches, in places of their own."""
    return path.startswith(("/indexes", "/uploads", "/jobs"))


def is_streamed(scope: Scope, path: str) -> bool:
    """Whether the body of a request is written to the disk as it comes: lines of documents, and parts of an upload."""
    parts = path.strip("/").split("/")
    if scope["method"] == "PATCH":
        return len(parts) == 2 and parts[0] == "uploads"
    is_documents = len(parts) == 3 and parts[0] == "indexes" and parts[2] == "documents"
    return scope["method"] == "POST" and is_documents and content_type(scope) in _STREAMED


def content_type(scope: Scope) -> str:
    """The kind of a request's body, without parameters; empty if it is not said."""
    given = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return given.decode("latin-1").partition(";")[0].strip().lower()


def check_may_write(request: Request, settings: Settings) -> None:
    """Refuse a request that may not write.

    Raises:
        ServiceError: 403, writing is off, the token is that of readers, or a page of another site sends the request;
            401, the token of writers is missing.
    """
    if not settings.write:
        raise ServiceError(403, "this service only reads; start it with --write to change indexes through it", "write")
    if request.scope["state"].get("may_write"):
        return
    if not settings.allow_write_without_token:
        if settings.token is not None:
            raise ServiceError(403, "this token only reads; send the one of --write-token", "token")
        raise ServiceError(401, "writing needs a token; send that of --write-token as Authorization: Bearer", "token")
    _check_site(request)


def _check_site(request: Request) -> None:
    """Without a token, a page of another site that is open in a browser here could write: browsers say who asks."""
    host = _host(f"//{request.headers.get('host', '')}")
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "none")
    if not is_loopback(host) or site not in ("none", "same-origin") or (origin and not is_loopback(_host(origin))):
        raise ServiceError(
            403, "a page of another site may not write without a token; start the service with --write-token", "origin"
        )


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
