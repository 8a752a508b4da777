"""Who may ask the MCP server over HTTP: the names it is reached by, the web pages it answers, and a token."""

from __future__ import annotations

from collections.abc import Sequence

from ...onnx_export.errors import InputError, MissingExtraError

try:
    from starlette.datastructures import Headers
    from starlette.responses import PlainTextResponse
    from starlette.types import ASGIApp, Receive, Scope, Send
except ImportError as error:
    raise MissingExtraError("mcp", "mcp") from error

from ..serving.access import has_token, is_loopback

_PATH = "/mcp"
_THIS_MACHINE = ("127.0.0.1", "localhost", "[::1]")
_DEFAULT_PORTS = {"http": 80, "https": 443}  # which clients leave out


class Access:
    """ASGI middleware that checks the token, the headers Host and Origin of a request, and its path.

    A web page in a browser can have requests sent to this machine, also under a name of its own that it lets point here
    (DNS rebinding). So Host must be a name that the server is known by, and Origin, which browsers send, one of those
    or one that is allowed. A server that other machines reach and that was given no names takes every Host.

    Args:
        app: The application inside.
        host: Address that the server listens on.
        port: Its port.
        token: Token that clients must send; None asks for none.
        hosts: Further names that clients may reach it by, as ``NAME`` (with this port, or none) or ``NAME:PORT``.
        origins: Further web pages that may ask, as ``https://NAME`` or ``https://NAME:PORT``.

    Raises:
        InputError: a name or an origin that is none.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        port: int,
        token: str | None = None,
        hosts: Sequence[str] = (),
        origins: Sequence[str] = (),
    ) -> None:
        self._app = app
        self._token = None if token is None else token.strip().encode()
        named = [_checked_host(name) for name in hosts]
        here = [f"{name}:{port}" for name in _THIS_MACHINE]
        if port == _DEFAULT_PORTS["http"]:
            here += _THIS_MACHINE
        given = [*named, *(f"{name}:{port}" for name in named if not _has_port(name))]
        self._hosts = {*here, *given} if named or is_loopback(host) else None
        self._origins = {*(f"http://{name}" for name in here), *(_checked_origin(origin) for origin in origins)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, or refuse it."""
        if scope["type"] == "http":
            # A slash too many is not answered with a redirect: behind a proxy that would lead to another address.
            scope = {**scope, "path": scope["path"].rstrip("/")}
            refused = self._refusal(scope)
            if refused is not None:
                await refused(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        if self._token is not None and not has_token(scope, self._token):
            said = "The token is missing or wrong; send it as Authorization: Bearer"
            return PlainTextResponse(said, 401, {"WWW-Authenticate": "Bearer"})
        if self._hosts is not None and headers.get("host", "").lower() not in self._hosts:
            return PlainTextResponse("This name is not allowed in Host; start the server with --allowed-host", 421)
        if headers.get("origin", "").lower() not in {"", *self._origins}:
            return PlainTextResponse("This page is not allowed in Origin; start the server with --allowed-origin", 403)
        if scope["path"] != _PATH:
            return PlainTextResponse(f"There is nothing at this path; the server is at {_PATH}", 404)
        return None


def _has_port(name: str) -> bool:
    return name.rpartition(":")[2].isdigit() and not name.endswith("]")


def _checked_host(name: str) -> str:
    if not name or any(sign in name for sign in "/@*, "):
        raise InputError(f"--allowed-host {name!r} is not a name; give NAME or NAME:PORT")
    return name.lower()


def _checked_origin(origin: str) -> str:
    scheme, _, name = origin.rstrip("/").partition("://")
    if not scheme or not name or any(sign in name for sign in "/@*, "):
        raise InputError(
            f"--allowed-origin {origin!r} is not the origin of a page; give https://NAME or https://NAME:PORT"
        )
    return f"{scheme}://{name}".lower()
