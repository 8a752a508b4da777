"""Candidates from LanceDB's full text search, their fusion with those of the inverted lists, and BM25 in the scores."""

from __future__ import annotations

import warnings

import numpy as np

from ...indexer.table.database import storage_errors
from ...indexer.table.fulltext import FULLTEXT_FIELD, normalized
from ...onnx_export.errors import InputError
from .filters import Allowed
from .stored_codes import Codes

_RANK_OFFSET = 60  # of reciprocal rank fusion (Cormack et al., 2009)


def check_text(codes: Codes, query: str | None) -> str:
    """``query``, if full text can be searched for it.

    Raises InputError if the index has no full text, or the query was given as vectors alone.
    """
    if not codes.index.header.fulltext:
        raise InputError(f"{codes.index.place()} was made without full text; make it with fulltext=True (--fulltext)")
    if query is None:
        raise InputError("candidates from full text need the query's text; use `search`")
    return query


def text_candidates(
    codes: Codes, query: str, allow: Allowed, where: str | None, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """The ``limit`` best allowed documents by BM25; fewer where fewer share a word with the query.

    Args:
        codes: of the index.
        query: the query's text.
        allow: documents that may be returned.
        where: the condition that ``allow`` is of, for LanceDB to look at first; or None.
        limit: how many.

    Returns:
        Their numbers, int64, and BM25, float32, best first.
    """
    index = codes.index
    wanted = limit
    while True:
        with storage_errors(index.place()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            search = index.table.search(normalized(query), query_type="fts", fts_columns=FULLTEXT_FIELD)
            if where is not None:
                search = search.where(where, prefilter=True)
            rows = search.select(["id", "_score"]).with_row_id(True).limit(wanted).to_arrow()
        numbers = codes.numbers(rows["_rowid"].to_numpy())
        there = numbers >= 0
        there[there] = allow.mask[numbers[there]]
        if np.count_nonzero(there) >= limit or len(rows) < wanted:
            return numbers[there][:limit], rows["_score"].to_numpy()[there][:limit]
        wanted *= 4  # the list of ids left too few


def fused(rankings: list[np.ndarray], limit: int) -> np.ndarray:
    """The ``limit`` best of several rankings of document numbers by reciprocal rank fusion; int64, best first."""
    documents, places = np.unique(np.concatenate(rankings), return_inverse=True)
    ranks = np.concatenate([np.arange(len(ranking)) for ranking in rankings])
    scores = np.bincount(places, 1 / (_RANK_OFFSET + 1 + ranks), minlength=len(documents))
    return documents[np.lexsort((documents, -scores))[:limit]]


def with_bm25(
    ranked: np.ndarray, scores: np.ndarray, found: np.ndarray, bm25: np.ndarray, weight: float
) -> tuple[np.ndarray, np.ndarray]:
    """Documents ranked by their scores and ``weight`` times their BM25, and these sums: int64 and float32, best first.

    Args:
        ranked: int64 (documents,), different ones, best first; of equal sums the first stays first.
        scores: float32 (documents,).
        found: int64 (found,), documents that full text search found.
        bm25: float32 (found,), theirs; that of another document counts as 0.
        weight: of BM25.
    """
    _, theirs, places = np.intersect1d(ranked, found, assume_unique=True, return_indices=True)
    scores = scores.copy()
    scores[theirs] += np.float32(weight) * bm25[places]
    best = np.argsort(-scores, kind="stable")
    return ranked[best], scores[best]
