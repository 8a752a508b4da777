"""The rerank API of Voyage: `/v1/rerank` with `top_k`, and an answer with `data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from ...rerank.reranker import RerankResult
from ..errors import ErrorDetail, ErrorShape, detail_body
from ..service import Service
from .base import ClientBody, Dialect, SharedRerank, Text, UntilError, Usage, rank, usage_of

_ERRORS = ErrorShape("voyage", ErrorDetail, detail_body)


class VoyageRerankRequest(ClientBody):
    """A rerank request of Voyage's clients."""

    query: Text = Field(description="The question or keywords.", examples=["金閣寺はどこにありますか"])
    documents: Annotated[list[Text], UntilError()] = Field(
        description="Texts of the documents.", examples=[["金閣寺は京都市北区にある。", "海の水は塩辛い。"]]
    )
    model: str | None = Field(None, description="Name of a model; not used, as there is only one.")
    top_k: Annotated[int | None, Field(ge=1, description="Number of documents to return; by default all.")] = None
    return_documents: bool | None = Field(None, description="Whether the answer repeats the documents.")
    truncation: bool | None = Field(None, description="Not used: texts that are too long are cut, with a warning.")


class VoyageRankedDocument(BaseModel):
    """One document in its new place."""

    index: int = Field(description="Place of the document in the request, from 0.")
    relevance_score: float = Field(description="How well the document fits the query.")
    document: str | None = Field(None, description="Text of the document.")


class VoyageRerankResponse(BaseModel):
    """The documents in their new order, best first."""

    object: Literal["list"]
    data: list[VoyageRankedDocument] = Field(description="The documents, best first.")
    model: str = Field(description="Name of the model.")
    usage: Usage


async def answer(service: Service, body: VoyageRerankRequest, request: Request) -> Response:
    """Answer a rerank request."""

    def content(result: RerankResult) -> dict[str, Any]:
        return {
            "object": "list",
            "data": [
                {
                    "index": ranked.index,
                    "relevance_score": float(ranked.score),
                    **({"document": body.documents[ranked.index]} if body.return_documents else {}),
                }
                for ranked in result
            ],
            "model": service.model,
            "usage": usage_of(result.tokens),
        }

    return await rank(service, body, request, body.query, body.documents, content, k=body.top_k)


def _claims(body: Mapping[str, Any]) -> bool:
    """Whether a body at a shared path is Voyage's: its package always sends "top_k" and "truncation"."""
    return "top_n" not in body and ("top_k" in body or "truncation" in body)


DIALECT = Dialect(
    _ERRORS,
    rerank=SharedRerank(VoyageRerankRequest, VoyageRerankResponse, _claims, answer, ("/rerank", "/v1/rerank")),
)
