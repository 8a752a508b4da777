"""The rerank API of Infinity, whose clients read documents as plain strings; LiteLLM's `infinity/` is one of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from ...rerank.reranker import RerankResult
from ..errors import ErrorShape
from ..service import Service
from .base import ClientBody, Dialect, SharedRerank, Text, UntilError, Usage, rank, usage_of


class InfinityProblem(BaseModel):
    """One fault of a request."""

    loc: list[str | int]
    msg: str
    type: str


class InfinityError(BaseModel):
    """An error as Infinity's clients read it."""

    detail: list[InfinityProblem] | str


def _error_body(status: int, message: str, request_id: str | None) -> dict[str, Any]:
    if status != 422:
        return {"detail": message}
    return {"detail": [{"loc": ["body"], "msg": message, "type": "value_error"}]}


_ERRORS = ErrorShape("infinity", InfinityError, _error_body)


class InfinityRerankRequest(ClientBody):
    """A rerank request of Infinity's clients."""

    query: Text = Field(description="The question or keywords.", examples=["金閣寺はどこにありますか"])
    documents: Annotated[list[Text], UntilError()] = Field(
        description="Texts of the documents.", examples=[["金閣寺は京都市北区にある。", "海の水は塩辛い。"]]
    )
    model: str | None = Field(None, description="Name of a model; not used, as there is only one.")
    top_n: Annotated[int | None, Field(ge=1, description="Number of documents to return; by default all.")] = None
    return_documents: bool | None = Field(None, description="Whether the answer repeats the documents.")
    raw_scores: bool | None = Field(None, description="Whether scores are MaxSim sums, whatever the service's scale.")


class InfinityRankedDocument(BaseModel):
    """One document in its new place."""

    relevance_score: float = Field(description="How well the document fits the query.")
    index: int = Field(description="Place of the document in the request, from 0.")
    document: str | None = Field(None, description="Text of the document.")


class InfinityRerankResponse(BaseModel):
    """The documents in their new order, best first."""

    object: Literal["rerank"]
    id: str = Field(description="Id of the request.")
    model: str = Field(description="Name of the model.")
    created: int = Field(description="Time of the answer, in seconds since 1970.")
    results: list[InfinityRankedDocument] = Field(description="The documents, best first.")
    usage: Usage


async def answer(service: Service, body: InfinityRerankRequest, request: Request) -> Response:
    """Answer a rerank request."""

    def content(result: RerankResult) -> dict[str, Any]:
        return {
            "object": "rerank",
            "id": request.state.request_id,
            "model": service.model,
            "created": int(time.time()),
            "results": [
                {
                    "relevance_score": float(ranked.score),
                    "index": ranked.index,
                    **({"document": body.documents[ranked.index]} if body.return_documents else {}),
                }
                for ranked in result
            ],
            "usage": usage_of(result.tokens),
        }

    score = "raw" if body.raw_scores else None
    return await rank(service, body, request, body.query, body.documents, content, score=score, k=body.top_n)


def router(service: Service) -> APIRouter:
    """`/infinity/rerank`, for clients whose bodies look like Cohere's."""
    routes = APIRouter(tags=["rerank"], responses=_ERRORS.documented())

    @routes.post("/infinity/rerank", response_model=InfinityRerankResponse, summary="Rerank documents (Infinity)")
    async def infinity_rerank(body: InfinityRerankRequest, request: Request) -> Response:
        """Rank documents for a query, best first. The API of Infinity: documents are plain strings."""
        return await answer(service, body, request)

    return routes


def _claims(body: Mapping[str, Any]) -> bool:
    """Whether a body at a shared path is Infinity's: its package always sends "raw_scores", and documents are texts."""
    documents = body.get("documents")
    return "raw_scores" in body and isinstance(documents, list) and all(isinstance(text, str) for text in documents)


DIALECT = Dialect(
    _ERRORS,
    router,
    SharedRerank(InfinityRerankRequest, InfinityRerankResponse, _claims, answer, ("/rerank", "/v1/rerank")),
)
