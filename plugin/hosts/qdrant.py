"""Qdrant as a source of candidates: the nearest points of a dense or sparse vector.

```python
from qdrant_client import QdrantClient
from tansaku import HostSearch, Reranker, Searcher
from tansaku.plugin.hosts.qdrant import QdrantSource, bigram_query
source = QdrantSource(QdrantClient("http://localhost:6333"), "docs", bigram_query, using="bigrams", id_field="id")
hits = HostSearch(source, Reranker(searcher=Searcher.open("db", "docs"))).search("質問")
```
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from ...onnx_export.errors import InputError, MissingExtraError
from ...onnx_export.validation import describe_errors
from ..evaluation.bm25 import K1, B, bigrams
from ..rerank.host_search import Candidate, HostError
from ..rows.columns import joined
from ._engine_source import EngineSource, check_columns, host_errors

try:
    import grpc
    from qdrant_client import AsyncQdrantClient, QdrantClient, models
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import ApiException
except ImportError as error:
    raise MissingExtraError("qdrant-client", "qdrant") from error

__all__ = ["QdrantSource", "bigram_document", "bigram_query"]


@dataclass(eq=False)
class QdrantSource(EngineSource["models.Filter | Mapping[str, Any]"]):
    """Qdrant's nearest points as a source of candidates.

    A condition (``where``) is a filter of Qdrant's, also as the dict that its HTTP API takes.

    It can be pickled: whoever unpickles it makes the client with the same options, of which an API key is one.

    Args:
        client: a client of the server, or of a local folder, not an asynchronous one. A limit on the time to connect is
            an option of the client.
        collection: name of the collection.
        query_vector: makes the vector of a question: the application's own embedding function, or `bigram_query`.
        using: name of the vector in the collection; None is the unnamed one.
        id_field: name of the payload's field with the ids that our index has, with points between the names where
            fields lie in others ("metadata.doc_id"); None takes the ids of the points.
        text_fields: names of the payload's fields to return as the text, to rank documents that our index does not
            have.
        with_payload: also return the whole payload, as ``payload`` of the hits.
        timeout: seconds that a query may take.

    Raises:
        InputError: a name that no field can have, or an asynchronous client. Searching raises it too, for a dict that
            is no filter.
    """

    client: QdrantClient
    collection: str
    query_vector: Callable[[str], Any]
    using: str | None = field(default=None, kw_only=True)
    id_field: str | None = field(default=None, kw_only=True)
    text_fields: Sequence[str] | None = field(default=None, kw_only=True)
    with_payload: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.client, AsyncQdrantClient):
            raise InputError(
                "client is an AsyncQdrantClient; give a QdrantClient, and use HostSearch.asearch where nothing may wait"
            )
        if self.text_fields is not None:
            self.text_fields = check_columns("text_fields", self.text_fields)

    def __getstate__(self) -> dict[str, Any]:
        options = self.client.init_options
        if options["location"] == ":memory:":
            raise InputError("a QdrantClient in memory cannot be pickled; use a folder or a server")
        return {**vars(self), "client": (type(self.client), options)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        kind, options = state["client"]
        vars(self).update(state, client=kind(**options))

    def _search(self, query: str, k: int, where: models.Filter | Mapping[str, Any] | None) -> list[Candidate]:
        chosen = None if where is None else as_filter(where)
        fields = [*(self.text_fields or ()), *([] if self.id_field is None else [self.id_field])]
        vector = self.query_vector(query)
        # A local client raises ValueError; the server's own message is not in the first line.
        refusals = (ApiException, QdrantException, grpc.RpcError, ValueError, OSError)
        with host_errors("Qdrant", self.collection, *refusals, whole=True):
            found = self.client.query_points(
                self.collection,
                query=vector,
                using=self.using,
                limit=k,
                query_filter=chosen,
                with_payload=self.with_payload or fields or False,
                timeout=math.ceil(self.timeout),
            )
        return [self._candidate(point) for point in found.points]

    def _candidate(self, point: models.ScoredPoint) -> Candidate:
        payload = point.payload or {}
        doc_id = point.id if self.id_field is None else payload_value(payload, self.id_field)
        if doc_id is None:
            raise HostError(f"point {point.id} of {self.collection!r} has no {self.id_field!r} in its payload")
        texts = [payload_value(payload, name) for name in self.text_fields or ()]
        text = None if all(value is None for value in texts) else joined(texts)  # without one it counts as missing
        return Candidate(str(doc_id), point.score, text, payload if self.with_payload else None)


def payload_value(payload: Mapping[str, Any], name: str) -> Any:
    """The value of a field, which may lie in others ("metadata.doc_id"); None if it is not there."""
    found: Any = payload
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def as_filter(where: models.Filter | Mapping[str, Any]) -> models.Filter:
    """A filter, also from the dict of the HTTP API; raises InputError for what is none."""
    if isinstance(where, models.Filter):
        return where
    try:
        return models.Filter.model_validate(where)
    except ValidationError as error:
        raise InputError(f"where is no filter of Qdrant's: {describe_errors(error)}") from error


def bigram_query(text: str) -> models.SparseVector:
    """A question as its character bigrams, for a sparse vector with ``Modifier.IDF``: BM25 for Japanese.

    Args:
        text: the question or keywords.

    Returns:
        The bigrams, each with the weight 1.
    """
    return _sparse(dict.fromkeys(bigrams(text), 1.0))


def bigram_document(text: str, average: float) -> models.SparseVector:
    """A document as its character bigrams, weighted by BM25 (k1 0.9, b 0.4) without the idf, which Qdrant adds.

    Args:
        text: title and text.
        average: mean number of characters of a document.

    Returns:
        The bigrams with their weights.
    """
    counts = Counter(bigrams(text))
    norm = K1 * (1 - B + B * len(text) / average)
    return _sparse({gram: count * (K1 + 1) / (count + norm) for gram, count in counts.items()})


def _sparse(weights: dict[str, float]) -> models.SparseVector:
    by_number: dict[int, float] = {}  # two bigrams may have the same number, which Qdrant takes only once
    for gram, weight in weights.items():
        number = zlib.crc32(gram.encode("utf-8", "surrogatepass"))
        by_number[number] = by_number.get(number, 0.0) + weight
    return models.SparseVector(indices=list(by_number), values=list(by_number.values()))
