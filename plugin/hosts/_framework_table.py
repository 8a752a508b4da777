"""The table under a framework's store: made by the first documents, and opened as it is at every call."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from ...indexer.errors import TableExistsError, TableNotFoundError
from ...indexer.index import Index
from ...indexer.read.documents import RESERVED_FIELDS
from ...indexer.table.conditions import Condition
from ...indexer.table.database import Database, connect, location_of
from ...indexer.table.model import Models
from ...indexer.table.schema import user_fields
from ...indexer.table.table import IndexTable, check_table_name, open_index_table
from ...onnx_export.counts import named
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError
from ..search.latest_searcher import LatestSearcher
from ..search.searcher import Searcher

_logger = logging.getLogger(__name__)


class FrameworkTable:
    """A table whose rows hold what a framework gave, whole, in columns of the store's own.

    It can be pickled: another process opens the table again where it lies.

    Args:
        db: a database folder (made if missing), a URI or a LanceDB connection.
        name: name of the table.
        store: name of the store's class, for errors.
        own: columns that the store fills itself; a table without them was not made by it.
        columns: keys of metadata that have columns as well.
        encoder: the model; None takes the table's own, and for a new table the one that ships inside.
        nbits: bits per dimension of a residual in a new table.
        fulltext: index the texts of a new table for full text search.
        storage_options: LanceDB's options for object stores.

    Attributes:
        encoder: the model that the table had last.
        searcher: gives a `Searcher` of the latest version.

    Raises:
        InputError: a name that cannot be used.
    """

    def __init__(
        self,
        db: Database,
        name: str,
        *,
        store: str,
        own: Sequence[str],
        columns: Sequence[str] = (),
        encoder: Encoder | None = None,
        nbits: int = 2,
        fulltext: bool = False,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        check_table_name(name)
        check_columns(columns, own)
        self.database = connect(db, create=True, storage_options=storage_options)
        self.name, self._store, self._own, self._columns = name, store, tuple(own), list(columns)
        self._given = encoder
        self._models = Models(encoder)
        self.encoder = self._models.find_by_name(self.database, name)
        self._layout = {"nbits": nbits, "fulltext": fulltext}
        self.searcher = LatestSearcher(lambda: Searcher(self._open(), self._models))
        self._writing = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        uri, options = location_of(self.database)
        settings = {"store": self._store, "own": self._own, "columns": self._columns, "encoder": self._given}
        return _open_again, (uri, self.name, {**settings, **self._layout, "storage_options": options})

    @property
    def index(self) -> Index | None:
        """The index; None before the first documents."""
        table = self._opened()
        return None if table is None else Index(self.name, table, self._models)

    def write(self, records: Sequence[tuple[dict[str, Any], Mapping[str, Any]]]) -> None:
        """Add documents: all of them, or after an error none. One whose id is there replaces the earlier one.

        Texts that are longer than the model reads are counted in the log.

        Args:
            records: fields of each document, with the store's own columns, and the metadata that ``columns`` are of.

        Raises:
            InputError: a document cannot be used.
        """
        with self._writing:
            index = self._write(records)
        warn_of_cuts(index, "split them")

    def delete(self, ids: Sequence[str] | None = None, where: str | Condition | None = None) -> None:
        """Delete documents by id or by a condition; unknown ids, and a table that is not there, are passed over."""
        with self._writing:
            index = self.index
            if index is not None:
                index.delete(ids, where=where)

    def _write(self, records: Sequence[tuple[dict[str, Any], Mapping[str, Any]]]) -> Index:
        table = self._opened()
        if table is None:
            try:
                made = _with_columns(records, self._columns)
                options: dict[str, Any] = {**self._layout, "encoder": self.encoder, "resume": False}
                return Index.create(self.database, self.name, made, **options)
            except TableExistsError:  # another process was faster
                table = self._opened()
                if table is None:
                    raise
        names = [field.name for field in user_fields(table.table.schema, table.header) if field.name not in self._own]
        index = Index(self.name, table, self._models)
        index.upsert(_with_columns(records, names), resume=False)  # later writes are of other documents
        return index

    def _opened(self) -> IndexTable | None:
        """The table as it is now; None if it is not there."""
        try:
            return self._open()
        except TableNotFoundError:
            return None

    def _open(self) -> IndexTable:
        table = open_index_table(self.database, self.name)
        self.encoder = self._models.find(table)
        names = {field.name for field in user_fields(table.table.schema, table.header)}
        if not names.issuperset(self._own) or table.header.passage_tokens:
            raise InputError(
                f"{table.place()} was not made by {self._store}; search it with TansakuRetriever, or choose another "
                "name"
            )
        absent = [name for name in self._columns if name not in names]
        if absent:
            raise InputError(
                f"{table.place()} has no column {absent[0]!r}; columns are settled when the table is made: add its "
                "documents to a new one"
            )
        return table


def warn_of_cuts(index: Index, remedy: str) -> None:
    """Log how many of the texts that ``index`` has just written are longer than the model reads."""
    report = index.last_build
    if report is not None and report.truncated:
        _logger.warning(
            "%d of %d texts are longer than the model reads, and their ends are not searched (%s); %s",
            report.truncated,
            report.rows,
            named(report.truncated_ids, report.truncated),
            remedy,
        )


def check_columns(columns: Sequence[str], own: Sequence[str]) -> None:
    """Refuse keys of metadata that cannot be columns: one string in place of a list, and names that are taken."""
    if isinstance(columns, str):
        raise InputError("columns is one string; give a list of metadata keys")
    for name in columns:
        if name in (*RESERVED_FIELDS, *own):
            raise InputError(f"columns has {name!r}, a name that the index itself uses; rename the metadata key")


def _with_columns(
    records: Sequence[tuple[dict[str, Any], Mapping[str, Any]]], columns: Sequence[str]
) -> list[dict[str, Any]]:
    return [{**fields, **{name: metadata.get(name) for name in columns}} for fields, metadata in records]


def _open_again(uri: str, name: str, settings: dict[str, Any]) -> FrameworkTable:
    return FrameworkTable(uri, name, **settings)
