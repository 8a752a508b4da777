"""The dialect of Weaviate's reranker container: what its module `reranker-transformers` asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from ..core import Service, check_lengths
from ..errors import WeaviateError, documented
from .respond import respond
from .text import Text


class WeaviateRerankRequest(BaseModel):
    """A rerank request of Weaviate's."""

    query: Text = Field(examples=["金閣寺はどこにありますか"])
    documents: list[Text] = Field(examples=[["金閣寺は京都市北区にある。", "海の水は塩辛い。"]])
    property: str | None = Field(None, description="Not looked at; Weaviate always sends it, empty.")


class DocumentScore(BaseModel):
    """One document's score."""

    document: str
    score: float


class WeaviateRerankResponse(BaseModel):
    """The documents in the order in which they were sent, with their scores."""

    query: str
    scores: list[DocumentScore]


class WeaviateMeta(BaseModel):
    """What runs here."""

    model: str
    service: str


def rerank_task(service: Service, body: WeaviateRerankRequest, request: Request) -> Callable[[], dict[str, Any]]:
    """What answers a request, to be run in a worker. Raises ServiceError for what cannot be asked."""
    check_lengths(service, body.query, len(body.documents))

    def task() -> dict[str, Any]:
        found = service.rerank(body.query, body.documents, score=service.settings.score)
        scores = [0.0] * len(body.documents)
        for ranked in found.ranked:
            scores[ranked.index] = float(ranked.score)
        pairs = zip(body.documents, scores, strict=True)
        return {"query": body.query, "scores": [{"document": text, "score": score} for text, score in pairs]}

    return task


def router(service: Service) -> APIRouter:
    """Weaviate's paths: the probes at the root and below ``/weaviate``, and ``/weaviate/rerank``."""
    routes = APIRouter(tags=["weaviate"])

    @routes.post("/weaviate/rerank", response_model=WeaviateRerankResponse, responses=documented(WeaviateError))
    async def weaviate_rerank(body: WeaviateRerankRequest, request: Request) -> Response:
        """Scores of documents, in the order in which they were sent. The dialect of Weaviate's reranker container."""
        request.state.dialect = "weaviate"
        return await respond(service, request, rerank_task(service, body, request), documents=len(body.documents))

    probes = APIRouter()

    @probes.get("/meta", response_model=WeaviateMeta, responses={503: {"model": WeaviateError}})
    async def meta() -> dict[str, str]:
        """What runs here; Weaviate asks."""
        return {"model": service.model, "service": "tansaku"}

    @probes.get("/.well-known/live", status_code=204)
    async def live() -> Response:
        """Whether the process is alive."""
        return Response(status_code=204)

    @probes.get("/.well-known/ready", status_code=204, responses={503: {"description": "Loading or draining"}})
    async def ready() -> Response:
        """Whether requests are answered."""
        return Response(status_code=204 if service.ready and not service.draining else 503)

    routes.include_router(probes)
    routes.include_router(probes, prefix="/weaviate")
    return routes
