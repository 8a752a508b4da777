"""Row vectors: one vector of a document and one of a query, whose inner product is high where MaxSim is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError


class RowVectors:
    """The mean of a document's token vectors, and the sum of a query's.

    Attributes:
        dim: length of a row vector.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def of_documents(self, vectors: Sequence[np.ndarray]) -> np.ndarray:
        """Row vectors of documents: float32 (documents, dim).

        Args:
            vectors: the token vectors of each document, float32 (tokens, dim).
        """
        return np.stack([matrix.mean(axis=0, dtype=np.float32) for matrix in vectors])

    def of_query(self, vectors: np.ndarray) -> np.ndarray:
        """Row vector of a query: float32 (dim,).

        Args:
            vectors: its token vectors, float32 (tokens, dim).
        """
        return vectors.sum(axis=0, dtype=np.float32)


def bundled_row_vectors(encoder: Encoder, dim: int | None = None) -> RowVectors:
    """The row vectors that a bundle has.

    Args:
        encoder: the encoder.
        dim: their length; None: the bundle's first.

    Raises:
        InputError: the bundle has none of that length.
    """
    if dim not in (None, encoder.dim):
        raise InputError(f"row_dim is {dim!r}; the bundle of {encoder.bundle.name!r} has row vectors of {encoder.dim}")
    return RowVectors(encoder.dim)
