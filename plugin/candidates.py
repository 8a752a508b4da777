"""Candidate generation: which documents may rank high, judged by their tokens' centroids alone.

Probe: for every query token, the centroids nearest to it. Gather: through inverted lists, every document with a
token at a probed centroid, and an approximate MaxSim for each. A document without a token at any centroid probed
for a query token gets that token's lowest probed score in place of the unknown similarity (the imputation of WARP,
Scheerer et al., 2025): its true value can hardly be higher.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class InvertedLists:
    """For each centroid the documents that have a token there (compressed sparse rows).

    Attributes:
        offsets: int64 (n_centroids + 1,); the list of centroid c is ``postings[offsets[c]:offsets[c + 1]]``.
        postings: int64, document numbers, ascending and without repetition within a list.
        n_documents: how many documents there are.
    """

    offsets: np.ndarray
    postings: np.ndarray
    n_documents: int

    @classmethod
    def build(cls, centroid_ids: np.ndarray, doc_offsets: np.ndarray, n_centroids: int) -> InvertedLists:
        """Invert the documents' centroid ids.

        Args:
            centroid_ids: integer (tokens,), of all documents one after the other.
            doc_offsets: int64 (n_documents + 1,): where each document's tokens begin.
            n_centroids: how many centroids there are.
        """
        n_documents = len(doc_offsets) - 1
        documents = np.repeat(np.arange(n_documents), np.diff(doc_offsets))
        pairs = np.unique(centroid_ids.astype(np.int64) * n_documents + documents)
        offsets = np.searchsorted(pairs, np.arange(n_centroids + 1) * n_documents)
        return cls(offsets, pairs % n_documents if n_documents else pairs, n_documents)


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


def gather(lists: InvertedLists, centroid_ids: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Approximate MaxSim of every document that the probed centroids reach.

    Args:
        lists: the inverted lists.
        centroid_ids: int64 (query tokens, nprobe), as `probe` returns them.
        scores: float32 (query tokens, nprobe).

    Returns:
        Document numbers, int64, ascending, and their approximate scores, float64.
    """
    total = np.zeros(lists.n_documents)
    reached = np.zeros(lists.n_documents, bool)
    for token_ids, token_scores in zip(centroid_ids, scores, strict=True):
        token_best = np.full(lists.n_documents, token_scores[0], np.float64)
        # Worst centroid first: a better one found later takes its place, which is the maximum.
        for centroid, score in zip(token_ids, token_scores, strict=True):
            documents = lists.postings[lists.offsets[centroid] : lists.offsets[centroid + 1]]
            token_best[documents] = score
            reached[documents] = True
        total += token_best
    documents = np.flatnonzero(reached)
    return documents, total[documents]


def prune(documents: np.ndarray, scores: np.ndarray, limit: int) -> np.ndarray:
    """The ``limit`` documents with the best approximate scores, ascending; all if there are no more than that."""
    if len(documents) <= limit:
        return documents
    best = np.argpartition(-scores, limit - 1)[:limit]
    return np.sort(documents[best])
