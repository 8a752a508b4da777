"""The score API of vLLM: `/score` and `/v1/score`, for pairs of texts."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import AliasChoices, BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from ..errors import ErrorShape, ServiceError
from ..service import Service
from .base import ClientBody, Dialect, Text, UntilError, Usage, check_rerank, respond, usage_of, warnings_of

_PATHS = ("/score", "/v1/score")


class VllmErrorContent(BaseModel):
    """What is wrong."""

    message: str
    type: str
    code: int


class VllmError(BaseModel):
    """An error as vLLM's clients read it."""

    error: VllmErrorContent


_ERRORS = ErrorShape(
    "vllm",
    VllmError,
    lambda status, message, request_id: {
        "error": {"message": message, "type": "BadRequestError" if status < 500 else "ServerError", "code": status}
    },
)

Texts = Annotated[list[Text], UntilError()] | Text


class ScoreRequest(ClientBody):
    """Pairs of texts: one query with each document, or each query with its document."""

    text_1: Texts = Field(
        description="The query, or one for each document; may be called `queries`.",
        examples=["金閣寺はどこにありますか"],
        validation_alias=AliasChoices("text_1", "queries", "data_1"),
    )
    text_2: Texts = Field(
        description="The documents; may be called `documents`.",
        examples=[["金閣寺は京都市北区にある。", "海の水は塩辛い。"]],
        validation_alias=AliasChoices("text_2", "documents", "items", "data_2"),
    )
    model: str | None = Field(None, description="Name of a model; not used, as there is only one.")


class PairScore(BaseModel):
    """Score of one pair."""

    index: int = Field(description="Place of the pair in the request, from 0.")
    object: Literal["score"]
    score: float = Field(description="How well the document fits the query.")


class ScoreResponse(BaseModel):
    """Scores of the pairs, in the order of the request."""

    id: str = Field(description="Id of the request.")
    object: Literal["list"]
    created: int = Field(description="Time of the answer, in seconds since 1970.")
    model: str = Field(description="Name of the model.")
    data: list[PairScore] = Field(description="Score of each pair, in the order of the request.")
    usage: Usage


def router(service: Service) -> APIRouter:
    """`/score` and `/v1/score`."""
    routes = APIRouter(tags=["rerank"], responses=_ERRORS.documented())

    async def score(body: ScoreRequest, request: Request) -> Response:
        """Score pairs of texts. The API of vLLM."""
        queries, documents = _listed(body.text_1), _listed(body.text_2)
        if len(queries) not in (1, len(documents)):
            message = (
                f"there are {len(queries):,} queries and {len(documents):,} documents; give one query, or one for each"
            )
            raise ServiceError(422, message, "input")
        for query in queries:
            check_rerank(service, query, len(documents))
        pairs = (
            [(queries[0], documents)]
            if len(queries) == 1
            else [(q, [d]) for q, d in zip(queries, documents, strict=True)]
        )
        warnings: list[str] = []

        def task() -> dict[str, Any]:
            scores: list[float] = []
            tokens = 0
            for query, texts in pairs:
                result = service.rerank(query, texts, score=service.settings.score)
                of_index = {ranked.index: float(ranked.score) for ranked in result}
                scores += (of_index[i] for i in range(len(texts)))
                tokens += result.tokens
                warnings.extend(
                    w for w in warnings_of(service, body, texts, result, service.encoder) if w not in warnings
                )
            return {
                "id": request.state.request_id,
                "object": "list",
                "created": int(time.time()),
                "model": service.model,
                "data": [{"index": i, "object": "score", "score": score} for i, score in enumerate(scores)],
                "usage": usage_of(tokens),
            }

        return await respond(service, request, task, documents=len(documents), warnings=warnings)

    for path in _PATHS:
        routes.add_api_route(
            path, score, methods=["POST"], response_model=ScoreResponse, summary="Score pairs of texts (vLLM)"
        )
    return routes


def _listed(texts: list[str] | str) -> list[str]:
    return [texts] if isinstance(texts, str) else texts


DIALECT = Dialect(_ERRORS, router)
