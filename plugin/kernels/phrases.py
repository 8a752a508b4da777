"""Phrases: MaxSim in which the neighbours of a token count too.

MaxSim compares every query token with any token of a document, so words that stand together in the question may be
found far apart. Here the similarity of query token i with document token j is

    (cos(i, j) + p · cos(i − 1, j − 1) + p · cos(i + 1, j + 1)) / (1 + 2p)

with 0 beyond the ends of query and document. p is the phrase weight; 0 is plain MaxSim. The rest is MaxSim: for each
query token the largest similarity, times the token's weight, summed. `benchmarks.search.sources` measures what it
does to the ranking.

`index_loops.float_maxsim` computes it from stored codes. Here it is in NumPy, for vectors.
"""

from __future__ import annotations

import numpy as np


def phrase_maxsim(query_vectors: np.ndarray, document_vectors: np.ndarray, weight: float) -> float:
    """MaxSim with phrases of one document.

    Args:
        query_vectors: float32 (query tokens, dim), in the query's order; the length of each is the token's weight.
        document_vectors: float32 (document tokens, dim), of unit length, in the order of the text.
        weight: The phrase weight.
    """
    weights, similarities = phrase_similarities(query_vectors, document_vectors, weight)
    return float(weights @ similarities.max(axis=1))


def phrase_similarities(
    query_vectors: np.ndarray, document_vectors: np.ndarray, weight: float
) -> tuple[np.ndarray, np.ndarray]:
    """The weights of a query's tokens and their similarities with a document's tokens.

    Args:
        query_vectors: As in `phrase_maxsim`.
        document_vectors: As in `phrase_maxsim`.
        weight: The phrase weight.

    Returns:
        float32 (query tokens,) and float32 (query tokens, document tokens).
    """
    weights = np.linalg.norm(query_vectors, axis=1)
    cosines = query_vectors @ document_vectors.T / np.maximum(weights, 1e-12)[:, None]
    return weights, with_neighbours(cosines, weight) / np.float32(1 + 2 * weight)


def with_neighbours(similarities: np.ndarray, weight: float) -> np.ndarray:
    """Similarities, float32 (tokens, other tokens), plus ``weight`` times those of both neighbours; not divided."""
    neighbours = np.zeros_like(similarities)
    neighbours[1:, 1:] += similarities[:-1, :-1]
    neighbours[:-1, :-1] += similarities[1:, 1:]
    return similarities + np.float32(weight) * neighbours
