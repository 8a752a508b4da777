"""`Server`: the SDK's server, which answers every message and bounds what a message or connection may cost."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

from ...onnx_export.errors import MissingExtraError

try:
    import anyio
    import mcp.types as types
    import uvicorn
    from mcp import MCPError
    from mcp.server import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.server.stdio import stdio_server
    from mcp.server.transport_security import TransportSecuritySettings
    from mcp.shared.message import SessionMessage
    from starlette.responses import PlainTextResponse
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as error:
    raise MissingExtraError("mcp", "mcp") from error

from ..serving.connections import BoundedProtocol, has_two_lengths
from .access import Access
from .logs import log_plainly

MAX_MESSAGE_BYTES = 1 << 20

_SHOWN_CHARS = 100  # of a name that the client has sent and that is not known here
_NOT_SERVED = {"prompts/get": "prompts", "resources/read": "resources"}
_UNREADABLE = "?"
_LARGEST_ID = 2**53  # of a message that cannot be read; larger numbers are no ids that a client waits for


class Server(MCPServer):
    """The SDK's server with these differences.

    Over stdio a message that cannot be read is answered with an error, which the SDK drops, and a message has at most
    1 MiB. Over HTTP, `Access` checks the token, Host and Origin. Headers and bodies must arrive in time.
    Names of tools, methods, prompts and resources that do not exist are not repeated in full, as the SDK does, and an
    entry of the log has a limit.

    Args:
        deadline_seconds: Time for the body of an HTTP request.
        log_level: Least level of what is logged.
        options: Other options of `MCPServer`.
    """

    def __init__(self, *, deadline_seconds: float, log_level: str = "WARNING", **options: Any) -> None:
        log_plainly(log_level)  # before the SDK does
        super().__init__(log_level=log_level, **options)  # type: ignore[arg-type]
        self._seconds = deadline_seconds
        self.middleware.insert(0, refuse_what_is_not_served)

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        """Call a tool; the error for an unknown one names those that there are."""
        tools = [tool.name for tool in await self.list_tools()]
        if name not in tools:
            raise ToolError(f"unknown tool {name[:_SHOWN_CHARS]!r}; use {', '.join(tools)}")
        return await super().call_tool(name, arguments, context)

    async def run_stdio_async(self) -> None:
        """Serve over stdin and stdout."""
        given: Any = _Lines(sys.stdin.buffer)
        async with stdio_server(stdin=given) as (read, write):
            passed, readable = anyio.create_memory_object_stream[SessionMessage | Exception](0)

            async def answer_unreadable() -> None:
                async with passed:
                    async for message in read:
                        if isinstance(message, Exception):
                            await write.send(SessionMessage(_refusal(given.last)))
                        else:
                            await passed.send(message)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(answer_unreadable)
                server = self._lowlevel_server
                await server.run(readable, write, server.create_initialization_options())

    async def run_streamable_http_async(  # type: ignore[override]
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        token: str | None = None,
        allowed_hosts: Sequence[str] = (),
        allowed_origins: Sequence[str] = (),
        **options: Any,
    ) -> None:
        """Serve over HTTP.

        Args:
            host: address to listen on.
            port: port to listen on.
            token: token that clients must send as ``Authorization: Bearer``; None asks for none.
            allowed_hosts: names that clients may reach the server by; see `Access`.
            allowed_origins: web pages that may ask; see `Access`.
            options: other options of `MCPServer.run`.
        """
        unchecked = TransportSecuritySettings(enable_dns_rebinding_protection=False)  # `Access` checks more
        app = self.streamable_http_app(host=host, transport_security=unchecked, **options)
        checked = Access(app, host=host, port=port, token=token, hosts=allowed_hosts, origins=allowed_origins)
        config = uvicorn.Config(
            BodiesInTime(checked, self._seconds),
            host=host,
            port=port,
            http=BoundedProtocol,
            log_level=self.settings.log_level.lower(),
        )
        await uvicorn.Server(config).serve()


async def refuse_what_is_not_served(ctx: Any, call_next: Any) -> Any:
    """Middleware of the SDK: there are tools only, and no method has a long name.

    Args:
        ctx: the SDK's context of a request or notification.
        call_next: what handles it otherwise.

    Returns:
        What ``call_next`` returns; None for a notification that is refused.

    Raises:
        MCPError: the request is for a prompt or a resource, or its method has a name that is too long.
    """
    is_served = ctx.method not in _NOT_SERVED and len(ctx.method) <= _SHOWN_CHARS
    if is_served:
        return await call_next(ctx)
    if ctx.request_id is None:  # nobody waits for an answer, and of an error the SDK would log the name
        return None
    if ctx.method in _NOT_SERVED:
        missing = _NOT_SERVED[ctx.method]
        raise MCPError(code=types.INVALID_PARAMS, message=f"there are no {missing} here; use the tools")
    raise MCPError(code=types.METHOD_NOT_FOUND, message="Method not found")


class BodiesInTime:
    """ASGI middleware: a body that does not arrive in time is answered with 408, one with two lengths with 400.

    Args:
        app: The application inside.
        seconds: Time for the whole body.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if has_two_lengths(scope):
            refused = PlainTextResponse("Content-Length beside Transfer-Encoding; send one of them", 400)
            await refused(scope, receive, send)
            return
        end, arrived = anyio.current_time() + self._seconds, False

        async def receive_in_time() -> Message:
            nonlocal arrived
            if arrived:
                return await receive()
            with anyio.fail_after(max(0.0, end - anyio.current_time())):
                message = await receive()
            arrived = not message.get("more_body")
            return message

        try:
            await self._app(scope, receive_in_time, send)
        except TimeoutError:
            if arrived:
                raise
            refused = PlainTextResponse(f"The body did not arrive within {self._seconds:g} s", 408)
            await refused(scope, receive, send)


