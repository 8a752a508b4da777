"""Refine: MaxSim over the stored codes of the candidates.

First in integers, over all candidates; then in float32, over the best of them. The second round is needed because
cosines of ColBERT models lie close together, and the integers leave out that decoded vectors are scaled to unit length,
and what phrases add.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from ...indexer.codec.codec import ResidualCodec
from ..kernels.index_loops import float_maxsim, integer_maxsim
from ..kernels.query_layout import BlockTables, QueryLanes
from .stored_codes import Part

_FIRST_ROUND = 64  # rows
_RESCORED = 14  # rows beyond the hits that are scored again in float32, or half the number of hits if that is more
_ROWS_READ_AT_ONCE = 4096  # where all are scored


class RowsOfCodes(Protocol):
    """Codes of rows: of an index (`StoredCodes`), or of rows that a database gave."""

    codec: ResidualCodec
    row_ids: np.ndarray
    """(rows,): among rows with equal scores those with the lowest come first."""

    def parts(self, rows: np.ndarray) -> Iterator[Part]:
        """The codes of ``rows``, int64 and ascending."""
        ...


def refine(
    codes: RowsOfCodes,
    tables: list[BlockTables],
    query_lanes: QueryLanes,
    candidates: np.ndarray,
    depth: int,
    approximate_of_candidates: np.ndarray | None = None,
    margin: float = np.inf,
    sure: int | None = None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """The ``depth`` best candidates by MaxSim.

    With approximate scores the candidates are scored in rounds, in the order of those. The rows scored so far show how
    far scores lie above the approximate ones, and how much they scatter. When the next candidate would have to lie
    ``margin`` standard deviations above that to be among the ``sure`` best, the rest is left out.

    Args:
        codes: The codes.
        tables: The query's tables, block by block.
        query_lanes: The same query for scoring in float32.
        candidates: int64 row numbers, those with the highest approximate scores first.
        depth: Number of rows wanted.
        approximate_of_candidates: int32 (candidates,), falling: the candidates' approximate scores, in the unit of the
            tables. All may be lower by the same amount: only differences between them count.
        margin: Number of standard deviations.
        sure: Number of rows that the margin holds for; None: all ``depth``.

    Returns:
        Up to ``depth`` row numbers, int64, and their MaxSim, float32, best first; rows with equal scores are in the
        order in which they were written. And the number of candidates that were scored.
    """
    scores = np.empty(len(candidates), np.int64)
    sure = sure or depth
    done = 0
    while done < len(candidates):
        if approximate_of_candidates is None:
            size = len(candidates)
        else:
            size = max(_FIRST_ROUND if done else _FIRST_ROUND + depth, done // 2)
        rows = candidates[done : done + size]
        scores[done : done + size] = _integer_scores(codes, tables, rows)
        done += len(rows)
        if approximate_of_candidates is not None and done < len(candidates):
            above = scores[:done] - approximate_of_candidates[:done]
            reachable = approximate_of_candidates[done] + above.mean() + margin * above.std()
            if reachable < np.partition(scores[:done], done - sure)[done - sure]:
                break
    rows, scores = candidates[:done], scores[:done]
    limit = depth + max(depth // 2, _RESCORED)
    if done > limit:
        rows = rows[scores >= np.partition(scores, done - limit)[done - limit]]
    return *best_scored(codes, query_lanes, np.sort(rows), depth), done


def _integer_scores(codes: RowsOfCodes, tables: list[BlockTables], rows: np.ndarray) -> np.ndarray:
    """MaxSim of ``rows``, in any order: int64 (rows,), in the unit of the tables."""
    order = np.argsort(rows)
    scores = np.zeros(len(rows), np.int64)
    for part in codes.parts(rows[order]):
        for block in tables:
            scores[order[part.positions]] += integer_maxsim(
                block.centroid_scores,
                block.residual_scores,
                block.n_tokens,
                block.slack,
                part.centroid_ids,
                part.residuals,
                part.starts,
                part.ends,
            )
    return scores


def best_scored(
    codes: RowsOfCodes, query_lanes: QueryLanes, rows: np.ndarray, depth: int
) -> tuple[np.ndarray, np.ndarray]:
    """The ``depth`` best of ``rows``, int64 and ascending, all scored in float32; returned as by `refine`."""
    scores = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _ROWS_READ_AT_ONCE):
        at_once = rows[start : start + _ROWS_READ_AT_ONCE]
        scores[start : start + _ROWS_READ_AT_ONCE] = maxsim(codes, query_lanes, at_once)
    if depth < len(rows):
        kept = scores >= np.partition(scores, len(scores) - depth)[len(scores) - depth]
        rows, scores = rows[kept], scores[kept]
    best = np.lexsort((codes.row_ids[rows], -scores))[:depth]
    return rows[best], scores[best]


def maxsim(codes: RowsOfCodes, query_lanes: QueryLanes, rows: np.ndarray) -> np.ndarray:
    """MaxSim of rows in float32, over decoded vectors of unit length: float32 (rows,).

    Args:
        codes: The codes.
        query_lanes: The query for scoring in float32.
        rows: int64 row numbers, ascending.
    """
    codec = codes.codec
    scores = np.zeros(len(rows), np.float32)
    for part in codes.parts(rows):
        for block, weights in zip(query_lanes.blocks, query_lanes.weights, strict=True):
            scores[part.positions] += float_maxsim(
                block,
                weights,
                query_lanes.phrase_weight,
                codec.centroids,
                codec.codewords,
                part.centroid_ids,
                part.residuals,
                part.starts,
                part.ends,
            )
    return scores
