"""Rankings to measure: many queries through a searcher at once, and exact MaxSim to compare them with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ...onnx_export.cores import usable_cores
from ...onnx_export.progress import Progress, no_progress
from ..search.searcher import Searcher
from .judgements import Run

_QUERIES_AT_ONCE = 64  # between two calls of ``progress``


def search_all(
    searcher: Searcher,
    queries: Mapping[str, str],
    *,
    k: int = 10,
    progress: Progress = no_progress,
    **options: Any,
) -> Run:
    """The ``k`` best documents for every query, by `Searcher.search_many`.

    In an index of passages a document has the score of its best passage; with the option ``passages``, the ids and
    scores are those of passages.

    Args:
        searcher: of an index.
        queries: query id → text.
        k: documents for each query.
        progress: called with the stage "search" after every 64 queries.
        **options: as `Searcher.search` takes them.

    Returns:
        Query id → document id → score, best first.

    Raises:
        InputError: an option or a query that cannot be used.
    """
    run: Run = {}
    items = list(queries.items())
    for start in range(0, len(items), _QUERIES_AT_ONCE):
        some = items[start : start + _QUERIES_AT_ONCE]
        found = searcher.search_many([text for _, text in some], k, fields=[], **options)
        for (query_id, _), hits in zip(some, found, strict=True):
            run[query_id] = {hit.id: hit.score for hit in hits}
        progress("search", len(run), len(items), 0)
    return run


def rank_all(
    searcher: Searcher,
    queries: Mapping[str, np.ndarray],
    *,
    k: int = 10,
    progress: Progress = no_progress,
    **options: Any,
) -> Run:
    """`search_all` for queries that are encoded already.

    Args:
        searcher: of an index.
        queries: query id → vectors, float32 (tokens, dim).
        k: documents for each query.
        progress: called with the stage "search" after each query.
        **options: as `Searcher.search` takes them.

    Returns:
        Query id → document id → score, best first.

    Raises:
        InputError: an option or a query that cannot be used.
    """
    ranked: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def rank(query_id: str) -> tuple[np.ndarray, np.ndarray]:
        return searcher.rank_vectors(queries[query_id], k, **options)

    with ThreadPoolExecutor(usable_cores()) as pool:
        for query_id, found in zip(queries, pool.map(rank, queries), strict=True):
            ranked[query_id] = found
            progress("search", len(ranked), len(queries), 0)
    if not ranked:
        return {}
    rows = np.unique(np.concatenate([rows for rows, _ in ranked.values()]))
    named = searcher.ids(rows) if options.get("passages") else searcher.document_ids(rows)
    ids = dict(zip(rows.tolist(), named, strict=True))
    return {
        query_id: {ids[row]: score for row, score in zip(rows.tolist(), scores.tolist(), strict=True)}
        for query_id, (rows, scores) in ranked.items()
    }


def exact_maxsim(queries: Sequence[np.ndarray], documents: Sequence[np.ndarray]) -> np.ndarray:
    """MaxSim of every query with every document.

    Args:
        queries: float32 (tokens, dim) each.
        documents: float32 (tokens, dim) each; none may be empty.

    Returns:
        float32 (queries, documents).
    """
    scores = np.empty((len(queries), len(documents)), np.float32)
    tokens, firsts = np.concatenate(documents), np.cumsum([0, *map(len, documents[:-1])])
    for i, query in enumerate(queries):
        scores[i] = np.maximum.reduceat(query @ tokens.T, firsts, axis=1).sum(axis=0)
    return scores
