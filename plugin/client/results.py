"""Answers of the service as the results of `Index` and `Searcher`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from ...indexer.derived.drift import Drift
from ...indexer.info import IndexInfo
from ...indexer.read.documents import Document
from ..search.explain import Explanation, Match
from ..search.results import Hit, Hits, RankedRows

T = TypeVar("T")


def hits_of(answer: Mapping[str, Any]) -> Hits:
    """The hits of a search."""
    hits = [Hit(hit["id"], hit["score"], hit["title"], hit["text"], hit["fields"]) for hit in answer["hits"]]
    ranked = RankedRows(
        rows=np.empty(0, np.int64),  # row numbers mean nothing outside the service
        scores=np.array([hit.score for hit in hits], np.float32),
        scored=answer["scored"],
        missing=tuple(answer["missing"]),
    )
    return Hits(
        hits,
        ranked=ranked,
        stages=answer["stages_ms"],
        version=answer["version"],
        query_tokens=answer["query_tokens"],
        truncated=answer["truncated"],
        recall=answer["recall"],
    )


def explanation_of(answer: Mapping[str, Any]) -> Explanation:
    """Why a document scores as it does."""
    matches = tuple(
        Match(
            similarity=match["similarity"],
            weight=match["weight"],
            query_span=_span(match["query_span"]),
            query_text=match["query_text"],
            document_span=_span(match["document_span"]),
            document_text=match["document_text"],
        )
        for match in answer["matches"]
    )
    return Explanation(
        answer["id"],
        answer["score"],
        answer["text"],
        matches,
        truncated=answer["truncated"],
        cut=answer["cut"],
        document_spans=tuple(map(_span, answer["document_spans"])),
        similarities=np.array(answer["similarities"], np.float32),
    )


def document_of(content: Mapping[str, Any] | None) -> Document | None:
    """A document that was read."""
    if content is None:
        return None
    others = {name: value for name, value in content.items() if name not in ("id", "title", "text")}
    return Document(content["id"], content["text"], content["title"], others)


def info_of(answer: Mapping[str, Any]) -> IndexInfo:
    """The description of an index."""
    drift = dataclass_of(Drift, answer["drift"])
    return dataclass_of(IndexInfo, {**answer, "table": answer["name"], "drift": drift})


def dataclass_of(kind: type[T], content: Mapping[str, Any]) -> T:
    """A report; what a later service says beyond its fields is left out."""
    known = [item.name for item in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: content[name] for name in known if name in content})


def _span(given: Any) -> tuple[int, int] | None:
    return None if given is None else (given[0], given[1])
