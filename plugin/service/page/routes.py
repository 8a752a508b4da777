"""The page at `/` and its files. It has no build step, and asks for nothing but this service's public API."""

from __future__ import annotations

import mimetypes
from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response

# What the browser may do for the page: nothing outside, no inline script or style, no HTML made of texts.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_FOLDER = "page"  # of the URLs
_STATIC = files("tansaku.plugin.service.page") / "static"
FILES = {entry.name: entry.read_bytes() for entry in sorted(_STATIC.iterdir(), key=lambda entry: entry.name)}
OPEN_PATHS = frozenset({"/", *(f"/{_FOLDER}/{name}" for name in FILES if name != "index.html")})
"""Paths that need no token: the page asks for it, and sends it with each request to the API."""


def router() -> APIRouter:
    """`/` and `/page/FILE`. They are not in the API's description, since they are no part of the API."""
    routes = APIRouter(include_in_schema=False)
    for name, content in FILES.items():
        path = "/" if name == "index.html" else f"/{_FOLDER}/{name}"
        routes.add_api_route(path, _sender(name, content), methods=["GET", "HEAD"])
    return routes


def _sender(name: str, content: bytes) -> Callable[[], Awaitable[Response]]:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    kind = "text/javascript" if name.endswith(".js") else kind  # some systems' tables say otherwise

    async def send() -> Response:
        return Response(content, media_type=kind, headers=HEADERS)

    return send
