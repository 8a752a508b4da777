"""Phrases: MaxSim in which the neighbours of a query token have a say in what it meets.

MaxSim lets every query token meet any token of a document, so words that stand together in the question may be found
far apart. Here the similarity of query token i with document token j is
(cos(i, j) + p · cos(i − 1, j − 1) + p · cos(i + 1, j + 1)) / (1 + 2p), with 0 beyond the ends; p is the phrase weight,
and 0 is MaxSim. The rest is as there: for each query token the largest, times the token's weight, summed.

Stored documents are so scored by `engine.rescore`, out of their codes. Here it is in NumPy, for vectors.
"""

from __future__ import annotations

import numpy as np


def with_neighbours(similarities: np.ndarray, weight: float) -> np.ndarray:
    """Similarities, float32 (tokens, other tokens), with ``weight`` times those of the neighbours added."""
    neighbours = np.zeros_like(similarities)
    neighbours[1:, 1:] += similarities[:-1, :-1]
    neighbours[:-1, :-1] += similarities[1:, 1:]
    return similarities + np.float32(weight) * neighbours


def phrase_similarities(query: np.ndarray, document: np.ndarray, weight: float) -> tuple[np.ndarray, np.ndarray]:
    """What the tokens of a query weigh, float32 (query tokens,), and their similarities, (query tokens, tokens).

    Args:
        query: float32 (query tokens, dim), in the query's order, as long as the tokens weigh.
        document: float32 (tokens, dim), of unit length, in the order of its text.
        weight: the phrase weight.
    """
    weights = np.linalg.norm(query, axis=1)
    cosines = query @ document.T / np.maximum(weights, 1e-12)[:, None]
    return weights, with_neighbours(cosines, weight) / np.float32(1 + 2 * weight)


def phrase_maxsim(query: np.ndarray, document: np.ndarray, weight: float) -> float:
    """MaxSim with phrases of one document; arguments as of `phrase_similarities`."""
    weights, similarities = phrase_similarities(query, document, weight)
    return float(weights @ similarities.max(axis=1))
