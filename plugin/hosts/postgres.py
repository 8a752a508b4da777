"""PostgreSQL as a source of candidates: trigrams by its own extension ``pg_trgm``.

```python
from tansaku import HostSearch, Reranker, Searcher
from tansaku.plugin.hosts.postgres import PostgresSource
reranker = Reranker(searcher=Searcher.open("db", "docs"))
hits = HostSearch(PostgresSource("host=localhost dbname=yours", "docs"), reranker).search("質問")
```

The database needs an encoding and a locale in which Japanese characters are letters, such as UTF8 and C.UTF-8. Under
the locale C ``pg_trgm`` silently drops all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from ...onnx_export.errors import MissingExtraError
from ..rerank.host_search import Candidate, HostError
from ._engine_source import SqlCondition, TableSource, check_identifier, host_errors

try:
    import psycopg
    from psycopg import sql
except ImportError as error:
    raise MissingExtraError("psycopg", "postgres") from error

__all__ = ["PostgresSource"]


@dataclass(eq=False)
class PostgresSource(TableSource[SqlCondition]):
    """PostgreSQL's trigrams as a source of candidates.

    Finds documents with a stretch that has many of the question's trigrams (``word_similarity``), nearest first. Scores
    are word similarities, above 0 to 1. A GiST index makes that fast; its expression must be `expression`, or the
    single text column.

    A condition (``where``) is SQL over the table's columns, or SQL with named parameters:
    ``("year > %(year)s", {"year": 2000})``, in which a plain % is written %%. The SQL must come from the application;
    the values may come from anybody.

    Args:
        connect: a connection string, which every query connects with; or a function that gives a connection, such as
            ``ConnectionPool.connection`` of psycopg_pool.
        table: name of the table, also as ``schema.table``.
        text_columns, id_column, with_text: see `TableSource`.
        timeout: seconds that connecting and the query may take, each.

    Raises:
        InputError: a name that no table or column can have.
    """

    connect: str | Callable[[], AbstractContextManager[psycopg.Connection[Any]]] = field(repr=False)  # has passwords
    table: str

    def __post_init__(self) -> None:
        super().__post_init__()
        check_identifier(self.table)

    @property
    def expression(self) -> sql.Composable:
        """What is searched, as the index must have it: the text column, or all of them with spaces between."""
        names = [sql.Identifier(name) for name in self.text_columns]
        if len(names) == 1:
            return names[0]
        return sql.SQL(" || ' ' || ").join(sql.SQL("coalesce({}, '')").format(name) for name in names)

    def _search(self, query: str, k: int, where: SqlCondition | None) -> list[Candidate]:
        text = query.replace("\0", " ")
        condition, parameters = where if isinstance(where, tuple) else ((where or "true").replace("%", "%%"), {})
        columns = self.text_columns if self.with_text else []
        distance = sql.SQL("%(tansaku_query)s <<-> ({})").format(self.expression)
        statement = sql.SQL(
            "SELECT {id}, {distance} AS tansaku_distance{texts} FROM {table} WHERE ({condition}) "
            "ORDER BY tansaku_distance LIMIT %(tansaku_k)s"
        ).format(
            id=sql.Identifier(self.id_column),
            distance=distance,
            texts=sql.SQL("").join(sql.SQL(", {}").format(sql.Identifier(name)) for name in columns),
            table=sql.Identifier(*self.table.split(".")),
            condition=sql.SQL(condition),  # type: ignore[arg-type] - the application's own SQL, as documented
        )
        values = {**parameters, "tansaku_query": text, "tansaku_k": k}
        errors = host_errors("PostgreSQL", self.table, psycopg.Error)
        with errors, self._connection() as connection, connection.transaction():
            connection.execute("SELECT set_config('statement_timeout', %s, true)", [str(int(1000 * self.timeout))])
            rows = [row for row in connection.execute(statement, values) if row[1] < 1]
            if not rows and not text.isascii():
                self._check_locale(connection)
        return [self._candidate(row[0], 1 - float(row[1]), row[2:]) for row in rows]

    def _check_locale(self, connection: psycopg.Connection[Any]) -> None:
        found = connection.execute("SELECT datctype FROM pg_database WHERE datname = current_database()").fetchone()
        if found and found[0] in ("C", "POSIX"):
            raise HostError(
                f"PostgreSQL cannot search {self.table!r}: under this database's locale {found[0]} pg_trgm ignores "
                "Japanese; make the database with LOCALE 'C.UTF-8' and TEMPLATE template0"
            )

    def _connection(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        if isinstance(self.connect, str):
            return psycopg.connect(self.connect, connect_timeout=max(1, int(self.timeout)))
        return self.connect()
