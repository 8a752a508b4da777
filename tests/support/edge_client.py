"""Qdrant's own engine, which the package qdrant-edge-py runs within the process, behind the calls of `QdrantClient`.

The local mode of `QdrantClient` is another engine, in Python. What a source asks is the same; the types differ.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qdrant_client import models
from qdrant_client.http.models import QueryResponse

from .engines import NotInstalledError

try:
    edge: Any = importlib.import_module("qdrant_edge")
except ImportError as error:
    raise NotInstalledError("qdrant-edge-py is not installed") from error

_DISTANCES = {models.Distance.DOT: edge.Distance.Dot, models.Distance.COSINE: edge.Distance.Cosine}


class EdgeClient:
    """The calls that `QdrantSource` and the tests make; others are missing, and raise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards: dict[str, Any] = {}

    def create_collection(
        self,
        name: str,
        vectors_config: models.VectorParams | Mapping[str, models.VectorParams],
        sparse_vectors_config: Mapping[str, models.SparseVectorParams] | None = None,
    ) -> None:
        if isinstance(vectors_config, models.VectorParams):
            vectors_config = {"": vectors_config}
        dense = {key: edge.EdgeVectorParams(v.size, _DISTANCES[v.distance]) for key, v in vectors_config.items()}
        sparse = {
            key: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf if v.modifier == models.Modifier.IDF else None)
            for key, v in (sparse_vectors_config or {}).items()
        }
        folder = self.folder / name
        folder.mkdir(parents=True)
        self.shards[name] = edge.EdgeShard.create(str(folder), edge.EdgeConfig(dense, sparse))

    def upsert(self, name: str, points: Iterable[models.PointStruct]) -> None:
        made = [edge.Point(point.id, _vector(point.vector), point.payload) for point in points]
        self.shards[name].update(edge.UpdateOperation.upsert_points(made))
        self.shards[name].optimize()  # builds the indexes

    def upload_points(self, name: str, points: Iterable[models.PointStruct], wait: bool) -> None:
        self.upsert(name, points)

    def query_points(
        self,
        name: str,
        query: Any,
        using: str | None,
        limit: int,
        query_filter: models.Filter | None,
        with_payload: bool | list[str],
        timeout: int,
    ) -> QueryResponse:
        if name not in self.shards:
            raise ValueError(f"Collection {name} not found")
        nearest = edge.Query.Nearest(_vector(query), using=using)
        chosen = None if query_filter is None else _filter(query_filter)
        asked = edge.QueryRequest(limit, query=nearest, with_payload=with_payload, filter=chosen)
        found = self.shards[name].query(asked)
        points = [models.ScoredPoint(id=p.id, version=p.version, score=p.score, payload=p.payload) for p in found]
        return QueryResponse(points=points)

    def close(self) -> None:
        for shard in self.shards.values():
            shard.close()


def _vector(vector: Any) -> Any:
    if isinstance(vector, models.SparseVector):
        return edge.SparseVector(vector.indices, vector.values)
    return {key: _vector(value) for key, value in vector.items()} if isinstance(vector, dict) else vector


def _filter(chosen: models.Filter) -> Any:
    """Ranges that must hold, which is what the tests ask for."""
    assert chosen.model_fields_set == {"must"}
    assert isinstance(chosen.must, list)
    return edge.Filter(must=[_condition(condition) for condition in chosen.must])


def _condition(condition: Any) -> Any:
    assert condition.model_fields_set == {"key", "range"}
    bounds = condition.range.model_dump(exclude_none=True)
    return edge.FieldCondition(condition.key, range=edge.RangeFloat(**bounds))
