"""The server that runs the application, and the way it stops."""

from __future__ import annotations

import math
import threading
from types import FrameType
from typing import Any

from ...onnx_export.errors import MissingExtraError

try:
    import uvicorn
except ImportError as _error:
    raise MissingExtraError("uvicorn", "serve") from _error

from ..serving.connections import BoundedProtocol
from .service import Service

_KEEP_ALIVE_SECONDS = 75


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
