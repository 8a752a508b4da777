"""What operators see: metrics in the format of Prometheus, and one line of JSON for each request."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import time
import traceback
import uuid
from collections.abc import Collection, Mapping
from typing import Any, TextIO

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...onnx_export.errors import MissingExtraError
from ..serving.workers import Workers
from .errors import OURS, ErrorShape, ServiceError, error_response
from .paths import plain_path, route_path

try:
    import structlog
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
except ImportError as _error:
    raise MissingExtraError("structlog and prometheus-client", "serve") from _error

_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Metrics:
    """Metrics of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        registry = self.registry
        self._requests = Counter(
            "tansaku_requests", "Requests answered", ["route", "dialect", "status"], registry=registry
        )
        self._seconds = Histogram(
            "tansaku_request_seconds",
            "Seconds from a request to its answer",
            ["route"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._refused = Counter("tansaku_refused", "Requests refused, by reason", ["reason"], registry=registry)
        self._documents = Counter(
            "tansaku_documents",
            "Documents scored by their codes, and texts encoded",
            ["how"],
            registry=registry,
        )
        self._refreshes = Counter(
            "tansaku_refreshes", "Looks for a new version of an index", ["index", "result"], registry=registry
        )
        self._size = Gauge("tansaku_index_documents", "Rows of an index", ["index"], registry=registry)
        self._version = Gauge("tansaku_index_version", "Version of an index", ["index"], registry=registry)
        self.in_flight = Gauge(
            "tansaku_requests_in_flight", "Requests admitted and not yet answered", registry=registry
        )

    def watch(self, workers: Workers) -> None:
        """Show how many requests wait and how many are worked on."""
        waiting = Gauge("tansaku_requests_waiting", "Requests that wait for a free worker", registry=self.registry)
        waiting.set_function(lambda: workers.waiting)
        working = Gauge("tansaku_workers_busy", "Busy workers", registry=self.registry)
        working.set_function(lambda: workers.working)
        stuck = Gauge("tansaku_workers_stuck", "Workers whose work does not end", registry=self.registry)
        stuck.set_function(lambda: workers.stuck)

    def answered(self, route: str, dialect: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests.labels(route, dialect, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def refused(self, reason: str) -> None:
        """Count one request that was refused."""
        self._refused.labels(reason).inc()

    def scored(self, *, stored: int = 0, encoded: int = 0) -> None:
        """Count documents."""
        self._documents.labels("stored").inc(stored)
        self._documents.labels("encoded").inc(encoded)

    def refreshed(self, index: str, result: str) -> None:
        """Count one look for a new version."""
        self._refreshes.labels(index, result).inc()

    def index(self, name: str, *, documents: int, version: int) -> None:
        """Show an index's size and version."""
        self._size.labels(name).set(documents)
        self._version.labels(name).set(version)

    def forget(self, name: str) -> None:
        """Show an index no longer."""
        for gauge in (self._size, self._version):
            with contextlib.suppress(KeyError):
                gauge.remove(name)


def json_lines(stream: TextIO | None = None) -> Any:
    """Make a logger that writes a line of JSON for each event, to standard error by default."""
    return structlog.wrap_logger(
        structlog.WriteLogger(stream or sys.stderr),
        processors=_processors(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )


def log_json_lines(stream: TextIO | None = None) -> None:
    """Make the loggers of the standard library, and so uvicorn's, write lines of JSON."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_processors()[1:]],
            foreign_pre_chain=[structlog.stdlib.add_logger_name, _processors()[0]],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


def _processors() -> list[Any]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(ensure_ascii=False),
    ]


class Observe:
    """Outermost ASGI middleware: gives each request an id, measures and logs it, and turns unexpected errors into 500.

    The log has the route, not the path as it was sent, and no text of the request. A path is taken as `plain_path` has
    it, and HEAD, which probes send, is answered as GET is, without the body.

    Args:
        app: The application inside.
        metrics: Where requests are counted.
        log: A structlog logger.
        shapes: Path of each route → shape of its errors. All other paths count as one.
        quiet: Paths that are asked for again and again, and are logged only if they fail.
        log_text: Whether to log the messages of unexpected errors.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        log: Any,
        *,
        shapes: Mapping[str, ErrorShape],
        quiet: Collection[str] = (),
        log_text: bool = False,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log
        self._shapes = shapes
        self._quiet = frozenset(quiet)
        self._log_text = log_text

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        method = scope["method"]
        scope = {**scope, "path": plain_path(scope), "method": "GET" if method == "HEAD" else method}
        shape = self._shapes.get(route_path(scope), OURS)
        state = dict(scope.get("state") or {})  # an application that this one is mounted in has a state of its own
        state.update(request_id=request_id, errors=shape, reason=None, documents=None)
        scope["state"] = state
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", []).append((b"x-request-id", request_id.encode("latin-1")))
            elif method == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except ClientDisconnect:
            pass
        except Exception as error:
            self._failed(error, request_id)
            if not status:
                failed = ServiceError(500, "the service failed; its log has the details", "failed")
                await error_response(scope, failed)(scope, receive, answer)
        finally:
            self._note(scope, method, status, time.perf_counter() - started)

    def _failed(self, error: Exception, request_id: str) -> None:
        # The message may hold users' text; the place in the code does not.
        self._log.error(
            "failed",
            request_id=request_id,
            error=type(error).__name__,
            where="".join(traceback.format_tb(error.__traceback__)),
            **({"message": str(error)} if self._log_text else {}),
        )

    def _note(self, scope: Scope, method: str, status: int, seconds: float) -> None:
        state = scope["state"]
        path = route_path(scope)
        matched = getattr(scope.get("route"), "path", path)  # with names in place of what is sent
        route = matched if matched in self._shapes else "other"
        dialect = state["errors"].dialect
        status = status or 499  # the client went away
        self._metrics.answered(route, dialect, status, seconds)
        if state["reason"]:
            self._metrics.refused(state["reason"])
        if status >= 400 or route not in self._quiet:
            extra = {name: state[name] for name in ("reason", "documents") if state[name] is not None}
            self._log.info(
                "request",
                request_id=state["request_id"],
                method=method,
                route=route,
                dialect=dialect,
                status=status,
                ms=round(1000 * seconds, 2),
                **extra,
            )
