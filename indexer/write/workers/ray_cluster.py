"""The connection to a Ray cluster, and what must be the same on all its nodes."""

from __future__ import annotations

import logging
import os
import platform
import re
import socket
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from ...errors import WorkerError
from ...table.schema import FORMAT_VERSION
from .pool import first_line

_LISTEN_SECONDS = 10


@dataclass(frozen=True)
class Kind:
    """What must be the same in the driver and in each actor.

    Attributes:
        tansaku: version of tansaku, and of the table's format.
        python: version of Python, without the last number.
    """

    tansaku: str
    python: str

    @staticmethod
    def here() -> Kind:
        """That of this process."""
        return Kind(f"{version('tansaku')} (format {FORMAT_VERSION})", ".".join(platform.python_version_tuple()[:2]))


def connect_ray(address: str | None) -> bool:
    """Connect to a Ray cluster, unless this process is connected to one.

    Args:
        address: address of the cluster; None: ``RAY_ADDRESS``, or Ray is started on this machine.

    Returns:
        Whether the connection was made here.

    Raises:
        WorkerError: the cluster cannot be reached or started.
    """
    # Ray would report to its makers whenever a cluster is started.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return False
    address = address or os.environ.get("RAY_ADDRESS")
    local: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        with warnings.catch_warnings():
            # Lance and LanceDB warn at every fork. Ray's forks become other programs at once.
            warnings.filterwarnings("ignore", "lance is not fork-safe", UserWarning)
            warnings.filterwarnings("ignore", "lancedb fork support is experimental", RuntimeWarning)
            check_listens(address or "")
            ray.init(address=address, logging_level=logging.WARNING, **local)
    except Exception as error:  # Ray's own errors, gRPC's and those of sockets
        raise WorkerError(
            f"the Ray cluster {address or 'on this machine'} cannot be reached or started ({first_line(error)}); "
            "check --address (RAY_ADDRESS), and that the versions of Ray and Python are those of the cluster"
        ) from error
    return True


def check_listens(address: str) -> None:
    """Raise OSError if nothing listens at an address with a port. Ray itself would try for minutes."""
    found = re.fullmatch(r"(?:ray://)?\[?([^/\[\]]+)\]?:(\d+)", address)
    if found is not None:
        socket.create_connection((found[1], int(found[2])), timeout=_LISTEN_SECONDS).close()
