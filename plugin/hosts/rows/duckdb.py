"""DuckDB: row vectors and codes in a table of the user's own database.

```python
from tansaku import Coder
from tansaku.plugin.hosts.rows.duckdb import DuckdbRows
store = DuckdbRows.adopt(Coder(), "shop.duckdb", "articles", text_columns=["title", "body"])
store.fill()
hits = store.search("昔の首都はどこ？", where=("year < $year", {"year": 1000}))
```
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ....onnx_export.errors import InputError, MissingExtraError
from ...rerank.host_search import HostError
from ...rows.coder import Coder
from ...rows.row_search import FoundRow, RowId
from ...rows.row_store import CodedRow
from .._engine_source import SqlCondition
from ._sql_rows import Session, SqlRows, client_errors

try:
    import duckdb
except ImportError as error:
    raise MissingExtraError("duckdb", "duckdb") from error

__all__ = ["DuckdbRows"]

_KIND = re.compile(r"FLOAT\[(\d+)\]")
_WHOLE = re.compile(r"U?(TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT)")
_GIVEN = "tansaku_given"  # a view of the rows that are written
_HERE = (
    "database_name = current_database() AND schema_name = current_schema() "
    "AND lower(table_name) = lower($tansaku_table)"
)
_COLUMNS = f"SELECT column_name, data_type FROM duckdb_columns() WHERE {_HERE}"  # noqa: S608
_CONSTRAINTS = (
    "SELECT constraint_column_names FROM duckdb_constraints() "  # noqa: S608
    f"WHERE constraint_type IN ('PRIMARY KEY', 'UNIQUE') AND {_HERE}"
)
_INDEXES = f"SELECT expressions FROM duckdb_indexes() WHERE is_unique AND {_HERE}"  # noqa: S608


class DuckdbRows(SqlRows):
    """Documents in a table of DuckDB, with `FLOAT[n]` for row vectors and `BLOB` for codes.

    A search compares the row vectors of all rows that the filter allows, so it is exact. DuckDB's own vector index is
    not used: it applies a filter after its limit, and its files are experimental.

    A filter (``where``) is SQL over the table's columns, or SQL with named parameters:
    ``("year > $year", {"year": 2000})``. The SQL must come from the application; the values may come from anybody.

    DuckDB lets one process at a time open a file. It is held until `close`; threads may share a store, and other
    connections of the same process see its rows. Each batch is written in one transaction. A statement has no time
    limit.

    Args:
        coder: makes row vectors and codes, and ranks by them.
        database: the file, or a connection that the application has.
        table: name of the table.
        options: options of `RowStore`.

    Raises:
        InputError: a name that no table or column can have, or row vectors of another length.
        HostError: the file cannot be opened, or another process has it; no such table or column.
        CodesError: the table has codes of another codec or model.
    """

    engine = "DuckDB"

    def __init__(
        self,
        coder: Coder,
        database: str | os.PathLike[str] | duckdb.DuckDBPyConnection,
        table: str,
        **options: Any,
    ) -> None:
        self._prepare(coder, database, table, must_exist=True, **options)
        self._check_table()

    def _prepare(
        self,
        coder: Coder,
        database: str | os.PathLike[str] | duckdb.DuckDBPyConnection,
        table: str,
        *,
        must_exist: bool,
        **options: Any,
    ) -> None:
        super().__init__(coder, table, **options)
        self._guard = threading.Lock()
        self._id_is_whole = False
        if isinstance(database, duckdb.DuckDBPyConnection):
            self._file = "the application's connection"
            with client_errors(self.place, duckdb.Error):
                self._connection = database.cursor()
            return
        if not isinstance(database, (str, os.PathLike)) or not os.fspath(database):
            raise InputError(f"database is {database!r:.60}; give a file, or a connection of DuckDB")
        self._file = os.fspath(database)
        if must_exist and self._file != ":memory:" and not os.path.exists(self._file):
            raise HostError(f"{self.place}: there is no such file; {type(self).__name__}.create(...) makes one")
        with client_errors(self.place, duckdb.Error):
            try:
                self._connection = duckdb.connect(self._file)
            except duckdb.IOException as error:
                if "lock" in str(error):
                    raise HostError(
                        f"{self.place}: another process has the file open, and DuckDB lets one at a time; close it "
                        "there"
                    ) from error
                raise

    @classmethod
    def create(
        cls,
        coder: Coder,
        database: str | os.PathLike[str] | duckdb.DuckDBPyConnection,
        table: str,
        *,
        columns: Mapping[str, str] | None = None,
        id_type: str = "TEXT",
        **options: Any,
    ) -> DuckdbRows:
        """Make a table and open it; also the file, if it is missing.

        Args:
            coder: see the class.
            database: see the class.
            table: see the class.
            columns: SQL types of its other columns, by name.
            id_type: SQL type for the ids.
            options: options of `RowStore`.

        Raises:
            InputError: see the class.
            HostError: see the class; or there is such a table already.
        """
        store = cls.__new__(cls)
        store._prepare(coder, database, table, must_exist=False, **options)
        made = store._columns_of_new(columns or {}, id_type, "TEXT", store._vector_type)
        with store._session(writes=True) as session:
            session.change(f"CREATE TABLE {store._table} ({made})")
        store._check_table()
        return store

    @classmethod
    def adopt(
        cls,
        coder: Coder,
        database: str | os.PathLike[str] | duckdb.DuckDBPyConnection,
        table: str,
        **options: Any,
    ) -> DuckdbRows:
        """Add the columns for row vectors and codes to a table that there is, if it lacks them, and open it.

        Its rows and other columns stay as they are; `fill` encodes the rows.

        Args:
            coder: see the class.
            database: see the class.
            table: see the class.
            options: options of `RowStore`.

        Raises:
            InputError: see the class.
            HostError: see the class.
            CodesError: see the class.
        """
        store = cls.__new__(cls)
        store._prepare(coder, database, table, must_exist=True, **options)
        kinds = {store.vector_column: store._vector_type, store.codes_column: store._codes_type}
        with store._session(writes=True) as session:
            store._check_given(session)
            for name in store._missing():
                session.change(f"ALTER TABLE {store._table} ADD COLUMN {store._quoted(name)} {kinds[name]}")
        store._check_table()
        return store

    def close(self) -> None:
        """Close the connection, so that another process may open the file. The application's own stays open."""
        self._connection.close()

    @property
    def place(self) -> str:
        """See `RowStore`."""
        return f"DuckDB, {self._file!r}, table {self.table!r}"

    # What a database is

    @contextlib.contextmanager
    def _session(self, *, writes: bool = False) -> Iterator[_DuckdbSession]:
        records = (duckdb.IntegrityError, duckdb.DataError, duckdb.NotSupportedError, pa.ArrowException)
        # Two writers of the same row would be a conflict.
        with (
            self._guard if writes else contextlib.nullcontext(),
            client_errors(self.place, duckdb.Error, records if writes else ()),
            contextlib.closing(self._connection.cursor()) as connection,
        ):
            connection.execute("BEGIN TRANSACTION")
            try:
                yield _DuckdbSession(connection)
            except BaseException:
                with contextlib.suppress(duckdb.Error):  # the statement may have ended the transaction
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _nearest(self, vector: np.ndarray, n: int, where: SqlCondition | None, exact: bool) -> list[FoundRow]:
        condition, values = self._condition(where)
        query = f"{self._value('tansaku_vector')}::{self._vector_type}"
        # Codes are read afterwards: sorting would carry those of all rows along.
        best = (
            f"SELECT {self._id}, array_inner_product({self._vector}, {query}) AS tansaku_score "  # noqa: S608
            f"FROM (SELECT * FROM {self._table} WHERE {self._vector} IS NOT NULL AND {condition}) "
            f"ORDER BY tansaku_score DESC, {self._id} LIMIT {n:d}"
        )
        with self._session() as session:
            scores = dict(session.rows(best, {**values, "tansaku_vector": vector.tolist()}))
            rows = self._read_in(session, list(scores), with_text=self.with_text)
        found = [row._replace(score=scores[row.id]) for row in rows]
        return sorted(found, key=lambda row: (-row.score, str(row.id)))

    def _write_new(self, session: Session, names: Sequence[str], rows: Sequence[CodedRow], *, replace: bool) -> None:
        written = (*names, self.vector_column, self.codes_column)
        columns = ", ".join(map(self._quoted, (self.id_column, *written)))
        statement = (
            f"INSERT INTO {self._table} ({columns}) "  # noqa: S608
            f"SELECT {', '.join(f'tansaku_{i}' for i in range(len(written) + 1))} FROM {_GIVEN}"
        )
        if replace:
            changes = ", ".join(f"{self._quoted(name)} = excluded.{self._quoted(name)}" for name in written)
            statement += f" ON CONFLICT ({self._id}) DO UPDATE SET {changes}"
        self._run_on(session, statement, names, rows)

    def _write_over(
        self, session: Session, names: Sequence[str], rows: Sequence[CodedRow], condition: str = ""
    ) -> None:
        written = (*names, self.vector_column, self.codes_column)
        changes = ", ".join(f"{self._quoted(name)} = tansaku_{i}" for i, name in enumerate(written, 1))
        statement = (
            f"UPDATE {self._table} SET {changes} FROM {_GIVEN} "  # noqa: S608
            f"WHERE {self._table}.{self._id} = tansaku_0{condition}"
        )
        self._run_on(session, statement, names, rows)

    def _run_on(self, session: Session, statement: str, names: Sequence[str], rows: Sequence[CodedRow]) -> None:
        """Run a statement over rows as an Arrow table; single values would take hundreds of times as long."""
        if not rows:
            return
        vectors = pa.array(np.concatenate([row.row_vector for row in rows]).astype(np.float32))
        columns = [pa.array([self._id_value(row.id) for row in rows])]
        for name in names:
            try:
                columns.append(pa.array([row.columns[name] for row in rows]))
            except (pa.ArrowException, OverflowError) as error:
                raise InputError(f"{self.place}: values of {name!r} cannot be written: {error}") from error
        columns.append(pa.FixedSizeListArray.from_arrays(vectors, self.coder.row_dim))
        columns.append(pa.array([row.codes for row in rows], pa.binary()))
        given = pa.table(columns, names=[f"tansaku_{i}" for i in range(len(columns))])
        connection = session.connection  # type: ignore[attr-defined]
        connection.register(_GIVEN, given)
        session.change(statement)
        connection.unregister(_GIVEN)  # after an error the connection is closed

    @property
    def _vector_type(self) -> str:
        return f"FLOAT[{self.coder.row_dim}]"

    def _id_value(self, row_id: RowId) -> Any:
        if not self._id_is_whole:
            return str(row_id)
        try:
            return int(row_id)
        except ValueError as error:
            raise InputError(f"{self.place}: ids are whole numbers, and {row_id!r} is none") from error

    def _value(self, name: str) -> str:
        return f"${name}"

    def _vector_value(self, vector: np.ndarray) -> Any:
        return vector.tolist()

    def _read_vector(self, value: Any) -> np.ndarray:
        return np.asarray(value, np.float32)

    def _table_columns(self, session: Session) -> dict[str, str]:
        return dict(session.rows(_COLUMNS, {"tansaku_table": self.table}))

    def _check_kinds(self, columns: Mapping[str, str]) -> None:
        self._id_is_whole = _WHOLE.fullmatch(columns[self._same_name(self.id_column)]) is not None
        vectors, codes = (columns[self._same_name(name)] for name in (self.vector_column, self.codes_column))
        found = _KIND.fullmatch(vectors)
        if found is None:
            raise HostError(f"{self.place}: {self.vector_column!r} is {vectors}; row vectors need {self._vector_type}")
        if int(found[1]) != self.coder.row_dim:
            raise InputError(
                f"{self.place}: {self.vector_column!r} has {found[1]} dimensions, and row vectors of this coder have "
                f"{self.coder.row_dim}; open with the bundle and row_dim that it was made with, or name another column"
            )
        if codes != "BLOB":
            raise HostError(f"{self.place}: {self.codes_column!r} is {codes}; codes need BLOB")

    def _is_unique(self, session: Session) -> bool:
        here = {"tansaku_table": self.table}
        constraints, indexes = session.rows(_CONSTRAINTS, here), session.rows(_INDEXES, here)
        mine = self._same_name(self.id_column)
        return any([self._same_name(name) for name in names] == [mine] for (names,) in constraints) or any(
            self._same_name(names.strip("[]\"'")) == mine for (names,) in indexes
        )


class _DuckdbSession:
    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection

    def rows(self, statement: str, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return self._execute(statement, values).fetchall()

    def change(self, statement: str, values: Mapping[str, Any] | None = None) -> int:
        found = self._execute(statement, values).fetchone()
        return int(found[0]) if found else 0

    def change_many(self, statement: str, values: Sequence[Mapping[str, Any]]) -> None:
        for one in values:
            self._execute(statement, one)

    def _execute(self, statement: str, values: Mapping[str, Any] | None) -> duckdb.DuckDBPyConnection:
        try:
            return self.connection.execute(statement, values or None)
        except RuntimeError as error:  # a value that its binding cannot turn into one of DuckDB's
            raise InputError(f"DuckDB cannot take one of the values {values!r:.100}") from error
