"""The rerank paths, and whose dialect a request at `/rerank` is in.

Of the dialects that share the path `/rerank`, only TEI's has "texts", and only Weaviate's has "property", which its
module always sends. What has neither is Cohere's, Jina's or Infinity's, which are one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter
from pydantic import Discriminator, Tag
from starlette.requests import Request
from starlette.responses import Response

from ..core import Service
from ..errors import AnyError, CohereError, TeiError, WeaviateError, documented, rerank_dialect
from . import cohere, tei, weaviate
from .respond import respond


def _dialect(body: object) -> str:
    if isinstance(body, Mapping):
        return rerank_dialect(body)
    return "cohere"


AnyRerankRequest = Annotated[
    Annotated[cohere.RerankRequest, Tag("cohere")]
    | Annotated[tei.TeiRerankRequest, Tag("tei")]
    | Annotated[weaviate.WeaviateRerankRequest, Tag("weaviate")],
    Discriminator(_dialect),
]


def router(service: Service) -> APIRouter:
    """`/rerank`, `/v1/rerank` and `/v2/rerank`."""
    routes = APIRouter(tags=["rerank"])
    any_error = documented(AnyError | CohereError | TeiError | WeaviateError)

    @routes.post(
        "/rerank",
        response_model=cohere.RerankResponse | list[tei.TeiRank] | weaviate.WeaviateRerankResponse,
        responses=any_error,
    )
    async def rerank(body: AnyRerankRequest, request: Request) -> Response:
        """Documents by falling score, in the dialect of the request.

        With "texts" it is text-embeddings-inference's, with "property" Weaviate's, otherwise Cohere's.
        """
        if isinstance(body, tei.TeiRerankRequest):
            request.state.dialect = "tei"
            return await respond(service, request, tei.rerank_task(service, body, request), documents=len(body.texts))
        if isinstance(body, weaviate.WeaviateRerankRequest):
            request.state.dialect = "weaviate"
            task = weaviate.rerank_task(service, body, request)
            return await respond(service, request, task, documents=len(body.documents))
        return await _cohere(body, request)

    @routes.post("/v1/rerank", response_model=cohere.RerankResponse, responses=documented(CohereError))
    async def rerank_v1(body: cohere.RerankRequest, request: Request) -> Response:
        """Documents by falling score. Cohere's and Jina's dialect."""
        return await _cohere(body, request)

    @routes.post("/v2/rerank", response_model=cohere.RerankResponse, responses=documented(CohereError))
    async def rerank_v2(body: cohere.RerankRequest, request: Request) -> Response:
        """Documents by falling score. Cohere's dialect."""
        return await _cohere(body, request)

    async def _cohere(body: cohere.RerankRequest, request: Request) -> Response:
        request.state.dialect = "cohere"
        task = cohere.rerank_task(service, body, request)
        return await respond(service, request, task, documents=len(body.documents))

    return routes
