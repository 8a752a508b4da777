"""Encode: the text of a query to its vectors, with a memory of recent queries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError

_QUERIES_REMEMBERED = 1024


class EncodedQuery(NamedTuple):
    """A query as the search takes it.

    Attributes:
        vectors: float32 (query tokens, dim).
        truncated: Whether the query was longer than the model reads, and was cut.
    """

    vectors: np.ndarray
    truncated: bool


class QueryEncoder:
    """Encodes queries and remembers the vectors of the last 1,024 that came one at a time.

    Attributes:
        encoder: The model.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._remembered = lru_cache(_QUERIES_REMEMBERED)(self._encode)

    def __reduce__(self) -> tuple[Any, ...]:
        return QueryEncoder, (self.encoder,)

    def __call__(self, query_text: str) -> EncodedQuery:
        """The vectors of a query's tokens, and whether it was cut.

        Raises:
            InputError: An empty query, or one that is not a string.
        """
        return self._remembered(check_query(query_text))

    def many(self, query_texts: Sequence[str]) -> list[EncodedQuery]:
        """Several queries, encoded in one batch and not remembered; the vectors are those of each alone.

        Raises:
            InputError: As for one query.
        """
        tokenized = self.encoder.tokenize_queries([check_query(text) for text in query_texts])
        vectors = self.encoder.encode_query_tokens(tokenized)
        return [EncodedQuery(one, text.truncated) for one, text in zip(vectors, tokenized, strict=True)]

    def _encode(self, query_text: str) -> EncodedQuery:
        return self.many([query_text])[0]


def check_query(query_text: str) -> str:
    """``query_text``, if it can be encoded; raises InputError if it is empty or not a string."""
    if not isinstance(query_text, str):
        raise InputError(f"the query is {type(query_text).__name__}, not str")
    if not query_text.strip():
        raise InputError("the query is empty; give at least one word")
    return query_text
