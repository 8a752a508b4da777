"""Qdrant as a source of candidates: the nearest points of a dense or sparse vector."""

from __future__ import annotations

import math
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ...onnx_export.errors import MissingExtraError
from ..rerank.host_search import Candidate, HostError
from ._checks import check_columns, check_request, joined

try:
    from qdrant_client import QdrantClient, models
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import ApiException
except ImportError as error:
    raise MissingExtraError("qdrant-client", "qdrant") from error

__all__ = ["QdrantSource", "bigram_document", "bigram_query"]

_K1, _B = 0.9, 0.4


class QdrantSource:
    """The nearest points of a collection.

    Args:
        client: a client of the server, or of a local folder.
        collection: its name.
        query_vector: makes of a question what Qdrant compares: the host's own embedding function, or `bigram_query`.
        using: the vector's name in the collection; None is the unnamed one.
        id_field: the payload's field with the ids that our index has; None takes the points' own.
        text_fields: fields of the payload to return as the text, for documents that our index has not.
        timeout: seconds that the query may take; the client's own limit on a connection is given to the client.
    """

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        query_vector: Callable[[str], Any],
        *,
        using: str | None = None,
        id_field: str | None = None,
        text_fields: Sequence[str] | None = None,
        timeout: float = 10.0,
    ) -> None:
        self.client = client
        self.collection = collection
        self.query_vector = query_vector
        self.using = using
        self.id_field = id_field
        self.text_fields = [] if text_fields is None else check_columns(text_fields)
        self.timeout = timeout

    def candidates(self, query: str, k: int, where: models.Filter | None = None) -> list[Candidate]:
        """The ``k`` nearest points to ``query``.

        Args:
            query: the question or keywords, given to ``query_vector``.
            k: how many.
            where: a filter of Qdrant's.

        Raises InputError for an empty query and ``k`` below 1, HostError if Qdrant is unreachable or refuses, or a
        point has no ``id_field``.
        """
        vector = self.query_vector(check_request(query, k))
        fields = [*self.text_fields, *([] if self.id_field is None else [self.id_field])]
        try:
            found = self.client.query_points(
                self.collection,
                query=vector,
                using=self.using,
                limit=k,
                query_filter=where,
                with_payload=fields or False,
                timeout=math.ceil(self.timeout),
            )
        except (ApiException, QdrantException, ValueError, OSError) as error:  # a local client raises ValueError
            raise HostError(f"Qdrant cannot search {self.collection!r}: {error}") from error
        return [self._candidate(point) for point in found.points]

    def _candidate(self, point: models.ScoredPoint) -> Candidate:
        payload = point.payload or {}
        if self.id_field is not None and payload.get(self.id_field) is None:
            raise HostError(f"point {point.id} of {self.collection!r} has no {self.id_field!r} in its payload")
        doc_id = point.id if self.id_field is None else payload[self.id_field]
        text = joined([payload.get(name) for name in self.text_fields]) if self.text_fields else None
        return Candidate(str(doc_id), point.score, text)


def bigram_query(text: str) -> models.SparseVector:
    """A question as its character bigrams, for a sparse vector with ``Modifier.IDF``: BM25 for Japanese."""
    return _sparse(dict.fromkeys(_bigrams(text), 1.0))


def bigram_document(text: str, average: float) -> models.SparseVector:
    """A document as its character bigrams, weighted by BM25 (k1 0.9, b 0.4) without the idf, which Qdrant adds.

    Args:
        text: title and text.
        average: characters that a document has on average.
    """
    counts = Counter(_bigrams(text))
    norm = _K1 * (1 - _B + _B * len(text) / average)
    return _sparse({gram: count * (_K1 + 1) / (count + norm) for gram, count in counts.items()})


def _bigrams(text: str) -> list[str]:
    words = unicodedata.normalize("NFKC", text).lower().split()
    return [word[i : i + 2] for word in words for i in range(max(len(word) - 1, 1))]


def _sparse(weights: dict[str, float]) -> models.SparseVector:
    by_number: dict[int, float] = {}  # two bigrams may have one number, which Qdrant takes once only
    for gram, weight in weights.items():
        number = zlib.crc32(gram.encode("utf-8", "surrogatepass"))
        by_number[number] = by_number.get(number, 0.0) + weight
    return models.SparseVector(indices=list(by_number), values=list(by_number.values()))
