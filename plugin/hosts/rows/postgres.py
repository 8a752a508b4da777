"""PostgreSQL with pgvector: row vectors and codes in a table of the user's own.

```python
from psycopg_pool import ConnectionPool
from tansaku import Coder
from tansaku.plugin.hosts.rows.postgres import PostgresRows
pool = ConnectionPool("dbname=shop", open=True)
store = PostgresRows.adopt(Coder(), pool.connection, "articles", text_columns=["title", "body"])
store.fill()
hits = store.search("昔の首都はどこ？", where=("year < %(year)s", {"year": 1000}))
```
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from ....onnx_export.errors import InputError, MissingExtraError
from ....onnx_export.kinds import check_whole
from ...rerank.host_search import HostError
from ...rows.coder import Coder
from ...rows.row_search import FoundRow, RowId
from .._engine_source import SqlCondition
from ._sql_rows import Session, SqlRows, client_errors

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.rows import tuple_row

    from .._pgvector import look_further
    from ._connections import KeptConnections
except ImportError as error:
    raise MissingExtraError("psycopg", "postgres") from error

__all__ = ["PostgresRows"]

_RECORDS = (psycopg.IntegrityError, psycopg.DataError)  # a record that cannot be written
# Types that psycopg reads in binary too, by their first word. As text, codes take twice the bytes and far longer.
_IN_BINARY = frozenset(
    "bigint boolean bytea character date double integer json jsonb numeric real smallint text timestamp uuid".split()
)
_KIND = re.compile(r"(?:.*\.)?(halfvec|vector)\((\d+)\)")

Connect = str | Callable[[], AbstractContextManager[psycopg.Connection[Any]]]


class PostgresRows(SqlRows):
    """Documents in a table of PostgreSQL, with pgvector's `halfvec` or `vector` for row vectors and `bytea` for codes.

    Opening looks at the table: that it has the columns, vectors of the coder's length, and codes of its codec and
    model. `create` makes a table, and `adopt` adds the two columns to one that you have.

    A filter (``where``) is SQL over the table's columns, or SQL with named parameters:
    ``("year > %(year)s", {"year": 2000})``, in which a plain % is written %%. The SQL must come from the application;
    the values may come from anybody. An HNSW index is scanned until it has given enough rows, also under a filter; if
    it still gives fewer, all rows that the filter allows are compared.

    Ids may be of any type; those that are not whole numbers are read and given as strings. Each batch is written in one
    transaction. May be used from several threads if ``connect`` is a string or the function of a pool.

    With a connection string, each call has a connection of its own. Up to eight that are not in use are kept for the
    next calls, until `close`.

    Args:
        coder: makes row vectors and codes, and ranks by them.
        connect: a connection string; or a function that gives a connection, such as ``ConnectionPool.connection`` of
            psycopg_pool.
        table: name of the table, also as ``schema.table``.
        timeout: seconds that connecting and each statement may take, but for making an index.
        options: options of `RowStore`.

    Raises:
        InputError: a name that no table or column can have, a connection string that cannot be read, or row vectors of
            another length.
        HostError: the database cannot be reached, or has no such table or column, or no pgvector.
        CodesError: the table has codes of another codec or model.
    """

    engine = "PostgreSQL"
    _codes_type = "bytea"

    def __init__(self, coder: Coder, connect: Connect, table: str, *, timeout: float = 30.0, **options: Any) -> None:
        self._prepare(coder, connect, table, timeout=timeout, **options)
        self._check_table()

    def _prepare(self, coder: Coder, connect: Connect, table: str, *, timeout: float, **options: Any) -> None:
        super().__init__(coder, table, **options)
        self.timeout = timeout
        self._id_is_whole = self._in_binary = False
        self._kept: KeptConnections | None = None
        if isinstance(connect, str):
            try:
                conninfo_to_dict(connect)
            except psycopg.Error:
                # Its message and its chain would show the password.
                raise InputError("connect is no connection string of PostgreSQL, such as 'dbname=shop'") from None
            self._kept = KeptConnections(connect, timeout)
            self._connection = self._kept.connection
        elif callable(connect):
            self._connection = connect
        else:
            raise InputError(f"connect is {type(connect).__name__}; give a connection string or pool.connection")

    @classmethod
    def create(
        cls,
        coder: Coder,
        connect: Connect,
        table: str,
        *,
        columns: Mapping[str, str] | None = None,
        id_type: str = "text",
        vector_type: str = "halfvec",
        index: bool = True,
        timeout: float = 30.0,
        **options: Any,
    ) -> PostgresRows:
        """Make a table and open it.

        Args:
            coder: see the class.
            connect: see the class.
            table: see the class.
            columns: SQL types of its other columns, by name.
            id_type: SQL type for the ids.
            vector_type: SQL type for the row vectors, "halfvec" (2 bytes for a number) or "vector" (4 bytes).
            index: make the HNSW index at once. To load many documents it is faster to make it afterwards, with
                `create_index`.
            timeout: see the class.
            options: options of `RowStore`.

        Raises:
            InputError: see the class.
            HostError: see the class; or there is such a table already.
        """
        store = cls.__new__(cls)
        store._prepare(coder, connect, table, timeout=timeout, **options)
        kind = store._vector_type(vector_type)
        with store._session(writes=True) as session:
            store._check_extension(session)
            session.change(
                f"CREATE TABLE {store._table} ({store._columns_of_new(columns or {}, id_type, 'text', kind)})"
            )
            store._finish_columns(session, [store.vector_column, store.codes_column], index)
        store._check_table()
        return store

    @classmethod
    def adopt(
        cls,
        coder: Coder,
        connect: Connect,
        table: str,
        *,
        vector_type: str = "halfvec",
        index: bool = True,
        timeout: float = 30.0,
        **options: Any,
    ) -> PostgresRows:
        """Add the columns for row vectors and codes to a table that there is, if it lacks them, and open it.

        Its rows and other columns stay as they are; `fill` encodes the rows.

        Args:
            coder: see the class.
            connect: see the class.
            table: see the class.
            vector_type: see `create`.
            index: see `create`.
            timeout: see the class.
            options: options of `RowStore`.

        Raises:
            InputError: see the class.
            HostError: see the class.
            CodesError: see the class.
        """
        store = cls.__new__(cls)
        store._prepare(coder, connect, table, timeout=timeout, **options)
        kinds = {store.vector_column: store._vector_type(vector_type), store.codes_column: store._codes_type}
        with store._session(writes=True) as session:
            store._check_extension(session)
            store._check_given(session)
            if missing := store._missing():
                added = ", ".join(f"ADD COLUMN {store._quoted(name)} {kinds[name]}" for name in missing)
                session.change(f"ALTER TABLE {store._table} {added}")
                store._finish_columns(session, missing, index)
        store._check_table()
        return store

    def create_index(self, *, m: int = 16, ef_construction: int = 64) -> None:
        """Make the HNSW index over the row vectors, if the table lacks it, as after loading. It may take minutes.

        Args:
            m: neighbours of a vector in the index.
            ef_construction: width of the search for them; a wider one takes longer and finds better ones.

        Raises:
            HostError: the database cannot be reached, or refuses.
        """
        with self._session(limited=False) as session:
            if not self._has_index(session):
                self._make_index(session, check_whole("m", m), check_whole("ef_construction", ef_construction))

    def close(self) -> None:
        """Close the connections that are kept; the next call connects again. A pool of the application stays open."""
        if self._kept is not None:
            self._kept.close()

    @property
    def place(self) -> str:
        """See `RowStore`."""
        return f"PostgreSQL, table {self.table!r}"

    # What a database is

    @contextlib.contextmanager
    def _session(self, *, writes: bool = False, limited: bool = True) -> Iterator[_PostgresSession]:
        with (
            client_errors(self.place, psycopg.Error, _RECORDS if writes else ()),
            self._connection() as connection,
            connection.transaction(),
            connection.cursor(row_factory=tuple_row) as cursor,
        ):
            milliseconds = int(1000 * self.timeout) if limited else 0
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(milliseconds)])
            yield _PostgresSession(cursor)

    def _nearest(self, vector: np.ndarray, n: int, where: SqlCondition | None, exact: bool) -> list[FoundRow]:
        statement, values = self._search_statement(vector, n, where, exact)
        with self._session() as session:
            look_further(session.cursor, 2 * n)
            rows = session.rows(statement, values, binary=self._in_binary)
        return self._found_rows(rows)

    def _search_statement(
        self, vector: np.ndarray, n: int, where: SqlCondition | None, exact: bool
    ) -> tuple[str, dict[str, Any]]:
        condition, values = self._condition(where)
        # The parameter takes the column's type; a type of its own would keep the column from its index.
        distance = f"{self._vector} <#> %(tansaku_vector)s"
        if exact:  # no index has an expression with a sum
            distance = f"({distance}) + 0"
        names = f"{self._id}, {distance} AS tansaku_distance, {self._codes}{self._read_names(self.with_text)}"
        statement = (
            f"SELECT {names} FROM {self._table} WHERE {self._vector} IS NOT NULL AND {condition} "  # noqa: S608
            f"ORDER BY tansaku_distance{', ' + self._quoted(self.id_column) if exact else ''} LIMIT {n:d}"
        )
        return statement, {**values, "tansaku_vector": self._vector_value(vector)}

    def _found_rows(self, rows: Sequence[tuple[Any, ...]]) -> list[FoundRow]:
        found = [self._found(row[0], row[2], row[3:], -float(row[1]), with_text=self.with_text) for row in rows]
        return sorted(found, key=lambda row: (-row.score, str(row.id)))

    @property
    def _table(self) -> str:
        return ".".join(map(self._quoted, self.table.split(".")))

    @property
    def _id(self) -> str:
        name = self._quoted(self.id_column)
        return name if self._id_is_whole else f"{name}::text"

    @property
    def _vector_expression(self) -> str:
        return f"{self._vector}::real[]"

    def _lock(self, session: Session, ids: Sequence[RowId]) -> set[RowId]:
        return self._known_in(session, ids, f" ORDER BY {self._quoted(self.id_column)} FOR UPDATE")

    def _id_value(self, row_id: RowId) -> Any:
        return str(row_id)  # a string takes the column's type, whatever that is

    def _quoted(self, name: str) -> str:
        return super()._quoted(name).replace("%", "%%")

    def _value(self, name: str) -> str:
        return f"%({name})s"

    def _same_name(self, name: str) -> str:
        return name

    def _given_condition(self, condition: str) -> str:
        return condition.replace("%", "%%")

    def _vector_value(self, vector: np.ndarray) -> str:
        return f"[{','.join(map(repr, vector.tolist()))}]"

    def _read_vector(self, value: Any) -> np.ndarray:
        return np.asarray(value, np.float32)

    def _table_columns(self, session: Session) -> dict[str, str]:
        rows = session.rows(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = to_regclass(%(name)s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            {"name": self._table.replace("%%", "%")},
        )
        return dict(rows)

    def _check_kinds(self, columns: Mapping[str, str]) -> None:
        self._id_is_whole = columns[self.id_column] in ("smallint", "integer", "bigint")
        others = (columns[name].partition("(")[0].partition(" ")[0] for name in (*self.text_columns, *self.fields))
        self._in_binary = _IN_BINARY.issuperset(others)
        found = _KIND.fullmatch(columns[self.vector_column])
        if found is None:
            raise HostError(
                f"{self.place}: {self.vector_column!r} is {columns[self.vector_column]}; row vectors need "
                f"halfvec({self.coder.row_dim}) or vector({self.coder.row_dim})"
            )
        if int(found[2]) != self.coder.row_dim:
            raise InputError(
                f"{self.place}: {self.vector_column!r} has {found[2]} dimensions, and row vectors of this coder have "
                f"{self.coder.row_dim}; open with the bundle and row_dim that it was made with, or name another column"
            )
        if columns[self.codes_column] != "bytea":
            raise HostError(f"{self.place}: {self.codes_column!r} is {columns[self.codes_column]}; codes need bytea")

    def _is_unique(self, session: Session) -> bool:
        return bool(
            session.rows(
                "SELECT 1 FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0] "
                "WHERE indrelid = to_regclass(%(name)s) AND indisunique AND indisvalid AND indnkeyatts = 1 "
                "AND indpred IS NULL AND attname = %(id)s",
                {"name": self._table.replace("%%", "%"), "id": self.id_column},
            )
        )

    # Making a table

    def _vector_type(self, kind: str) -> str:
        if kind not in ("halfvec", "vector"):
            raise InputError(f"vector_type is {kind!r}; give 'halfvec' or 'vector'")
        return f"{kind}({self.coder.row_dim})"

    def _check_extension(self, session: Session) -> None:
        if not session.rows("SELECT 1 FROM pg_extension WHERE extname = 'vector'"):
            raise HostError(f"{self.place}: this database has no pgvector; CREATE EXTENSION vector")

    def _finish_columns(self, session: Session, new: Sequence[str], index: bool) -> None:
        # Codes cannot be compressed further. Row vectors stay in the rows: where no index is used, all are read, and
        # each that lies outside takes as long as comparing it.
        for name, storage in ((self.codes_column, "EXTERNAL"), (self.vector_column, "MAIN")):
            if name in new:
                session.change(f"ALTER TABLE {self._table} ALTER COLUMN {self._quoted(name)} SET STORAGE {storage}")
        session.change(f"CREATE INDEX ON {self._table} ({self._quoted(self.id_column)}) WHERE {self._lacks}")
        if index and not self._has_index(session):
            self._make_index(session)

    def _has_index(self, session: Session) -> bool:
        return bool(
            session.rows(
                "SELECT 1 FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid JOIN pg_am ON pg_am.oid = c.relam "
                "JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0] "
                "JOIN pg_opclass AS o ON o.oid = indclass[0] WHERE indrelid = to_regclass(%(name)s) "
                "AND amname = 'hnsw' AND attname = %(vector)s AND opcname LIKE '%%_ip_ops'",
                {"name": self._table.replace("%%", "%"), "vector": self.vector_column},
            )
        )

    def _make_index(self, session: Session, m: int = 16, ef_construction: int = 64) -> None:
        kind = self._table_columns(session)[self.vector_column]
        found = _KIND.fullmatch(kind)
        operators = f"{found[1] if found else kind}_ip_ops"
        session.change(
            f"CREATE INDEX ON {self._table} USING hnsw ({self._vector} {operators}) "
            f"WITH (m = {m}, ef_construction = {ef_construction})"
        )


class _PostgresSession:
    def __init__(self, cursor: psycopg.Cursor[tuple[Any, ...]]) -> None:
        self.cursor = cursor

    def rows(
        self, statement: str, values: Mapping[str, Any] | None = None, *, binary: bool = False
    ) -> list[tuple[Any, ...]]:
        # Not prepared: which plan is best depends on the values.
        return self.cursor.execute(statement.encode(), values or {}, prepare=False, binary=binary).fetchall()

    def change(self, statement: str, values: Mapping[str, Any] | None = None) -> int:
        return self.cursor.execute(statement.encode(), values or {}).rowcount

    def change_many(self, statement: str, values: Sequence[Mapping[str, Any]]) -> None:
        self.cursor.executemany(statement.encode(), values)
