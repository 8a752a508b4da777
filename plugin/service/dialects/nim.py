"""The ranking API of NVIDIA NIM: `/v1/ranking`, and `/ranking` for clients whose address has no `/v1`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from ...rerank.reranker import RerankResult
from ..errors import ErrorShape, ServiceError
from ..service import Service
from .base import ClientBody, Dialect, Text, UntilError, Usage, rank, usage_of

_PATHS = ("/v1/ranking", "/ranking")


class NimError(BaseModel):
    """An error as NIM's clients read it."""

    object: Literal["error"]
    message: str
    detail: str


_ERRORS = ErrorShape(
    "nim",
    NimError,
    lambda status, message, request_id: {"object": "error", "message": message, "detail": message},
)


class NimText(BaseModel):
    """A text."""

    model_config = ConfigDict(extra="forbid")  # an image would be ignored

    text: Text


class RankingRequest(ClientBody):
    """A ranking request of NIM's clients."""

    query: NimText = Field(description="The question or keywords.", examples=[{"text": "金閣寺はどこにありますか"}])
    passages: Annotated[list[NimText], UntilError()] = Field(
        description="The documents.", examples=[[{"text": "金閣寺は京都市北区にある。"}, {"text": "海の水は塩辛い。"}]]
    )
    model: str | None = Field(None, description="Name of a model; not used, as there is only one.")
    top_k: Annotated[int | None, Field(ge=1, description="Number of documents to return; by default all.")] = None
    truncate: Literal["NONE", "START", "END"] | None = Field(
        None, description="Side that texts that are too long are cut at; only END is possible."
    )


class Ranking(BaseModel):
    """One document in its new place."""

    index: int = Field(description="Place of the document in the request, from 0.")
    logit: float = Field(description="Log-odds of the mean similarity: a sigmoid gives the mean.")


class RankingResponse(BaseModel):
    """The documents in their new order, best first."""

    rankings: list[Ranking] = Field(description="The documents, best first.")
    usage: Usage


def router(service: Service) -> APIRouter:
    """`/v1/ranking`."""
    routes = APIRouter(tags=["rerank"], responses=_ERRORS.documented())

    async def ranking(body: RankingRequest, request: Request) -> Response:
        """Rank documents for a query, best first. The API of NVIDIA NIM."""
        if body.truncate in ("NONE", "START"):
            raise ServiceError(422, f"truncate is {body.truncate}; texts are cut at their end: send END", "input")

        def content(result: RerankResult) -> dict[str, Any]:
            return {
                "rankings": [{"index": ranked.index, "logit": float(ranked.score)} for ranked in result],
                "usage": usage_of(result.tokens),
            }

        texts = [passage.text for passage in body.passages]
        return await rank(service, body, request, body.query.text, texts, content, score="logit", k=body.top_k)

    for path in _PATHS:
        routes.add_api_route(
            path, ranking, methods=["POST"], response_model=RankingResponse, summary="Rank documents (NVIDIA NIM)"
        )
    return routes


DIALECT = Dialect(_ERRORS, router)
