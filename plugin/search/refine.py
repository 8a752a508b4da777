"""Refine: MaxSim over the stored codes of the candidates.

First with integers over all of them, then in float32 over the best: cosines of ColBERT models lie close together, and
the integers leave out that decoded vectors are brought to unit length, and what `phrases` adds.
"""

from __future__ import annotations

import numpy as np

from ..kernels import dispatch as engine
from ..kernels.query_layout import QueryTables, QueryVectors
from .stored_codes import Codes

_FIRST_ROUND = 64  # documents
_RESCORED = 14  # documents beyond the hits that are scored again in float32, or half as many as the hits if more
_TOGETHER = 4096  # documents whose codes are read at a time where all are scored


def refine(
    codes: Codes,
    tables: list[QueryTables],
    vectors: QueryVectors,
    documents: np.ndarray,
    k: int,
    expected: np.ndarray | None = None,
    margin: float = np.inf,
) -> tuple[np.ndarray, np.ndarray, int]:
    """The best of the candidates, ranked: those that can be among the first ``k``.

    With ``expected`` scores the candidates come in rounds, best expected first. What is scored already shows how far
    scores lie above the expected ones, and how much they scatter; when the next candidate would have to lie ``margin``
    standard deviations above that to come among the first ``k``, the others are left out.

    Args:
        codes: theirs are scored.
        tables: of the query.
        vectors: of the query.
        documents: int64, best expected first.
        k: how many are wanted.
        expected: int32 (documents,), falling: scores by another measure in the same units, up to a constant.
        margin: standard deviations.

    Returns:
        ``k`` of the documents if there are so many, and their MaxSim, float32, best first and of equal ones those first
        written; and how many documents were scored.
    """
    scores = np.empty(len(documents), np.int64)
    done = 0
    while done < len(documents):
        size = len(documents) if expected is None else max(_FIRST_ROUND + k if not done else _FIRST_ROUND, done // 2)
        some = documents[done : done + size]
        scores[done : done + size] = _integers(codes, tables, some)
        done += len(some)
        if expected is not None and done < len(documents):
            above = scores[:done] - expected[:done]
            reachable = expected[done] + above.mean() + margin * above.std()
            if reachable < np.partition(scores[:done], done - k)[done - k]:
                break
    documents, scores = documents[:done], scores[:done]
    limit = k + max(k // 2, _RESCORED)
    if done > limit:
        documents = documents[scores >= np.partition(scores, done - limit)[done - limit]]
    return *score(codes, vectors, np.sort(documents), k), done


def score(codes: Codes, vectors: QueryVectors, documents: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` best of ``documents``, int64 and ascending, all of which are scored in float32; ranked as `refine`."""
    scores = np.empty(len(documents), np.float32)
    for start in range(0, len(documents), _TOGETHER):
        some = documents[start : start + _TOGETHER]
        scores[start : start + _TOGETHER] = maxsim(codes, vectors, some)
    if k < len(documents):
        kept = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
        documents, scores = documents[kept], scores[kept]
    best = np.lexsort((codes.row_ids[documents], -scores))[:k]
    return documents[best], scores[best]


def _integers(codes: Codes, tables: list[QueryTables], documents: np.ndarray) -> np.ndarray:
    """MaxSim of documents in any order, int64, scaled as the tables are."""
    order = np.argsort(documents)
    scores = np.zeros(len(documents), np.int64)
    for part in codes.parts(documents[order]):
        for block in tables:
            scores[order[part.positions]] += engine.refine(
                block.centroid_scores,
                block.codes,
                block.n_tokens,
                block.slack,
                part.centroid_ids,
                part.residuals,
                part.starts,
                part.ends,
            )
    return scores


def maxsim(codes: Codes, vectors: QueryVectors, documents: np.ndarray) -> np.ndarray:
    """MaxSim of documents in float32 over decoded vectors of unit length: float32 (documents,).

    Args:
        codes: theirs are scored.
        vectors: of the query.
        documents: int64, ascending.
    """
    codec = codes.codec
    scores = np.zeros(len(documents), np.float32)
    for part in codes.parts(documents):
        for block, weights in zip(vectors.blocks, vectors.weights, strict=True):
            scores[part.positions] += engine.rescore(
                block,
                weights,
                vectors.phrase_weight,
                codec.centroids,
                codec.codewords,
                part.centroid_ids,
                part.residuals,
                part.starts,
                part.ends,
            )
    return scores
