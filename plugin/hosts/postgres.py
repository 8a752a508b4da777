"""PostgreSQL as a source of candidates: trigrams by its own extension ``pg_trgm``.

The database needs an encoding and locale in which Japanese characters are letters, such as UTF8 and C.UTF-8; under the
locale C ``pg_trgm`` drops all of them without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ...onnx_export.errors import MissingExtraError
from ..rerank.host_search import Candidate, HostError
from ._checks import check_columns, check_name, check_request, joined

try:
    import psycopg
    from psycopg import sql
except ImportError as error:
    raise MissingExtraError("psycopg", "postgres") from error

__all__ = ["PostgresSource"]


class PostgresSource:
    """Documents that have a stretch with many of the question's trigrams (``word_similarity``), nearest first.

    A GiST index makes that fast; its expression must be `expression`, or the single text column.

    Args:
        connect: a connection string, with which every query connects anew; or what gives a connection, as
            ``ConnectionPool.connection`` of psycopg_pool does.
        table: its name, also as ``schema.table``.
        text_columns: columns to search.
        id_column: the column with the ids that our index has.
        with_text: also return the text, for documents that our index has not.
        timeout: seconds that connecting and the query may take, each.

    Raises InputError for names that no column can have.
    """

    def __init__(
        self,
        connect: str | Callable[[], AbstractContextManager[psycopg.Connection[Any]]],
        table: str,
        *,
        text_columns: Sequence[str] = ("text",),
        id_column: str = "id",
        with_text: bool = False,
        timeout: float = 10.0,
    ) -> None:
        self._connect = connect
        self.table = check_name(table)
        self.text_columns = check_columns(text_columns)
        self.id_column = check_name(id_column)
        self.with_text = with_text
        self.timeout = timeout

    @property
    def expression(self) -> sql.Composable:
        """What is searched, as the index has to have it: the column, or all of them with spaces between."""
        names = [sql.Identifier(name) for name in self.text_columns]
        if len(names) == 1:
            return names[0]
        return sql.SQL(" || ' ' || ").join(sql.SQL("coalesce({}, '')").format(name) for name in names)

    def candidates(
        self, query: str, k: int, where: str | tuple[str, Mapping[str, Any]] | None = None
    ) -> list[Candidate]:
        """The ``k`` best documents for ``query``; scores are word similarities, above 0 to 1.

        Args:
            query: the question or keywords.
            k: how many.
            where: an SQL condition over the table's columns, or one with named parameters:
                ``("year > %(year)s", {"year": 2000})``, in which a plain % is written %%. The condition comes from
                the application, values from anybody.

        Raises InputError for an empty query and ``k`` below 1, HostError if PostgreSQL is unreachable or refuses, or
        its locale leaves nothing of a Japanese query.
        """
        text = check_request(query, k).replace("\0", " ")
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
        try:
            with self._connection() as connection, connection.transaction():
                connection.execute("SELECT set_config('statement_timeout', %s, true)", [str(int(1000 * self.timeout))])
                rows = [row for row in connection.execute(statement, values) if row[1] < 1]
                if not rows and not text.isascii():
                    self._check_locale(connection)
        except psycopg.Error as error:
            reason = str(error).strip().split("\n")[0]
            raise HostError(f"PostgreSQL cannot search {self.table!r}: {reason}") from error
        return [Candidate(str(r[0]), 1 - float(r[1]), joined(r[2:]) if self.with_text else None) for r in rows]

    def _check_locale(self, connection: psycopg.Connection[Any]) -> None:
        found = connection.execute("SELECT datctype FROM pg_database WHERE datname = current_database()").fetchone()
        if found and found[0] in ("C", "POSIX"):
            raise HostError(
                f"PostgreSQL cannot search {self.table!r}: under this database's locale {found[0]} pg_trgm ignores "
                "Japanese; make the database with LOCALE 'C.UTF-8' and TEMPLATE template0"
            )

    def _connection(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        if isinstance(self._connect, str):
            return psycopg.connect(self._connect, connect_timeout=max(1, int(self.timeout)))
        return self._connect()
