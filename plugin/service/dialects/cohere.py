"""Cohere's, Jina's and Infinity's rerank dialect, with documents by id as an addition of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError
from starlette.requests import Request

from ...search.scores import ScoreMode
from ..core import Reranked, Service, check_lengths
from ..errors import ServiceError
from .text import Text, checked_text


class Document(BaseModel):
    """A document with fields; `rank_fields` may name further ones.

    One with an id and no text is scored by the index's codes.
    """

    model_config = ConfigDict(extra="allow")

    text: Text | None = None
    id: Text | None = None


class RerankRequest(BaseModel):
    """A rerank request."""

    query: Text = Field(description="The question or keywords.", examples=["金閣寺はどこにありますか"])
    documents: list[Text | Document] = Field(
        description='Texts, {"text": …}, or {"id": …} of documents in the index.',
        examples=[["金閣寺は京都市北区にある。", {"text": "海の水は塩辛い。"}]],
    )
    model: str | None = Field(None, description="Not looked at: there is one model.")
    top_n: Annotated[int | None, Field(ge=1, description="Only the best so many; by default all.")] = None
    return_documents: bool | None = Field(None, description="Repeat the texts in the answer.")
    rank_fields: list[str] | None = Field(None, description="Fields of a document that make up its text.")
    raw_scores: bool | None = Field(None, description="Infinity's word for score raw.")
    score: ScoreMode | None = Field(None, description="What a score means; by default as the service was started.")
    index: str | None = Field(
        None, description="Index that has the documents with an id; those with a text too are then scored by its codes."
    )


class ReturnedDocument(BaseModel):
    """A document repeated."""

    text: str | None = None
    id: str | None = None


class RerankResult(BaseModel):
    """One document in its new place."""

    index: int
    relevance_score: float
    document: ReturnedDocument | None = None


class ApiVersion(BaseModel):
    """Which version of the dialect this is."""

    version: str


class Meta(BaseModel):
    """What else there is to say."""

    api_version: ApiVersion
    warnings: list[str] | None = None


class Usage(BaseModel):
    """Always 0: nothing is billed."""

    total_tokens: int
    prompt_tokens: int


class RerankResponse(BaseModel):
    """Documents in their new order, best first; ``missing`` are ids that the index has not."""

    id: str
    model: str
    results: list[RerankResult]
    missing: list[str] | None = None
    usage: Usage
    meta: Meta


def rerank_task(service: Service, body: RerankRequest, request: Request) -> Callable[[], dict[str, Any]]:
    """What answers a request, to be run in a worker. Raises ServiceError for what cannot be asked."""
    check_lengths(service, body.query, len(body.documents))
    texts, ids = _texts_and_ids(body)
    request_id, score = request.state.request_id, score_mode(service, body.score, raw=body.raw_scores)

    def task() -> dict[str, Any]:
        found = service.rerank(body.query, texts, ids=ids, index=body.index, k=body.top_n, score=score)
        return _answer(service, body, request_id, found)

    return task


def score_mode(service: Service, score: ScoreMode | None, *, raw: bool | None) -> ScoreMode:
    """What a request's scores mean."""
    return score or ("raw" if raw else service.settings.score)


def _texts_and_ids(body: RerankRequest) -> tuple[list[str | None], list[str | None] | None]:
    """Texts and ids as `Service.rerank` takes them.

    An id beside a text is of whoever sent it, perhaps another document's in our index: it is looked up only where the
    request names an index.
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
            wanted = "none of rank_fields" if body.rank_fields else "neither a text nor an id"
            raise ServiceError(422, f"documents.{i} has {wanted}", "input")
        texts.append(text)
        ids.append(document.id if text is None or body.index is not None else None)
    return texts, ids if any(doc_id is not None for doc_id in ids) else None


def _text(document: Document, fields: list[str] | None) -> str | None:
    if not fields:
        return document.text
    values = {"text": document.text, "id": document.id, **(document.model_extra or {})}
    kept = [str(values[name]) for name in fields if isinstance(values.get(name), (str, int, float))]
    try:
        return checked_text("\n".join(kept)) if kept else None
    except PydanticCustomError as error:
        raise ServiceError(422, f"a document's field: {error.message()}", "input") from error


def _answer(service: Service, body: RerankRequest, request_id: str, found: Reranked) -> dict[str, Any]:
    results = []
    for ranked in found.ranked:
        result: dict[str, Any] = {"index": ranked.index, "relevance_score": float(ranked.score)}
        if body.return_documents:
            result["document"] = _returned(body.documents[ranked.index])
        results.append(result)
    warnings = found.warnings(service.settings.max_text_chars)
    return {
        "id": request_id,
        "model": service.model,
        "results": results,
        **({"missing": list(found.missing)} if found.missing else {}),
        "usage": {"total_tokens": 0, "prompt_tokens": 0},
        "meta": {"api_version": {"version": "2"}, **({"warnings": warnings} if warnings else {})},
    }


def _returned(document: str | Document) -> dict[str, Any]:
    if isinstance(document, str):
        return {"text": document}
    return {name: value for name, value in (("text", document.text), ("id", document.id)) if value is not None}
