"""`LatestSearcher`: a searcher that follows a table which others change, make anew or have not made yet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from ...indexer.errors import TableNotFoundError
from ...indexer.table.database import Database
from ...onnx_export.encode.encoder import Encoder
from .searcher import Searcher


class LatestSearcher:
    """Gives a `Searcher` of the table's latest version; several threads may ask.

    Args:
        db: a database folder, a URI or a LanceDB connection.
        table: name of the table; it need not exist yet.
        encoder: the model, or a function that gives it when the table is first opened; None is the one that ships
            inside.
        every: seconds for which the table is not looked at again; 0 looks at every call.
        storage_options: LanceDB's own options for an object store.
    """

    def __init__(
        self,
        db: Database,
        table: str,
        encoder: Encoder | Callable[[], Encoder] | None = None,
        *,
        every: float = 0.0,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        self._db, self._table, self._encoder = db, table, encoder
        self._storage_options = storage_options
        self._every = every
        self._lock = threading.Lock()
        self._open: Searcher | None = None
        self._looked = 0.0

    def __call__(self) -> Searcher:
        """The searcher, of the table's latest version.

        Raises:
            TableNotFoundError: the table does not exist, or no longer.
            ModelMismatchError: the table was made with another model.
            StorageError: the database cannot be read.
        """
        with self._lock:
            if self._open is None:
                encoder = self._encoder() if callable(self._encoder) else self._encoder
                self._open = Searcher.open(
                    self._db, self._table, encoder=encoder, storage_options=self._storage_options
                )
            elif time.monotonic() - self._looked >= self._every:
                try:
                    self._open.refresh()
                except TableNotFoundError:
                    self._open = None
                    raise
            self._looked = time.monotonic()
            return self._open

    def or_none(self) -> Searcher | None:
        """As a call; None if the table does not exist."""
        try:
            return self()
        except TableNotFoundError:
            return None
