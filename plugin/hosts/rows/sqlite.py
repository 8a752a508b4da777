"""SQLite: row vectors and codes in a table of the user's own file. No package is needed.

```python
from tansaku import Coder
from tansaku.plugin.hosts.rows.sqlite import SqliteRows
store = SqliteRows.adopt(Coder(), "shop.db", "articles", text_columns=["title", "body"])
store.fill()
hits = store.search("昔の首都はどこ？", where=("year < :year", {"year": 1000}))
```
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....onnx_export.errors import InputError
from ...rerank.host_search import HostError
from ...rows.coder import Coder
from ...rows.row_search import FoundRow
from .._engine_source import SqlCondition
from ._sql_rows import Session, SqlRows, client_errors

__all__ = ["SqliteRows"]

_FLOAT = np.dtype("<f4")
_PAGE = 65536  # bytes: in pages of 4 KB a row is a chain of several, and a search takes nearly twice the time
_STEPS_PER_CHECK = 100_000  # steps of SQLite's machine between two looks at the clock


class SqliteRows(SqlRows):
    """Documents in a table of SQLite, with float32 bytes for row vectors and bytes for codes.

    A search compares the row vectors of all rows that the filter allows, by NumPy within SQLite; so it is exact, and
    its time grows with the rows. The extension sqlite-vec has no inner product, and many builds of Python cannot load
    it; it reads the same bytes.

    A filter (``where``) is SQL over the table's columns, or SQL with named parameters:
    ``("year > :year", {"year": 2000})``. The SQL must come from the application; the values may come from anybody.

    The file is opened for each verb, so that threads and processes may use one store. Each batch is written in one
    transaction.

    Args:
        coder: makes row vectors and codes, and ranks by them.
        path: the file.
        table: name of the table.
        timeout: seconds that a verb may wait for another writer, and seconds that each statement may run.
        options: options of `RowStore`.

    Raises:
        InputError: a name that no table or column can have, no file, or row vectors of another length.
        HostError: the file cannot be opened, or has no such table or column.
        CodesError: the table has codes of another codec or model.
    """

    engine = "SQLite"

    def __init__(
        self, coder: Coder, path: str | os.PathLike[str], table: str, *, timeout: float = 30.0, **options: Any
    ) -> None:
        self._prepare(coder, path, table, timeout=timeout, **options)
        self._check_table()

    def _prepare(
        self, coder: Coder, path: str | os.PathLike[str], table: str, *, timeout: float, **options: Any
    ) -> None:
        super().__init__(coder, table, **options)
        if not isinstance(path, (str, os.PathLike)) or str(path) in ("", ":memory:"):
            raise InputError(f"path is {path!r}; give a file, or use NumpyRows for rows in memory")
        self.path, self.timeout = Path(path).absolute(), timeout
        self._mode = "rw"

    @classmethod
    def create(
        cls,
        coder: Coder,
        path: str | os.PathLike[str],
        table: str,
        *,
        columns: Mapping[str, str] | None = None,
        id_type: str = "TEXT",
        timeout: float = 30.0,
        **options: Any,
    ) -> SqliteRows:
        """Make a table and open it; also the file, if it is missing.

        A file that is made has a write-ahead log (WAL), and pages of 64 KB, since rows are long.

        Args:
            coder: see the class.
            path: see the class.
            table: see the class.
            columns: SQL types of its other columns, by name.
            id_type: SQL type for the ids.
            timeout: see the class.
            options: options of `RowStore`.

        Raises:
            InputError: see the class.
            HostError: see the class; or there is such a table already.
        """
        store = cls.__new__(cls)
        store._prepare(coder, path, table, timeout=timeout, **options)
        made = store._columns_of_new(columns or {}, id_type, "TEXT", "BLOB")
        store._mode = "rw" if store.path.exists() else "rwc"
        with store._session(writes=True) as session:
            session.change(f"CREATE TABLE {store._table} ({made})")
            store._index_uncoded(session)
        store._mode = "rw"
        store._check_table()
        return store

    @classmethod
    def adopt(
        cls, coder: Coder, path: str | os.PathLike[str], table: str, *, timeout: float = 30.0, **options: Any
    ) -> SqliteRows:
        """Add the columns for row vectors and codes to a table that there is, if it lacks them, and open it.

        Its rows and other columns stay as they are; `fill` encodes the rows.

        Args:
            coder: see the class.
            path: see the class.
            table: see the class.
            timeout: see the class.
            options: options of `RowStore`.

        Raises:
            InputError: see the class.
            HostError: see the class.
            CodesError: see the class.
        """
        store = cls.__new__(cls)
        store._prepare(coder, path, table, timeout=timeout, **options)
        with store._session(writes=True) as session:
            store._check_given(session)
            if missing := store._missing():
                for name in missing:
                    session.change(f"ALTER TABLE {store._table} ADD COLUMN {store._quoted(name)} BLOB")
                store._index_uncoded(session)
        store._check_table()
        return store

    @property
    def place(self) -> str:
        """See `RowStore`."""
        return f"SQLite, {str(self.path)!r}, table {self.table!r}"

    # What a database is

    @contextlib.contextmanager
    def _session(self, *, writes: bool = False) -> Iterator[_SqliteSession]:
        with (
            client_errors(self.place, sqlite3.Error, (sqlite3.IntegrityError, sqlite3.DataError) if writes else ()),
            contextlib.closing(self._connection()) as connection,
        ):
            if self._mode == "rwc":
                connection.execute(f"PRAGMA page_size = {_PAGE}")
                connection.execute("PRAGMA journal_mode = WAL")
            # A transaction that began to read cannot always write: another may have written since.
            connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            try:
                yield _SqliteSession(connection, self.place, self.timeout)
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # the statement may have ended the transaction
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _connection(self) -> sqlite3.Connection:
        uri = f"{self.path.as_uri()}?mode={self._mode}"
        return sqlite3.connect(uri, uri=True, timeout=self.timeout, isolation_level=None)

    def _nearest(self, vector: np.ndarray, n: int, where: SqlCondition | None, exact: bool) -> list[FoundRow]:
        condition, values = self._condition(where)
        product, wrong = _product(vector)
        best = (
            f"SELECT {self._id} AS tansaku_id, tansaku_product({self._vector}) AS tansaku_score "  # noqa: S608
            f"FROM {self._table} WHERE {self._vector} IS NOT NULL AND {condition} "
            f"ORDER BY tansaku_score DESC, tansaku_id LIMIT {n:d}"
        )
        statement = (
            f"SELECT {self._id}, tansaku_score, {self._codes}{self._read_names(self.with_text)} "  # noqa: S608
            f"FROM ({best}) CROSS JOIN {self._table} ON {self._id} = tansaku_id "
            "ORDER BY tansaku_score DESC, tansaku_id"
        )
        with self._session() as session:
            session.connection.create_function("tansaku_product", 1, product, deterministic=True)
            rows = session.rows(statement, values)
            if wrong:
                self._raise_for_vector(session)
        return [self._found(row[0], row[2], row[3:], row[1], with_text=self.with_text) for row in rows]

    def _raise_for_vector(self, session: Session) -> None:
        """Raises HostError for the first row whose vector has another length."""
        size = self.coder.row_dim * _FLOAT.itemsize
        found = session.rows(
            f"SELECT {self._id}, typeof({self._vector}), length({self._vector}) FROM {self._table} "  # noqa: S608
            f"WHERE length({self._vector}) <> {size} OR typeof({self._vector}) NOT IN ('blob', 'null') LIMIT 1"
        )
        for row_id, kind, length in found:
            raise HostError(
                f"{self.place}: the row vector of {row_id!r} is {kind} of {length} bytes, not {size} bytes; set it to "
                "NULL, and call fill()"
            )

    def _check_kinds(self, columns: Mapping[str, str]) -> None:
        """A column of SQLite holds values of all types: those that are there are looked at."""

    def _check_stored(self, session: Session) -> None:
        super()._check_stored(session)
        found = session.rows(
            f"SELECT {self._id}, length({self._vector}) FROM {self._table} "  # noqa: S608
            f"WHERE typeof({self._vector}) = 'blob' LIMIT 1"
        )
        for row_id, length in found:
            if length != self.coder.row_dim * _FLOAT.itemsize:
                raise InputError(
                    f"{self.place}: the row vector of {row_id!r} has {length / _FLOAT.itemsize:g} dimensions, and "
                    f"those of this coder have {self.coder.row_dim}; open with the bundle and row_dim that it was made "
                    "with, or name another column"
                )

    def _value(self, name: str) -> str:
        return f":{name}"

    def _vector_value(self, vector: np.ndarray) -> bytes:
        return vector.astype(_FLOAT).tobytes()

    def _read_vector(self, value: Any) -> np.ndarray:
        return np.frombuffer(value, _FLOAT).astype(np.float32)

    def _table_columns(self, session: Session) -> dict[str, str]:
        return dict(session.rows("SELECT name, type FROM pragma_table_xinfo(:name)", {"name": self.table}))

    def _is_unique(self, session: Session) -> bool:
        # Of a table without rowids, and of one with, by its key or by any other index.
        values = {"name": self.table, "id": self.id_column}
        key = session.rows("SELECT lower(name) = lower(:id) FROM pragma_table_info(:name) WHERE pk > 0", values)
        indexes = session.rows(
            'SELECT 1 FROM pragma_index_list(:name) AS i WHERE i."unique" AND NOT i.partial AND '
            "(SELECT group_concat(lower(c.name)) FROM pragma_index_info(i.name) AS c) = lower(:id)",
            values,
        )
        return key == [(1,)] or bool(indexes)

    def _index_uncoded(self, session: Session) -> None:
        """Lets the rows without codes be found and counted without reading the others."""
        name = self._quoted(f"{self.table}_{self.codes_column}_missing")
        session.change(
            f"CREATE INDEX IF NOT EXISTS {name} ON {self._table} ({self._quoted(self.id_column)}) WHERE {self._lacks}"
        )


def _product(query: np.ndarray) -> tuple[Callable[[Any], float | None], list[bool]]:
    """A function for SQLite: inner product of a stored row vector and the query; what it cannot read is noted."""
    query = np.ascontiguousarray(query, np.float32)
    size, dot, read, wrong = query.nbytes, query.dot, np.frombuffer, []

    def product(stored: Any) -> float | None:
        if type(stored) is not bytes or len(stored) != size:
            wrong.append(True)
            return None
        return float(dot(read(stored, _FLOAT)))

    return product, wrong


class _SqliteSession:
    def __init__(self, connection: sqlite3.Connection, place: str, timeout: float) -> None:
        self.connection, self._place, self._timeout = connection, place, timeout

    def rows(self, statement: str, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        with self._given():
            return self.connection.execute(statement, values or {}).fetchall()

    def change(self, statement: str, values: Mapping[str, Any] | None = None) -> int:
        with self._given():
            return self.connection.execute(statement, values or {}).rowcount

    def change_many(self, statement: str, values: Sequence[Mapping[str, Any]]) -> None:
        with self._given(sqlite3.InterfaceError, sqlite3.ProgrammingError):
            self.connection.executemany(statement, values)

    @contextlib.contextmanager
    def _given(self, *more: type[Exception]) -> Iterator[None]:
        """A time limit, and InputError for values that SQLite cannot hold."""
        end = time.monotonic() + self._timeout
        self.connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS_PER_CHECK)
        try:
            yield
        except (OverflowError, UnicodeEncodeError, *more) as error:
            raise InputError(f"{self._place}: {error}") from error
        except sqlite3.OperationalError as error:
            if str(error) == "interrupted":
                raise HostError(f"{self._place}: stopped after timeout={self._timeout:g} seconds") from error
            raise
        finally:
            self.connection.set_progress_handler(None, 0)
