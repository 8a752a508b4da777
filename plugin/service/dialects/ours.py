"""Our own dialect: search in an index."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from ....onnx_export.encode.bundle import MAX_WEIGHT
from ...search.choices import LEAST_RECALL, RecallName, ScoreMode, SourceName
from ...search.cuts import query_warning
from ...shards.searcher import allowing
from ..errors import OURS, ServiceError
from ..service import Service
from .base import Dialect, Id, StrictBody, Text, UntilError, check_query_limits, respond


class SearchRequest(StrictBody):
    """A search; all options but `query`, `index` and `score` are those of `tansaku.SearchOptions`."""

    query: Text = Field(description="The question or keywords.", examples=["金閣寺"])
    index: str | None = Field(None, description="Name of an index; by default the first one.")
    k: int = Field(10, ge=1, description="Number of hits.")
    recall: RecallName | Annotated[float, Field(ge=LEAST_RECALL, le=1, strict=True)] = Field(
        "balanced",
        description="Thoroughness: exact scores every document; balanced and fast only the likely ones. Or a number: "
        "share of the ten best that is expected among the hits.",
    )
    where: Text | None = Field(
        None,
        description="Condition over the columns; only documents that meet it are found.",
        examples=["year < 1500"],
    )
    ids: Annotated[list[Id], UntilError()] | None = Field(
        None, description="Ids of documents or passages to search among."
    )
    passages: bool = Field(
        False,
        description="Hits for single passages, if documents are divided into them; by default one for each document.",
    )
    source: SourceName = Field(
        "lists", description="Source of candidates: inverted lists, full text search (text), or both (fused)."
    )
    bm25_weight: float = Field(
        0.0,
        ge=0,
        le=MAX_WEIGHT,
        allow_inf_nan=False,
        description="Weight of BM25 added to MaxSim (0 = none); needs the source text or fused.",
    )
    phrase_weight: float | None = Field(
        None,
        ge=0,
        le=MAX_WEIGHT,
        allow_inf_nan=False,
        description="Weight given to the similarity of neighbouring tokens (0 = plain MaxSim); by default the "
        "service's.",
    )
    nprobe: int | None = Field(
        None, ge=1, description="Number of centroids probed for each query token; by default set by recall."
    )
    candidates: int | None = Field(
        None, ge=1, description="Number of candidates scored by their codes; by default set by recall."
    )
    fields: list[Text] | None = Field(
        None,
        max_length=1_000,
        description="Names of what is read of each hit: `title`, `text` and columns; by default all. An empty list "
        "reads nothing: ids and scores alone.",
        examples=[["title", "year"]],
    )
    score: ScoreMode | None = Field(None, description="Scale of the scores; by default the service's.")
    partial: bool = Field(
        False,
        description="Hits of the other shards if some do not answer, named in `lost`; by default that gets 503.",
    )


class SearchHit(BaseModel):
    """One document found."""

    id: str = Field(description="Id of the document; of the passage, if passages were asked for.")
    score: float = Field(description="How well the document fits the query.")
    title: str = Field(description="Title of the document; empty if it has none, or was not asked for.")
    text: str = Field(description="Text of the document; empty if it was not asked for.")
    fields: dict[str, Any] = Field(description="The other columns of the document, or those asked for.")


class SearchResponse(BaseModel):
    """The hits, best first."""

    index: str = Field(description="Name of the index that was searched.")
    hits: list[SearchHit] = Field(description="The documents found, best first.")
    missing: list[str] = Field(description="Ids in the request that the index does not have.")
    scored: int = Field(description="Number of documents that were scored by their codes.")
    recall: float | None = Field(
        description="Expected share of the best documents that is among the hits; null if it was not measured."
    )
    version: int = Field(description="Version of the table that was searched.")
    query_tokens: int = Field(description="Number of vectors of the query; a score on the scale mean is divided by it.")
    stages_ms: dict[str, float] = Field(description="Milliseconds of each stage of the search.")
    truncated: bool = Field(description="Whether the query was longer than the model reads; its end was ignored.")
    lost: list[int] = Field(
        description="Numbers of the shards that did not answer, whose documents are not among the hits; else empty."
    )
    warnings: list[str] = Field(description="What was ignored.")


def router(service: Service) -> APIRouter:
    """`/search`."""
    routes = APIRouter(tags=["search"], responses=OURS.documented())

    @routes.post("/search", response_model=SearchResponse, summary="Search an index")
    async def search(body: SearchRequest, request: Request) -> Response:
        """Find the best documents of an index for a query, best first."""
        _check(service, body, request)
        settings = service.settings
        phrase_weight = settings.phrase_weight if body.phrase_weight is None else body.phrase_weight
        warnings: list[str] = []

        def task() -> dict[str, Any]:
            name, hits = service.search(
                body.index,
                lambda searcher: allowing(searcher, partial=body.partial).search(
                    body.query,
                    body.k,
                    recall=body.recall,
                    where=body.where,
                    ids=body.ids,
                    passages=body.passages,
                    source=body.source,
                    bm25_weight=body.bm25_weight,
                    phrase_weight=phrase_weight,
                    nprobe=body.nprobe,
                    candidates=body.candidates,
                    fields=body.fields,
                ),
            )
            if hits.truncated:
                warnings.append(query_warning(service.searchers[name].encoder))
            return {
                "index": name,
                "hits": [
                    {"id": hit.id, "score": score, "title": hit.title, "text": hit.text, "fields": hit.fields}
                    for hit, score in zip(hits, hits.scores(body.score or settings.score), strict=True)
                ],
                "missing": list(hits.missing),
                "scored": hits.scored,
                "recall": hits.recall,
                "version": hits.version,
                "query_tokens": hits.query_tokens,
                "stages_ms": hits.stages,
                "truncated": hits.truncated,
                "lost": list(hits.lost),
                "warnings": warnings,
            }

        return await respond(service, request, task, documents=body.k, warnings=warnings)

    return routes


def _check(service: Service, body: SearchRequest, request: Request) -> None:
    """Refuse what is too long, an unknown index, and options in the URL, which would be ignored."""
    for name in request.query_params:
        raise ServiceError(422, f"unknown parameter {name[:60]!r} in the URL; put all options into the body", "input")
    settings = service.settings
    check_query_limits(service, body.query)
    service.searcher(body.index)
    if body.k > settings.max_k:
        raise ServiceError(422, f"k is {body.k:,}; at most {settings.max_k:,} hits are returned", "input")
    if body.where is not None and len(body.where) > settings.max_where_chars:
        limit = settings.max_where_chars
        message = f"the condition has {len(body.where):,} characters; at most {limit:,} are allowed"
        raise ServiceError(422, message, "input")
    if body.ids is not None and len(body.ids) > settings.max_ids:
        message = f"there are {len(body.ids):,} ids; at most {settings.max_ids:,} are allowed"
        raise ServiceError(413, message, "documents")


DIALECT = Dialect(OURS, router)
