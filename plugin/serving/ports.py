"""Whether a server can listen where it is asked to."""

from __future__ import annotations

import errno
import socket

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
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            trial.bind(address)
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
