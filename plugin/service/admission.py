"""Admission control: requests without the token, too large or too many are refused before they are worked on."""

from __future__ import annotations

import zlib
from collections.abc import Collection

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..serving.access import has_token
from ..serving.connections import has_two_lengths
from .errors import ServiceError, error_response
from .loading import Loading
from .manage.access import has_write_token, is_managing, is_streamed, tokens_of
from .paths import route_path
from .phases import Phase, current_phase
from .service import Service

_VALUES_PER_ITEM = 20  # a document of ten fields has that many commas, braces and colons

_READS = ("GET", "HEAD", "OPTIONS")
_GZIP = ("gzip", "x-gzip")
_SHOWN = 60  # characters of a header
# How much of the body of a refused request is read, and for how long.
_DRAIN_BYTES, _DRAIN_SECONDS = 1 << 18, 1.0


class Admission:
    """ASGI middleware that checks the token, the size of the body, the number of requests and their time.

    A request with a body takes a place while it is read, waits and is worked on. If all places are taken, the answer is
    429 at once. A request gives its place back when it is answered or its client goes away.

    Args:
        app: The application inside.
        service: Whose settings hold the limits.
        loading: Which a request may have to start.
        open_paths: Paths that need no token.
    """

    def __init__(self, app: ASGIApp, service: Service, loading: Loading, open_paths: Collection[str] = ()) -> None:
        self._app = app
        self._service = service
        self._loading = loading
        self._open_paths = frozenset(open_paths)
        settings = service.settings
        self._places = settings.slots + settings.queue
        # Of searches and the like (False), and of requests that manage indexes: neither takes the places of the other.
        self._taken = {False: 0, True: 0}
        self._token, self._write_token = tokens_of(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = route_path(scope)
        managing, streamed = is_managing(path), is_streamed(scope, path)
        # Reading an index may take long; jobs and uploads are looked up at once.
        at_once = scope["method"] in _READS and not path.startswith("/indexes")
        try:
            try:
                self._check_token(scope)
                _check_framing(scope)
                if not streamed:
                    _check_content(scope)
                await self._load(wait=not at_once, managing=managing)
                if at_once:
                    await self._app(scope, receive, send)
                    return
                self._check_room(scope, managing=managing, streamed=streamed)
            except ServiceError:
                await _drain(receive)
                raise
            if streamed:
                await self._stream(scope, receive, send)
                return
            self._taken[managing] += 1
            self._service.metrics.in_flight.inc()
            try:
                await self._pass(scope, receive, send)
            finally:
                self._taken[managing] -= 1
                self._service.metrics.in_flight.dec()
        except ServiceError as error:
            await error_response(scope, error)(scope, receive, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request whose body is written to the disk as it comes, so that it takes no memory and no place."""
        if _header(scope, b"content-encoding") not in ("", "identity"):
            raise ServiceError(415, "documents that are sent as lines are not unpacked; send them plain", "input")
        if scope["path"].endswith("/documents"):
            scope["path"] += "/stream"
        await self._app(scope, receive, send)

    async def _load(self, *, wait: bool, managing: bool) -> None:
        """Have the service loaded, if no lifespan does; a request that waits for that takes a place meanwhile."""
        wait = wait and not self._service.ready and not self._service.failed
        if wait and self._taken[managing] >= self._places:
            raise _too_many()
        self._taken[managing] += wait
        try:
            with anyio.move_on_after(self._service.settings.deadline_seconds):
                await self._loading.at_request(wait=wait)
        finally:
            self._taken[managing] -= wait

    def _check_token(self, scope: Scope) -> None:
        if has_write_token(scope, self._write_token):
            scope["state"]["may_write"] = True
            return
        if self._token is None or route_path(scope) in self._open_paths:
            return
        if not has_token(scope, self._token):
            raise ServiceError(401, "the token is missing or wrong; send it as Authorization: Bearer", "token")

    def _check_room(self, scope: Scope, *, managing: bool, streamed: bool) -> None:
        service = self._service
        if service.draining:
            raise ServiceError(503, "the service is stopping; try another one", "draining")
        if service.failed:
            raise ServiceError(503, "the model or an index could not be loaded; its log has the details", "failed")
        if not service.ready:
            raise ServiceError(503, "the model is being loaded; try again", "loading")
        if streamed:
            return
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if length.isdigit() and int(length) > service.settings.max_body_bytes:
            raise self._too_large()
        if self._taken[managing] >= self._places:
            raise _too_many()

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        seconds = self._service.settings.deadline_seconds
        progress = Phase()
        note = current_phase.set(progress)
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            with anyio.move_on_after(seconds) as limit:
                body = await self._body(receive)
                if body is not None:
                    body = await self._unpacked(body, scope)
                    await self._check_values(body)
                    progress.name = "queue"
                    await self._answer(body, scope, receive, answer)
        finally:
            current_phase.reset(note)
        if limit.cancelled_caught and not started:
            raise {
                "body": ServiceError(408, f"the body did not arrive within {seconds:g} s; try again", "slow body"),
                "queue": ServiceError(503, f"no worker was free within {seconds:g} s; try again", "deadline"),
                "work": ServiceError(504, f"the work took longer than {seconds:g} s; send less at once", "deadline"),
            }[progress.name]

    async def _body(self, receive: Receive) -> bytes | None:
        """The whole body; None if the client went away."""
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            parts.append(part)
            size += len(part)
            if size > self._service.settings.max_body_bytes:
                raise self._too_large()
            if not message.get("more_body"):
                return b"".join(parts)

    async def _unpacked(self, body: bytes, scope: Scope) -> bytes:
        """The body as it was before the client compressed it."""
        if _header(scope, b"content-encoding") not in _GZIP:
            return body
        limit = self._service.settings.max_body_bytes
        unpacked = await anyio.to_thread.run_sync(_gunzip, body, limit)
        if len(unpacked) > limit:
            raise self._too_large()
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"content-encoding"]
        return unpacked

    async def _check_values(self, body: bytes) -> None:
        """Refuse a body with very many values before it is parsed: 8 MiB of `{}` take seconds and gigabytes."""
        settings = self._service.settings
        limit = _VALUES_PER_ITEM * max(settings.max_documents, settings.max_ids, settings.max_embed_texts)
        if b"\0" in body:  # in JSON only of UTF-16 and UTF-32, where strings cannot be told from the rest by bytes
            raise ServiceError(400, "the body is not JSON in UTF-8; send it in UTF-8", "input")
        if _separators(body) <= limit:  # those in texts included
            return
        if await anyio.to_thread.run_sync(_has_more, body, limit):
            raise ServiceError(413, "the body has too many values; send fewer documents or ids at once", "body")

    async def _answer(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the app answer, unless the client goes away first."""
        if not any(name == b"content-type" for name, _ in scope["headers"]):
            # Weaviate names none.
            scope["headers"] = [*scope["headers"], (b"content-type", b"application/json")]
        gone = anyio.Event()
        unread = [body]
        failure: Exception | None = None

        async def replay() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                gone.set()
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch)
            try:
                await self._app(scope, replay, send)
            except Exception as error:  # not in a group, as a task group raises it
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def _too_large(self) -> ServiceError:
        limit = self._service.settings.max_body_bytes
        return ServiceError(413, f"the body is longer than {limit:,} bytes; send fewer documents at once", "body")


def _check_framing(scope: Scope) -> None:
    if has_two_lengths(scope):
        raise ServiceError(400, "the request has Content-Length beside Transfer-Encoding; send one of them", "framing")


def _check_content(scope: Scope) -> None:
    """Refuse a body in another form than JSON, plain or in gzip; one without a Content-Type is taken for JSON."""
    if scope["method"] in _READS:
        return
    given = _header(scope, b"content-type").partition(";")[0].strip()
    if given and not (given == "application/json" or given.endswith("+json")):
        raise ServiceError(415, f"the Content-Type is {given[:_SHOWN]!r}; send application/json", "input")
    encoding = _header(scope, b"content-encoding")
    if encoding not in ("", "identity", *_GZIP):
        raise ServiceError(415, f"the Content-Encoding is {encoding[:_SHOWN]!r}; send gzip, or none", "input")


def _header(scope: Scope, wanted: bytes) -> str:
    return next((value for name, value in scope["headers"] if name == wanted), b"").decode("latin-1").strip().lower()


def _gunzip(body: bytes, limit: int) -> bytes:
    """``body`` unpacked; of one that is longer than ``limit`` at least a byte more than that."""
    parts: list[bytes] = []
    room = limit + 1
    while body and room > 0:  # a file of gzip may have several members
        unpacking = zlib.decompressobj(wbits=31)
        try:
            parts.append(unpacking.decompress(body, room))
        except zlib.error as error:
            raise ServiceError(400, "the body is not in gzip, as its Content-Encoding says", "input") from error
        room -= len(parts[-1])
        if not unpacking.eof and room > 0:
            raise ServiceError(400, "the end of the body in gzip is missing", "input")
        body = unpacking.unused_data
    return b"".join(parts)


def _separators(body: bytes) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{") + body.count(b":")


def _has_more(body: bytes, limit: int) -> bool:
    """Whether JSON has more separators than ``limit`` outside of its strings.

    Each step takes milliseconds at most for 8 MiB: during a longer one, such as a regular expression over them, no
    other thread runs.
    """
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # then each quotation mark begins or ends a string
    if bare.count(b'"') > 2 * limit + 2:  # there is a separator between two strings
        return True
    return sum(map(_separators, bare.split(b'"')[::2])) > limit


def _too_many() -> ServiceError:
    return ServiceError(429, "too many requests; try again in a moment", "busy")


async def _drain(receive: Receive) -> None:
    """Read a short body to its end: a client that is still sending would otherwise see a broken connection."""
    size = 0
    with anyio.move_on_after(_DRAIN_SECONDS):
        while size <= _DRAIN_BYTES:
            message = await receive()
            size += len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                return