class _Lines:
    """The lines of a file of bytes; one that is too long comes without its end, and so cannot be parsed.

    A request whose id is null or a fraction comes as a line that cannot be parsed: the SDK takes it for a notification,
    and its client would wait for ever.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self.last = ""

    async def __aiter__(self) -> AsyncIterator[str]:
        while line := await anyio.to_thread.run_sync(self._next):
            self.last = line.decode("utf-8", "replace")
            if self.last.strip():
                yield _UNREADABLE if _has_no_usable_id(self.last) else self.last

    def _next(self) -> bytes:
        line = self._file.readline(MAX_MESSAGE_BYTES + 1)
        rest = line
        while len(rest) > MAX_MESSAGE_BYTES and not rest.endswith(b"\n"):
            rest = self._file.readline(MAX_MESSAGE_BYTES + 1)
        return line[:MAX_MESSAGE_BYTES]


def _refusal(line: str) -> types.JSONRPCError:
    """The answer to a line that is no message; it has the id of the request, if one can be found."""
    message = (
        f"not a JSON-RPC message that can be read; send one JSON object on one line, of at most {MAX_MESSAGE_BYTES:,} "
        "bytes, without lone surrogates (half a character, such as \\ud800), whose id is a string or an integer"
    )
    error = types.ErrorData(code=types.PARSE_ERROR, message=message)
    return types.JSONRPCError(jsonrpc="2.0", id=_id_of(line), error=error)


def _has_no_usable_id(line: str) -> bool:
    """Whether a message is a request by its method, and has an id that is neither a string nor an integer."""
    content = _content_of(line)
    if not isinstance(content, dict) or "id" not in content or not isinstance(content.get("method"), str):
        return False
    usable = isinstance(content["id"], (str, int)) and not isinstance(content["id"], bool)
    return not usable and not content["method"].startswith("notifications/")


def _content_of(line: str) -> Any:
    try:
        return json.loads(line, parse_int=lambda digits: int(digits) if len(digits) < 20 else 0)
    except (ValueError, RecursionError):
        return None


def _id_of(line: str) -> str | int | None:
    content = _content_of(line)
    found = content.get("id") if isinstance(content, dict) else None
    if isinstance(found, str):
        return found if found.isprintable() else None  # a lone surrogate cannot be sent back
    if isinstance(found, bool) or not isinstance(found, int) or abs(found) > _LARGEST_ID:
        return None
    return found
