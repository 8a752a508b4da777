"""Candidates that many queries share: clusters of near passages, each for all the queries that belong to it.

A training step spends its time on distinct passages. A query with its own negatives adds as many as its group has; all
queries of a cluster together add the passages of the cluster, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def cluster_passages(vectors: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Divide passages into clusters.

    Passages are taken in random order. One that has no cluster yet makes one with the nearest that have none. All
    clusters have ``size`` passages, except that the last may have fewer.

    Args:
        vectors: float32 (passages, dim), of unit length.
        size: number of passages of a cluster.
        seed: seed of the order.

    Returns:
        The cluster of each passage, int64 (passages,).
    """
    clusters = np.full(len(vectors), -1, np.int64)
    number = 0
    for passage in np.random.default_rng(seed).permutation(len(vectors)):
        if clusters[passage] < 0:
            free = np.flatnonzero(clusters < 0)
            near = vectors[free] @ vectors[passage]
            near[free == passage] = np.inf  # itself, however many are equal to it
            clusters[free[np.argsort(-near, kind="stable")[:size]]] = number
            number += 1
    return clusters


def shared_candidates(
    queries: Sequence[str],
    ids: Sequence[str],
    clusters: np.ndarray,
    candidates: Sequence[Mapping[str, Sequence[str]]],
    positives: Mapping[str, Sequence[str]],
) -> dict[str, list[str]]:
    """The passages of each query's cluster.

    A query belongs to the cluster of its first relevant passage, or else of the best candidate of the first engine that
    has any. A query without either is left out.

    Args:
        queries: ids of the queries.
        ids: ids of the passages.
        clusters: cluster of each passage, int64 (passages,).
        candidates: for each engine, query id → passage ids, best first.
        positives: query id → ids of relevant passages.

    Returns:
        Query id → ids of the cluster's passages; the queries of a cluster follow each other.
    """
    of_passage = dict(zip(ids, clusters.tolist(), strict=True))
    members: dict[int, list[str]] = {}
    for doc_id, number in of_passage.items():
        members.setdefault(number, []).append(doc_id)
    of_query = {}
    for query in queries:
        first = next((found[query][0] for found in [positives, *candidates] if found.get(query)), None)
        if first is not None:
            of_query[query] = of_passage[first]
    return {query: members[number] for query, number in sorted(of_query.items(), key=lambda item: item[1])}
