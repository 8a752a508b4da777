"""Candidate generation: which documents may rank high, judged by their tokens' centroids alone.

Probe: for every query token, the centroids nearest to it. Gather: through inverted lists, every document with a
token at a probed centroid, and an approximate MaxSim for each. A document without a token at any centroid probed
for a query token gets that token's lowest probed score in place of the unknown similarity (the imputation of WARP,
Scheerer et al., 2025): its true value can hardly be higher.
"""

from __future__ import annotations

import numpy as np

from ..indexer.postings import InvertedLists


def probe(query: np.ndarray, centroids: np.ndarray, nprobe: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``nprobe`` best centroids of each query token.

    Args:
        query: float32 (query tokens, dim).
        centroids: float32 (n_centroids, dim).
        nprobe: how many; all if there are fewer.

    Returns:
        Their ids, int64, and scores, float32, both (query tokens, nprobe), worst first.
    """
    scores = query @ centroids.T
    nprobe = min(nprobe, len(centroids))
    best = np.argpartition(scores, len(centroids) - nprobe, axis=1)[:, len(centroids) - nprobe :]
    best_scores = np.take_along_axis(scores, best, axis=1)
    order = np.argsort(best_scores, axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1), np.take_along_axis(best_scores, order, axis=1)


def gather(
    lists: InvertedLists, n_documents: int, centroid_ids: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Approximate MaxSim of every document that the probed centroids reach.

    Args:
        lists: the inverted lists.
        n_documents: how many documents they are of.
        centroid_ids: int64 (query tokens, nprobe), as `probe` returns them.
        scores: float32 (query tokens, nprobe).

    Returns:
        Document numbers, int64, ascending, and their approximate scores, float64.
    """
    total = np.zeros(n_documents)
    reached = np.zeros(n_documents, bool)
    for token_ids, token_scores in zip(centroid_ids, scores, strict=True):
        token_best = np.full(n_documents, token_scores[0], np.float64)
        # Worst centroid first: a better one found later takes its place, which is the maximum.
        for centroid, score in zip(token_ids, token_scores, strict=True):
            documents = lists.postings[lists.offsets[centroid] : lists.offsets[centroid + 1]]
            token_best[documents] = score
            reached[documents] = True
        total += token_best
    documents = np.flatnonzero(reached)
    return documents, total[documents]


def prune(documents: np.ndarray, scores: np.ndarray, limit: int) -> np.ndarray:
    """The ``limit`` documents with the best approximate scores, those that come first where scores tie.

    Args:
        documents: int64 (n,).
        scores: float64 (n,).
        limit: how many; all if there are no more than that.

    Returns:
        Some of ``documents``, in their order.
    """
    if len(documents) <= limit:
        return documents
    last = np.partition(scores, len(scores) - limit)[len(scores) - limit]
    kept = scores > last
    kept[np.flatnonzero(scores == last)[: limit - np.count_nonzero(kept)]] = True
    return documents[kept]
