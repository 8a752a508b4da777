"""The nearest rows of a pgvector column: all that are asked for, also where an index over the vectors stops early."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import psycopg
from psycopg import sql

from ...onnx_export.errors import InputError
from ..rerank.host_search import HostError

Distance = Literal["cosine", "inner_product", "l2", "l1"]
_OPERATORS = {
    "cosine": sql.SQL("<=>"),
    "inner_product": sql.SQL("<#>"),
    "l2": sql.SQL("<->"),
    "l1": sql.SQL("<+>"),
}
_MAX_WIDTH = 1000  # pgvector's limit of hnsw.ef_search
_ITERATIVE = (0, 8)  # the first version that scans an index until enough rows are found
# In one statement, since a server may be far away.
_LOOK_FURTHER = """
SELECT set_config(
    'hnsw.ef_search', greatest(%s, coalesce(current_setting('hnsw.ef_search', true), '0')::int)::text, true
), CASE WHEN (string_to_array(extversion, '.'))[1:2]::int[] >= %s::int[] THEN
    set_config('hnsw.iterative_scan', 'relaxed_order', true)
    || set_config('ivfflat.iterative_scan', 'relaxed_order', true)
END FROM pg_extension WHERE extname = 'vector'
"""

Row = tuple[Any, ...]


def check_distance(distance: str) -> None:
    """Raises InputError for a distance that pgvector does not have."""
    if distance not in _OPERATORS:
        raise InputError(f"unknown distance {distance!r}; use one of {', '.join(get_args(Distance))}")


def vector_literal(values: Sequence[float]) -> str:
    """The vector of a question as pgvector writes it; raises InputError for what is no vector of finite numbers."""
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise InputError(f"query_vector gave {values!r:.100}; it must give a list of numbers") from error
    if not any(numbers) or not all(map(math.isfinite, numbers)):
        raise InputError("query_vector gave a vector that is empty, all zeros or not finite; mend it or the query")
    return f"[{','.join(map(repr, numbers))}]"


def distance_of(column: str, distance: Distance) -> sql.Composable:
    """The distance of a row from ``%(tansaku_vector)s``, which takes the column's type, vector or halfvec."""
    # A type such as ::vector would keep a column of halfvec from its index.
    return sql.SQL("{} {} %(tansaku_vector)s").format(sql.Identifier(column), _OPERATORS[distance])


def score(distance: Distance, value: float) -> float:
    """A score, higher is better: the cosine, the inner product, or the distance with a minus sign."""
    return 1 - value if distance == "cosine" else -value


def nearest(
    cursor: psycopg.Cursor[Row],
    statement: Callable[[sql.Composable], sql.Composed],
    distance: sql.Composable,
    values: Mapping[str, Any],
    k: int,
) -> list[Row]:
    """The ``k`` nearest rows, or all if there are fewer.

    An index returns fewer rows than there are, without a word: HNSW as many as its width (40 by default), and under a
    condition only those among them that it holds for. So the index is scanned until ``k`` are found (pgvector 0.8 and
    later). Where even that ends early (``hnsw.max_scan_tuples``, or an older pgvector), all rows are compared.

    Args:
        cursor: a cursor in a transaction.
        statement: makes the search, for the expression that it is ordered by.
        distance: that expression, see `distance_of`.
        values: parameters of the search.
        k: number of rows.

    Returns:
        Rows of id, distance and texts, nearest first, ties by id. A row without a distance is left out: it has no
        vector, or one that is all zeros under the cosine.

    Raises:
        HostError: the database has no pgvector.
    """
    look_further(cursor, k)
    rows = cursor.execute(statement(distance), values).fetchall()
    if len(rows) < k:  # no index has an expression with a sum
        rows = cursor.execute(statement(sql.SQL("({}) + 0").format(distance)), values).fetchall()
    measured = [row for row in rows if row[1] is not None and not math.isnan(row[1])]
    return sorted(measured, key=lambda row: (row[1], str(row[0])))


def look_further(cursor: psycopg.Cursor[Row], k: int) -> None:
    """Lets the indexes look further, in this transaction alone; a width that is set already is never made smaller."""
    found = cursor.execute(_LOOK_FURTHER, [min(2 * k, _MAX_WIDTH), list(_ITERATIVE)]).fetchone()
    if found is None:
        raise HostError("PostgreSQL cannot search vectors: this database has no pgvector; CREATE EXTENSION vector")
