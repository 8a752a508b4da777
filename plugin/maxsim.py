"""MaxSim, the late interaction of ColBERT (Khattab & Zaharia, 2020): Σ over query tokens of max over document tokens.

The sum is taken in float32: cosines of ColBERT models lie close together, and half precision would tie them.
"""

from __future__ import annotations

import numpy as np


def maxsim(query: np.ndarray, vectors: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """MaxSim of one query with many documents.

    Args:
        query: float32 (query tokens, dim), unit length.
        vectors: float32 (tokens, dim), unit length, the documents' tokens one after the other.
        offsets: int64 (documents + 1,): where each document's tokens begin. No document may be without tokens.

    Returns:
        float32 (documents,): scores between −query tokens and +query tokens.
    """
    if len(offsets) == 1:
        return np.empty(0, np.float32)
    similarities = query @ vectors.T
    return np.maximum.reduceat(similarities, offsets[:-1], axis=1).sum(axis=0, dtype=np.float32)
