"""Connections of PostgreSQL that are kept from one call to the next, where a connection string was given."""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.pq import ConnStatus, TransactionStatus

_MOST_IDLE = 8


class KeptConnections:
    """Gives each caller a connection of its own, and keeps up to eight that are not in use.

    No call waits for another, and no thread runs in the background. A connection that the server closed is replaced. A
    process that was forked, or that a pickled object came to, makes its own.

    Args:
        place: the connection string.
        timeout: seconds that connecting may take.
    """

    def __init__(self, place: str, timeout: float) -> None:
        self._place, self._timeout = place, timeout
        self._guard = threading.Lock()
        self._begin()

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptConnections, (self._place, self._timeout)

    @contextlib.contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection, for one caller.

        Raises:
            psycopg.Error: the database cannot be reached.
        """
        taken = self._kept() or psycopg.connect(
            self._place, autocommit=True, connect_timeout=max(1, int(self._timeout))
        )
        try:
            yield taken
        finally:
            with self._guard:
                keep = _usable(taken) and len(self._idle) < _MOST_IDLE
                if keep:
                    self._idle.append(taken)
            if not keep:
                taken.close()

    def close(self) -> None:
        """Close the connections that are not in use. The next call connects again."""
        with self._guard:
            _close(self._idle, self._process)

    def _begin(self) -> None:
        self._idle: list[psycopg.Connection[Any]] = []
        self._process = os.getpid()
        weakref.finalize(self, _close, self._idle, self._process)

    def _kept(self) -> psycopg.Connection[Any] | None:
        with self._guard:
            if os.getpid() != self._process:
                self._begin()
            while self._idle:
                connection = self._idle.pop()
                if _usable(connection):
                    return connection
                connection.close()
        return None


def _close(idle: list[psycopg.Connection[Any]], process: int) -> None:
    while idle and os.getpid() == process:  # a fork that closed them would close those of its parent
        idle.pop().close()


def _usable(connection: psycopg.Connection[Any]) -> bool:
    """Whether a connection is not in a transaction, and the server has sent nothing, such as that it closed it."""
    pgconn = connection.pgconn
    if pgconn.status != ConnStatus.OK or pgconn.transaction_status != TransactionStatus.IDLE:
        return False
    with selectors.DefaultSelector() as selector:
        selector.register(pgconn.socket, selectors.EVENT_READ)
        return not selector.select(0)
