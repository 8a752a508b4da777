"""Limits of connections: time for headers, number, and one length for a body."""

from __future__ import annotations

import asyncio
from typing import Any

from ...onnx_export.errors import MissingExtraError

try:
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as _error:
    raise MissingExtraError("uvicorn", "serve") from _error

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


def has_two_lengths(scope: Any) -> bool:
    """Whether a request of ASGI has Content-Length beside Transfer-Encoding.

    A proxy may believe the other one, and take the rest for a second request.
    """
    names = [name for name, _ in scope["headers"]]
    return b"transfer-encoding" in names and b"content-length" in names
