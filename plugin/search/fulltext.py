"""Candidates from LanceDB's full-text search, their fusion with those of the inverted lists, and BM25 in the scores."""

from __future__ import annotations

import warnings

import numpy as np

from ...indexer.table.database import storage_errors
from ...indexer.table.fulltext import FULLTEXT_FIELD, normalized
from ...onnx_export.errors import InputError
from .filters import Allowed
from .stored_codes import StoredCodes

_RANK_OFFSET = 60  # k of reciprocal rank fusion (Cormack et al., 2009)


def check_text(codes: StoredCodes, query_text: str | None) -> str:
    """``query_text``, if the index can be searched for it by full text.

    Raises:
        InputError: The index was made without full text, or the query was given as vectors alone.
    """
    if not codes.index.header.fulltext:
        raise InputError(f"{codes.index.place()} was made without full text; make it with fulltext=True (--fulltext)")
    if query_text is None:
        raise InputError("candidates from full text need the query's text; use `search`")
    return query_text


def text_candidates(codes: StoredCodes, query_text: str, allowed: Allowed, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``limit`` best allowed rows by BM25; fewer if fewer share a word with the query.

    Args:
        codes: The index's codes.
        query_text: The query's text.
        allowed: Rows that may be returned; LanceDB applies their condition before it searches.
        limit: Number of rows.

    Returns:
        Row numbers, int64, and BM25 scores, float32, best first.
    """
    index = codes.index
    wanted = limit
    while True:
        with storage_errors(index.place()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            search = index.table.search(normalized(query_text), query_type="fts", fts_columns=FULLTEXT_FIELD)
            if allowed.condition is not None:
                search = search.where(allowed.condition, prefilter=True)
            found = search.select(["id", "_score"]).with_row_id(True).limit(wanted).to_arrow()
        rows = codes.rows_of(found["_rowid"].to_numpy())
        kept = rows >= 0
        kept[kept] = allowed.mask[rows[kept]]
        if np.count_nonzero(kept) >= limit or len(found) < wanted:
            return rows[kept][:limit], found["_score"].to_numpy()[kept][:limit]
        wanted *= 4  # the list of ids left too few


def fused(rankings: list[np.ndarray], limit: int) -> np.ndarray:
    """The ``limit`` best rows of several rankings by reciprocal rank fusion; int64, best first."""
    rows, places = np.unique(np.concatenate(rankings), return_inverse=True)
    ranks = np.concatenate([np.arange(len(ranking)) for ranking in rankings])
    scores = np.bincount(places, 1 / (_RANK_OFFSET + 1 + ranks), minlength=len(rows))
    return rows[np.lexsort((rows, -scores))[:limit]]


def with_bm25(
    rows: np.ndarray, scores: np.ndarray, by_text: np.ndarray, bm25: np.ndarray, weight: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rows ranked by score + ``weight`` × BM25.

    Args:
        rows: int64 (rows,), each once, best first; of equal sums the first stays first.
        scores: float32 (rows,).
        by_text: int64 (found,), rows that full-text search found; other rows have a BM25 of 0.
        bm25: float32 (found,), their BM25 scores.
        weight: Weight of BM25.

    Returns:
        Row numbers, int64, and the sums, float32, best first.
    """
    _, at, places = np.intersect1d(rows, by_text, assume_unique=True, return_indices=True)
    scores = scores.copy()
    scores[at] += np.float32(weight) * bm25[places]
    best = np.argsort(-scores, kind="stable")
    return rows[best], scores[best]
