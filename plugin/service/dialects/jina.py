"""Jina's dialect of multi-vector embeddings."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from ..core import Service
from ..errors import JinaError, ServiceError, documented
from .embedding import checked_texts
from .respond import respond
from .text import Text


class TextInput(BaseModel):
    """A text."""

    text: Text


class MultiVectorRequest(BaseModel):
    """Texts to be encoded."""

    input: list[Text | TextInput] | Text = Field(examples=[["金閣寺は京都市北区にある。"]])
    model: str | None = Field(None, description="Not looked at: there is one model.")
    input_type: Literal["document", "query"] = "document"
    embedding_type: Literal["float"] = "float"
    dimensions: int | None = Field(None, description="Must be the model's, if given.")


class MultiVector(BaseModel):
    """Token vectors of one text: (tokens, dim), unit length; of a query as long as its tokens weigh."""

    object: str
    index: int
    embeddings: list[list[float]]


class MultiVectorUsage(BaseModel):
    """Token vectors returned."""

    total_tokens: int
    prompt_tokens: int


class MultiVectorResponse(BaseModel):
    """Token vectors of each text, in the order of the texts."""

    object: str
    model: str
    data: list[MultiVector]
    usage: MultiVectorUsage


def router(service: Service) -> APIRouter:
    """`/v1/multi-vector`."""
    routes = APIRouter(tags=["embedding"], responses=documented(JinaError))

    @routes.post("/v1/multi-vector", response_model=MultiVectorResponse)
    async def multi_vector(body: MultiVectorRequest, request: Request) -> Response:
        """Token vectors of queries or documents. Jina's dialect."""
        request.state.dialect = "jina"
        given = [body.input] if isinstance(body.input, str) else body.input
        texts = checked_texts(service, [text if isinstance(text, str) else text.text for text in given])
        dim = service.encoder.dim
        if body.dimensions not in (None, dim):
            raise ServiceError(422, f"the model's vectors have {dim} dimensions; leave dimensions out", "input")

        def task() -> dict[str, Any]:
            vectors, _ = service.embed(texts, queries=body.input_type == "query")
            tokens = sum(map(len, vectors))
            return {
                "object": "list",
                "model": service.model,
                "data": [
                    {"object": "embeddings", "index": i, "embeddings": matrix.tolist()}
                    for i, matrix in enumerate(vectors)
                ],
                "usage": {"total_tokens": tokens, "prompt_tokens": tokens},
            }

        return await respond(service, request, task, documents=len(texts))

    return routes
