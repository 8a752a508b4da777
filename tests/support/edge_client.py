"""Qdrant's own engine, which the package qdrant-edge-py runs within the process, behind the calls of `QdrantClient`.

The local mode of `QdrantClient` is another engine, in Python. What a source asks is the same; the types differ.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from qdrant_client import models
from qdrant_client.http.models import QueryResponse

from .engines import NotInstalledError

try:
    edge: Any = importlib.import_module("qdrant_edge")
except ImportError as error:
    raise NotInstalledError("qdrant-edge-py is not installed") from error

_DISTANCES = {models.Distance.DOT: edge.Distance.Dot, models.Distance.COSINE: edge.Distance.Cosine}
_DATATYPES = {
    None: None,
    models.Datatype.FLOAT16: edge.VectorStorageDatatype.Float16,
    models.Datatype.FLOAT32: edge.VectorStorageDatatype.Float32,
}
_SERVERS_HNSW = (16, 100, 10_000)  # what a server takes for m, ef_construct and full_scan_threshold
_INT8 = edge.ScalarQuantizationConfig(edge.ScalarType.Int8, always_ram=True)
_MODES = {
    models.UpdateMode.INSERT_ONLY: edge.UpdateMode.InsertOnly,
    models.UpdateMode.UPDATE_ONLY: edge.UpdateMode.UpdateOnly,
}


class EdgeClient:
    """The calls that `QdrantSource` and the tests make; others are missing, and raise."""

    init_options: Mapping[str, Any] = {}

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards: dict[str, Any] = {}
        self.vectors: dict[str, dict[str, models.VectorParams]] = {}
        for file in folder.glob("*.json"):  # of an earlier client
            self.shards[file.stem] = edge.EdgeShard.load(str(folder / file.stem))
            given = json.loads(file.read_text(encoding="utf-8"))
            self.vectors[file.stem] = {key: models.VectorParams(**params) for key, params in given.items()}

    def create_collection(
        self,
        name: str,
        vectors_config: models.VectorParams | Mapping[str, models.VectorParams],
        sparse_vectors_config: Mapping[str, models.SparseVectorParams] | None = None,
    ) -> None:
        if name in self.shards:
            raise ValueError(f"Collection {name} already exists")
        if isinstance(vectors_config, models.VectorParams):
            vectors_config = {"": vectors_config}
        dense = {key: _vector_params(v) for key, v in vectors_config.items()}
        sparse = {
            key: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf if v.modifier == models.Modifier.IDF else None)
            for key, v in (sparse_vectors_config or {}).items()
        }
        folder = self.folder / name
        folder.mkdir(parents=True)
        self.shards[name] = edge.EdgeShard.create(str(folder), edge.EdgeConfig(dense, sparse))
        self.vectors[name] = dict(vectors_config)
        given = {key: params.model_dump(mode="json", exclude_none=True) for key, params in vectors_config.items()}
        (self.folder / f"{name}.json").write_text(json.dumps(given), encoding="utf-8")

    def collection_exists(self, name: str) -> bool:
        return name in self.shards

    def get_collection(self, name: str) -> Any:
        return SimpleNamespace(config=SimpleNamespace(params=SimpleNamespace(vectors=self.vectors[name])))

    def create_vector_name(self, name: str, vector_name: str, config: models.DenseVectorNameConfig) -> None:
        params = models.VectorParams(**config.dense.model_dump(exclude_none=True))
        datatype = _DATATYPES[params.datatype]
        operation = edge.UpdateOperation.create_dense_vector(
            vector_name, params.size, _DISTANCES[params.distance], datatype=datatype
        )
        self.shards[name].update(operation)
        self.vectors[name][vector_name] = params

    def create_payload_index(self, name: str, field: str, schema: models.PayloadSchemaType, wait: bool) -> None:
        kind = getattr(edge.PayloadSchemaType, schema.value.capitalize())
        self.shards[name].update(edge.UpdateOperation.create_field_index(field, kind))

    def upsert(
        self,
        name: str,
        points: Iterable[models.PointStruct],
        wait: bool = True,
        update_filter: models.Filter | None = None,
        update_mode: models.UpdateMode | None = None,
        timeout: int | None = None,
    ) -> None:
        made = [edge.Point(point.id, _vector(point.vector), point.payload) for point in points]
        mode = None if update_mode is None else _MODES[update_mode]
        operation = edge.UpdateOperation.upsert_points(made, condition=_chosen(update_filter), update_mode=mode)
        self.shards[name].update(operation)
        self.shards[name].optimize()  # builds the indexes

    def set_payload(self, name: str, payload: Mapping[str, Any], points: list[Any]) -> None:
        self.shards[name].update(edge.UpdateOperation.set_payload(points, payload))

    def retrieve(
        self, name: str, ids: list[Any], with_payload: Any, with_vectors: Any, timeout: int | None = None
    ) -> list[models.Record]:
        return [_record(found) for found in self.shards[name].retrieve(ids, with_payload, with_vectors)]

    def scroll(
        self,
        name: str,
        scroll_filter: models.Filter | None,
        limit: int,
        offset: Any,
        with_payload: Any,
        with_vectors: Any,
        timeout: int | None = None,
    ) -> tuple[list[models.Record], Any]:
        asked = edge.ScrollRequest(
            offset=offset,
            limit=limit,
            filter=_chosen(scroll_filter),
            with_payload=with_payload,
            with_vector=with_vectors,
        )
        found, after = self.shards[name].scroll(asked)
        return [_record(one) for one in found], after

    def count(
        self, name: str, count_filter: models.Filter | None, exact: bool, timeout: int | None = None
    ) -> models.CountResult:
        asked = edge.CountRequest(exact=exact, filter=_chosen(count_filter))
        return models.CountResult(count=self.shards[name].count(asked))

    def delete(self, name: str, selector: models.PointIdsList | models.FilterSelector, wait: bool) -> None:
        if isinstance(selector, models.PointIdsList):
            self.shards[name].update(edge.UpdateOperation.delete_points(selector.points))
        else:
            self.shards[name].update(edge.UpdateOperation.delete_points_by_filter(_filter(selector.filter)))

    def upload_points(self, name: str, points: Iterable[models.PointStruct], wait: bool) -> None:
        self.upsert(name, points)

    def query_points(
        self,
        name: str,
        query: Any,
        using: str | None,
        limit: int,
        query_filter: models.Filter | None = None,
        with_payload: bool | list[str] = True,
        timeout: int = 0,
        search_params: models.SearchParams | None = None,
        prefetch: models.Prefetch | None = None,
    ) -> QueryResponse:
        if name not in self.shards:
            raise ValueError(f"Collection {name} not found")
        asked = edge.QueryRequest(
            limit,
            query=edge.Query.Nearest(_vector(query), using=using),
            prefetches=[] if prefetch is None else [_prefetch(prefetch)],
            with_payload=with_payload,
            filter=_chosen(query_filter),
            params=_search_params(search_params),
        )
        found = self.shards[name].query(asked)
        points = [models.ScoredPoint(id=_id(p), version=p.version, score=p.score, payload=p.payload) for p in found]
        return QueryResponse(points=points)

    def close(self) -> None:
        for shard in self.shards.values():
            shard.close()


def _vector(vector: Any) -> Any:
    if isinstance(vector, models.SparseVector):
        return edge.SparseVector(vector.indices, vector.values)
    return {key: _vector(value) for key, value in vector.items()} if isinstance(vector, dict) else vector


def _prefetch(asked: models.Prefetch) -> Any:
    nearest = edge.Query.Nearest(asked.query, using=asked.using)
    return edge.Prefetch(asked.limit, nearest, filter=_chosen(asked.filter), params=_search_params(asked.params))


def _search_params(params: models.SearchParams | None) -> Any:
    return None if params is None else edge.SearchParams(hnsw_ef=params.hnsw_ef, exact=params.exact)


def _id(point: Any) -> int | str:
    return point.id if isinstance(point.id, int) else str(point.id)


def _record(found: Any) -> models.Record:
    return models.Record(id=_id(found), payload=found.payload, vector=found.vector)


def _vector_params(params: models.VectorParams) -> Any:
    hnsw = params.hnsw_config or models.HnswConfigDiff()
    given = (hnsw.m, hnsw.ef_construct, hnsw.full_scan_threshold)
    numbers = [default if one is None else one for one, default in zip(given, _SERVERS_HNSW, strict=True)]
    return edge.EdgeVectorParams(
        params.size,
        _DISTANCES[params.distance],
        datatype=_DATATYPES[params.datatype],
        hnsw_config=edge.HnswIndexConfig(*numbers),
        multivector_config=params.multivector_config and edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
        quantization_config=params.quantization_config and _INT8,
    )


def _chosen(chosen: models.Filter | None) -> Any:
    return None if chosen is None else _filter(chosen)


def _filter(chosen: models.Filter) -> Any:
    """What the tests and the adapters ask for: ranges, values, and what a point lacks."""
    parts: dict[str, Any] = {}
    for name in ("must", "should", "must_not"):
        given = getattr(chosen, name)
        if given is not None:
            parts[name] = [_condition(condition) for condition in (given if isinstance(given, list) else [given])]
    return edge.Filter(**parts)


def _condition(condition: Any) -> Any:
    if isinstance(condition, models.Filter):
        return _filter(condition)
    if isinstance(condition, models.IsEmptyCondition):
        return edge.IsEmptyCondition(condition.is_empty.key)
    if isinstance(condition, models.HasVectorCondition):
        return edge.HasVectorCondition(condition.has_vector)
    if condition.match is not None:
        return edge.FieldCondition(condition.key, match=edge.MatchValue(condition.match.value))
    assert condition.model_fields_set == {"key", "range"}
    bounds = condition.range.model_dump(exclude_none=True)
    return edge.FieldCondition(condition.key, range=edge.RangeFloat(**bounds))
