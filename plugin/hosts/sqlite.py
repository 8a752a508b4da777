"""SQLite as a source of candidates: full text search (FTS5) with its trigram tokenizer.

```python
from tansaku import HostSearch, Reranker, Searcher
from tansaku.plugin.hosts.sqlite import SqliteSource
reranker = Reranker(searcher=Searcher.open("db", "docs"))
hits = HostSearch(SqliteSource("yours.db", "docs"), reranker).search("質問")
```
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..rerank.host_search import Candidate
from ._engine_source import SqlCondition, TableSource, check_identifier, host_errors

__all__ = ["SqliteSource"]

_STEPS_PER_CHECK = 10_000  # steps of SQLite's machine between two looks at the clock


@dataclass(eq=False)
class SqliteSource(TableSource[SqlCondition]):
    """SQLite's full text search (FTS5) with trigrams as a source of candidates, by BM25.

    A query whose words are all shorter than three characters has no trigram; documents that contain it literally are
    found then, by reading the table, with the score 0.

    A condition (``where``) is SQL over the table's columns, or SQL with named parameters:
    ``("year > :year", {"year": 2000})``. The SQL must come from the application; the values may come from anybody.

    Args:
        db: the file, opened for reading at each query; or a connection, used as it is, without a time limit.
        table: name of an FTS5 table with ``tokenize='trigram'``.
        text_columns, with_text: see `TableSource`.
        id_column: name of the column with the ids that our index has; may be ``rowid``.
        timeout: seconds that a query may wait for a lock, and seconds that it may run.

    Raises:
        InputError: a name that no table or column can have.
    """

    db: str | Path | sqlite3.Connection
    table: str

    def __post_init__(self) -> None:
        super().__post_init__()
        check_identifier(self.table)

    def _search(self, query: str, k: int, where: SqlCondition | None) -> list[Candidate]:
        grams = _trigrams(query)
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
        with host_errors("SQLite", self.table, sqlite3.Error), self._opened() as connection:
            rows = connection.execute(statement, {**parameters, "tansaku_query": wanted, "tansaku_k": k}).fetchall()
        return [self._candidate(row[0], row[1], row[2:]) for row in rows]

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        if isinstance(self.db, sqlite3.Connection):
            yield self.db
            return
        uri = Path(self.db).absolute().as_uri() + "?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=self.timeout)) as connection:
            end = time.monotonic() + self.timeout
            connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS_PER_CHECK)
            yield connection


def _trigrams(query: str) -> list[str]:
    words = query.replace("\0", " ").split()
    return list(dict.fromkeys(word[i : i + 3] for word in words for i in range(len(word) - 2)))


def _quoted(name: str) -> str:
    """A name in SQL, or a string in FTS5's query syntax: both double the quotation mark."""
    return '"' + name.replace('"', '""') + '"'
