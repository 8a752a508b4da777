"""Candidates that many queries share: clusters of near passages, each for all the queries that belong to it.

A training step spends its time on distinct passages. A query with its own negatives adds as many as its group has; all
queries of a cluster together add the passages of the cluster, once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ..errors import TrainingDataError


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
            near = vectors @ vectors[passage]  # with those that have a cluster: to leave them out is to copy the rest
            near[clusters >= 0] = -np.inf
            near[passage] = np.inf  # itself, however many are equal to it
            clusters[_best(near, size)] = number
            number += 1
    return clusters


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Numbers of the best scores that are not -inf, best first; of equal ones the earlier first."""
    least = np.partition(scores, -count)[-count] if count < len(scores) else -np.inf
    found = np.flatnonzero((scores >= least) & (scores > -np.inf))
    return found[np.argsort(-scores[found], kind="stable")][:count]


def shared_candidates(
    queries: Collection[str],
    ids: Collection[str],
    clusters: np.ndarray,
    candidates: Sequence[Mapping[str, Sequence[str]]],
    positives: Mapping[str, Sequence[str]],
) -> dict[str, list[str]]:
    """The passages of each query's cluster.

    A query belongs to the cluster of its first relevant passage, or else of the best candidate of the first engine that
    has any. A query without either is left out.

    Args:
        queries: ids of the queries.
        ids: ids of the passages, which are read twice and of which those are kept that the result has.
        clusters: cluster of each passage, int64 (passages,).
        candidates: for each engine, query id → passage ids, best first.
        positives: query id → ids of relevant passages.

    Returns:
        Query id → ids of the cluster's passages; the queries of a cluster follow each other.

    Raises:
        TrainingDataError: the passage that a query's cluster is found by is not among ``ids``.
    """
    firsts = {}
    for query in queries:
        first = next((found[query][0] for found in [positives, *candidates] if found.get(query)), None)
        if first is not None:
            firsts[query] = first
    wanted = set(firsts.values())
    of_passage = {doc_id: number for doc_id, number in zip(ids, clusters.tolist(), strict=True) if doc_id in wanted}
    members: dict[int, list[str]] = {number: [] for number in of_passage.values()}
    for doc_id, number in zip(ids, clusters.tolist(), strict=True):
        if number in members:
            members[number].append(doc_id)
    for query, first in firsts.items():
        if first not in of_passage:
            raise TrainingDataError(f"query {query!r}: the passage {first!r} is not in the collection")
    of_query = sorted(((query, of_passage[first]) for query, first in firsts.items()), key=lambda item: item[1])
    return {query: members[number] for query, number in of_query}
