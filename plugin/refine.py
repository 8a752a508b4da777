"""Refine: MaxSim over the stored codes of the candidates.

First with integers over all of them, then in float32 over the best: cosines of ColBERT models lie close together, and
the integers leave out that decoded vectors are brought to unit length.
"""

from __future__ import annotations

import numpy as np

from . import engine
from .codes import Codes, Part
from .tables import QueryTables

_RESCORED_AT_LEAST = 24
_TOGETHER = 4096  # documents whose codes are read at a time where all are scored


def refine(codes: Codes, tables: list[QueryTables], documents: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The best ``documents``, ranked: those that can be among the first ``k``.

    Args:
        codes: theirs are scored.
        tables: of the query.
        documents: int64, ascending.
        k: how many are wanted.

    Returns:
        At least ``k`` of the documents if there are so many, and their MaxSim, float32, best first; of equal ones
        those first written.
    """
    parts = list(codes.parts(documents))
    limit = max(2 * k, _RESCORED_AT_LEAST)
    kept = np.ones(len(documents), bool)
    if len(documents) > limit:
        scores = np.zeros(len(documents), np.int64)
        for part in parts:
            for block in tables:
                scores[part.positions] += engine.refine(
                    block.centroid_scores, block.codes, part.centroid_ids, part.residuals, part.starts, part.ends
                )
        kept = scores >= np.partition(scores, len(scores) - limit)[len(scores) - limit]
    scores = _rescore(codes, tables, [part.only(kept) for part in parts], len(documents))
    return _ranked(codes, documents[kept], scores[kept])


def score(codes: Codes, tables: list[QueryTables], documents: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` best of ``documents``, all of which are scored in float32; otherwise as `refine`."""
    scores = np.empty(len(documents), np.float32)
    for start in range(0, len(documents), _TOGETHER):
        some = documents[start : start + _TOGETHER]
        scores[start : start + _TOGETHER] = _rescore(codes, tables, list(codes.parts(some)), len(some))
    if k < len(documents):
        kept = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
        documents, scores = documents[kept], scores[kept]
    return _ranked(codes, documents, scores)


def _rescore(codes: Codes, tables: list[QueryTables], parts: list[Part], count: int) -> np.ndarray:
    """MaxSim of ``count`` documents in float32, over decoded vectors of unit length; 0 where no part has one."""
    codec = codes.codec
    scores = np.zeros(count, np.float32)
    for part in parts:
        for block in tables:
            scores[part.positions] += engine.rescore(
                block.vectors,
                codec.centroids,
                codec.codewords,
                part.centroid_ids,
                part.residuals,
                part.starts,
                part.ends,
            )
    return scores


def _ranked(codes: Codes, documents: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((codes.row_ids[documents], -scores))
    return documents[order], scores[order]
