"""Query texts as vectors, remembered."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError

_KEPT = 1024  # texts whose vectors are remembered


class QueryEncoder:
    """Encodes queries one at a time and remembers the last 1,024.

    Attributes:
        encoder: the model.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._encode = lru_cache(_KEPT)(self._encode_anew)

    def __call__(self, query: str) -> np.ndarray:
        """Vectors of a query's tokens, float32 (query tokens, dim). Raises InputError for an empty query."""
        return self._encode(check_query(query))

    def _encode_anew(self, query: str) -> np.ndarray:
        return self.encoder.encode_queries([query])[0]


def check_query(query: str) -> str:
    """``query``, if it is a text that can be encoded; raises InputError if not."""
    if not isinstance(query, str):
        raise InputError(f"the query is {type(query).__name__}, not str")
    if not query.strip():
        raise InputError("the query is empty; give at least one word")
    return query
