"""SQLite as a source of candidates: full text search (FTS5) with its trigram tokenizer."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..rerank.host_search import Candidate, HostError
from ._checks import check_columns, check_name, check_request, joined

__all__ = ["SqliteSource"]

_STEPS = 10_000  # of SQLite's machine between two looks at the clock


class SqliteSource:
    """Documents that share trigrams with the question, by BM25.

    A query whose words all have less than three characters has no trigram; what holds it literally is found then, by
    reading the table, and scores 0.

    Args:
        db: the file, opened to read for each query; or a connection, used as it is, without a limit on the time.
        table: an FTS5 table with ``tokenize='trigram'``.
        text_columns: columns to search.
        id_column: the column with the ids that our index has; ``rowid`` too.
        with_text: also return the text, for documents that our index has not.
        timeout: seconds that a query may wait for a lock, and that it may run.

    Raises InputError for names that no column can have.
    """

    def __init__(
        self,
        db: str | Path | sqlite3.Connection,
        table: str,
        *,
        text_columns: Sequence[str] = ("text",),
        id_column: str = "id",
        with_text: bool = False,
        timeout: float = 10.0,
    ) -> None:
        self.db = db
        self.table = check_name(table)
        self.text_columns = check_columns(text_columns)
        self.id_column = check_name(id_column)
        self.with_text = with_text
        self.timeout = timeout

    def candidates(
        self, query: str, k: int, where: str | tuple[str, Mapping[str, Any]] | None = None
    ) -> list[Candidate]:
        """The ``k`` best documents for ``query``.

        Args:
            query: the question or keywords; FTS5's syntax means nothing in it.
            k: how many.
            where: an SQL condition over the table's columns, or one with named parameters:
                ``("year > :year", {"year": 2000})``. The condition comes from the application, values from anybody.

        Raises InputError for an empty query and ``k`` below 1, HostError if the database cannot be read or refuses.
        """
        grams = _trigrams(check_request(query, k))
        table = _quoted(self.table)
        searched = [_quoted(name) for name in self.text_columns]
        condition, parameters = where if isinstance(where, tuple) else (where, {})
        if grams:
            matches, score, order = f"{table} MATCH :tansaku_query", f"-bm25({table})", "rank"
            wanted = f"{{{' '.join(searched)}}} : ({' OR '.join(_quoted(gram) for gram in grams)})"
        else:
            matches = "(" + " OR ".join(f"instr({name}, :tansaku_query)" for name in searched) + ")"
            score, order, wanted = "0.0", "rowid", query.strip()
        columns = ", ".join([_quoted(self.id_column), score, *(searched if self.with_text else ())])
        statement = (
            f"SELECT {columns} FROM {table} WHERE {matches}"  # noqa: S608 - names are quoted, values are parameters
            + (f" AND ({condition})" if condition else "")
            + f" ORDER BY {order} LIMIT :tansaku_k"
        )
        try:
            with self._opened() as connection:
                rows = connection.execute(statement, {**parameters, "tansaku_query": wanted, "tansaku_k": k}).fetchall()
        except sqlite3.Error as error:
            raise HostError(f"SQLite cannot search {self.table!r}: {error}") from error
        return [Candidate(str(r[0]), float(r[1]), joined(r[2:]) if self.with_text else None) for r in rows]

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        if isinstance(self.db, sqlite3.Connection):
            yield self.db
            return
        uri = Path(self.db).absolute().as_uri() + "?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=self.timeout)) as connection:
            end = time.monotonic() + self.timeout
            connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
            yield connection


def _trigrams(query: str) -> list[str]:
    words = query.replace("\0", " ").split()
    return list(dict.fromkeys(word[i : i + 3] for word in words for i in range(len(word) - 2)))


def _quoted(name: str) -> str:
    """A name in SQL, or a string in FTS5's query syntax: both double the quotation mark."""
    return '"' + name.replace('"', '""') + '"'
