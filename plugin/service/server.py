"""The server that runs the application, and the way it stops."""

from __future__ import annotations

import asyncio
import math
import threading
from types import FrameType
from typing import Any

from ...onnx_export.errors import MissingExtraError

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as _error:
    raise MissingExtraError("uvicorn", "serve") from _error

from .service import Service

_KEEP_ALIVE_SECONDS = 75
_HEADER_SECONDS = 20
_MAX_CONNECTIONS = 4096
_FILES_FOR_THE_REST = 128  # the tables, the log, the model


class BoundedProtocol(H11Protocol):
    """A connection that has to send its request line and headers in time, of a number that has a limit.

    uvicorn waits for ever for the first request of a connection, and takes connections until no file can be opened.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, or close at once."""
        super().connection_made(transport)
        if len(self.connections) > max_connections():
            transport.abort()
            return
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        """Take what arrived; the time for headers starts with the first byte of a request and is not prolonged."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._deadline is None:
            self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_headers(self) -> None:
        self._deadline = self.loop.call_later(_HEADER_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def max_connections() -> int:
    """Number of connections that are kept open: as many as files may be opened, less some for all else."""
    try:
        import resource
    except ImportError:  # not on Windows
        return _MAX_CONNECTIONS
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return min(_MAX_CONNECTIONS, max(16, files - _FILES_FOR_THE_REST)) if files > 0 else _MAX_CONNECTIONS


def config_of(app: Any, *, host: str, port: int, seconds: float) -> uvicorn.Config:
    """Configuration of the server; after the signal to stop, requests under way have ``seconds`` to end."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=BoundedProtocol,
        access_log=False,  # the application logs requests itself, without their paths
        log_config=None,
        server_header=False,
        # Longer than clients and load balancers keep idle connections: if the server closed first, a request sent at
        # that moment would be lost.
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(seconds) + 1,
    )


class DrainingServer(uvicorn.Server):
    """A server that announces on ``/ready`` that it will stop, before it does.

    Args:
        config: Configuration of the server.
        service: Whose ``draining`` is set at the first signal.
        seconds: Time between the first signal and the stop, for load balancers to notice.
    """

    def __init__(self, config: uvicorn.Config, service: Service, seconds: float = 0.0) -> None:
        super().__init__(config)
        self._service = service
        self._seconds = seconds
        self._timer: threading.Timer | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop after the announced time; a second signal stops at once."""
        if self._timer is not None:
            self._timer.cancel()
        wait = self._seconds if not self._service.draining else 0.0
        self._service.draining = True
        if not wait:
            super().handle_exit(sig, frame)
            return
        self._timer = threading.Timer(wait, super().handle_exit, (sig, frame))
        self._timer.daemon = True
        self._timer.start()
