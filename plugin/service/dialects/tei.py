"""text-embeddings-inference's dialect: `/rerank` with texts, and `/embed_all`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from ..core import Service, check_lengths
from ..errors import ServiceError, TeiError, documented
from .cohere import score_mode
from .embedding import checked_texts
from .respond import respond
from .text import Text


class TeiRerankRequest(BaseModel):
    """A rerank request of TEI's clients."""

    query: Text = Field(examples=["金閣寺はどこにありますか"])
    texts: list[Text] = Field(examples=[["金閣寺は京都市北区にある。", "海の水は塩辛い。"]])
    raw_scores: bool | None = Field(None, description="MaxSim sums instead of what the service was started with.")
    return_text: bool | None = None
    truncate: bool | None = Field(None, description="False refuses texts that are too long; otherwise they are cut.")
    truncation_direction: Literal["left", "right", "Left", "Right"] | None = Field(
        None, description="Only right is possible."
    )


class TeiRank(BaseModel):
    """One text in its new place."""

    index: int
    score: float
    text: str | None = None


class EmbedRequest(BaseModel):
    """Texts to be encoded."""

    inputs: Text | list[Text] = Field(examples=[["金閣寺は京都市北区にある。"]])
    truncate: bool | None = Field(None, description="False refuses texts that are too long; otherwise they are cut.")
    truncation_direction: Literal["left", "right", "Left", "Right"] | None = Field(
        None, description="Only right is possible."
    )
    prompt_name: Literal["query", "document"] | None = Field(
        None, description='"query" encodes queries; otherwise documents.'
    )


def rerank_task(service: Service, body: TeiRerankRequest, request: Request) -> Callable[[], list[dict[str, Any]]]:
    """What answers a request, to be run in a worker. Raises ServiceError for what cannot be asked."""
    check_lengths(service, body.query, len(body.texts))
    _check_truncation(service, body, body.texts)
    score = score_mode(service, None, raw=body.raw_scores)

    def task() -> list[dict[str, Any]]:
        found = service.rerank(body.query, body.texts, score=score)
        return [
            {
                "index": ranked.index,
                "score": float(ranked.score),
                **({"text": body.texts[ranked.index]} if body.return_text else {}),
            }
            for ranked in found.ranked
        ]

    return task


def router(service: Service) -> APIRouter:
    """`/embed_all`."""
    routes = APIRouter(tags=["embedding"], responses=documented(TeiError))

    @routes.post("/embed_all", response_model=list[list[list[float]]])
    async def embed_all(body: EmbedRequest, request: Request) -> Response:
        """Token vectors of each text: a list of matrices (tokens, dim), as of `/v1/multi-vector`. TEI's dialect."""
        request.state.dialect = "tei"
        texts = checked_texts(service, [body.inputs] if isinstance(body.inputs, str) else body.inputs)
        _check_truncation(service, body, texts)

        def task() -> list[Any]:
            vectors, _ = service.embed(texts, queries=body.prompt_name == "query")
            return [matrix.tolist() for matrix in vectors]

        return await respond(service, request, task, documents=len(texts))

    return routes


def _check_truncation(service: Service, body: TeiRerankRequest | EmbedRequest, texts: list[str]) -> None:
    limit = service.settings.max_text_chars
    if body.truncate is False and any(len(text) > limit for text in texts):
        raise ServiceError(
            422, f"a text has more than {limit:,} characters; send truncate: true to have it cut", "input"
        )
    if (body.truncation_direction or "right").lower() == "left" and body.truncate is not False:
        raise ServiceError(422, "texts are cut at their end; leave truncation_direction out", "input")
