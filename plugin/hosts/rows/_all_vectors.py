"""The nearest of all vectors, for databases that compare them by an index alone."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ...rows.row_search import RowId


def nearest_of(batches: Iterable[tuple[Sequence[RowId], Any]], vector: np.ndarray, n: int) -> dict[RowId, float]:
    """The ``n`` vectors with the highest inner products.

    Args:
        batches: ids and vectors, some at a time.
        vector: float32 (dim,).
        n: number of vectors.

    Returns:
        Their ids and inner products, the highest first; equal ones in the order of ids.
    """
    best: list[tuple[float, Any]] = []
    for ids, vectors in batches:
        scores = np.asarray(vectors, np.float32) @ vector
        best = heapq.nsmallest(n, [*best, *zip((-scores).tolist(), ids, strict=True)])
    return {row_id: -score for score, row_id in best}
