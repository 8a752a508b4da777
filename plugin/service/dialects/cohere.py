"""The rerank API of Cohere and Jina, with documents by id as an addition of ours."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import Response

from ...search.choices import ScoreMode
from ..errors import ErrorMessage, ErrorShape, ServiceError, message_body
from ..paths import route_path
from ..service import Service
from .base import (
    ClientBody,
    Dialect,
    SharedRerank,
    Text,
    UntilError,
    Usage,
    check_rerank,
    checked_text,
    respond,
    usage_of,
    warnings_of,
)

_ERRORS = ErrorShape("cohere", ErrorMessage, message_body)
# llama.cpp and its like have the last two.
_PATHS = ("/rerank", "/v1/rerank", "/v2/rerank", "/v1/reranking", "/reranking")
_VOYAGE_PATHS = ("/rerank", "/v1/rerank")


class RequestDocument(BaseModel):
    """A document with fields. One with an id and no text is scored by the codes of the index."""

    model_config = ConfigDict(extra="allow")  # `rank_fields` may name any field

    text: Text | None = Field(None, description="Text of the document.")
    id: Text | StrictInt | None = Field(None, description="Id of the document in the index.")


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
    """A document of the request, repeated with its fields."""

    model_config = ConfigDict(extra="allow")

    text: str = Field(description="Its text, or the fields of `rank_fields` as one; empty for one that had an id only.")


class RankedDocument(BaseModel):
    """One document in its new place."""

    index: int = Field(description="Place of the document in the request, from 0.")
    relevance_score: float = Field(description="How well the document fits the query.")
    document: ReturnedDocument | None = None


class ApiVersion(BaseModel):
    """Version of the API."""

    version: str


class BilledUnits(BaseModel):
    """What Cohere would bill."""

    search_units: int = Field(description="Always 1.")


class Tokens(BaseModel):
    """Number of tokens."""

    input_tokens: int = Field(description="Tokens of the query and of the texts that were encoded.")
    output_tokens: int = Field(description="Always 0.")


class Meta(BaseModel):
    """Further information."""

    api_version: ApiVersion
    billed_units: BilledUnits
    tokens: Tokens
    warnings: list[str] | None = Field(None, description="What was cut, left out or ignored.")


class DataDocument(BaseModel):
    """One document in its new place, with its text alone."""

    index: int
    relevance_score: float
    document: str | None = None


class RerankResponse(BaseModel):
    """The documents in their new order, best first."""

    id: str = Field(description="Id of the request.")
    model: str = Field(description="Name of the model.")
    results: list[RankedDocument] = Field(description="The documents, best first.")
    data: list[DataDocument] | None = Field(
        None,
        description="The same as `results`, with documents as plain strings, at `/rerank` and `/v1/rerank` without "
        "`top_n`: clients of Voyage that name no number of documents look like those of Jina.",
    )
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
    may_be_voyage = body.top_n is None and route_path(request.scope) in _VOYAGE_PATHS

    def task() -> dict[str, Any]:
        result = service.rerank(body.query, texts, ids=ids, index=body.index, k=body.top_n, score=score)
        encoder = service.reranker(body.index, by_id=ids is not None).encoder
        warnings.extend(warnings_of(service, body, texts, result, encoder))
        results = [
            {
                "index": ranked.index,
                "relevance_score": float(ranked.score),
                **(
                    {"document": _returned(body.documents[ranked.index], texts[ranked.index])}
                    if body.return_documents
                    else {}
                ),
            }
            for ranked in result
        ]
        return {
            "id": request_id,
            "model": encoder.bundle.name,
            "results": results,
            **({"data": [_in_brief(item) for item in results]} if may_be_voyage else {}),
            **({"missing": list(result.missing)} if result.missing else {}),
            "usage": usage_of(result.tokens),
            "meta": {
                "api_version": {"version": "2"},
                "billed_units": {"search_units": 1},
                "tokens": {"input_tokens": result.tokens, "output_tokens": 0},
                **({"warnings": warnings} if warnings else {}),
            },
        }

    return await respond(service, request, task, documents=len(body.documents), warnings=warnings)


DIALECT = Dialect(_ERRORS, rerank=SharedRerank(RerankRequest, RerankResponse, lambda _: True, answer, _PATHS))


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
        text = text_of(document, body.rank_fields)
        if text is None and document.id is None:
            lacking = "none of rank_fields" if body.rank_fields else "neither a text nor an id"
            raise ServiceError(422, f"documents.{i} has {lacking}", "input")
        texts.append(text)
        is_known = document.id is not None and (text is None or body.index is not None)
        ids.append(str(document.id) if is_known else None)
    return texts, ids if any(doc_id is not None for doc_id in ids) else None


def text_of(document: RequestDocument, fields: list[str] | None) -> str | None:
    """The text of a document with fields, or those named in ``fields`` as one; None if it has none of them."""
    if not fields:
        return document.text
    values = {"text": document.text, "id": document.id, **(document.model_extra or {})}
    kept = [str(values[name]) for name in fields if isinstance(values.get(name), (str, int, float))]
    try:
        return checked_text("\n".join(kept)) if kept else None
    except PydanticCustomError as error:
        raise ServiceError(422, f"a field of a document: {error.message()}", "input") from error


def _returned(document: str | RequestDocument, text: str | None) -> dict[str, Any]:
    """A document as it was sent; one without a text gets the one that it was ranked by, as strict clients need one."""
    if isinstance(document, str):
        return {"text": document}
    sent = document.model_dump(exclude_none=True)
    return {**sent, "text": sent.get("text") or text or ""}


def _in_brief(ranked: dict[str, Any]) -> dict[str, Any]:
    return {**ranked, **({"document": ranked["document"]["text"]} if "document" in ranked else {})}
