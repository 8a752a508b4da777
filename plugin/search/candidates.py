"""Candidate generation: which documents may rank high, judged by their tokens' centroids alone.

Probe: for every query token, the centroids nearest to it. Gather: through inverted lists, an approximate MaxSim for
every document with a token at a probed centroid. A document without a token at any centroid probed for a query token
gets that token's lowest probed score in place of the unknown similarity (the imputation of WARP, Scheerer et al.,
2025): its true value can hardly be higher. Prune: the best of them.
"""

from __future__ import annotations

import numpy as np

from ..kernels import dispatch as engine
from ..kernels.query_layout import QueryTables
from .stored_codes import Codes

# Centroid ids, int32, and their scores, int16, both (query tokens, nprobe), best first.
Probed = tuple[np.ndarray, np.ndarray]


def probe(tables: list[QueryTables], nprobe: int) -> list[Probed]:
    """The ``nprobe`` best centroids of each query token, all if there are fewer; block by block."""
    return [
        engine.probe(block.centroid_scores, block.n_tokens, min(nprobe, len(block.centroid_scores))) for block in tables
    ]


def gather(codes: Codes, probed: list[Probed]) -> np.ndarray:
    """Approximate MaxSim of all documents, int32 (documents,): scaled, less what a document met nowhere would have."""
    total = np.zeros(len(codes.row_ids), np.int32)
    for base, segment in codes.segments:
        part = total[base : base + len(segment)]
        for centroid_ids, scores in probed:
            engine.gather(segment.lists.offsets, segment.lists.postings, centroid_ids, scores, part)
    return total


def prune(codes: Codes, total: np.ndarray, allowed: np.ndarray, limit: int) -> np.ndarray:
    """The ``limit`` allowed documents with the highest totals.

    Args:
        codes: says which document was written first.
        total: int32 (documents,).
        allowed: bool (documents,).
        limit: how many; all if there are fewer.

    Returns:
        Their numbers, int64, best first; of equal totals those first written.
    """
    documents = engine.select(total, allowed, limit)
    return documents[np.lexsort((codes.row_ids[documents], -total[documents].astype(np.int64)))[:limit]]
