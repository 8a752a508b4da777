"""Whether a server can listen where it is asked to."""

from __future__ import annotations

import errno
import socket
from typing import Any

from ...onnx_export.errors import InputError


def check_port(host: str, port: int, option: str = "--port") -> None:
    """Check that no other program listens on a port.

    Args:
        host: address to listen on.
        port: the port; 0 means any free one.
        option: the option that chooses it.

    Raises:
        InputError: the port is in use or may not be used, or the address is not one of this machine.
    """
    try:
        # The server listens on all addresses of a name: localhost may have one of IPv4 and one of IPv6.
        for number, (family, kind, _, _, address) in enumerate(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)):
            try:
                _bind(family, kind, address)
            except OSError as error:
                if number == 0 or error.errno in (errno.EADDRINUSE, errno.EACCES, errno.EPERM):
                    raise  # what is not of this machine, such as IPv6, the server reports
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"port {port} of {host} is in use by another program; choose another by {option}, or end that program"
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise InputError(
                f"port {port} of {host} may not be used by this user; choose one above 1023 by {option}"
            ) from None
        raise InputError(
            f"host {host}: this machine cannot listen there ({error.strerror}); choose another by --host"
        ) from None


def _bind(family: int, kind: int, address: Any) -> None:
    with socket.socket(family, kind) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        if family == socket.AF_INET6:
            trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        trial.bind(address)
