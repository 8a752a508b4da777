"""The rerank API of Cohere, Jina and Infinity, with documents by id as an addition of ours."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import Response

from ...search.choices import ScoreMode
from ..errors import ErrorMessage, ErrorShape, ServiceError, message_body
from ..service import Service
from .base import ClientBody, Dialect, SharedRerank, Text, UntilError, check_rerank, checked_text, respond, warnings_of

_ERRORS = ErrorShape("cohere", ErrorMessage, message_body)


class RequestDocument(BaseModel):
    """A document with fields. One with an id and no text is scored by the codes of the index."""

    model_config = ConfigDict(extra="allow")  # `rank_fields` may name any field

    text: Text | None = Field(None, description="Text of the document.")
    id: Text | None = Field(None, description="Id of the document in the index.")


class RerankRequest(ClientBody):
    """A rerank request."""

    query: Text = Field(description="The question or keywords.", examples=["金閣寺はどこにありますか"])
    documents: Annotated[list[Text | RequestDocument], UntilError()] = Field(
        description='The documents: texts, {"text": …}, or {"id": …} for a document of the index.',
        examples=[["金閣寺は京都市北区にある。", {"text": "海の水は塩辛い。"}]],
    )
    model: str | None = Field(None, description="Name of a model; not used, as there is only one.")
    top_n: Annotated[int | None, Field(ge=1, description="Number of documents to return; by default all.")] = None
    return_documents: bool | None = Field(None, description="Whether the answer repeats the documents.")
    rank_fields: Annotated[list[str], UntilError()] | None = Field(
        None, description="Fields of a document that make up its text."
    )
    raw_scores: bool | None = Field(None, description="Whether scores are raw; Infinity's name for score=raw.")
    score: ScoreMode | None = Field(None, description="Scale of the scores; by default the service's.")
    index: str | None = Field(
        None,
        description="Index of the documents with an id; by default the first one. If it is named, documents with a "
        "text and an id are scored by their id.",
    )


class ReturnedDocument(BaseModel):
    """A document of the request, repeated."""

    text: str | None = None
    id: str | None = None


class RankedDocument(BaseModel):
    """One document in its new place."""

    index: int = Field(description="Place of the document in the request, from 0.")
    relevance_score: float = Field(description="How well the document fits the query.")
    document: ReturnedDocument | None = None


class ApiVersion(BaseModel):
    """Version of the API."""

    version: str


class Meta(BaseModel):
    """Further information."""

    api_version: ApiVersion
    warnings: list[str] | None = Field(None, description="What was cut, left out or ignored.")


class Usage(BaseModel):
    """Billed tokens: always 0."""

    total_tokens: int
    prompt_tokens: int


class RerankResponse(BaseModel):
    """The documents in their new order, best first."""

    id: str = Field(description="Id of the request.")
    model: str = Field(description="Name of the model.")
    results: list[RankedDocument] = Field(description="The documents, best first.")
    missing: list[str] | None = Field(None, description="Ids in the request that the index does not have.")
    usage: Usage
    meta: Meta


async def answer(service: Service, body: RerankRequest, request: Request) -> Response:
    """Answer a rerank request."""
    check_rerank(service, body.query, len(body.documents))
    texts, ids = _texts_and_ids(body)
    request_id = request.state.request_id
    score = body.score or ("raw" if body.raw_scores else service.settings.score)
    warnings: list[str] = []

    def task() -> dict[str, Any]:
        result = service.rerank(body.query, texts, ids=ids, index=body.index, k=body.top_n, score=score)
        encoder = service.reranker(body.index, by_id=ids is not None).encoder
        warnings.extend(warnings_of(service, body, texts, result, encoder))
        return {
            "id": request_id,
            "model": encoder.bundle.name,
            "results": [
                {
                    "index": ranked.index,
                    "relevance_score": float(ranked.score),
                    **({"document": _returned(body.documents[ranked.index])} if body.return_documents else {}),
                }
                for ranked in result
            ],
            **({"missing": list(result.missing)} if result.missing else {}),
            "usage": {"total_tokens": 0, "prompt_tokens": 0},
            "meta": {"api_version": {"version": "2"}, **({"warnings": warnings} if warnings else {})},
        }

    return await respond(service, request, task, documents=len(body.documents), warnings=warnings)


def router(service: Service) -> APIRouter:
    """`/v1/rerank` and `/v2/rerank`."""
    routes = APIRouter(tags=["rerank"], responses=_ERRORS.documented())

    @routes.post("/v1/rerank", response_model=RerankResponse, summary="Rerank documents (Cohere v1, Jina)")
    async def rerank_v1(body: RerankRequest, request: Request) -> Response:
        """Rank documents for a query, best first. The API of Cohere, version 1, and of Jina."""
        return await answer(service, body, request)

    @routes.post("/v2/rerank", response_model=RerankResponse, summary="Rerank documents (Cohere v2)")
    async def rerank_v2(body: RerankRequest, request: Request) -> Response:
        """Rank documents for a query, best first. The API of Cohere, version 2."""
        return await answer(service, body, request)

    return routes


DIALECT = Dialect(_ERRORS, router, SharedRerank(RerankRequest, RerankResponse, lambda _: True, answer))


def _texts_and_ids(body: RerankRequest) -> tuple[list[str | None], list[str | None] | None]:
    """Texts and ids as `Service.rerank` takes them.

    An id beside a text is the sender's, and may be that of another document in our index: it is looked up only where
    the request names an index.
    """
    texts: list[str | None] = []
    ids: list[str | None] = []
    for i, document in enumerate(body.documents):
        if isinstance(document, str):
            texts.append(document)
            ids.append(None)
            continue
        text = _text(document, body.rank_fields)
        if text is None and document.id is None:
            lacking = "none of rank_fields" if body.rank_fields else "neither a text nor an id"
            raise ServiceError(422, f"documents.{i} has {lacking}", "input")
        texts.append(text)
        ids.append(document.id if text is None or body.index is not None else None)
    return texts, ids if any(doc_id is not None for doc_id in ids) else None


def _text(document: RequestDocument, fields: list[str] | None) -> str | None:
    if not fields:
        return document.text
    values = {"text": document.text, "id": document.id, **(document.model_extra or {})}
    kept = [str(values[name]) for name in fields if isinstance(values.get(name), (str, int, float))]
    try:
        return checked_text("\n".join(kept)) if kept else None
    except PydanticCustomError as error:
        raise ServiceError(422, f"a field of a document: {error.message()}", "input") from error


def _returned(document: str | RequestDocument) -> dict[str, str]:
    if isinstance(document, str):
        return {"text": document}
    return {name: value for name, value in (("text", document.text), ("id", document.id)) if value is not None}
