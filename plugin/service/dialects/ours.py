"""Our own dialect: search in an index."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from ...search.plan import Recall, SourceName
from ...search.scores import ScoreMode
from ..core import Service, check_query
from ..errors import CohereError, ServiceError, documented
from .respond import respond
from .text import Text


class SearchRequest(BaseModel):
    """A search."""

    query: Text = Field(description="The question or keywords.", examples=["金閣寺"])
    index: str | None = Field(None, description="Name of an index; by default the first.")
    k: int = Field(10, ge=1, description="How many hits.")
    where: Text | None = Field(
        None, description="A condition over the index's columns, in SQL.", examples=["year < 1500"]
    )
    ids: list[Text] | None = Field(None, description="Only these documents.")
    recall: Recall = "balanced"
    source: SourceName = "lists"
    bm25_weight: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="Of BM25 beside MaxSim, where source is fused or text."
    )
    phrase_weight: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Of a token's neighbours; by default as the service was started."
    )
    score: ScoreMode | None = Field(None, description="What a score means; by default as the service was started.")


class SearchHit(BaseModel):
    """One document found."""

    id: str
    score: float
    title: str
    text: str
    fields: dict[str, Any]


class SearchResponse(BaseModel):
    """The hits, best first.

    ``missing`` are ids asked for that the index has not; ``stages_ms`` the milliseconds of each stage; ``scored`` how
    many documents were scored by their codes.
    """

    index: str
    hits: list[SearchHit]
    missing: list[str]
    scored: int
    version: int
    stages_ms: dict[str, float]


def router(service: Service) -> APIRouter:
    """`/search`."""
    routes = APIRouter(tags=["search"], responses=documented(CohereError))

    @routes.post("/search", response_model=SearchResponse)
    async def search(body: SearchRequest, request: Request) -> Response:
        """The best documents of an index, best first."""
        settings = service.settings
        check_query(service, body.query)
        service.searcher(body.index)
        if body.k > settings.max_k:
            raise ServiceError(422, f"k is {body.k:,}; at most {settings.max_k:,} hits are returned", "input")
        if body.where is not None and len(body.where) > settings.max_where_chars:
            limit = settings.max_where_chars
            raise ServiceError(
                422, f"the condition has {len(body.where):,} characters; at most {limit:,} are read", "input"
            )
        if body.ids is not None and len(body.ids) > settings.max_ids:
            raise ServiceError(
                413, f"there are {len(body.ids):,} ids; at most {settings.max_ids:,} are read", "documents"
            )

        def task() -> dict[str, Any]:
            name, hits = service.search(
                body.index,
                lambda searcher: searcher.search(
                    body.query,
                    body.k,
                    recall=body.recall,
                    where=body.where,
                    ids=body.ids,
                    source=body.source,
                    bm25_weight=body.bm25_weight,
                    phrase_weight=settings.phrase_weight if body.phrase_weight is None else body.phrase_weight,
                ),
            )
            return {
                "index": name,
                "hits": [
                    {"id": hit.id, "score": score, "title": hit.title, "text": hit.text, "fields": hit.fields}
                    for hit, score in zip(hits, hits.scores(body.score or settings.score), strict=True)
                ],
                "missing": list(hits.missing),
                "scored": hits.scored,
                "version": hits.version,
                "stages_ms": hits.stages,
            }

        return await respond(service, request, task, documents=body.k)

    return routes
