"""Imported by every Python process that has this folder on its path: writes down which hosts Python itself asks for."""

import os
import sys

_ASKING = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.connect", "socket.sendto")


def _hook(event, arguments):
    if event in _ASKING:
        address = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
        host = address[0] if isinstance(address, tuple) else address
        if isinstance(host, bytes):
            host = host.decode()
        # A path is a socket on this machine. None and "" stand for this machine's own addresses.
        if host and not os.path.isabs(str(host)):
            with open(os.environ["TRAFFIC_LOG"], "a", encoding="utf-8") as log:
                log.write(f"{host}\n")


sys.addaudithook(_hook)
