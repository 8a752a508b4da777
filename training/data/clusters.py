"""Candidates that many queries share: near passages, for all the queries that belong to one of them.

A training step spends its time on distinct passages. A query with negatives of its own brings as many as its group is
wide; the queries of a cluster bring those of the cluster, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def cluster_passages(vectors: np.ndarray, size: int, seed: int) -> np.ndarray:
    """The cluster that each passage is in: int64 (passages,).

    Passages are drawn; one that is in no cluster yet makes one with its nearest that are in none. All have ``size``
    passages, but for the last, which may have fewer.

    Args:
        vectors: float32 (passages, dim), of unit length.
        size: of a cluster.
        seed: of the drawing.
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
    """Query id → the passages of its cluster, so ordered that the queries of a cluster follow each other.

    A query belongs where its first relevant passage is, or else the best that the first engine found that has found
    any; one without either is left out.

    Args:
        queries: ids.
        ids: of the passages.
        clusters: int64 (passages,).
        candidates: of each engine, query id → passage ids, best first.
        positives: query id → ids of relevant passages.
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
