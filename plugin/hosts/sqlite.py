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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...onnx_export.errors import InputError
from ..rerank.host_search import Candidate, HostError
from ..rows.columns import check_name
from ._engine_source import SqlCondition, TableSource, host_errors
from ._short_words import GRAM, idf, split_query

__all__ = ["SqliteSource"]

_STEPS_PER_CHECK = 10_000  # steps of SQLite's machine between two looks at the clock


@dataclass(eq=False)
class SqliteSource(TableSource[SqlCondition]):
    """SQLite's full text search (FTS5) with trigrams as a source of candidates, by BM25.

    A word of one or two characters (``梅雨``) has no trigram. The documents that contain it are found by reading the
    table, and it counts as much as a trigram that is as rare.

    A condition (``where``) is SQL over the table's columns, or SQL with named parameters:
    ``("year > :year", {"year": 2000})``. The SQL must come from the application; the values may come from anybody.

    Args:
        db: the file, opened for reading at each query; or a connection, used as it is, without a time limit. Pickled,
            a connection is its file.
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
        check_name(self.table)

    def __getstate__(self) -> dict[str, Any]:
        if not isinstance(self.db, sqlite3.Connection):
            return vars(self)
        with self._cursor() as cursor:
            file = next(place for _, name, place in cursor.execute("PRAGMA database_list") if name == "main")
        if not file:
            raise InputError("a database in memory cannot be pickled; use a file")
        return {**vars(self), "db": file}

    def _search(self, query: str, k: int, where: SqlCondition | None) -> list[Candidate]:
        long, short = split_query(query)
        grams = dict.fromkeys(word[i : i + GRAM] for word in long for i in range(len(word) - GRAM + 1))
        condition, given = where if isinstance(where, tuple) else (where, {})
        parameters: dict[str, Any] = {**given, "tansaku_k": k}
        parameters |= {f"tansaku_word_{i}": word for i, word in enumerate(short)}
        if grams:
            columns = " ".join(map(_quoted, self.text_columns))
            parameters["tansaku_query"] = f"{{{columns}}} : ({' OR '.join(map(_quoted, grams))})"
        with host_errors("SQLite", self.table, sqlite3.Error), self._cursor() as cursor:
            if short:
                parameters |= self._weights(cursor, short, parameters)
            statement = self._statement(bool(grams), len(short), condition)
            rows = cursor.execute(statement, parameters).fetchall()
            if not rows:
                self._check_tokenizer(cursor)
        return [self._candidate(row[0], row[1], row[2:]) for row in rows]

    def _statement(self, has_grams: bool, n_short: int, condition: str | None) -> str:
        """The search, by BM25 of the trigrams plus the weights of the short words."""
        # Names are quoted, and values are parameters.
        table, also = _quoted(self.table), f" AND ({condition})" if condition else ""
        parts: list[str] = []
        if has_grams:
            rows = f"FROM {table} WHERE {table} MATCH :tansaku_query{also}"
            parts.append(f"SELECT rowid AS place, -bm25({table}) AS score {rows}")
        if n_short:
            contained = [self._contains(i) for i in range(n_short)]
            score = " + ".join(f"({has}) * :tansaku_weight_{i}" for i, has in enumerate(contained))
            rows = f"FROM {table} WHERE ({' OR '.join(contained)}){also}"
            parts.append(f"SELECT rowid AS place, {score} AS score {rows}")
        # A limit, here none, keeps each part as it is: bm25() must stay next to its MATCH.
        found = " UNION ALL ".join(f"SELECT * FROM ({part} LIMIT -1)" for part in parts)  # noqa: S608
        best = "SELECT place, sum(score) AS score FROM found GROUP BY place ORDER BY score DESC, place LIMIT :tansaku_k"
        texts = self.text_columns if self.with_text else ()
        columns = ", ".join([f"docs.{_quoted(self.id_column)}", "best.score", *(f"docs.{_quoted(n)}" for n in texts)])
        return (
            f"WITH found AS ({found}), best AS ({best}) "  # noqa: S608
            f"SELECT {columns} FROM best CROSS JOIN {table} AS docs ON docs.rowid = best.place "
            "ORDER BY best.score DESC, best.place"
        )

    def _weights(self, cursor: sqlite3.Cursor, short: Sequence[str], parameters: Mapping[str, Any]) -> dict[str, float]:
        """The weight of each short word: what bm25() gives a term that as many documents contain."""
        table = _quoted(self.table)
        counts = ", ".join(f"total({self._contains(i)})" for i in range(len(short)))
        statement = f"SELECT count(*), {counts} FROM {table}"  # noqa: S608
        n_documents, *containing = cursor.execute(statement, parameters).fetchone()
        return {f"tansaku_weight_{i}": weight for i, weight in enumerate(idf(n_documents, containing))}

    def _check_tokenizer(self, cursor: sqlite3.Cursor) -> None:
        found = cursor.execute("SELECT sql FROM sqlite_master WHERE name = ?", (self.table,)).fetchone()
        if found and found[0] and "trigram" not in found[0].lower():
            raise HostError(
                f"SQLite cannot search {self.table!r}: it is not a table of FTS5 with tokenize='trigram', and Japanese "
                "is not found in it; make one"
            )

    def _contains(self, i: int) -> str:
        """Whether a row contains the short word ``i``, in small or capital letters as with trigrams."""
        word = f"lower(:tansaku_word_{i})"
        return "(" + " OR ".join(f"instr(lower({_quoted(name)}), {word}) > 0" for name in self.text_columns) + ")"

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[sqlite3.Cursor]:
        """A cursor that gives tuples, whatever rows the application's connection gives."""
        if isinstance(self.db, sqlite3.Connection):
            with contextlib.closing(self.db.cursor()) as cursor:
                cursor.row_factory = None
                yield cursor
            return
        uri = Path(self.db).absolute().as_uri() + "?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=self.timeout)) as connection:
            end = time.monotonic() + self.timeout
            connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS_PER_CHECK)
            yield connection.cursor()


def _quoted(name: str) -> str:
    """A name in SQL, or a string in FTS5's query syntax: both double the quotation mark."""
    return '"' + name.replace('"', '""') + '"'
