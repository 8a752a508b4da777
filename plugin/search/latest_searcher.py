"""`LatestSearcher`: a searcher that follows a table which others change, replace, or have yet to make."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ...indexer.errors import ModelMismatchError, TableNotFoundError
from ...indexer.forks import check_process
from .searcher import Searcher


class LatestSearcher:
    """Gives a `Searcher` of the latest version of a table; several threads may ask.

    Args:
        open_searcher: opens the searcher, such as ``lambda: Searcher.open(db, table)``. It is called first when a
            searcher is asked for, and again after the table has been removed or was made with another model.
        every: seconds after a look at the table before the next one. 0 looks at every call, so that a caller finds what
            it has just written. Otherwise callers who come while the table is being looked at get the searcher as it
            is, without waiting.
    """

    def __init__(self, open_searcher: Callable[[], Searcher], *, every: float = 0.0) -> None:
        self._open_searcher = open_searcher
        self._every = every
        self._lock = threading.Lock()
        self._searcher: Searcher | None = None
        self._looked = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(LatestSearcher, every=self._every), (self._open_searcher,)

    def __call__(self) -> Searcher:
        """The searcher, at most ``every`` seconds behind the table.

        Raises:
            TableNotFoundError: the table does not exist, or does no longer.
            ModelMismatchError: the table was made with another model.
            StorageError: the database cannot be read.
        """
        check_process("the open index")  # before the lock, which may have been held at the fork
        searcher = self._searcher
        if searcher is not None and self._every:
            if time.monotonic() - self._looked < self._every or not self._lock.acquire(blocking=False):
                return searcher
        else:
            self._lock.acquire()
        try:
            return self._look()
        finally:
            self._lock.release()

    def or_none(self) -> Searcher | None:
        """The searcher, or None if the table does not exist."""
        try:
            return self()
        except TableNotFoundError:
            return None

    def _look(self) -> Searcher:
        searcher = self._searcher
        if searcher is None:
            searcher = self._searcher = self._open_searcher()
        else:
            try:
                searcher.refresh()
            except TableNotFoundError:
                self._searcher = None
                raise
            except ModelMismatchError:  # of the model that it was opened with
                searcher = self._searcher = self._open_searcher()
        self._looked = time.monotonic()
        return searcher
