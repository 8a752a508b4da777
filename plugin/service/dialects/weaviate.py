"""The API of Weaviate's reranker container, as its module `reranker-transformers` calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from ..errors import ErrorShape
from ..service import Service
from .base import ClientBody, Dialect, SharedRerank, Text, UntilError, check_rerank, respond, warnings_of


class WeaviateError(BaseModel):
    """An error as Weaviate reads it."""

    error: str


_PREFIXES = ("", "/weaviate")
_PROBES = ("/.well-known/live", "/.well-known/ready", "/meta")
_ERRORS = ErrorShape("weaviate", WeaviateError, lambda status, message, request_id: {"error": message})


class WeaviateRerankRequest(ClientBody):
    """A rerank request of Weaviate."""

    query: Text = Field(description="The question or keywords.", examples=["金閣寺はどこにありますか"])
    documents: Annotated[list[Text], UntilError()] = Field(
        description="Texts of the documents.", examples=[["金閣寺は京都市北区にある。", "海の水は塩辛い。"]]
    )
    property: str | None = Field(None, description="Not used; Weaviate always sends it, empty.")


class DocumentScore(BaseModel):
    """Score of one document."""

    document: str = Field(description="Text of the document.")
    score: float = Field(description="How well the document fits the query.")


class WeaviateRerankResponse(BaseModel):
    """The documents in the order of the request, with their scores."""

    query: str
    scores: list[DocumentScore] = Field(description="Score of each document, in the order of the request.")


class WeaviateMeta(BaseModel):
    """Model and name of the service."""

    model: str
    service: str


async def answer(service: Service, body: WeaviateRerankRequest, request: Request) -> Response:
    """Answer a rerank request."""
    check_rerank(service, body.query, len(body.documents))

    warnings: list[str] = []

    def task() -> dict[str, Any]:
        scores = [0.0] * len(body.documents)
        result = service.rerank(body.query, body.documents, score=service.settings.score)
        warnings.extend(warnings_of(service, body, body.documents, result, service.encoder))
        for ranked in result:
            scores[ranked.index] = float(ranked.score)
        pairs = zip(body.documents, scores, strict=True)
        return {"query": body.query, "scores": [{"document": text, "score": score} for text, score in pairs]}

    return await respond(service, request, task, documents=len(body.documents), warnings=warnings)


def router(service: Service) -> APIRouter:
    """Weaviate's paths: the probes at the root and below ``/weaviate``, and ``/weaviate/rerank``."""
    routes = APIRouter(tags=["weaviate"])

    @routes.post(
        "/weaviate/rerank",
        response_model=WeaviateRerankResponse,
        responses=_ERRORS.documented(),
        summary="Score documents (Weaviate)",
    )
    async def weaviate_rerank(body: WeaviateRerankRequest, request: Request) -> Response:
        """Score documents for a query, in the order of the request. The API of Weaviate's reranker container."""
        return await answer(service, body, request)

    async def meta() -> dict[str, str]:
        """Model and name of the service, for Weaviate."""
        return {"model": service.model, "service": "tansaku"}

    async def live() -> Response:
        """Whether the process answers."""
        return Response(status_code=204)

    async def ready() -> Response:
        """Whether requests are answered."""
        return Response(status_code=204 if service.ready and not service.draining else 503)

    live_path, ready_path, meta_path = _PROBES
    unready: dict[int | str, dict[str, Any]] = {503: {"description": "The service is loading or stopping."}}
    for prefix in _PREFIXES:
        routes.add_api_route(
            prefix + meta_path,
            meta,
            response_model=WeaviateMeta,
            responses={503: {"model": WeaviateError}},
            summary="Model",
        )
        routes.add_api_route(prefix + live_path, live, status_code=204, summary="Liveness")
        routes.add_api_route(prefix + ready_path, ready, status_code=204, responses=unready, summary="Readiness")
    return routes


def _claims(body: Mapping[str, Any]) -> bool:
    """Whether a body at `/rerank` is Weaviate's: only it has "property", which its module always sends."""
    return "property" in body and "model" not in body


DIALECT = Dialect(
    _ERRORS,
    router,
    SharedRerank(WeaviateRerankRequest, WeaviateRerankResponse, _claims, answer),
    frozenset(f"{prefix}{path}" for prefix in _PREFIXES for path in _PROBES),
)
