"""Candidate generation: which rows may rank high, judged by the centroids of their tokens alone.

Probe: for each query token, the nearest centroids. In a large index these are too coarse, and their routing points take
their place (`indexer/derived/routing.py`). Gather: through inverted lists, an approximate MaxSim of every row with a
token in a probed list. Where a row has no token in any list probed for a query token, a share of the token's lowest
probed score stands in for the unknown similarity. (WARP, Scheerer et al., 2025, imputes the whole of it, the most that
the similarity can be; `benchmarks.search.routing` measures shares.) Prune: the best rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...indexer.derived.routing import Routing
from ..kernels.index_loops import best_rows, gather_from_lists
from ..kernels.query_layout import BlockTables
from ..kernels.query_loops import best_centroids, best_points
from .stored_codes import StoredCodes

# Ids of centroids or routing points, int32, and their scores, int16, both (query tokens, nprobe), best first.
Probed = tuple[np.ndarray, np.ndarray]

# Centroids whose routing points are scored, for each query token: so many that these have some times as many points as
# are probed. With fewer, the lowest probed score is too low to stand in for what is unknown.
_POINTS_PER_PROBE = 2
_FEWEST_CENTROIDS = 8
# Of a token's lowest probed score: what is imputed where a row has no token in a probed list.
IMPUTED_SHARE = 0.85


def probe(tables: list[BlockTables], nprobe: int, routing: Routing | None = None) -> list[Probed]:
    """The ``nprobe`` best lists of each query token, or all if there are fewer; block by block.

    Args:
        tables: The query's tables.
        nprobe: Number of lists.
        routing: The index's routing points; None if its lists are of centroids.
    """
    if routing is None:
        return [
            best_centroids(block.centroid_scores, block.n_tokens, min(nprobe, len(block.centroid_scores)))
            for block in tables
        ]
    return [_probe_points(block, nprobe, routing) for block in tables]


def _probe_points(block: BlockTables, nprobe: int, routing: Routing) -> Probed:
    n_centroids = len(block.centroid_scores)
    wanted = max(_FEWEST_CENTROIDS, -(-_POINTS_PER_PROBE * nprobe * n_centroids // len(routing)))
    near, _ = best_centroids(block.centroid_scores, block.n_tokens, min(wanted, n_centroids))
    best_first = near.T.ravel()
    _, places = np.unique(best_first, return_index=True)
    centroids = best_first[np.sort(places)]
    n_points = int((routing.offsets[centroids + 1] - routing.offsets[centroids]).sum())
    return best_points(
        block.centroid_scores,
        block.residual_scores,
        block.n_tokens,
        min(nprobe, n_points),
        centroids,
        routing.offsets,
        routing.residuals,
    )


@dataclass(frozen=True)
class Gathered:
    """What the inverted lists say of an index's rows.

    Attributes:
        scores: int32 (all rows,): approximate MaxSim in the unit of the query tables, less the score of a row without a
            token in a probed list, which is 0.
        rows: int64 (rows,): numbers of the rows with another score than 0, in no particular order.
    """

    scores: np.ndarray
    rows: np.ndarray


def gather(codes: StoredCodes, probed: list[Probed]) -> Gathered:
    """Approximate MaxSim of all rows, through the lists that were probed."""
    scores = np.zeros(len(codes.row_ids), np.int32)
    imputed = [imputed_scores(of_lists) for _, of_lists in probed]
    found = [np.empty(0, np.int64)]
    for first_row, segment in codes.segments:
        of_segment = scores[first_row : first_row + len(segment)]
        touched, n = np.empty(len(segment), np.int32), 0
        lists = segment.lists
        for (list_ids, of_lists), instead in zip(probed, imputed, strict=True):
            n = gather_from_lists(lists.offsets, lists.postings, list_ids, of_lists, instead, of_segment, touched, n)
        found.append(touched[:n].astype(np.int64) + first_row)
    return Gathered(scores, np.concatenate(found))


def imputed_scores(probed_scores: np.ndarray, share: float = IMPUTED_SHARE) -> np.ndarray:
    """What stands for the similarity of a query token with a row that has no token in its probed lists.

    Args:
        probed_scores: int16 (query tokens, nprobe), best first.
        share: Share of the lowest of them.

    Returns:
        int32 (query tokens,).
    """
    lowest = probed_scores[:, -1]
    return (lowest - (1 - share) * np.maximum(lowest, 0)).astype(np.int32)


def prune(gathered: Gathered, allowed: np.ndarray, limit: int, row_ids: np.ndarray) -> np.ndarray:
    """The allowed rows with the highest approximate scores.

    Args:
        gathered: The rows' approximate scores.
        allowed: bool (all rows,).
        limit: Number of rows; all if there are fewer.
        row_ids: uint64 (all rows,): of rows with equal scores, those with lower ids come first: they were written
            first.

    Returns:
        Row numbers, int64, best first.
    """
    rows = gathered.rows[allowed[gathered.rows]]
    if len(rows) < limit:  # then also rows that no probed list has
        rows = np.flatnonzero(allowed)
    rows = best_rows(gathered.scores, rows, limit)
    return rows[np.lexsort((row_ids[rows], -gathered.scores[rows].astype(np.int64)))[:limit]]
