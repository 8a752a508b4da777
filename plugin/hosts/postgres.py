"""PostgreSQL as a source of candidates: trigrams by its own extension ``pg_trgm``, or vectors by pgvector.

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

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from ...onnx_export.errors import InputError, MissingExtraError
from ..rerank.host_search import Candidate, HostError
from ..rows.columns import check_name
from ._engine_source import SqlCondition, TableSource, host_errors
from ._short_words import idf, split_query

try:
    import psycopg
    from psycopg import sql
    from psycopg.rows import tuple_row

    from ._pgvector import Distance, check_distance, distance_of, nearest, score, vector_literal
    from .rows._connections import KeptConnections
except ImportError as error:
    raise MissingExtraError("psycopg", "postgres") from error

__all__ = ["PostgresSource"]


@dataclass(eq=False)
class PostgresSource(TableSource[SqlCondition]):
    """PostgreSQL's trigrams, or the vectors of pgvector, as a source of candidates.

    Finds documents with a stretch that has many of the question's trigrams (``word_similarity``), nearest first. Scores
    are word similarities, above 0 to 1. A GiST index makes that fast; its expression must be `expression`, or the
    single text column.

    A word of one or two characters (``梅雨``) has no trigram within a Japanese text. For a query with such words the
    whole table is read, and a score is the mean over the words, weighted by how rare they are: 1 for a short word that
    the document contains, and the word similarity for the longer words.

    With ``vector_column`` and ``query_vector`` it finds the nearest vectors of that column instead, of pgvector's types
    ``vector`` or ``halfvec``; `expression` and the locale are then of no account. An index over the vectors is scanned
    until ``k`` rows are found, also under a condition; where it ends early, all rows that the condition holds for are
    compared. So fewer than ``k`` are returned only if there are fewer. A row without a vector is not found. Scores are
    the cosine, the inner product, or the distance with a minus sign.

    A condition (``where``) is SQL over the table's columns, or SQL with named parameters:
    ``("year > %(year)s", {"year": 2000})``, in which a plain % is written %%. The SQL must come from the application;
    the values may come from anybody.

    Args:
        connect: a connection string; or a function that gives a connection, such as ``ConnectionPool.connection`` of
            psycopg_pool. With a string each search has a connection of its own, and up to eight that are not in use are
            kept, until `close`.
        table: name of the table, also as ``schema.table``.
        text_columns, id_column, with_text: see `TableSource`.
        vector_column: name of a column of pgvector's; None searches the texts.
        query_vector: makes the vector of a question, as a list of numbers: the application's own embedding function.
        distance: "cosine", "inner_product", "l2" or "l1". An index is used if its operator class is of this distance.
        timeout: seconds that connecting and each query may take.

    Raises:
        InputError: a name that no table or column can have, an unknown distance, or one of ``vector_column`` and
            ``query_vector`` without the other. Searching raises it too, for a ``query_vector`` that gives no vector.
    """

    connect: str | Callable[[], AbstractContextManager[psycopg.Connection[Any]]] = field(repr=False)  # has passwords
    table: str
    vector_column: str | None = field(default=None, kw_only=True)
    query_vector: Callable[[str], Sequence[float]] | None = field(default=None, kw_only=True)
    distance: Distance = field(default="cosine", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.table)
        check_distance(self.distance)
        self._kept: KeptConnections | None = None
        if isinstance(self.connect, str):
            self._kept = KeptConnections(self.connect, self.timeout)
            self._connection = self._kept.connection
        else:
            self._connection = self.connect
        if self.vector_column is not None:
            check_name(self.vector_column)
        if (self.vector_column is None) != (self.query_vector is None):
            raise InputError("vector_column and query_vector belong with each other; give both, or none")

    @property
    def expression(self) -> sql.Composable:
        """What is searched, as the index must have it: the text column, or all of them with spaces between."""
        names = [sql.Identifier(name) for name in self.text_columns]
        if len(names) == 1:
            return names[0]
        return sql.SQL(" || ' ' || ").join(sql.SQL("coalesce({}, '')").format(name) for name in names)

    def _search(self, query: str, k: int, where: SqlCondition | None) -> list[Candidate]:
        condition, given = where if isinstance(where, tuple) else ((where or "true").replace("%", "%%"), {})
        values: dict[str, Any] = {**given, "tansaku_k": k}
        if self.query_vector is not None and self.vector_column is not None:
            # Before there is a connection: the application's model may take its time.
            values["tansaku_vector"] = vector_literal(self.query_vector(query))
            distance = distance_of(self.vector_column, self.distance)
            with self._cursor() as cursor:
                found = nearest(cursor, lambda order: self._statement(order, condition), distance, values, k)
            return [self._candidate(row[0], score(self.distance, row[1]), row[2:]) for row in found]
        with self._cursor() as cursor:
            return self._by_trigrams(cursor, query, condition, values)

    def _by_trigrams(
        self, cursor: psycopg.Cursor[tuple[Any, ...]], query: str, condition: str, values: dict[str, Any]
    ) -> list[Candidate]:
        long, short = split_query(query)
        values["tansaku_query"] = query.replace("\0", " ")
        distance = sql.SQL("%(tansaku_query)s <<-> ({})").format(self.expression)
        if short:
            distance = sql.SQL("1 - ({})").format(self._mean(cursor, long, short, values))
        rows = [row for row in cursor.execute(self._statement(distance, condition), values) if row[1] < 1]
        if not rows and not query.isascii():
            self._check_locale(cursor)
        return [self._candidate(row[0], 1 - float(row[1]), row[2:]) for row in rows]

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[psycopg.Cursor[tuple[Any, ...]]]:
        """A cursor in a transaction with the time limit, whatever rows the application's connections give."""
        with (
            host_errors("PostgreSQL", self.table, psycopg.Error),
            self._connection() as connection,
            connection.transaction(),
            connection.cursor(row_factory=tuple_row) as cursor,
        ):
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(int(1000 * self.timeout))])
            yield cursor

    def _statement(self, distance: sql.Composable, condition: str) -> sql.Composed:
        columns = self.text_columns if self.with_text else []
        return sql.SQL(
            "SELECT {id}, {distance} AS tansaku_distance{texts} FROM {table} WHERE ({condition}) "
            "ORDER BY tansaku_distance LIMIT %(tansaku_k)s"
        ).format(
            id=sql.Identifier(self.id_column),
            distance=distance,
            texts=sql.SQL("").join(sql.SQL(", {}").format(sql.Identifier(name)) for name in columns),
            table=self._table,
            condition=sql.SQL(condition),  # type: ignore[arg-type] - the application's own SQL, as documented
        )

    def _mean(
        self, cursor: psycopg.Cursor[tuple[Any, ...]], long: list[str], short: list[str], values: dict[str, Any]
    ) -> sql.Composable:
        """The score of a row for a query with short words; fills ``values``."""
        contains: list[sql.Composable] = []
        for i, word in enumerate(short):
            values[f"tansaku_word_{i}"] = word
            asked = sql.SQL("strpos(lower({}), lower({}::text)) > 0")
            contains.append(asked.format(self.expression, sql.Placeholder(f"tansaku_word_{i}")))
        counts = sql.SQL(", ").join(sql.SQL("count(*) FILTER (WHERE {})").format(has) for has in contains)
        counting = sql.SQL("SELECT count(*), {} FROM {}").format(counts, self._table)
        row = cursor.execute(counting, values).fetchone()
        n_documents, *containing = row or (0, *[0] * len(short))
        weights = idf(n_documents, containing)
        parts = [
            sql.SQL("CASE WHEN {} THEN {} ELSE 0 END").format(has, weight)
            for has, weight in zip(contains, weights, strict=True)
        ]
        if long:
            values["tansaku_query"] = " ".join(long)
            weights += idf(n_documents, [0] * len(long))  # as of words that few documents contain
            similar = sql.SQL("(1 - (%(tansaku_query)s <<-> ({}))) * {}").format(
                self.expression, sum(weights[len(short) :])
            )
            parts.append(similar)
        return sql.SQL("({}) / {}").format(sql.SQL(" + ").join(parts), sum(weights))

    @property
    def _table(self) -> sql.Composable:
        return sql.Identifier(*self.table.split("."))

    def _check_locale(self, cursor: psycopg.Cursor[tuple[Any, ...]]) -> None:
        found = cursor.execute("SELECT datctype FROM pg_database WHERE datname = current_database()").fetchone()
        if found and found[0] in ("C", "POSIX"):
            raise HostError(
                f"PostgreSQL cannot search {self.table!r}: under this database's locale {found[0]} pg_trgm ignores "
                "Japanese; make the database with LOCALE 'C.UTF-8' and TEMPLATE template0"
            )

    def close(self) -> None:
        """Close the connections that are kept; the next search connects again. A pool of the application stays open."""
        if self._kept is not None:
            self._kept.close()
