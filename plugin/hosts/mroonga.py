"""Mroonga, the full text engine of MariaDB that is made of Groonga, as a source of candidates.

```python
from tansaku import HostSearch, Reranker, Searcher
from tansaku.plugin.hosts.mroonga import MroongaSource
reranker = Reranker(searcher=Searcher.open("db", "docs"))
source = MroongaSource({"host": "localhost", "user": "reader", "database": "yours"}, "docs")
hits = HostSearch(source, reranker).search("質問")
```
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from ...onnx_export.errors import MissingExtraError
from ..rerank.host_search import Candidate
from ..rows.columns import check_name
from ._engine_source import SqlCondition, TableSource, host_errors

try:
    import pymysql
    from pymysql.cursors import Cursor
except ImportError as error:
    raise MissingExtraError("pymysql", "mroonga") from error

__all__ = ["MroongaSource"]

_ALL_TOKENS = 10_000  # more than a question has; without a number Groonga takes an eighth of them


@dataclass(eq=False)
class MroongaSource(TableSource[SqlCondition]):
    """Mroonga's similar search (``*S``) in MariaDB as a source of candidates; MySQL has no such time limit and refuses.

    It scores by tokens, weighted by how rare they are, and none of them is required. That suits questions: ordinary
    words in ``IN BOOLEAN MODE`` would each be looked for as a phrase. The table needs a FULLTEXT index of Mroonga over
    the text columns and no others, by TokenBigram or TokenMecab.

    A condition (``where``) is SQL over the table's columns, or SQL with named parameters:
    ``("year > %(year)s", {"year": 2000})``, in which a plain % is written %%. The SQL must come from the application;
    the values may come from anybody.

    Args:
        connect: arguments of ``pymysql.connect``, which every query connects with; or a function that gives a
            connection of PyMySQL's in a context manager, such as ``lambda: contextlib.nullcontext(connection)``.
        table: name of the table, also as ``database.table``.
        text_columns, id_column, with_text: see `TableSource`.
        timeout: seconds that connecting and the query may take, each.

    Raises:
        InputError: a name that no table or column can have.
    """

    connect: Mapping[str, Any] | Callable[[], AbstractContextManager[Any]] = field(repr=False)  # has passwords
    table: str

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.table)

    def _search(self, query: str, k: int, where: SqlCondition | None) -> list[Candidate]:
        condition, given = where if isinstance(where, tuple) else ((where or "true").replace("%", "%%"), {})
        values = {**given, "tansaku_k": k, "tansaku_query": f"*DOR *S{_ALL_TOKENS}{_phrase(query)}"}
        with (
            host_errors("Mroonga", self.table, pymysql.MySQLError),
            self._connection() as connection,
            connection.cursor(Cursor) as cursor,  # whatever rows the application's connections give
        ):
            cursor.execute(self._statement(condition), {**values, "tansaku_timeout": self.timeout})
            rows = cursor.fetchall()
        return [self._candidate(row[0], row[1], row[2:]) for row in rows]

    def _statement(self, condition: str) -> str:
        # Names are quoted, and values are parameters.
        match = f"MATCH ({', '.join(map(_quoted, self.text_columns))}) AGAINST (%(tansaku_query)s IN BOOLEAN MODE)"
        texts = self.text_columns if self.with_text else ()
        columns = ", ".join([_quoted(self.id_column), f"{match} AS tansaku_score", *map(_quoted, texts)])
        table = ".".join(map(_quoted, self.table.split(".")))
        return (
            f"SET STATEMENT max_statement_time = %(tansaku_timeout)s FOR SELECT {columns} FROM {table} "  # noqa: S608
            f"WHERE {match} AND ({condition}) ORDER BY tansaku_score DESC LIMIT %(tansaku_k)s"
        )

    def _connection(self) -> AbstractContextManager[Any]:
        if isinstance(self.connect, Mapping):
            return pymysql.connect(**{"connect_timeout": math.ceil(self.timeout), **self.connect})
        return self.connect()


def _quoted(name: str) -> str:
    """A name in a statement with parameters, in which % is written %%."""
    return "`" + name.replace("`", "``").replace("%", "%%") + "`"


def _phrase(text: str) -> str:
    """A string in Groonga's query syntax."""
    return '"' + text.replace("\0", " ").replace("\\", "\\\\").replace('"', '\\"') + '"'
