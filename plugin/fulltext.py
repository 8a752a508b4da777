"""Candidates from LanceDB's full text search, and their fusion with those of the inverted lists."""

from __future__ import annotations

import warnings

import numpy as np

from ..indexer.database import storage_errors
from ..indexer.fulltext import FULLTEXT_FIELD, normalized
from ..onnx_export import InputError
from .codes import Codes
from .filters import Allowed

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


def text_candidates(codes: Codes, query: str, allow: Allowed, where: str | None, limit: int) -> np.ndarray:
    """The ``limit`` best allowed documents by BM25, int64, best first; fewer where fewer share a word with the query.

    Args:
        codes: of the index.
        query: the query's text.
        allow: documents that may be returned.
        where: the condition that ``allow`` is of, for LanceDB to look at first; or None.
        limit: how many.
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
        found = numbers[numbers >= 0]
        found = found[allow.mask[found]]
        if len(found) >= limit or len(rows) < wanted:
            return found[:limit]
        wanted *= 4  # the list of ids left too few


def fused(rankings: list[np.ndarray], limit: int) -> np.ndarray:
    """The ``limit`` best of several rankings of document numbers by reciprocal rank fusion; int64, best first."""
    documents, places = np.unique(np.concatenate(rankings), return_inverse=True)
    ranks = np.concatenate([np.arange(len(ranking)) for ranking in rankings])
    scores = np.bincount(places, 1 / (_RANK_OFFSET + 1 + ranks), minlength=len(documents))
    return documents[np.lexsort((documents, -scores))[:limit]]
