"""The server that runs the application, and how it stops."""

from __future__ import annotations

import math
import threading
from types import FrameType
from typing import Any

from ...onnx_export.errors import MissingExtraError
from .core import Service

try:
    import uvicorn
except ImportError as _error:
    raise MissingExtraError("uvicorn", "serve") from _error


_KEEP_ALIVE_SECONDS = 75


def config_of(app: Any, *, host: str, port: int, seconds: float) -> uvicorn.Config:
    """How the application is served; requests under way have ``seconds`` to end after the signal to stop."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        access_log=False,  # the application logs requests itself, without their paths
        log_config=None,
        server_header=False,
        # Longer than clients and load balancers keep idle connections: who closes first must not be the server, or a
        # request sent at that moment is lost.
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(seconds) + 1,
    )


class DrainingServer(uvicorn.Server):
    """A server that says that it stops before it does.

    Args:
        config: of the server.
        service: is told that it drains.
        seconds: how long to go on listening after the first signal, not ready, so that load balancers notice.
    """

    def __init__(self, config: uvicorn.Config, service: Service, seconds: float = 0.0) -> None:
        super().__init__(config)
        self._service = service
        self._seconds = seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; a second signal does not wait."""
        wait = self._seconds if not self._service.draining else 0.0
        self._service.draining = True
        if not wait:
            super().handle_exit(sig, frame)
            return
        self._captured_signals.append(sig)
        timer = threading.Timer(wait, setattr, (self, "should_exit", True))
        timer.daemon = True
        timer.start()
