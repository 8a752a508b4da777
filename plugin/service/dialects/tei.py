"""The API of text-embeddings-inference (TEI): `/rerank` with texts, and `/embed_all`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import Response

from ..errors import ErrorShape, ServiceError
from ..service import Service
from .base import (
    ClientBody,
    Dialect,
    SharedRerank,
    Text,
    UntilError,
    check_rerank,
    check_texts,
    respond,
    warnings_of,
    warnings_of_embedding,
)

_ERROR_TYPES = {429: "Overloaded", 500: "Backend", 503: "Unhealthy", 504: "Backend"}

# In small letters for OpenAPI, where two names that differ only in that are one to generators of clients.
Direction = Annotated[
    Literal["left", "right"], BeforeValidator(lambda given: given.lower() if isinstance(given, str) else given)
]


class TeiError(BaseModel):
    """An error as TEI's clients read it."""

    error: str
    error_type: Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]


def _error_body(status: int, message: str, request_id: str | None) -> dict[str, Any]:
    return {"error": message, "error_type": _ERROR_TYPES.get(status, "Validation")}


_ERRORS = ErrorShape("tei", TeiError, _error_body)


class TeiRerankRequest(ClientBody):
    """A rerank request of TEI's clients."""

    query: Text = Field(description="The question or keywords.", examples=["金閣寺はどこにありますか"])
    texts: Annotated[list[Text], UntilError()] = Field(
        description="Texts of the documents.", examples=[["金閣寺は京都市北区にある。", "海の水は塩辛い。"]]
    )
    raw_scores: bool | None = Field(None, description="Whether scores are MaxSim sums, whatever the service's scale.")
    return_text: bool | None = Field(None, description="Whether the answer repeats the texts.")
    truncate: bool | None = Field(None, description="Whether texts that are too long are cut (the default) or refused.")
    truncation_direction: Direction | None = Field(None, description="Side to cut from; only right is possible.")
    is_truncated: bool | None = Field(None, description="Not used; kotaemon sends it in place of truncate.")


class TeiRank(BaseModel):
    """One text in its new place."""

    index: int = Field(description="Place of the text in the request, from 0.")
    score: float = Field(description="How well the text fits the query.")
    text: str | None = None


class EmbedRequest(ClientBody):
    """Texts to be encoded."""

    inputs: Text | Annotated[list[Text], UntilError()] = Field(
        description="The texts, or one text.", examples=[["金閣寺は京都市北区にある。"]]
    )
    truncate: bool | None = Field(None, description="Whether texts that are too long are cut (the default) or refused.")
    truncation_direction: Direction | None = Field(None, description="Side to cut from; only right is possible.")
    prompt_name: Literal["query", "document"] | None = Field(
        None, description="Kind of the texts; by default documents."
    )


async def answer(service: Service, body: TeiRerankRequest, request: Request) -> Response:
    """Answer a rerank request."""
    check_rerank(service, body.query, len(body.texts))
    _check_truncation(service, body, body.texts)

    warnings: list[str] = []

    def task() -> list[dict[str, Any]]:
        _refuse_too_long(service, body, [body.query], queries=True)
        _refuse_too_long(service, body, body.texts, queries=False)
        score = "raw" if body.raw_scores else service.settings.score
        result = service.rerank(body.query, body.texts, score=score)
        warnings.extend(warnings_of(service, body, body.texts, result, service.encoder))
        return [
            {
                "index": ranked.index,
                "score": float(ranked.score),
                **({"text": body.texts[ranked.index]} if body.return_text else {}),
            }
            for ranked in result
        ]

    return await respond(service, request, task, documents=len(body.texts), warnings=warnings)


def router(service: Service) -> APIRouter:
    """`/embed_all`."""
    routes = APIRouter(tags=["embedding"], responses=_ERRORS.documented())

    @routes.post("/embed_all", response_model=list[list[list[float]]], summary="Encode texts (TEI)")
    async def embed_all(body: EmbedRequest, request: Request) -> Response:
        """Encode texts as token vectors: a matrix (tokens, dim) for each text. The API of TEI."""
        texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
        check_texts(service, texts)
        _check_truncation(service, body, texts)

        queries, warnings = body.prompt_name == "query", []

        def task() -> list[Any]:
            _refuse_too_long(service, body, texts, queries=queries)
            vectors, cut = service.embed(texts, queries=queries)
            warnings.extend(warnings_of_embedding(service, body, texts, cut, queries=queries))
            return [matrix.tolist() for matrix in vectors]

        return await respond(service, request, task, documents=len(texts), warnings=warnings)

    return routes


def _claims(body: Any) -> bool:
    """Whether a body at a shared path is TEI's: only it has "texts"."""
    return "texts" in body


DIALECT = Dialect(
    _ERRORS, router, SharedRerank(TeiRerankRequest, list[TeiRank], _claims, answer, ("/rerank", "/v1/rerank"))
)


def _check_truncation(service: Service, body: TeiRerankRequest | EmbedRequest, texts: Sequence[str]) -> None:
    limit = service.settings.max_text_chars
    if body.truncate is False and service.n_too_long(texts):
        message = f"a text has more than {limit:,} characters; send truncate: true to have it cut"
        raise ServiceError(422, message, "input")
    if body.truncation_direction == "left" and body.truncate is not False:
        raise ServiceError(422, "texts are cut at their end; leave truncation_direction out", "input")


def _refuse_too_long(
    service: Service, body: TeiRerankRequest | EmbedRequest, texts: Sequence[str], *, queries: bool
) -> None:
    """With ``truncate: false``, refuse texts that have more tokens than the model reads."""
    if body.truncate is False and (cut := service.too_long(texts, queries=queries)):
        rules = service.encoder.bundle.query if queries else service.encoder.bundle.document
        kind = "query" if queries else "text"
        message = f"{kind} {cut[0]} has more than {rules.max_length} tokens; send truncate: true to have it cut"
        raise ServiceError(422, message, "input")
