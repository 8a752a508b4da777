"""Phrases: MaxSim in which the neighbours of a query token have a say in what it meets.

MaxSim lets every query token meet any token of a document, so words that stand together in the question may be found
far apart. Here the similarity of query token i with document token j is
(cos(i, j) + p · cos(i − 1, j − 1) + p · cos(i + 1, j + 1)) / (1 + 2p), with 0 beyond the ends; p is the phrase weight,
and 0 is MaxSim. The rest is as there: for each query token the largest, times the token's weight, summed.
"""

from __future__ import annotations

import numpy as np

from ..onnx_export import InputError
from .codes import Codes

_TOGETHER = 64  # documents that are decoded at a time


def phrase_maxsim(query: np.ndarray, vectors: np.ndarray, lengths: np.ndarray, weight: float) -> np.ndarray:
    """MaxSim with phrases: float32 (documents,).

    Args:
        query: float32 (query tokens, dim), in the query's order, as long as the tokens weigh.
        vectors: float32 (tokens, dim), of unit length, one document's after the other's, in the order of its text.
        lengths: int64 (documents,), how many of them each document has, 1 or more.
        weight: the phrase weight.
    """
    weights = np.linalg.norm(query, axis=1, keepdims=True)
    cosines = query @ vectors.T / np.maximum(weights, 1e-12)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    neighbours = np.zeros_like(cosines)
    neighbours[1:, 1:] = cosines[:-1, :-1]
    neighbours[:, starts] = 0
    after = np.zeros_like(cosines)
    after[:-1, :-1] = cosines[1:, 1:]
    after[:, ends - 1] = 0
    neighbours += after
    similarities = (cosines + np.float32(weight) * neighbours) / np.float32(1 + 2 * weight)
    return (weights * np.maximum.reduceat(similarities, starts, axis=1)).sum(axis=0)


def phrase_scores(codes: Codes, query: np.ndarray, documents: np.ndarray, weight: float) -> np.ndarray:
    """`phrase_maxsim` of stored documents: float32 (documents,).

    Args:
        codes: theirs are decoded.
        query: float32 (query tokens, dim).
        documents: int64, ascending.
        weight: the phrase weight.

    Raises InputError for an index whose vectors were pooled: they are in no order.
    """
    if codes.index.header.pool > 1:
        raise InputError(f"{codes.index.place()} has pooled vectors, which know no neighbours: leave out phrase_weight")
    scores = np.empty(len(documents), np.float32)
    for start in range(0, len(documents), _TOGETHER):
        for positions, vectors, lengths in codes.decoded(documents[start : start + _TOGETHER]):
            scores[start + positions] = phrase_maxsim(query, vectors, lengths, weight)
    return scores


def with_phrases(codes: Codes, query: np.ndarray, ranked: np.ndarray, weight: float) -> tuple[np.ndarray, np.ndarray]:
    """Documents ranked by `phrase_scores`, and these: int64 and float32, best first; of equal ones the first stays so.

    Args:
        codes: theirs are decoded.
        query: float32 (query tokens, dim).
        ranked: int64 (documents,), different ones.
        weight: the phrase weight.
    """
    order = np.argsort(ranked)
    scores = np.empty(len(ranked), np.float32)
    scores[order] = phrase_scores(codes, query, ranked[order], weight)
    best = np.argsort(-scores, kind="stable")
    return ranked[best], scores[best]
