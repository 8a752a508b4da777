"""Elasticsearch, OpenSearch, Vespa and Weaviate: what to send them, and `FoundRow`s of what they answer.

Nothing here speaks to a server, so that your own client does, with its own connection, retries and tokens:

```python
from tansaku import Coder, RowSearch
from tansaku.plugin.hosts.rows.mappings import ElasticsearchRows
coder = Coder()
rows = ElasticsearchRows(coder.row_dim, fields=["year"])
client.indices.create(index="docs", body=rows.index())
for doc_id, text in texts.items():
    (coded,) = coder.encode_documents([text])
    client.index(index="docs", id=doc_id, document=rows.document(coded, {"text": text, "year": 2020}))
def nearest(vector, n, where):
    return rows.found(client.search(index="docs", body=rows.query(vector, n, where)))

search = RowSearch(coder, nearest)
hits = search.search("昔の首都はどこ？", where={"range": {"year": {"gte": 2000}}})
```
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np

from ....onnx_export.errors import InputError
from ....onnx_export.kinds import check_whole
from ...rerank.host_search import HostError
from ...rows.coder import CodedDocument
from ...rows.columns import joined
from ...rows.row_search import FoundRow, RowId, Where
from .._engine_source import check_columns
from ._codes_text import codes_from_text, codes_to_text

__all__ = ["ElasticsearchRows", "OpenSearchRows", "VespaRows", "WeaviateRows"]

_MOST_LOOKED_AT = 10_000  # by Elasticsearch and OpenSearch


@dataclass(frozen=True)
class _Mapping(ABC, Generic[Where]):
    """The names of the fields that rows have in an engine.

    Args:
        row_dim: length of the row vectors, see `Coder.row_dim`.
        vector_field: field of the row vectors.
        codes_field: field of the codes, as base64.
        text_fields: fields of the text that was encoded; empty: hits bring no text.
        fields: other fields that hits bring.

    Raises:
        InputError: a name that no field can have, or a length below 1.
    """

    row_dim: int
    vector_field: str = "tansaku_vector"
    codes_field: str = "tansaku_codes"
    text_fields: Sequence[str] = ("text",)
    fields: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_whole("row_dim", self.row_dim)
        for name in ("text_fields", "fields"):
            if not isinstance(given := getattr(self, name), str) and not given:
                continue  # none
            object.__setattr__(self, name, tuple(check_columns(name, given)))

    @abstractmethod
    def query(self, vector: np.ndarray, n: int, where: Where | None = None) -> dict[str, Any]:
        """A search for the nearest row vectors.

        Args:
            vector: float32 (row_dim,), a query's row vector.
            n: number of rows.
            where: filter in the engine's own terms; None for no filter.
        """

    @abstractmethod
    def found(self, answer: Any) -> list[FoundRow]:
        """The rows of an answer, for `RowSearch`.

        Args:
            answer: what the engine answered to `query`.

        Raises:
            HostError: a part of the engine did not answer, or it answered with an error.
            CodesError: codes are no base64; the message names the row.
        """

    @property
    def _returned(self) -> list[str]:
        return list(dict.fromkeys([self.codes_field, *self.text_fields, *self.fields]))

    def _own_fields(self, coded: CodedDocument, columns: Mapping[str, Any], vector: Any = None) -> dict[str, Any]:
        if len(coded.row_vector) != self.row_dim:
            raise InputError(f"a row vector of {len(coded.row_vector)} dimensions, and row_dim is {self.row_dim}")
        for name in (self.vector_field, self.codes_field):
            if name in columns:
                raise InputError(f"{name!r} is made here; leave it out")
        made = {} if vector is None else {self.vector_field: vector}
        return {**columns, **made, self.codes_field: codes_to_text(coded.codes)}

    def _row(self, row_id: RowId, values: Mapping[str, Any], score: float) -> FoundRow:
        text = joined(values.get(name) for name in self.text_fields) if self.text_fields else None
        fields = {name: values.get(name) for name in self.fields}
        return FoundRow(row_id, codes_from_text(values.get(self.codes_field), row_id), score, text, fields)


@dataclass(frozen=True)
class ElasticsearchRows(_Mapping[Mapping[str, Any]]):
    """Rows in an index of Elasticsearch 8.11 or later: a `dense_vector`, compared by inner product, and a `binary`.

    A filter (``where``) is a query of Elasticsearch's DSL, and holds while the vectors are searched.

    Args:
        row_dim: length of the row vectors, see `Coder.row_dim`.
        vector_field: field of the row vectors.
        codes_field: field of the codes, as base64.
        text_fields: fields of the text that was encoded; empty: hits bring no text.
        fields: other fields that hits bring.
    """

    def index(self) -> dict[str, Any]:
        """The mapping of a new index; to one that is there, ``["mappings"]`` can be added.

        The index over the vectors is plain HNSW. From version 9.1 on, the default is one bit for each dimension.
        """
        vector = {
            "type": "dense_vector",
            "dims": self.row_dim,
            "index": True,
            "similarity": "max_inner_product",
            "index_options": {"type": "hnsw"},
        }
        return {"mappings": {"properties": {self.vector_field: vector, self.codes_field: {"type": "binary"}}}}

    def document(self, coded: CodedDocument, columns: Mapping[str, Any]) -> dict[str, Any]:
        """The source of a document.

        Args:
            coded: as `Coder` made it.
            columns: its other fields, those of the text among them.

        Raises:
            InputError: a row vector of another length, or a column with the name of the vector or the codes.
        """
        return self._own_fields(coded, columns, coded.row_vector.tolist())

    def query(self, vector: np.ndarray, n: int, where: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """See the base; it looks at twice as many vectors as are asked for."""
        _check_number(n)
        knn: dict[str, Any] = {
            "field": self.vector_field,
            "query_vector": vector.tolist(),
            "k": n,
            "num_candidates": min(2 * n, _MOST_LOOKED_AT),
        }
        if where is not None:
            knn["filter"] = where
        return {"knn": knn, "size": n, "_source": self._returned}

    def found(self, answer: Mapping[str, Any]) -> list[FoundRow]:
        """See the base."""
        return [self._row(hit["_id"], hit["_source"], _inner_product(hit["_score"])) for hit in _hits(answer)]


@dataclass(frozen=True)
class OpenSearchRows(_Mapping[Mapping[str, Any]]):
    """Rows in an index of OpenSearch 2.16 or later: a `knn_vector`, compared by inner product, and a `binary`.

    A filter (``where``) is a query of OpenSearch's DSL, and holds while the vectors are searched.

    Args:
        row_dim: length of the row vectors, see `Coder.row_dim`.
        vector_field: field of the row vectors.
        codes_field: field of the codes, as base64.
        text_fields: fields of the text that was encoded; empty: hits bring no text.
        fields: other fields that hits bring.
    """

    def index(self) -> dict[str, Any]:
        """Settings and mapping of a new index, with HNSW by faiss; ``index.knn`` cannot be set later."""
        method = {"name": "hnsw", "space_type": "innerproduct", "engine": "faiss"}
        vector = {"type": "knn_vector", "dimension": self.row_dim, "method": method}
        properties = {self.vector_field: vector, self.codes_field: {"type": "binary"}}
        return {"settings": {"index": {"knn": True}}, "mappings": {"properties": properties}}

    def document(self, coded: CodedDocument, columns: Mapping[str, Any]) -> dict[str, Any]:
        """The source of a document.

        Args:
            coded: as `Coder` made it.
            columns: its other fields, those of the text among them.

        Raises:
            InputError: a row vector of another length, or a column with the name of the vector or the codes.
        """
        return self._own_fields(coded, columns, coded.row_vector.tolist())

    def query(self, vector: np.ndarray, n: int, where: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """See the base; it looks at twice as many vectors as are asked for."""
        _check_number(n)
        knn: dict[str, Any] = {
            "vector": vector.tolist(),
            "k": n,
            "method_parameters": {"ef_search": min(2 * n, _MOST_LOOKED_AT)},
        }
        if where is not None:
            knn["filter"] = where
        return {"size": n, "_source": self._returned, "query": {"knn": {self.vector_field: knn}}}

    def found(self, answer: Mapping[str, Any]) -> list[FoundRow]:
        """See the base."""
        return [self._row(hit["_id"], hit["_source"], _inner_product(hit["_score"])) for hit in _hits(answer)]


@dataclass(frozen=True)
class VespaRows(_Mapping[str]):
    """Rows in a schema of Vespa 8.170 or later: a tensor with `distance-metric: dotproduct`, and a `raw` field.

    A filter (``where``) is a condition of YQL, ``year > 2000``, and holds while the vectors are searched. It must come
    from the application, not from users. The id of a row is the last part of its document id.

    Args:
        row_dim: length of the row vectors, see `Coder.row_dim`.
        vector_field: field of the row vectors.
        codes_field: field of the codes.
        text_fields: fields of the text that was encoded; empty: hits bring no text.
        fields: other fields that hits bring.
        schema: name of the schema.
        profile: name of the rank profile.
    """

    schema: str = "docs"
    profile: str = "tansaku"

    def schema_parts(self) -> str:
        """The lines of a schema that row vectors and codes need; your own fields are added in `document`."""
        return f"""schema {self.schema} {{
    document {self.schema} {{
        field {self.vector_field} type tensor<float>(x[{self.row_dim}]) {{
            indexing: attribute | index
            attribute {{
                distance-metric: dotproduct
            }}
        }}
        field {self.codes_field} type raw {{
            indexing: summary
        }}
    }}
    rank-profile {self.profile} {{
        inputs {{
            query(row) tensor<float>(x[{self.row_dim}])
        }}
        first-phase {{
            expression: closeness(field, {self.vector_field})
        }}
    }}
}}
"""

    def document(self, coded: CodedDocument, columns: Mapping[str, Any]) -> dict[str, Any]:
        """The body of a put, ``{"fields": ...}``.

        Args:
            coded: as `Coder` made it.
            columns: its other fields, those of the text among them.

        Raises:
            InputError: a row vector of another length, or a column with the name of the vector or the codes.
        """
        return {"fields": self._own_fields(coded, columns, {"values": coded.row_vector.tolist()})}

    def query(self, vector: np.ndarray, n: int, where: str | None = None) -> dict[str, Any]:
        """See the base; it looks at twice as many vectors as are asked for.

        Vespa returns at most 400 hits, unless a query profile sets ``maxHits``.
        """
        check_whole("n", n)
        nearest = f"{{targetHits:{n},hnsw.exploreAdditionalHits:{n}}}nearestNeighbor({self.vector_field},row)"
        condition = "" if where is None else f" and ({where})"
        fields = ", ".join(["documentid", *self._returned])
        return {
            "yql": f"select {fields} from {self.schema} where {nearest}{condition}",  # noqa: S608
            "input.query(row)": vector.tolist(),
            "ranking": self.profile,
            "hits": n,
        }

    def found(self, answer: Mapping[str, Any]) -> list[FoundRow]:
        """See the base."""
        root = answer["root"]
        if errors := root.get("errors"):
            raise HostError(f"Vespa answered with {errors[0].get('message') or errors[0]!r:.200}")
        if not root.get("coverage", {}).get("full", True):
            raise HostError(f"Vespa searched a part of its documents only: {root['coverage']!r:.200}")
        return [
            self._row(hit["fields"]["documentid"].split(":", 4)[-1], hit["fields"], float(hit["relevance"]))
            for hit in root.get("children", [])
        ]


@dataclass(frozen=True)
class WeaviateRows(_Mapping[Any]):
    """Rows in a collection of Weaviate 1.25 or later: a named vector, compared by inner product, and a `blob`.

    For Weaviate's Python client, version 4. A filter (``where``) is one of its filters,
    ``Filter.by_property("year").greater_than(2000)``, and holds while the vectors are searched.

    Args:
        row_dim: length of the row vectors, see `Coder.row_dim`.
        vector_field: name of the vector.
        codes_field: property of the codes, as base64.
        text_fields: properties of the text that was encoded; empty: hits bring no text.
        fields: other properties that hits bring.
        id_field: property with the ids of rows; None: the UUIDs of objects.
    """

    id_field: str | None = None

    def collection(self, name: str) -> dict[str, Any]:
        """A new collection, for ``client.collections.create_from_dict``; other properties are made as they come.

        Args:
            name: name of the collection.
        """
        index = {"vectorIndexType": "hnsw", "vectorIndexConfig": {"distance": "dot"}, "vectorizer": {"none": {}}}
        return {
            "class": name,
            "vectorConfig": {self.vector_field: index},
            "properties": [{"name": self.codes_field, "dataType": ["blob"]}],
        }

    def document(self, coded: CodedDocument, columns: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of ``collection.data.insert`` or ``replace``, but for the UUID.

        Args:
            coded: as `Coder` made it.
            columns: its other properties, those of the text among them.

        Raises:
            InputError: a row vector of another length, or a column with the name of the vector or the codes.
        """
        return {
            "properties": self._own_fields(coded, columns),
            "vector": {self.vector_field: coded.row_vector.tolist()},
        }

    def query(self, vector: np.ndarray, n: int, where: Any = None) -> dict[str, Any]:
        """The arguments of ``collection.query.near_vector``; see the base."""
        own = [] if self.id_field is None else [self.id_field]
        return {
            "near_vector": vector.tolist(),
            "target_vector": self.vector_field,
            "limit": check_whole("n", n),
            "filters": where,
            "return_properties": list(dict.fromkeys([*own, *self._returned])),
            "return_metadata": ["distance"],
        }

    def found(self, answer: Any) -> list[FoundRow]:
        """See the base; Weaviate's distance is the inner product with a minus."""
        return [self._row(self._id(one), one.properties, -one.metadata.distance) for one in answer.objects]

    def _id(self, found: Any) -> RowId:
        if self.id_field is None:
            return str(found.uuid)
        if (row_id := found.properties.get(self.id_field)) is None:
            raise HostError(f"Weaviate's object {found.uuid} has no {self.id_field!r}")
        return row_id


def _check_number(n: int) -> None:
    if check_whole("n", n) > _MOST_LOOKED_AT:
        raise InputError(f"{n:,} rows; ask for {_MOST_LOOKED_AT:,} or fewer")


def _hits(answer: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """The hits of Elasticsearch or OpenSearch, unless a shard did not answer."""
    failed = answer.get("_shards", {}).get("failed", 0)
    if answer.get("timed_out") or failed:
        reason = "the search timed out" if answer.get("timed_out") else f"{failed} shards failed"
        raise HostError(f"{reason}, so that rows would be missing; search again")
    return answer["hits"]["hits"]


def _inner_product(score: float) -> float:
    """The inner product of a score, of which both engines make a positive number: 1 + ip, or 1 / (1 - ip) below 0."""
    return score - 1 if score >= 1 else 1 - 1 / score
