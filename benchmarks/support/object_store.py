"""An S3 server in this process, which counts what it is asked for. It honours conditional writes unless told not to."""

from __future__ import annotations

import collections
import logging
import threading
import urllib.request
from collections.abc import Callable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

_SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=benchmark/20260101/us-east-1/s3/aws4_request"}


class ObjectStore:
    """Use as a context manager. Other processes of this machine reach it too.

    Attributes:
        requests: how many of each HTTP method have been answered.
    """

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.requests: collections.Counter[str] = collections.Counter()
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> ObjectStore:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def bucket(self, name: str) -> str:
        """Make a bucket; returns its URI."""
        request = urllib.request.Request(f"{self._url}/{name}", method="PUT", headers=_SIGNED)  # noqa: S310
        urllib.request.urlopen(request).close()  # noqa: S310
        return f"s3://{name}"

    @property
    def options(self) -> dict[str, str]:
        """LanceDB's storage options for this store."""
        return {
            "aws_access_key_id": "benchmark",
            "aws_secret_access_key": "benchmark",
            "aws_endpoint": self._url,
            "aws_region": "us-east-1",
            "allow_http": "true",
        }

    def counted(self, work: Callable[[], object]) -> collections.Counter[str]:
        """The requests that ``work`` makes."""
        before = self.requests.copy()
        work()
        return self.requests - before

    def _answer(self, request: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        self.requests[request["REQUEST_METHOD"]] += 1
        return self._moto(request, start_response)
