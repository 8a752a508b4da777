"""The hits of some queries of a file, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from ...onnx_export.errors import InputError
from ...onnx_export.progress import Progress
from ..search.searcher import Searcher

Queries = Sequence[tuple[str, str]]  # ids and texts

_QUERIES_AT_ONCE = 256  # between two calls of ``progress``

SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)


def search_part(
    searcher: Searcher, version: int, queries: Queries, k: int, options: Mapping[str, Any], progress: Progress
) -> pa.Table:
    """Search some queries.

    Args:
        searcher: of the index.
        version: the version that all of the file is searched in.
        queries: the queries.
        k: number of hits for each.
        options: as `Searcher.search_many` takes them.
        progress: called with the stage "search" after every 256 queries.

    Returns:
        The hits, with the columns of `SCHEMA`.

    Raises:
        InputError: an option or query cannot be used, or the version has been removed.
        StorageError: the database cannot be read.
    """
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        some = queries[start : start + _QUERIES_AT_ONCE]
        found = searcher.search_many([text for _, text in some], k, fields=[], **options)
        for (query_id, _), hits in zip(some, found, strict=True):
            columns["query_id"] += [query_id] * len(hits)
            columns["rank"] += range(1, len(hits) + 1)
            columns["id"] += [hit.id for hit in hits]
            columns["score"] += [hit.score for hit in hits]
        progress("search", start + len(some), len(queries), 0)
    if searcher.version != version:  # the one that was open had been removed
        raise InputError(
            f"version {version} of the index was removed while it was searched; start over with resume=False "
            "(--no-resume)"
        )
    return pa.table(columns, schema=SCHEMA)
