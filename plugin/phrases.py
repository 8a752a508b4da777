"""Phrases: MaxSim in which the neighbours of a query token have a say in what it meets.

MaxSim lets every query token meet any token of a document, so words that stand together in the question may be found
far apart. Here the similarity of query token i with document token j is
(cos(i, j) + p · cos(i − 1, j − 1) + p · cos(i + 1, j + 1)) / (1 + 2p), with 0 beyond the ends; p is the phrase weight,
and 0 is MaxSim. The rest is as there: for each query token the largest, times the token's weight, summed.

Stored documents are so scored by `engine.rescore`, out of their codes. Here it is in NumPy, for vectors.
"""

from __future__ import annotations

import numpy as np

from ..onnx_export import InputError
from .codes import Codes
from .plan import check_weight


def phrase_similarities(cosines: np.ndarray, weight: float) -> np.ndarray:
    """Similarities of a query's tokens with a document's, their neighbours' included, of the same shape.

    Args:
        cosines: float32 (query tokens, document tokens), both in their text's order.
        weight: the phrase weight.
    """
    neighbours = np.zeros_like(cosines)
    neighbours[1:, 1:] += cosines[:-1, :-1]
    neighbours[:-1, :-1] += cosines[1:, 1:]
    return (cosines + np.float32(weight) * neighbours) / np.float32(1 + 2 * weight)


def phrase_maxsim(query: np.ndarray, document: np.ndarray, weight: float) -> float:
    """MaxSim with phrases of one document.

    Args:
        query: float32 (query tokens, dim), in the query's order, as long as the tokens weigh.
        document: float32 (tokens, dim), of unit length, in the order of its text.
        weight: the phrase weight.
    """
    weights = np.linalg.norm(query, axis=1)
    cosines = query @ document.T / np.maximum(weights, 1e-12)[:, None]
    return float(weights @ phrase_similarities(cosines, weight).max(axis=1))


def phrase_weight_of(codes: Codes, asked: float | None) -> float:
    """What counts in a search of ``codes`` that asks for ``asked``; None takes what they say.

    Raises InputError for a weight that is none, and for one above 0 where vectors were pooled: they are in no order.
    """
    if asked is None:
        return codes.phrase_weight
    if check_weight("phrase_weight", asked) and codes.index.header.pool > 1:
        raise InputError(f"{codes.index.place()} has pooled vectors, which know no neighbours: leave out phrase_weight")
    return asked
