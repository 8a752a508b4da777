"""The rerank API of Mixedbread: `/v1/reranking` with `input`, and an answer with `data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from ...rerank.reranker import RerankResult
from ..errors import ErrorDetail, ErrorShape, ServiceError, detail_body
from ..service import Service
from .base import ClientBody, Dialect, SharedRerank, Text, UntilError, Usage, rank, usage_of
from .cohere import RequestDocument, text_of

_ERRORS = ErrorShape("mixedbread", ErrorDetail, detail_body)


class MixedbreadRerankRequest(ClientBody):
    """A rerank request of Mixedbread's clients."""

    query: Text = Field(description="The question or keywords.", examples=["金閣寺はどこにありますか"])
    input: Annotated[list[Text | RequestDocument], UntilError()] = Field(
        description='The documents: texts, or objects with "text" or the fields of `rank_fields`.',
        examples=[["金閣寺は京都市北区にある。", {"text": "海の水は塩辛い。"}]],
    )
    model: str | None = Field(None, description="Name of a model; not used, as there is only one.")
    top_k: Annotated[int | None, Field(ge=1, description="Number of documents to return; by default all.")] = None
    return_input: bool | None = Field(None, description="Whether the answer repeats the documents.")
    rank_fields: Annotated[list[str], UntilError()] | None = Field(
        None, description="Fields of a document that make up its text."
    )
    rewrite_query: bool | None = Field(None, description="Not used: the query is taken as it is.")


class MixedbreadRankedDocument(BaseModel):
    """One document in its new place."""

    index: int = Field(description="Place of the document in the request, from 0.")
    score: float = Field(description="How well the document fits the query.")
    input: str | dict[str, Any] | None = Field(None, description="The document, as it was sent.")
    object: Literal["rank_result"]


class MixedbreadRerankResponse(BaseModel):
    """The documents in their new order, best first."""

    object: Literal["list"]
    data: list[MixedbreadRankedDocument] = Field(description="The documents, best first.")
    model: str = Field(description="Name of the model.")
    top_k: int = Field(description="Number of documents in the answer.")
    return_input: bool = Field(description="Whether the answer repeats the documents.")
    usage: Usage


async def answer(service: Service, body: MixedbreadRerankRequest, request: Request) -> Response:
    """Answer a rerank request."""
    texts = [_text(document, i, body.rank_fields) for i, document in enumerate(body.input)]

    def content(result: RerankResult) -> dict[str, Any]:
        return {
            "object": "list",
            "data": [
                {
                    "index": ranked.index,
                    "score": float(ranked.score),
                    **({"input": _sent(body.input[ranked.index])} if body.return_input else {}),
                    "object": "rank_result",
                }
                for ranked in result
            ],
            "model": service.model,
            "top_k": len(result),
            "return_input": bool(body.return_input),
            "usage": usage_of(result.tokens),
        }

    return await rank(service, body, request, body.query, texts, content, k=body.top_k)


def _text(document: str | RequestDocument, i: int, fields: list[str] | None) -> str:
    text = document if isinstance(document, str) else text_of(document, fields)
    if text is None:
        raise ServiceError(422, f"input.{i} has {'none of rank_fields' if fields else 'no text'}", "input")
    return text


def _sent(document: str | RequestDocument) -> str | dict[str, Any]:
    return document if isinstance(document, str) else document.model_dump(exclude_unset=True)


def _claims(body: Mapping[str, Any]) -> bool:
    """Whether a body at a shared path is Mixedbread's: only it has "input"."""
    return "input" in body


DIALECT = Dialect(
    _ERRORS,
    rerank=SharedRerank(
        MixedbreadRerankRequest, MixedbreadRerankResponse, _claims, answer, ("/v1/reranking", "/reranking")
    ),
)
